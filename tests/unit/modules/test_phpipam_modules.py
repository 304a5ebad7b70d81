"""The phpIPAM modules against a phpIPAM that keeps state and is as odd as the real ones (tests/support/phpipam.py)."""

import copy
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils import http_api
from ansible.module_utils.urls import Request

from tests.support.phpipam import CODE, PASSWORD, READ_ONLY_CODE, USER, PhpIpam, Refusal, Reply, serving

from .conftest import ROOT, RunModule, load

NETWORK = "192.168.240.0/24"
SECTION = "Cariflex EMS"
ADDRESSES = [
    {"ip": "192.168.240.1", "hostname": "gateway", "is_gateway": True, "exclude_ping": True},
    {
        "ip": "192.168.240.10",
        "hostname": "openadr-vtn",
        "mac": "02-42-C0-A8-F0-0A",
        "custom_fields": {"cariflex_role": "vtn"},
    },
    {"range": "192.168.240.128-192.168.240.130", "tag": "Reserved"},
]
MODULES = ("phpipam_subnet", "phpipam_address", "phpipam_info")


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, not waited for."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second of the option timeout is a quarter of one."""
    monkeypatch.setattr(http_api, "Request", lambda **given: Request(**{**given, "timeout": given["timeout"] / 4}))


@pytest.fixture(params=["1.8.2", "1.7.4"])
def phpipam(request: pytest.FixtureRequest) -> PhpIpam:
    return PhpIpam(request.param)


@pytest.fixture
def url(phpipam: PhpIpam) -> Iterator[str]:
    with serving(phpipam) as address:
        yield address


@pytest.fixture
def run(run_module: RunModule, url: str) -> Callable[..., dict[str, Any]]:
    """Run a module with a way in."""

    def run(name: str, *, check: bool = False, **options: Any) -> dict[str, Any]:
        given = {"url": url, "app_id": "cariflexcode", "app_code": CODE, **options}
        return run_module(name, given, check=check, diff=True)

    return run


def subnet(**options: Any) -> dict[str, Any]:
    return {"section": SECTION, "create_section": True, "subnet": NETWORK, "addresses": ADDRESSES, **options}


def address(**options: Any) -> dict[str, Any]:
    return {"section": SECTION, "subnet": NETWORK, "ip": "192.168.240.11", "hostname": "openadr-ven", **options}


def options_of(name: str) -> dict[str, Any]:
    return {"phpipam_subnet": subnet(), "phpipam_address": address(), "phpipam_info": {"section": SECTION}}[name]


def writes(phpipam: PhpIpam) -> list[tuple[str, str]]:
    return [request for request in phpipam.requests if request[0] not in ("GET", "HEAD")]


Run = Callable[..., dict[str, Any]]


# --- create, repeat, update, delete, check, diff ---------------------------------------------------------------------


def test_a_subnet_is_made_with_all_that_is_declared_and_the_second_run_only_reads(phpipam: PhpIpam, run: Run) -> None:
    preview = run("phpipam_subnet", check=True, **subnet(description="openadr-internal"))
    assert preview["changed"] is True
    assert not writes(phpipam)
    first = run("phpipam_subnet", **subnet(description="openadr-internal"))
    assert {name: first[name] for name in ("created", "updated", "deleted", "diff")} == {
        name: preview[name] for name in ("created", "updated", "deleted", "diff")
    }
    assert [row["ip"] for row in phpipam.addresses.values()] == first["created"]
    reserved = [row["tag"] for row in phpipam.addresses.values() if row["ip"] >= "192.168.240.128"]
    assert reserved == [3, 3, 3]
    phpipam.requests.clear()
    again = run("phpipam_subnet", **subnet(description="openadr-internal"))
    assert (again["changed"], again["unchanged"], again["api_calls"]) == (False, 5, 4)
    assert again["diff"] == {"before": {}, "after": {}}
    assert not writes(phpipam)


