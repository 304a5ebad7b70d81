"""openadr_event against a server of ours: what it sends, what it makes of every answer, what it never says."""

import datetime
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils import http_api

from .conftest import ROOT, Reply, RunModule, Server, load

TOKEN = "made-up-token-0123456789"
ADDRESS = "/api/v1/events/price-1"
WANTED: dict[str, Any] = {
    "signal_name": "ENERGY_PRICE",
    "unit": "EUR/MWh",
    "start": "2026-12-01T00:00:00-04:00",
    "intervals": [{"duration": "PT60M", "value": 120.0}],
    "targets": ["Cariflex-VEN-001"],
    "priority": 0,
    "test_event": False,
}
EVENT: dict[str, Any] = {
    **WANTED,
    "event_id": "price-1",
    "start": "2026-12-01T04:00:00+00:00",
    "end": "2026-12-01T05:00:00+00:00",
    "intervals": [{"duration": "PT1H", "value": 120.0}],
    "modification_number": 0,
    "status": "far",
    "created_at": "2026-11-30T12:00:00+00:00",
    "modified_at": "2026-11-30T12:00:00+00:00",
    "opts": {"Cariflex-VEN-001": None},
}
CHANGED = {**EVENT, "modification_number": 1, "intervals": [{"duration": "PT1H", "value": 99.0}]}
CANCELLED = {**EVENT, "modification_number": 1, "status": "cancelled"}
DECIDED = {name: EVENT[name] for name in WANTED}


def problem(**different: Any) -> dict[str, Any]:
    return {"field": "start", "value": "2020", "problem": "lies in the past", "fix": "Give a later start."} | different


def refusal(status: int, *problems: dict[str, Any]) -> Reply:
    return Reply(status, {"errors": list(problems)})


NONE = refusal(
    404, problem(field="(address)", value=f"GET {ADDRESS}", problem="There is no event price-1.", fix="Look.")
)


def there(event: dict[str, Any]) -> Reply:
    return Reply(body=event | {"versions": []})


def made(event: dict[str, Any], status: int = 200, *, changed: bool = True) -> Reply:
    return Reply(status, {"changed": changed, "event": event})


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, not waited for."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def present(url: str, **options: Any) -> dict[str, Any]:
    return {"url": url, "token": TOKEN, "event_id": "price-1", **WANTED, **options}


def absent(url: str) -> dict[str, Any]:
    return {"url": url, "token": TOKEN, "event_id": "price-1", "state": "absent"}


def sent(server: Server) -> list[tuple[str, str]]:
    return [(request.method, request.path) for request in server.received]


def test_an_event_is_created_as_described(run_module: RunModule, server: Server) -> None:
    server.replies = [NONE, made(EVENT, 201)]
    result = run_module("openadr_event", present(server.url), diff=True)
    assert result["changed"] is True
    assert result["event"] == EVENT
    assert result["diff"] == {"before": {}, "after": DECIDED}
    assert result["api_calls"] == 2
    assert sent(server) == [("GET", ADDRESS), ("PUT", ADDRESS)]
    assert server.received[1].body == WANTED
    assert {request.headers["Authorization"] for request in server.received} == {f"Bearer {TOKEN}"}


def test_the_same_event_again_changes_nothing_however_it_is_written(run_module: RunModule, server: Server) -> None:
    server.replies = [there(EVENT), made(EVENT, changed=False)]
    result = run_module("openadr_event", present(server.url))
    assert result["changed"] is False
    assert result["diff"] == {"before": {}, "after": {}}


def test_of_a_change_only_what_differs_is_shown(run_module: RunModule, server: Server) -> None:
    server.replies = [there(EVENT), made(CHANGED)]
    result = run_module("openadr_event", present(server.url), diff=True)
    assert result["changed"] is True
    assert result["diff"] == {
        "before": {"intervals": [{"duration": "PT1H", "value": 120.0}]},
        "after": {"intervals": [{"duration": "PT1H", "value": 99.0}]},
    }


def test_all_vens_are_asked_for_as_the_vtn_wants_it(run_module: RunModule, server: Server) -> None:
    server.replies = [NONE, made(EVENT, 201)]
    run_module("openadr_event", present(server.url, targets="all"))
    assert server.received[1].body["targets"] == "all"


@pytest.mark.parametrize(("before", "changed"), [(NONE, True), (there(EVENT), True), (there(CHANGED), False)])
def test_check_mode_asks_without_changing(run_module: RunModule, server: Server, before: Reply, changed: bool) -> None:
    server.replies = [before, made(CHANGED, changed=changed)]
    result = run_module("openadr_event", present(server.url), check=True, diff=True)
    assert result["changed"] is changed
    assert bool(result["diff"]["after"]) is changed
    assert sent(server) == [("GET", ADDRESS), ("POST", f"{ADDRESS}/preview")]
    assert server.received[1].body == WANTED


