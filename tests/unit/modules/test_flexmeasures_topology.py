"""flexmeasures_topology against a server of ours: what it sends, what it makes of every answer, what it never says."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils import http_api

from .conftest import ROOT, Reply, RunModule, Server

TOKEN = "made-up-token-0123456789"
PASSWORD = "made-up password 42"
TOPOLOGY: dict[str, Any] = {
    "site": {"name": "Cariflex", "timezone": "America/Martinique", "latitude": 14.6, "longitude": -61.0},
    "networks": {"anything": "else is not looked at"},
    "account": "Cariflex",
    "users": {"operator@example.org": {"username": "operator", "roles": ["admin"]}},
    "asset_types": {"site": "energy site"},
    "assets": {"Site": {"type": "site", "latitude": 14.6, "longitude": -61.0}},
    "sensors": {"grid_power": {"id": 101, "unit": "kW", "resolution": "PT15M", "asset": "Site"}},
}
CHANGE = {
    "action": "update",
    "path": "sensors.grid_power",
    "before": {"unit": "W"},
    "after": {"unit": "kW"},
}
CHANGED = {
    "changed": True,
    "dry_run": False,
    "changes": [CHANGE],
    "counts": {"create": 0, "update": 1, "unchanged": 4},
    "undeclared": {"users": [], "assets": [], "sensors": [{"id": 1, "name": "old", "asset": "Site"}]},
}
UNCHANGED = {**CHANGED, "changed": False, "changes": [], "counts": {"create": 0, "update": 0, "unchanged": 5}}


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, not waited for."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def arguments(url: str, **options: Any) -> dict[str, Any]:
    return {
        "url": url,
        "token": TOKEN,
        "topology": TOPOLOGY,
        "user_passwords": {"operator@example.org": PASSWORD},
        **options,
    }


def test_what_changed_is_told(run_module: RunModule, server: Server) -> None:
    server.replies = [Reply(body=CHANGED)]
    result = run_module("flexmeasures_topology", arguments(server.url), diff=True)
    assert result["changed"] is True
    assert result["changes"] == [CHANGE]
    assert result["counts"]["update"] == 1
    assert result["undeclared"]["sensors"] == [{"id": 1, "name": "old", "asset": "Site"}]
    assert result["diff"] == {
        "before": {"sensors.grid_power": {"unit": "W"}},
        "after": {"sensors.grid_power": {"unit": "kW"}},
    }
    assert result["api_calls"] == 1


def test_the_topology_is_sent_once_and_only_to_our_endpoint(run_module: RunModule, server: Server) -> None:
    server.replies = [Reply(body=CHANGED)]
    run_module("flexmeasures_topology", arguments(server.url))
    (request,) = server.received
    assert request.path == "/cariflex/v1/topology"
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert request.body == {
        "topology": {
            "timezone": "America/Martinique",
            **{name: TOPOLOGY[name] for name in ("account", "users", "asset_types", "assets", "sensors")},
        },
        "passwords": {"operator@example.org": PASSWORD},
        "dry_run": False,
    }


def test_a_second_run_changes_nothing(run_module: RunModule, server: Server) -> None:
    server.replies = [Reply(body=CHANGED), Reply(body=UNCHANGED)]
    assert run_module("flexmeasures_topology", arguments(server.url))["changed"] is True
    again = run_module("flexmeasures_topology", arguments(server.url))
    assert again["changed"] is False
    assert again["diff"] == {"before": {}, "after": {}}


def test_check_mode_asks_without_changing(run_module: RunModule, server: Server) -> None:
    server.replies = [Reply(body={**CHANGED, "dry_run": True})]
    result = run_module("flexmeasures_topology", arguments(server.url), check=True)
    assert result["changed"] is True
    assert [request.body["dry_run"] for request in server.received] == [True]


def test_neither_token_nor_password_is_ever_printed(run_module: RunModule, server: Server) -> None:
    server.replies = [Reply(body=CHANGED), Reply(401, {"message": f"wrong token {TOKEN} or {PASSWORD}"})]
    for _ in range(2):
        printed = run_module("flexmeasures_topology", arguments(server.url))["_printed"]
        assert TOKEN not in printed
        assert PASSWORD not in printed


PROBLEM = {
    "path": "sensors.grid_power.id",
    "value": 101,
    "problem": "is taken by the sensor x",
    "fix": "choose a free id",
}


@pytest.mark.parametrize(
    ("reply", "texts"),
    [
        (Reply(301, headers={"Location": "https://elsewhere/"}), ["301", "the server itself", "https://elsewhere/"]),
        (Reply(302, headers={"Location": "https://elsewhere/"}), ["302", "not sent on"]),
        (Reply(400, "<h1>Bad Request</h1>"), ["400", "Bad Request", "TRUSTED_HOSTS"]),
        (Reply(401, {"message": "Give the topology token"}), ["401", "flexmeasures_topology_token"]),
        (Reply(403, "<html>Forbidden</html>"), ["403", "in front of it"]),
        (Reply(404, {"message": "Not Found"}), ["404", 'FLEXMEASURES_PLUGINS = ["cariflex.fm_plugin"]']),
        (
            Reply(409, {"message": "no", "problems": [PROBLEM]}),
            ["409", "topology.sensors.grid_power.id = 101: is taken by the sensor x. Fix: choose a free id."],
        ),
        (
            Reply(422, {"message": "no", "problems": [{**PROBLEM, "path": "passwords.a@b.c", "value": None}]}),
            ["422", "user_passwords.a@b.c: is taken"],
        ),
        (Reply(422, {"message": "no", "problems": ["odd"]}), ["422"]),
        (Reply(200, ""), ["200", "nothing", "the FlexMeasures server itself"]),
        (Reply(200, "<html>Welcome</html>"), ["200", "Welcome"]),
        (Reply(200, {"changed": "yes"}), ["200", "not as our plugin does"]),
        (Reply(200, [1]), ["200", "not as our plugin does"]),
    ],
)
def test_a_refusal_is_explained_and_not_tried_again(
    run_module: RunModule, server: Server, reply: Reply, texts: list[str]
) -> None:
    server.replies = [reply]
    result = run_module("flexmeasures_topology", arguments(server.url))
    assert result["failed"]
    for text in [server.url, *texts]:
        assert text in result["msg"]
    assert result["api_calls"] == len(server.received) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_what_may_pass_is_tried_again(run_module: RunModule, server: Server, status: int, pauses: list[float]) -> None:
    server.replies = [Reply(status, "busy"), Reply(status, "busy"), Reply(body=CHANGED)]
    result = run_module("flexmeasures_topology", arguments(server.url))
    assert result["changed"] is True
    assert result["api_calls"] == 3
    assert pauses == [1, 2]


def test_the_servers_wish_to_wait_is_followed_within_reason(
    run_module: RunModule, server: Server, pauses: list[float]
) -> None:
    server.replies = [
        Reply(429, headers={"Retry-After": "7"}),
        Reply(429, headers={"Retry-After": "86400"}),
        Reply(body=CHANGED),
    ]
    run_module("flexmeasures_topology", arguments(server.url))
    assert pauses == [7, 30]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_does_not_pass_ends(run_module: RunModule, server: Server, status: int) -> None:
    server.replies = [Reply(status, {"message": "The token file cannot be read"})]
    result = run_module("flexmeasures_topology", arguments(server.url))
    assert result["failed"]
    assert f"answered {status} (The token file cannot be read)" in result["msg"]
    assert result["api_calls"] == 4


def test_a_refused_connection_is_tried_again_and_explained(run_module: RunModule, pauses: list[float]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        result = run_module("flexmeasures_topology", arguments(f"http://127.0.0.1:{taken.getsockname()[1]}"))
    assert result["failed"]
    assert "refused" in result["msg"].lower()
    assert "docker ps" in result["msg"]
    assert result["api_calls"] == 4
    assert pauses == [1, 2, 4]


def test_a_server_that_hangs_is_given_up(
    run_module: RunModule, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    server.replies = [Reply(body=CHANGED, after=release)]
    monkeypatch.setattr(http_api, "TRIES", 2)
    result = run_module("flexmeasures_topology", arguments(server.url, timeout=1))
    release.set()
    assert result["failed"]
    assert "timed out" in result["msg"]
    assert result["api_calls"] == 2


def test_a_connection_that_breaks_is_tried_again(run_module: RunModule) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def close_each() -> None:
            for _ in range(4):
                listening.accept()[0].close()

        thread = threading.Thread(target=close_each, daemon=True)
        thread.start()
        result = run_module("flexmeasures_topology", arguments(f"http://127.0.0.1:{listening.getsockname()[1]}"))
        thread.join(5)
    assert result["failed"]
    assert "did not answer in 4 tries" in result["msg"]


def changed(section: str, value: object) -> dict[str, Any]:
    return {**TOPOLOGY, section: value}


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ({"url": "192.168.240.20:5000"}, ["is no address", "http://192.168.240.20:5000"]),
        ({"url": "http://server:5000/api"}, ["is no address"]),
        ({"url": "http://user:secret@server:5000"}, ["holds a user name"]),
        (
            {"user_passwords": {"nobody@example.org": PASSWORD}},
            ["user_passwords.nobody@example.org", "no declared user"],
        ),
        ({"user_passwords": {"operator@example.org": ""}}, ["user_passwords.operator@example.org", "empty"]),
        ({"topology": changed("account", "")}, ["topology.account"]),
        ({"topology": changed("site", {"timezone": "Mars"})}, ["topology.site.timezone"]),
        ({"topology": changed("assets", {"A": {"type": "site", "parent": "B"}})}, ["topology.assets.A.parent", '"B"']),
        (
            {
                "topology": changed(
                    "sensors",
                    {
                        "a": {"id": 1, "unit": "kW", "resolution": "PT5M", "asset": "Sit"},
                        "b": {"id": 1, "unit": "kW", "resolution": "5min", "asset": "Site"},
                    },
                )
            },
            [
                "topology.sensors.a.asset",
                "did you mean Site?",
                "topology.sensors.b.id",
                "topology.sensors.b.resolution",
            ],
        ),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_sent(
    run_module: RunModule, server: Server, options: dict[str, Any], texts: list[str]
) -> None:
    result = run_module("flexmeasures_topology", {**arguments(server.url), **options})
    assert result["failed"]
    for text in texts:
        assert text in result["msg"]
    assert "secret" not in result["msg"]
    assert server.received == []
    assert result["api_calls"] == 0


def test_the_projects_own_topology_is_fit_to_be_sent(run_module: RunModule, server: Server) -> None:
    declared = yaml.safe_load((ROOT / "playbooks/vars/topology.yml").read_text())["topology_declared"]
    server.replies = [Reply(body=UNCHANGED)]
    result = run_module("flexmeasures_topology", arguments(server.url, topology=declared, user_passwords={}))
    assert not result["failed"], result["msg"]


def test_another_name_can_be_asked_for(run_module: RunModule, server: Server) -> None:
    server.replies = [Reply(body=UNCHANGED)]
    run_module("flexmeasures_topology", arguments(server.url, host_header="cariflex.localhost"))
    assert server.received[0].headers["Host"] == "cariflex.localhost"


def test_neither_proxy_nor_netrc_gets_in_between(
    run_module: RunModule, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password other\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server.replies = [Reply(body=UNCHANGED)]
    assert not run_module("flexmeasures_topology", arguments(server.url))["failed"]
    assert server.received[0].headers["Authorization"] == f"Bearer {TOKEN}"


@pytest.fixture
def tls_server(certificate: Path) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    made = Server(context)
    yield made
    made.close()


def test_an_unknown_certificate_is_refused_at_once(run_module: RunModule, tls_server: Server) -> None:
    tls_server.replies = [Reply(body=UNCHANGED)]
    result = run_module("flexmeasures_topology", arguments(tls_server.url))
    assert result["failed"]
    assert "certificate is not trusted" in result["msg"]
    assert "ca_path" in result["msg"]
    assert tls_server.received == []
    assert result["api_calls"] == 1


@pytest.mark.parametrize("options", [{"ca_path": True}, {"validate_certs": False}])
def test_a_certificate_can_be_trusted(
    run_module: RunModule, tls_server: Server, certificate: Path, options: dict[str, Any]
) -> None:
    given = {**options, **({"ca_path": str(certificate)} if "ca_path" in options else {})}
    tls_server.replies = [Reply(body=UNCHANGED)]
    assert not run_module("flexmeasures_topology", arguments(tls_server.url, **given))["failed"]