def test_one_field_is_changed_and_the_tag_stays(phpipam: PhpIpam, run: Run) -> None:
    run("phpipam_subnet", **subnet())
    entries = [{"ip": "192.168.240.128", "description": "pool"}]
    result = run("phpipam_subnet", **subnet(addresses=entries, custom_fields={"cariflex_env": "prod"}))
    assert result["updated"] == ["192.168.240.128"]
    row = next(row for row in phpipam.addresses.values() if row["ip"] == "192.168.240.128")
    assert (row["description"], row["tag"]) == ("pool", 3)
    assert result["diff"] == {
        "before": {NETWORK: {"custom_cariflex_env": ""}, "192.168.240.128": {"description": None}},
        "after": {NETWORK: {"custom_cariflex_env": "prod"}, "192.168.240.128": {"description": "pool"}},
    }
    cleared = run("phpipam_subnet", **subnet(addresses=[{"ip": "192.168.240.128", "description": ""}]))
    assert cleared["updated"] == ["192.168.240.128"]
    assert row["description"] is None
    assert len(phpipam.addresses) == 5, "what is not declared is left alone"


def test_a_new_gateway_takes_the_flag_and_a_second_run_agrees(phpipam: PhpIpam, run: Run) -> None:
    run("phpipam_subnet", **subnet())
    entries = [{"ip": "192.168.240.10", "is_gateway": True}, {"ip": "192.168.240.1", "is_gateway": False}]
    assert run("phpipam_subnet", **subnet(addresses=entries))["changed"] is True
    assert [row["ip"] for row in phpipam.addresses.values() if row["is_gateway"]] == ["192.168.240.10"]
    assert run("phpipam_subnet", **subnet(addresses=entries))["changed"] is False


def test_a_container_that_moved_is_found_by_its_name(phpipam: PhpIpam, run: Run) -> None:
    moving = subnet(match_by="hostname", addresses=[{"ip": "192.168.240.7", "hostname": "worker", "note": "kept"}])
    run("phpipam_subnet", **moving)
    moving["addresses"] = [{"ip": "192.168.240.9", "hostname": "worker"}]
    result = run("phpipam_subnet", **moving)
    assert (result["deleted"], result["created"]) == (["192.168.240.7"], ["192.168.240.9"])
    (row,) = phpipam.addresses.values()
    assert (row["ip"], row["note"]) == ("192.168.240.9", "kept")
    phpipam.addresses[99] = {**row, "id": 99, "ip": "192.168.240.20"}
    assert "is the hostname of" in run("phpipam_subnet", **moving)["msg"]


def test_only_what_is_ours_is_purged(phpipam: PhpIpam, run: Run) -> None:
    ours = {"managed_by": "cariflex", "purge": "managed"}
    run("phpipam_subnet", **subnet(**ours))
    run("phpipam_address", **address(ip="192.168.240.50", hostname="theirs"))
    result = run("phpipam_subnet", **subnet(addresses=ADDRESSES[:2], **ours))
    assert result["deleted"] == [f"192.168.240.{n}" for n in (128, 129, 130)]
    assert "192.168.240.50" in {row["ip"] for row in phpipam.addresses.values()}
    assert "needs managed_by" in run("phpipam_subnet", **subnet(purge="managed"))["msg"]
    assert run("phpipam_subnet", **subnet(addresses=ADDRESSES[:2], purge="all"))["deleted"] == ["192.168.240.50"]


def test_a_subnet_goes_only_when_it_is_empty_or_forced(phpipam: PhpIpam, run: Run) -> None:
    run("phpipam_subnet", **subnet())
    refused = run("phpipam_subnet", **subnet(state="absent"))
    assert "has 5 addresses and 0 subnets" in refused["msg"]
    assert len(phpipam.addresses) == 5
    assert run("phpipam_subnet", check=True, **subnet(state="absent", force_delete=True))["changed"] is True
    assert phpipam.subnets
    assert run("phpipam_subnet", **subnet(state="absent", force_delete=True))["deleted"]
    assert not phpipam.subnets
    assert run("phpipam_subnet", **subnet(state="absent"))["changed"] is False