@pytest.mark.parametrize(
    ("start", "problem"),
    [
        (
            "2026-12-01T00:00:00",
            "is a time without an offset from UTC. Fix: write its offset too, such as 2026-12-01T00",
        ),
        ("2026-12-01", "is a time without an offset from UTC"),
        ("tomorrow", "is no time. Fix: write one such as 2026-12-01T00:00:00-04:00."),
        ("", "is no time"),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_a_start_that_means_no_moment_is_refused_before_anything_is_sent(
    run_module: RunModule, server: Server, start: str, problem: str, check: bool
) -> None:
    result = run_module("openadr_event", present(server.url, start=start), check=check)
    assert result["failed"]
    assert f'start = "{start}": {problem}' in result["msg"]
    assert (result["api_calls"], sent(server)) == (0, [])


@pytest.mark.parametrize("start", ["2026-12-01T04:00Z", "2026-12-01 00:00:00-04:00", "20261201T000000-0400"])
def test_a_start_with_an_offset_is_left_to_the_vtn(run_module: RunModule, server: Server, start: str) -> None:
    server.replies = [there(EVENT), made(EVENT, changed=False)]
    assert run_module("openadr_event", present(server.url, start=start))["changed"] is False
    assert server.received[1].body["start"] == start


def test_check_mode_fails_on_what_the_vtn_would_refuse(run_module: RunModule, server: Server) -> None:
    server.replies = [NONE, refusal(422, problem())]
    result = run_module("openadr_event", present(server.url), check=True)
    assert result["failed"]
    assert 'start = "2020": lies in the past. Fix: Give a later start.' in result["msg"]


def test_check_mode_never_changes_a_vtn_that_knows_no_preview(run_module: RunModule, server: Server) -> None:
    server.replies = [there(EVENT), refusal(405, problem(field="(address)", problem="Method Not Allowed"))]
    result = run_module("openadr_event", present(server.url), check=True)
    assert result["failed"]
    assert "PUT" not in [method for method, _ in sent(server)]


def test_an_event_is_cancelled_once(run_module: RunModule, server: Server) -> None:
    server.replies = [there(EVENT), made(CANCELLED)]
    result = run_module("openadr_event", absent(server.url), diff=True)
    assert result["changed"] is True
    assert result["event"]["status"] == "cancelled"
    assert result["diff"] == {"before": DECIDED, "after": {}}
    assert sent(server) == [("GET", ADDRESS), ("DELETE", ADDRESS)]


@pytest.mark.parametrize("before", [NONE, there(CANCELLED), there({**EVENT, "status": "completed"})])
def test_what_no_ven_acts_upon_is_left_as_it_is(run_module: RunModule, server: Server, before: Reply) -> None:
    server.replies = [before]
    result = run_module("openadr_event", absent(server.url))
    assert result["changed"] is False
    assert sent(server) == [("GET", ADDRESS)]


def test_a_cancellation_is_only_told_in_check_mode(run_module: RunModule, server: Server) -> None:
    server.replies = [there(EVENT)]
    result = run_module("openadr_event", absent(server.url), check=True)
    assert result["changed"] is True
    assert result["event"]["status"] == "cancelled"
    assert sent(server) == [("GET", ADDRESS)]


def test_a_change_whose_answer_got_lost_was_one(run_module: RunModule, server: Server) -> None:
    server.replies = [NONE, Reply(503, "lost on the way"), made(EVENT, changed=False)]
    assert run_module("openadr_event", present(server.url))["changed"] is True


def test_the_token_is_never_printed(run_module: RunModule, server: Server) -> None:
    server.replies = [NONE, made(EVENT, 201), Reply(403, f"wrong token {TOKEN}")]
    for _ in range(2):
        assert TOKEN not in run_module("openadr_event", present(server.url))["_printed"]


@pytest.mark.parametrize("state", ["present", "absent"])
@pytest.mark.parametrize(
    ("reply", "texts"),
    [
        (Reply(302, headers={"Location": "https://elsewhere/"}), ["302", "the server itself", "https://elsewhere/"]),
        (
            refusal(401, problem(field="Authorization", value=None, problem="the token is missing or wrong")),
            ["401", "openadr_api_token", "as token"],
        ),
        (Reply(403, "<html>Forbidden</html>"), ["403", "Forbidden", "in front of it"]),
        (Reply(404, "<h1>Not Found</h1>"), ["404", "Not Found", "openadr-vtn, port 8081"]),
        (refusal(404, problem(problem="Not Found")), ["404", "openadr-vtn, port 8081"]),
        (refusal(409, problem(problem="overlaps event a")), ["409", "overlaps event a", "Give a later start"]),
        (refusal(422, problem(), problem(field="unit", value="kW")), ["2 problems", "start", 'unit = "kW"']),
        (Reply(422, {"errors": ["odd"]}), ["422"]),
        (Reply(200, ""), ["200", "nothing", "the VTN itself"]),
        (Reply(200, "<html>Welcome</html>"), ["200", "Welcome"]),
        (Reply(200, {"status": "ok"}), ["200", "not as our VTN does"]),
        (Reply(200, [1]), ["200", "not as our VTN does"]),
    ],
)
def test_a_refusal_is_explained_and_not_tried_again(
    run_module: RunModule, server: Server, reply: Reply, texts: list[str], state: str
) -> None:
    server.replies = [reply]
    result = run_module("openadr_event", present(server.url) if state == "present" else absent(server.url))
    assert result["failed"]
    for text in [server.url, *texts]:
        assert text in result["msg"]
    assert result["api_calls"] == len(server.received) == 1


@pytest.mark.parametrize("reply", [Reply(200, {"changed": True}), Reply(200, {"changed": True, "event": [1]}), Reply()])
def test_an_answer_without_an_event_is_explained(run_module: RunModule, server: Server, reply: Reply) -> None:
    server.replies = [NONE, reply]
    result = run_module("openadr_event", present(server.url))
    assert result["failed"]
    assert "not as our VTN does" in result["msg"]


CHANGES = {"PUT": (present, False), "POST": (present, True), "DELETE": (absent, False)}


@pytest.mark.parametrize("method", CHANGES)
@pytest.mark.parametrize(
    ("reply", "texts"),
    [
        pytest.param(Reply(302, headers={"Location": "https://elsewhere/"}), ["302", "https://elsewhere/"], id="302"),
        pytest.param(refusal(401, problem()), ["401", "openadr_api_token"], id="401"),
        pytest.param(Reply(403, "<html>Forbidden</html>"), ["403", "in front of it"], id="403"),
        pytest.param(NONE, ["404", "of this module's version"], id="404"),
        pytest.param(refusal(409, problem(problem="overlaps event a")), ["409", "overlaps event a"], id="409"),
        pytest.param(Reply(429, "slow"), ["429 (slow)", "try again later"], id="429"),
        pytest.param(Reply(500, ""), ["answered 500. Fix: see the VTN's log"], id="500 with an empty body"),
        pytest.param(Reply(502, "<html>Bad Gateway</html>"), ["502", "Bad Gateway"], id="502"),
        pytest.param(Reply(200, ""), ["200", "not as our VTN does: nothing"], id="empty body"),
        pytest.param(Reply(201, ""), ["201", "not as our VTN does: nothing"], id="201 with an empty body"),
        pytest.param(Reply(204, ""), ["answered 204. Fix: see the VTN's log"], id="204"),
        pytest.param(Reply(200, "<html>Welcome</html>"), ["200", "Welcome", "the VTN itself"], id="HTML page"),
        pytest.param(Reply(200, [EVENT]), ["200", "not as our VTN does"], id="JSON of another kind"),
    ],
)
def test_an_answer_to_a_change_that_is_no_success_is_explained(
    run_module: RunModule, server: Server, reply: Reply, texts: list[str], method: str
) -> None:
    arguments, check = CHANGES[method]
    server.replies = [there(EVENT), reply]
    result = run_module("openadr_event", arguments(server.url), check=check)
    assert result["failed"]
    for text in [f"{server.url}{ADDRESS}", *texts]:
        assert text in result["msg"]
    assert TOKEN not in result["_printed"]
    tries = 4 if reply.status in (429, 500, 502) else 1
    assert [request.method for request in server.received] == ["GET", *[method] * tries]
    assert result["api_calls"] == 1 + tries


@pytest.mark.parametrize("method", CHANGES)
def test_a_change_that_is_never_answered_is_given_up(
    run_module: RunModule, server: Server, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, check = CHANGES[method]
    release = threading.Event()
    server.replies = [there(EVENT), Reply(body=EVENT, after=release)]
    monkeypatch.setattr(http_api, "TRIES", 2)
    result = run_module("openadr_event", {**arguments(server.url), "timeout": 1}, check=check)
    release.set()
    assert result["failed"]
    assert "timed out" in result["msg"]
    assert [request.method for request in server.received] == ["GET", method, method]


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_what_may_pass_is_tried_again(run_module: RunModule, server: Server, status: int, pauses: list[float]) -> None:
    server.replies = [Reply(status, "busy"), NONE, Reply(status, "busy"), made(EVENT, 201)]
    result = run_module("openadr_event", present(server.url))
    assert result["changed"] is True
    assert result["api_calls"] == 4
    assert pauses == [1, 1]


def test_what_does_not_pass_ends_with_the_vtns_reason(run_module: RunModule, server: Server) -> None:
    server.replies = [refusal(503, problem(field="(store)", value=None, problem="the store cannot be reached"))]
    result = run_module("openadr_event", present(server.url))
    assert result["failed"]
    assert "(store): the store cannot be reached" in result["msg"]
    assert result["api_calls"] == 4


def test_a_refused_connection_is_tried_again_and_explained(run_module: RunModule, pauses: list[float]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        result = run_module("openadr_event", present(f"http://127.0.0.1:{taken.getsockname()[1]}"))
    assert result["failed"]
    assert "refused" in result["msg"].lower()
    assert "openadr-vtn is up ('docker ps')" in result["msg"]
    assert pauses == [1, 2, 4]


def test_a_server_that_hangs_is_given_up(
    run_module: RunModule, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    server.replies = [Reply(body=EVENT, after=release)]
    monkeypatch.setattr(http_api, "TRIES", 2)
    result = run_module("openadr_event", present(server.url, timeout=1))
    release.set()
    assert result["failed"]
    assert "timed out" in result["msg"]
    assert result["api_calls"] == 2


def test_a_certificate_has_to_be_trusted(run_module: RunModule, certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    secured = Server(context)
    secured.replies = [there(EVENT), made(EVENT, changed=False)]
    try:
        refused = run_module("openadr_event", present(secured.url))
        assert "certificate is not trusted" in refused["msg"]
        assert secured.received == []
        assert run_module("openadr_event", present(secured.url, ca_path=str(certificate)))["failed"] is False
    finally:
        secured.close()


class Keeping(Server):
    """Keeps events as the VTN does, as far as the examples go."""

    def __init__(self) -> None:
        super().__init__()
        self.events: dict[str, dict[str, Any]] = {}

    def reply(self, method: str, path: str, body: Any) -> Reply:
        event_id, _, asked = path.removeprefix("/api/v1/events/").partition("/")
        event = self.events.get(event_id)
        if method == "GET":
            about = {"field": "(address)", "value": f"GET {path}", "problem": f"There is no event {event_id}."}
            return refusal(404, problem(**about)) if event is None else there(event)
        if method == "DELETE":
            self.events[event_id] = {**self.events[event_id], "status": "cancelled"}
            return made(self.events[event_id])
        after = {**(event or EVENT), **body, "event_id": event_id}
        changed = event is None or any(event[name] != after[name] for name in WANTED)
        if asked != "preview":
            self.events[event_id] = after
        return made(after, 201 if event is None else 200, changed=changed)


def test_the_examples_do_what_they_say_and_again_nothing(run_module: RunModule) -> None:
    vtn = Keeping()
    try:
        for task in yaml.safe_load(load(ROOT / "library/openadr_event.py").EXAMPLES):
            example = {**task["openadr_event"], "url": vtn.url, "token": TOKEN}
            preview = run_module("openadr_event", example, check=True)
            assert preview["failed"] is False, preview
            done = run_module("openadr_event", example)
            assert (preview["changed"], done["changed"]) == (True, True)
            assert run_module("openadr_event", example)["changed"] is False
    finally:
        vtn.close()
    assert {name: event["status"] for name, event in vtn.events.items()} == {
        "price-2026-12-01": "far",
        "limit-1": "cancelled",
    }
    prices = vtn.events["price-2026-12-01"]
    hours = sum(int(interval["duration"].strip("PTH")) for interval in prices["intervals"])
    assert hours == 24
    assert datetime.datetime.fromisoformat(prices["start"]).utcoffset() == datetime.timedelta(hours=-4)


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ({"url": "192.168.240.10:8081"}, ["is no address", "http://192.168.240.10:8081"]),
        ({"url": "http://user:secret@vtn:8081"}, ["holds a user name"]),
        ({"intervals": [{"duration": "PT1H"}]}, ["value"]),
        ({"intervals": [{"duration": "PT1H", "value": "much"}]}, ["intervals", "value", "float"]),
        ({"state": "gone"}, ["present, absent"]),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_sent(
    run_module: RunModule, server: Server, options: dict[str, Any], texts: list[str]
) -> None:
    result = run_module("openadr_event", present(server.url) | options)
    assert result["failed"]
    for text in texts:
        assert text in result["msg"]
    assert "secret" not in result["msg"]
    assert server.received == []


def test_an_event_needs_what_describes_it(run_module: RunModule, server: Server) -> None:
    result = run_module("openadr_event", {**absent(server.url), "state": "present", "unit": "EUR/MWh"})
    assert result["failed"]
    for name in ("signal_name", "start", "intervals", "targets"):
        assert name in result["msg"]
    assert server.received == []


def test_an_id_stays_one_part_of_the_address(run_module: RunModule, server: Server) -> None:
    server.replies = [refusal(422, problem(field="event_id", value="../vens?"))]
    assert run_module("openadr_event", present(server.url, event_id="../vens?"))["failed"]
    assert server.received[0].path == "/api/v1/events/..%2Fvens%3F"