def test_one_address_is_kept_and_removed(phpipam: PhpIpam, run: Run) -> None:
    run("phpipam_subnet", **subnet())
    assert run("phpipam_address", check=True, **address())["changed"] is True
    assert run("phpipam_address", **address())["changed"] is True
    assert run("phpipam_address", **address())["changed"] is False
    changed = run("phpipam_address", **address(tag="DHCP"))
    assert changed["diff"] == {
        "before": {"192.168.240.11": {"tag": "Used"}},
        "after": {"192.168.240.11": {"tag": "DHCP"}},
    }
    assert run("phpipam_address", **address(state="absent"))["changed"] is True
    assert run("phpipam_address", **address(state="absent"))["changed"] is False
    assert len(phpipam.addresses) == 5


def test_the_first_free_address_is_taken_once(phpipam: PhpIpam, run: Run) -> None:
    run("phpipam_subnet", **subnet())
    free = address(ip="first_free", hostname="battery-gateway", tag="Reserved")
    assert run("phpipam_address", check=True, **free)["ip"] == "192.168.240.2"
    assert run("phpipam_address", **free)["ip"] == "192.168.240.2"
    again = run("phpipam_address", **free)
    assert (again["changed"], again["ip"]) == (False, "192.168.240.2")
    assert [row["tag"] for row in phpipam.addresses.values() if row["hostname"] == "battery-gateway"] == [3]
    assert run("phpipam_address", **address(ip="first_free", hostname="battery-gateway", state="absent"))["changed"]
    assert "needs a hostname" in run("phpipam_address", **address(ip="first_free", hostname=None))["msg"]
    small = {"subnet": "10.9.0.0/30", "addresses": [{"ip": "10.9.0.1"}, {"ip": "10.9.0.2"}]}
    run("phpipam_subnet", **subnet(**small))
    assert "No address" in run("phpipam_address", **address(**{**free, "subnet": "10.9.0.0/30"}))["msg"]


def test_info_reads_and_changes_nothing(phpipam: PhpIpam, run: Run) -> None:
    run("phpipam_subnet", **subnet(description="openadr-internal"))
    phpipam.requests.clear()
    assert run("phpipam_info")["sections"] == [SECTION]
    whole = run("phpipam_info", section=SECTION)
    assert [(found["subnet"], found["description"]) for found in whole["subnets"]] == [(NETWORK, "openadr-internal")]
    found = run("phpipam_info", section=SECTION, subnet=NETWORK)["addresses"]
    assert found[1] == {
        "ip": "192.168.240.10",
        "hostname": "openadr-vtn",
        "tag": "Used",
        "mac": "02:42:c0:a8:f0:0a",
        "custom_fields": {"custom_cariflex_role": "vtn"},
    }
    assert run("phpipam_info", section=SECTION, subnet="10.0.0.0/24")["addresses"] == []
    assert not writes(phpipam)
    assert "needs section" in run("phpipam_info", subnet=NETWORK)["msg"]
    assert "did you mean" in run("phpipam_info", section="cariflex ems")["msg"]


# --- every way in, and every way to be refused -----------------------------------------------------------------------


def test_a_user_logs_in_once_and_again_when_the_token_has_expired(phpipam: PhpIpam, run: Run) -> None:
    user = {"app_id": "cariflex", "app_code": None, "username": USER, "password": PASSWORD}
    assert run("phpipam_subnet", **subnet(**user))["changed"] is True
    logins = [request for request in phpipam.requests if request[1].endswith("/user/")]
    assert logins == [("POST", "/api/cariflex/user/")]
    asked = []

    def expire(_method: str, path: str) -> None:
        asked.append(path)
        if len(asked) == 3:
            phpipam.tokens.clear()

    phpipam.before = expire
    again = run("phpipam_subnet", **subnet(**user))
    assert (again["failed"], again["changed"]) == (False, False)
    assert [path for path in asked if path.endswith("/user/")] == ["/api/cariflex/user/"] * 2
    wrong = run("phpipam_subnet", **subnet(**{**user, "password": "wrong"}))
    assert (wrong["http_status"], wrong["api_code"]) == (500, 500)
    assert "after 10 bad logins" in wrong["msg"]
    assert "wrong" not in wrong["_printed"]


def html(status: int) -> Reply:
    return Reply(status, "<html><body>Sign in</body></html>")


ANSWERS: dict[str, tuple[Reply | Refusal, str]] = {
    "400": (Refusal(400, "Invalid application id"), "Invalid application id"),
    "401": (Refusal(401, "Unauthorized"), "check app_code"),
    "403": (Refusal(403, "Invalid token"), "belongs to another app"),
    "409": (Refusal(409, "Subnet overlaps with another"), "see what is there"),
    "415": (Refusal(415, "Invalid Content type "), "let no proxy in between drop the Content-Type"),
    "429": (html(429), "this answer is not its API's"),
    "500": (Refusal(500, "Error: SQLSTATE[42S02]"), "phpIPAM's log"),
    "200 with code 500": (Refusal(200, "Lock wait timeout exceeded", 500), "phpIPAM's log"),
    "502": (html(502), "this answer is not its API's"),
    "503": (Refusal(503, "API server disabled"), "turn on the API"),
    "redirect": (
        Reply(302, "", {"Location": "https://elsewhere.example/login/"}),
        "is not sent on to https://elsewhere",
    ),
    "empty body": (Reply(200, None), "this answer is not its API's"),
    "500 with an empty body": (Reply(500, None), "this answer is not its API's"),
    "HTML page": (html(200), "this answer is not its API's"),
    "JSON of another kind": (Reply(200, "[1, 2]"), "this answer is not its API's"),
}


@pytest.mark.parametrize("phpipam", ["1.8.2"], indirect=True)
@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("answer", ANSWERS)
def test_every_other_answer_is_an_error_that_says_what_to_do(
    phpipam: PhpIpam, run: Run, url: str, name: str, answer: str
) -> None:
    reply, said = ANSWERS[answer]

    def always(_method: str, _path: str) -> Reply:
        if isinstance(reply, Refusal):
            raise reply
        return reply

    phpipam.before = always
    result = run(name, **options_of(name))
    assert result["failed"] is True
    assert said in result["msg"]
    assert result["http_status"] == (reply.status if isinstance(reply, (Reply, Refusal)) else 0)
    assert result["partial"] == {"created": [], "updated": [], "deleted": []}
    assert CODE not in result["_printed"]
    passing = answer in ("429", "502")
    assert result["api_calls"] == len(phpipam.requests) == (4 if passing else 1)
    assert url in result["msg"]


# Of the subnet that is there by then: module, options that need one change, and the method by which it is made.
VTN = {"ip": "192.168.240.10", "hostname": "openadr-vtn"}
CHANGES: dict[str, tuple[str, dict[str, Any], str]] = {
    "subnet created": ("phpipam_subnet", subnet(subnet="192.168.241.0/24", addresses=[]), "POST"),
    "subnet updated": ("phpipam_subnet", subnet(description="openadr-internal", addresses=[]), "PATCH"),
    "subnet deleted": ("phpipam_subnet", subnet(state="absent", force_delete=True), "DELETE"),
    "addresses created": ("phpipam_subnet", subnet(addresses=[{"ip": "192.168.240.11"}]), "POST"),
    "addresses updated": ("phpipam_subnet", subnet(addresses=[{**VTN, "description": "x"}]), "PATCH"),
    "addresses purged": ("phpipam_subnet", subnet(addresses=ADDRESSES[:1] + ADDRESSES[2:], purge="all"), "DELETE"),
    "address created": ("phpipam_address", address(), "POST"),
    "address updated": ("phpipam_address", address(**VTN, description="x"), "PATCH"),
    "address deleted": ("phpipam_address", address(**VTN, state="absent"), "DELETE"),
}


@pytest.mark.parametrize("phpipam", ["1.8.2"], indirect=True)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("answer", [*ANSWERS, "404", "timeout"])
def test_every_other_answer_to_a_change_is_an_error_too(
    phpipam: PhpIpam, run: Run, url: str, change: str, answer: str, monkeypatch: pytest.MonkeyPatch, hasty: None
) -> None:
    others: dict[str, tuple[Reply | Refusal, str]] = {
        "401": (Refusal(401, "Unauthorized"), "Read / Write"),  # it could read before
        "404": (Refusal(404, "Address does not exist"), "run this again: somebody deleted meanwhile"),
        "timeout": (Reply(0, None, after=0.5), "timed out"),
    }
    reply, said = (ANSWERS | others)[answer]
    name, options, method = CHANGES[change]
    run("phpipam_subnet", **subnet())
    there = copy.deepcopy((phpipam.subnets, phpipam.addresses))

    def changes(method: str, _path: str) -> Reply | None:
        if method == "GET":
            return None
        if isinstance(reply, Refusal):
            raise reply
        return reply

    phpipam.before = changes
    phpipam.requests.clear()
    monkeypatch.setattr(http_api, "TRIES", 2)
    result = run(name, **options, timeout=1 if answer == "timeout" else 45)
    if (method, answer) == ("DELETE", "404"):
        assert result["changed"] is True, "what is not there is deleted"
        return
    assert result["failed"] is True
    assert said in result["msg"]
    assert url in result["msg"]
    assert result["http_status"] == reply.status
    assert result["partial"] == {"created": [], "updated": [], "deleted": []}
    assert CODE not in result["_printed"]
    tries = 2 if answer in ("429", "502", "timeout") else 1
    assert [sent for sent, _ in writes(phpipam)] == [method] * tries
    assert result["api_calls"] == len(phpipam.requests)
    phpipam.before = lambda _method, _path: None
    assert (phpipam.subnets, phpipam.addresses) == there
    assert run(name, **options)["changed"] is True, "the next run finishes"


@pytest.mark.parametrize("phpipam", ["1.8.2"], indirect=True)
@pytest.mark.parametrize("name", MODULES)
def test_a_404_is_that_there_is_nothing(phpipam: PhpIpam, run: Run, name: str) -> None:
    phpipam.before = lambda method, _path: (_ for _ in ()).throw(Refusal(404, "Not found")) if method == "GET" else None
    options = options_of(name) | ({"addresses": []} if name == "phpipam_subnet" else {})
    result = run(name, check=True, **options)
    assert result["failed"] is (name != "phpipam_subnet")
    assert "http_status" not in result


@pytest.mark.parametrize("phpipam", ["1.8.2"], indirect=True)
@pytest.mark.parametrize("name", MODULES)
def test_no_answer_and_no_server_are_said(
    phpipam: PhpIpam, run: Run, run_module: RunModule, name: str, monkeypatch: pytest.MonkeyPatch, hasty: None
) -> None:
    monkeypatch.setattr(http_api, "TRIES", 2)
    phpipam.before = lambda _method, _path: Reply(0, None, after=0.5)
    late = run(name, timeout=1, **options_of(name))
    assert (late["failed"], late["http_status"], late["api_calls"]) == (True, 0, 2)
    assert "no answer" in late["msg"]
    assert "timed out" in late["msg"]
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        given = {"url": nobody, "app_id": "cariflexcode", "app_code": CODE, **options_of(name)}
        assert "refused" in run_module(name, given)["msg"]


@pytest.mark.parametrize("name", MODULES)
def test_a_certificate_has_to_be_trusted(run_module: RunModule, name: str, certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    phpipam = PhpIpam()
    phpipam.sections[3] = {"id": 3, "name": SECTION}
    with serving(phpipam, context) as url:
        given = {"url": url, "app_id": "cariflexcode", "app_code": CODE, **options_of(name)}
        refused = run_module(name, given)
        assert "certificate is not trusted" in refused["msg"]
        assert not phpipam.requests
        run_module(name, {**given, "ca_path": str(certificate)}, check=True)
        assert phpipam.requests


def test_an_app_that_may_only_read_reads_and_says_what_it_lacks(phpipam: PhpIpam, run: Run) -> None:
    run("phpipam_subnet", **subnet())
    read_only = {"app_id": "cariflexro", "app_code": READ_ONLY_CODE}
    assert run("phpipam_subnet", **subnet(**read_only))["failed"] is False
    refused = run("phpipam_address", **address(**read_only))
    assert refused["http_status"] == 401
    assert "Read / Write" in refused["msg"]


def test_nested_custom_fields_are_the_same_fields(phpipam: PhpIpam, run: Run) -> None:
    run("phpipam_subnet", **subnet())
    nested = {"app_id": "cariflexnest", "app_code": "nestCode-0123456789abcdefghijABC"}
    assert run("phpipam_subnet", **subnet(**nested))["changed"] is False
    entries = [{"ip": "192.168.240.10", "custom_fields": {"cariflex_role": ""}}]
    assert run("phpipam_subnet", **subnet(addresses=entries, **nested))["updated"] == ["192.168.240.10"]
    assert not any(row["custom_cariflex_role"] for row in phpipam.addresses.values())


# --- what goes wrong on the way --------------------------------------------------------------------------------------


def test_what_was_written_before_a_failure_is_told_and_the_next_run_finishes(phpipam: PhpIpam, run: Run) -> None:
    made = []

    def third_fails(method: str, path: str) -> None:
        if (method, path) == ("POST", "/api/cariflexcode/addresses/"):
            made.append(path)
            if len(made) == 3:
                raise Refusal(200, "Lock wait timeout exceeded", 500)

    phpipam.before = third_fails
    result = run("phpipam_subnet", **subnet())
    wrote = [f"section {SECTION}", f"subnet {NETWORK}", "192.168.240.1", "192.168.240.10"]
    assert result["partial"]["created"] == wrote
    phpipam.before = lambda _method, _path: None
    finished = run("phpipam_subnet", **subnet())
    assert finished["created"] == ["192.168.240.128", "192.168.240.129", "192.168.240.130"]


def test_an_address_that_somebody_else_made_meanwhile_is_made_right(phpipam: PhpIpam, run: Run) -> None:
    run("phpipam_subnet", **subnet(addresses=[]))

    def faster(method: str, path: str) -> None:
        if (method, path) == ("POST", "/api/cariflexcode/addresses/") and not phpipam.addresses:
            phpipam._create_address({"ip": "192.168.240.11", "subnetId": 7, "hostname": "scanned"})

    phpipam.before = faster
    assert run("phpipam_address", **address())["failed"] is False
    (row,) = phpipam.addresses.values()
    assert row["hostname"] == "openadr-ven"


@pytest.mark.parametrize("phpipam", ["1.8.2"], indirect=True)
def test_the_first_free_address_is_never_asked_for_twice(phpipam: PhpIpam, run: Run, hasty: None) -> None:
    run("phpipam_subnet", **subnet())
    phpipam.before = lambda method, _path: Reply(0, None, after=0.5) if method == "POST" else None
    phpipam.requests.clear()
    result = run("phpipam_address", timeout=1, **address(ip="first_free"))
    assert (result["failed"], len(writes(phpipam))) == (True, 1)


def test_the_same_subnet_of_another_section_is_another_subnet(phpipam: PhpIpam, run: Run) -> None:
    run("phpipam_subnet", **subnet(section="Other"))
    run("phpipam_subnet", **subnet())
    assert len(phpipam.subnets) == 2
    assert run("phpipam_address", **address(section="Other"))["changed"] is True
    assert run("phpipam_address", **address())["changed"] is True
    assert run("phpipam_address", **address(section="Other", state="absent"))["changed"] is True
    assert [row["subnetId"] for row in phpipam.addresses.values() if row["hostname"] == "openadr-ven"] == [8]


@pytest.mark.parametrize("phpipam", ["1.8.2"], indirect=True)
@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("phpipam_subnet", subnet(subnet="192.168.240.1/24"), "host bits set"),
        ("phpipam_subnet", subnet(create_section=False), "is no section"),
        ("phpipam_subnet", subnet(app_code="x" * 33), "33 characters"),
        ("phpipam_subnet", subnet(app_code=None), "needs app_code"),
        ("phpipam_subnet", subnet(username="me"), "belong together"),
        ("phpipam_subnet", subnet(url="ipam.example.org"), "is no address"),
        ("phpipam_subnet", subnet(addresses=[{"ip": "10.0.0.1"}]), "addresses[0].ip"),
        ("phpipam_subnet", subnet(addresses=[{"ip": "192.168.240.3", "tag": "Resrved"}]), "did you mean Reserved?"),
        (
            "phpipam_subnet",
            subnet(addresses=[{"ip": "192.168.240.3", "custom_fields": {"cariflex_rol": "x"}}]),
            "custom_fields.cariflex_rol",
        ),
        (
            "phpipam_subnet",
            subnet(addresses=[{"ip": "192.168.240.5"}, {"range": "192.168.240.4-192.168.240.6"}]),
            "declared by addresses[0] too",
        ),
        (
            "phpipam_subnet",
            subnet(addresses=[{"ip": "192.168.240.3", "description": "x" * 65}]),
            "addresses[0].description",
        ),
        ("phpipam_subnet", subnet(custom_fields={"env": "x"}), "no custom field of subnets"),
        ("phpipam_address", address(description="x" * 65), "65 characters"),
        ("phpipam_address", address(subnet="10.0.0.0/24", ip="10.0.0.1"), "make it with phpipam_subnet"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    phpipam: PhpIpam, run: Run, name: str, options: dict[str, Any], said: str
) -> None:
    result = run(name, **options)
    assert result["failed"] is True
    assert said in result["msg"]
    assert not writes(phpipam)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(phpipam: PhpIpam, run: Run, name: str) -> None:
    run("phpipam_subnet", **subnet(addresses=[]))
    for task in yaml.safe_load(load(ROOT / "library" / f"{name}.py").EXAMPLES):
        example = {**task[name], "app_id": "cariflexcode", "app_code": CODE}
        del example["url"]
        assert run(name, **example)["failed"] is False
        assert run(name, **example)["changed"] is False


def test_the_examples_of_the_documentation_do_what_they_say_and_again_nothing(run: Run, phpipam: PhpIpam) -> None:
    for again in (False, True):
        phpipam.requests.clear()
        for name in ("phpipam_subnet", "phpipam_address", "phpipam_info"):
            for task in yaml.safe_load(load(ROOT / f"library/{name}.py").EXAMPLES):
                example = {k: v for k, v in task[name].items() if k not in ("url", "app_id", "app_code")}
                result = run(name, **example)
                assert not result["failed"], result
        assert bool(writes(phpipam)) is not again
    named = {row["hostname"]: row["ip"] for row in phpipam.addresses.values() if row["hostname"]}
    assert named["openadr-vtn"] == "192.168.240.10"
    assert named["battery-gateway"] == "192.168.240.2"
    assert named["flexmeasures-server"] == "172.29.0.3"
