"""The FlexMeasures modules, both ways, against a FlexMeasures that keeps state (tests/support/flexmeasures.py)."""

import copy
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils import flexmeasures_client, http_api
from ansible.module_utils.basic import AnsibleModule

from tests.support.flexmeasures import EMAIL, PASSWORD, READER, TOKEN, FlexMeasures
from tests.support.phpipam import Refusal, Reply, serving

from .conftest import ROOT, RunModule, load

MODULES = ("flexmeasures_topology", "flexmeasures_sensor", "flexmeasures_asset", "flexmeasures_info")
Run = Callable[..., dict[str, Any]]
WAYS: dict[str, dict[str, Any]] = {"plugin": {"token": TOKEN}, "api": {"email": EMAIL, "password": PASSWORD}}


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, not waited for."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def flexmeasures(way: str) -> FlexMeasures:
    return FlexMeasures(plugin=way == "plugin")


@pytest.fixture
def url(flexmeasures: FlexMeasures) -> Iterator[str]:
    with serving(flexmeasures) as address:
        yield address


@pytest.fixture
def run(run_module: RunModule, url: str, way: str) -> Run:
    """Run a module with a way in."""

    def run(module: str, /, *, check: bool = False, **options: Any) -> dict[str, Any]:
        account = {} if module == "flexmeasures_topology" else {"account": "Cariflex"}
        return run_module(module, {"url": url, **WAYS[way], **account, **options}, check=check, diff=True)

    return run


def sensor(**options: Any) -> dict[str, Any]:
    return {"name": "power", "asset": "Site", "unit": "kW", "resolution": "PT60M", **options}


def asset(**options: Any) -> dict[str, Any]:
    return {"name": "Bat_01", "type": "battery", "parent": "Site", "flex_model": {"soc-max": "100 kWh"}, **options}


def topology(**sections: Any) -> dict[str, Any]:
    return {
        "topology": {
            "account": "Cariflex",
            "site": {"timezone": "UTC"},
            "users": {},
            "assets": {
                "Bat_01": {"type": "battery", "parent": "Site"},
                "Site": {"type": "building", "latitude": 14.6, "longitude": -61.0},
            },
            "sensors": {
                "power": {"id": 101, "unit": "kW", "resolution": "PT1H", "asset": "Bat_01"},
                "price": {"id": 102, "unit": "EUR/MWh", "resolution": "PT1H", "asset": "Site"},
            },
            **sections,
        }
    }


OPTIONS: dict[str, dict[str, Any]] = {
    "flexmeasures_topology": topology(),
    "flexmeasures_sensor": sensor(),
    "flexmeasures_asset": asset(),
    "flexmeasures_info": {},
}


def writes(flexmeasures: FlexMeasures) -> list[tuple[str, str]]:
    """Requests that may have changed something."""
    reading = ("GET", "/api/requestAuthToken")
    found = []
    for request, body in zip(flexmeasures.requests, flexmeasures.bodies, strict=True):
        if request[0] not in reading and request[1] not in reading and not body.get("dry_run"):
            found.append(request)
    return found


# --- what they do ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES[:3])
def test_check_first_again_and_what_is_told(flexmeasures: FlexMeasures, run: Run, name: str) -> None:
    options = OPTIONS[name]
    preview = run(name, check=True, **options)
    assert (preview["failed"], preview["changed"]) == (False, True)
    assert not writes(flexmeasures)
    made = run(name, **options)
    assert made["changed"] is True
    assert made["through"] == ("plugin" if flexmeasures.plugin else "api")
    assert [change["path"] for change in made["changes"]] == [change["path"] for change in preview["changes"]]
    assert made["diff"]["after"].keys() == {change["path"] for change in made["changes"]}
    count = len(writes(flexmeasures))
    again = run(name, **options)
    assert (again["changed"], again["changes"], again["diff"]) == (False, [], {"before": {}, "after": {}})
    if not flexmeasures.plugin:
        assert len(writes(flexmeasures)) == count


def test_a_sensor_is_made_changed_renamed_and_removed(flexmeasures: FlexMeasures, run: Run) -> None:
    made = run("flexmeasures_sensor", **sensor(attributes={"a": 1}))
    id_ = made["sensor"]["id"]
    assert flexmeasures.sensors[id_]["event_resolution"] == "PT1H"
    assert made["sensor"] == {**made["sensor"], "name": "power", "resolution": "PT1H", "attributes": {"a": 1}}
    changed = run("flexmeasures_sensor", **sensor(unit="MW"))
    assert (changed["diff"]["before"], changed["diff"]["after"]) == (
        {"sensors.power": {"unit": "kW"}},
        {"sensors.power": {"unit": "MW"}},
    )
    assert changed["sensor"]["attributes"] == {"a": 1}, "what is not given stays"
    refused = run("flexmeasures_sensor", id=id_, name="site_power")
    assert "id = " in refused["msg"]
    assert "is taken by the sensor power" in refused["msg"]
    renamed = run("flexmeasures_sensor", id=id_, name="site_power", rename=True)
    assert renamed["diff"]["after"] == {"sensors.site_power": {"name": "site_power"}}
    assert flexmeasures.sensors[id_]["name"] == "site_power"
    assert run("flexmeasures_sensor", id=id_, name="other", state="absent")["failed"]
    assert run("flexmeasures_sensor", check=True, id=id_, state="absent")["changed"] is True
    assert run("flexmeasures_sensor", name="site_power", state="absent")["changed"] is True
    assert not flexmeasures.sensors
    assert run("flexmeasures_sensor", name="site_power", state="absent")["changed"] is False


def test_an_asset_is_made_changed_renamed_and_removed(flexmeasures: FlexMeasures, run: Run) -> None:
    made = run("flexmeasures_asset", **asset())
    assert made["asset"] == {
        "id": 8,
        "name": "Bat_01",
        "type": "battery",
        "parent": "Site",
        "latitude": 14.6,
        "longitude": -61.0,
        "attributes": {},
        "flex_context": {},
        "flex_model": {"soc-max": "100 kWh"},
    }
    changed = run("flexmeasures_asset", name="Bat_01", latitude=14.7, longitude=-61.1, parent="")
    assert changed["diff"]["after"] == {"assets.Bat_01": {"parent": None, "latitude": 14.7, "longitude": -61.1}}
    assert changed["asset"]["flex_model"] == {"soc-max": "100 kWh"}
    assert run("flexmeasures_asset", id=8, name="Battery")["changed"] is True
    assert flexmeasures.assets[8]["name"] == "Battery"
    run("flexmeasures_sensor", **sensor(asset="Battery"))
    assert run("flexmeasures_asset", id=8, name="Bat_01", state="absent")["failed"]
    assert run("flexmeasures_asset", check=True, name="Battery", state="absent")["changed"] is True
    assert run("flexmeasures_asset", id=8, state="absent")["changed"] is True
    assert 8 not in flexmeasures.assets
    assert not flexmeasures.sensors, "sensors without data go with it"
    assert run("flexmeasures_asset", name="Battery", state="absent")["changed"] is False


def test_what_has_data_goes_only_by_force(flexmeasures: FlexMeasures, run: Run) -> None:
    id_ = run("flexmeasures_sensor", **sensor())["sensor"]["id"]
    flexmeasures.data.add(id_)
    for name, which in (("flexmeasures_sensor", "power"), ("flexmeasures_asset", "Site")):
        refused = run(name, name=which, state="absent")
        assert "has data" in refused["msg"]
        assert "set force" in refused["msg"]
    assert run("flexmeasures_asset", name="Site", state="absent", force=True)["changed"] is True
    assert not flexmeasures.assets
    assert not flexmeasures.sensors


def test_info_tells_all_and_changes_nothing(flexmeasures: FlexMeasures, run: Run) -> None:
    run("flexmeasures_asset", **asset())
    ids = [run("flexmeasures_sensor", **sensor(asset=name))["sensor"]["id"] for name in ("Site", "Bat_01")]
    flexmeasures.data.add(ids[1])
    count = len(writes(flexmeasures))
    whole = run("flexmeasures_info", with_data=True)
    assert [each["name"] for each in whole["assets"]] == ["Site", "Bat_01"]
    assert [(each["id"], each["data"]) for each in whole["sensors"]] == [(ids[0], False), (ids[1], True)]
    assert {each["email"] for each in whole["users"]} == {EMAIL, READER}
    part = run("flexmeasures_info", asset="Bat_01", sensor="power")
    assert [each["id"] for each in part["sensors"]] == ids[1:]
    assert run("flexmeasures_info", account="Nobody")["exists"] is False
    assert "did you mean Bat_01?" in run("flexmeasures_info", asset="Bat_1")["msg"]
    assert len(writes(flexmeasures)) == count


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(flexmeasures: FlexMeasures, run_module: RunModule, url: str, name: str, way: str) -> None:
    """One after the other, and again; the plugin's and the API's."""
    flexmeasures.plugin = True
    flexmeasures.assets[7]["name"] = "Cariflex"
    flexmeasures.users[1]["email"] = "admin@digitribe.fr"
    if name == "flexmeasures_info":
        flexmeasures.assets[8] = {**flexmeasures.assets[7], "id": 8, "name": "Bat_01", "parent_asset_id": 7}
    declared = yaml.safe_load((ROOT / "playbooks/vars/topology.yml").read_text())["topology_declared"]
    given: dict[str, Any] = {"vault_flexmeasures_topology_token": TOKEN}
    given |= {"vault_flexmeasures_admin_password": PASSWORD}
    given |= {"topology": declared, "vault_flexmeasures_ven_password": PASSWORD}
    flexmeasures.before = lambda _method, _path: None
    for task in yaml.safe_load(load(ROOT / "library" / f"{name}.py").EXAMPLES):
        options = {key: _filled(value, given) for key, value in task[name].items()} | {"url": url}
        preview = run_module(name, options, check=True)
        assert preview["failed"] is False, preview["msg"]
        first = run_module(name, options)
        assert first["failed"] is False, first["msg"]
        assert first["changed"] is (name != "flexmeasures_info")
        assert run_module(name, options)["changed"] is False


def _filled(value: Any, given: dict[str, Any]) -> Any:
    """An example's value without Jinja."""
    if isinstance(value, dict):
        return {key: _filled(entry, given) for key, entry in value.items()}
    if isinstance(value, str) and value.startswith("{{ "):
        return given[value.strip("{} ")]
    return value


# --- the way through FlexMeasures' own API ---------------------------------------------------------------------------


@pytest.fixture
def plain() -> FlexMeasures:
    """Without our plugin."""
    return FlexMeasures(plugin=False)


@pytest.fixture
def plain_run(plain: FlexMeasures, run_module: RunModule) -> Iterator[Run]:
    """Run a module against it."""
    with serving(plain) as address:

        def run(module: str, /, *, check: bool = False, **options: Any) -> dict[str, Any]:
            account = {} if module == "flexmeasures_topology" else {"account": "Cariflex"}
            given = {"url": address, **WAYS["api"], **account, **options}
            return run_module(module, {key: value for key, value in given.items() if value is not None}, check=check)

        yield run


def test_the_plugin_goes_first_and_the_api_where_it_is_absent(plain: FlexMeasures, plain_run: Run) -> None:
    result = plain_run("flexmeasures_sensor", token=TOKEN, **sensor())
    assert (result["changed"], result["through"]) == (True, "api")
    alone = plain_run("flexmeasures_sensor", token=TOKEN, email=None, password=None, **sensor())
    assert "load our plugin" in alone["msg"]
    assert alone["http_status"] == 404


def test_settings_that_name_sensors_come_after_the_sensors(plain: FlexMeasures, plain_run: Run) -> None:
    sections = topology()["topology"]
    sections["assets"]["Site"]["flex_context"] = {"consumption-price": {"sensor": "price"}}
    first = plain_run("flexmeasures_topology", topology=sections)
    assert first["changed"] is True, first["msg"]
    assert plain.assets[7]["flex_context"] == {"consumption-price": {"sensor": 102}}
    assert plain_run("flexmeasures_topology", topology=sections)["changed"] is False


def test_a_sensor_that_got_another_id_is_taken_back_and_the_rest_is_told(plain: FlexMeasures, plain_run: Run) -> None:
    sections = topology()["topology"]
    sections["sensors"]["price"]["id"] = 205
    result = plain_run("flexmeasures_topology", topology=sections)
    assert "topology.sensors.price.id = 205: was not given" in result["msg"]
    assert "gave 102" in result["msg"]
    assert [change["path"] for change in result["partial"]] == ["assets.Bat_01", "sensors.power"]
    assert [row["name"] for row in plain.sensors.values()] == ["power"]


def test_an_id_that_another_sensor_has_says_whose_it_is(plain: FlexMeasures, plain_run: Run) -> None:
    plain.assets[30] = {**plain.assets[7], "id": 30, "name": "Elsewhere", "account_id": 2}
    plain.sensors[205] = {"id": 205, "name": "theirs", "generic_asset_id": 30, "unit": "kW"}
    result = plain_run("flexmeasures_sensor", **sensor(id=205))
    assert "the sensor theirs has 205" in result["msg"]
    assert [*plain.sensors] == [205]


def test_a_failure_half_way_is_told_and_the_next_run_finishes(plain: FlexMeasures, plain_run: Run) -> None:
    made: list[str] = []

    def second_fails(method: str, path: str) -> None:
        if (method, path) == ("POST", "/api/v3_0/sensors"):
            made.append(path)
            if len(made) == 2:
                raise Refusal(403, "no more")

    plain.before = second_fails
    result = plain_run("flexmeasures_topology", **topology())
    assert [change["path"] for change in result["partial"]] == ["assets.Bat_01", "sensors.power"]
    assert result["http_status"] == 403
    plain.before = lambda _method, _path: None
    finished = plain_run("flexmeasures_topology", **topology())
    assert [change["path"] for change in finished["changes"]] == ["sensors.price"]


@pytest.mark.parametrize("reply", [Reply(500, "gone"), Reply(0, None, after=0.01)], ids=["500", "no answer"])
@pytest.mark.parametrize("name", MODULES[1:3])
def test_what_was_made_without_being_answered_is_found_and_not_made_twice(
    plain: FlexMeasures, plain_run: Run, name: str, reply: Reply
) -> None:
    plain.after = lambda method, path: reply if method == "POST" and not path.endswith("Token") else None
    result = plain_run(name, **OPTIONS[name])
    assert (result["failed"], result["changed"]) == (False, True)
    kind = "sensors" if name == "flexmeasures_sensor" else "assets"
    assert len(plain.sensors if kind == "sensors" else plain.assets) == (1 if kind == "sensors" else 2)
    assert [path for method, path in writes(plain) if method == "POST"] == [f"/api/v3_0/{kind}"]


def test_a_token_that_has_ended_is_renewed_once(plain: FlexMeasures, plain_run: Run) -> None:
    asked: list[str] = []

    def expire(_method: str, path: str) -> None:
        asked.append(path)
        if len(asked) == 4:
            plain.tokens.clear()

    plain.before = expire
    assert plain_run("flexmeasures_sensor", **sensor())["changed"] is True
    assert [path for path in asked if path.endswith("Token")] == ["/api/requestAuthToken"] * 2
    wrong = plain_run("flexmeasures_sensor", **sensor(password="wrong"))
    assert "check email and password" in wrong["msg"]
    assert wrong["api_calls"] == 1
    assert "wrong" not in wrong["_printed"]


def test_a_user_without_the_right_reads_and_says_what_is_lacking(plain: FlexMeasures, plain_run: Run) -> None:
    assert plain_run("flexmeasures_info", email=READER)["failed"] is False
    refused = plain_run("flexmeasures_sensor", email=READER, **sensor())
    assert refused["http_status"] == 403
    assert f"give the user {READER} the right" in refused["msg"]
    assert refused["partial"] == []


@pytest.mark.parametrize(
    ("sections", "texts"),
    [
        ({"asset_types": {"site": "energy site"}}, ["topology.asset_types.site", "makes no types"]),
        ({"users": {"new@example.org": {"username": "new"}}}, ["topology.users.new@example.org", "password"]),
        ({"sensors": {"a": {"id": 101, "unit": "foo", "resolution": "PT1H", "asset": "Site"}}}, ["sensors.a.unit"]),
    ],
)
def test_what_the_api_cannot_do_is_said_before_anything_is_written(
    plain: FlexMeasures, plain_run: Run, sections: dict[str, Any], texts: list[str]
) -> None:
    result = plain_run("flexmeasures_topology", **topology(**sections))
    for text in texts:
        assert text in result["msg"]
    assert [path for method, path in writes(plain) if method != "GET" and "unit" not in result["msg"]] == []
    assert not plain.sensors


def test_units_that_we_cannot_judge_are_asked_for(plain: FlexMeasures, plain_run: Run) -> None:
    assert plain_run("flexmeasures_sensor", **sensor(unit="barn"))["changed"] is True


def test_a_sensor_with_data_keeps_what_it_measures_and_where(plain: FlexMeasures, plain_run: Run) -> None:
    plain_run("flexmeasures_asset", **asset())
    id_ = plain_run("flexmeasures_sensor", **sensor())["sensor"]["id"]
    plain.data.add(id_)
    refused = plain_run("flexmeasures_sensor", id=id_, name="power", unit="MW", resolution="PT5M", asset="Bat_01")
    for text in ("unit = ", "resolution = ", "asset = ", "in which the sensor has data", "moves no sensors"):
        assert text in refused["msg"]


def test_accounts_users_and_leftovers_follow_the_topology(plain: FlexMeasures, plain_run: Run) -> None:
    users = {EMAIL: {"username": "chief", "roles": []}}
    sections = topology(users=users)["topology"]
    plain_run("flexmeasures_asset", **asset(name="Old"))
    plain_run("flexmeasures_sensor", **sensor(name="old", asset="Old"))
    assert "is taken by the sensor old" in plain_run("flexmeasures_topology", topology=sections)["msg"]
    sections["sensors"]["power"]["id"], sections["sensors"]["price"]["id"] = 102, 103
    kept = plain_run("flexmeasures_topology", check=True, topology=sections)
    assert kept["undeclared"]["sensors"] == [{"id": 101, "name": "old", "asset": "Old"}]
    purged = plain_run("flexmeasures_topology", topology=sections, purge=True)
    assert {change["path"]: change["action"] for change in purged["changes"]} == {
        "sensors.old": "delete",
        f"users.{EMAIL}": "update",
        "assets.Bat_01": "create",
        "sensors.power": "create",
        "sensors.price": "create",
        "assets.Old": "delete",
    }
    assert purged["counts"]["delete"] == 2
    assert purged["undeclared"] == {"users": [{"email": READER, "username": "reader"}], "assets": [], "sensors": []}
    assert plain_run("flexmeasures_topology", topology=sections, purge=True)["changed"] is False
    new = {**sections, "account": "New", "users": {}, "sensors": {}}
    assert plain_run("flexmeasures_topology", topology=new)["changed"] is True
    assert "New" in plain.accounts.values()


def test_sensors_can_swap_their_names(plain: FlexMeasures, plain_run: Run) -> None:
    for name in ("a", "b"):
        plain_run("flexmeasures_sensor", **sensor(name=name))
    (one, other) = plain.sensors
    fields = {"unit": "kW", "resolution": "PT1H", "asset": "Site"}
    sensors = {"b": {"id": one, **fields}, "a": {"id": other, **fields}}
    assets = {"Site": {"type": "building"}}
    swapped = topology(sensors=sensors, assets=assets)
    assert "is taken by the sensor a" in plain_run("flexmeasures_topology", **swapped)["msg"]

    def breaks(method: str, _path: str) -> Reply | None:  # after the names in between, before the new ones
        return Reply(403, "no") if method == "PATCH" and len(writes(plain)) > count + 2 else None

    count = len(writes(plain))
    plain.before = breaks
    broken = plain_run("flexmeasures_topology", rename=True, **swapped)
    assert [change["after"]["name"] for change in broken["partial"]] == [f"b (renaming {one})", f"a (renaming {other})"]
    plain.before = lambda _method, _path: None
    assert plain_run("flexmeasures_topology", rename=True, **swapped)["changed"] is True
    assert {id_: row["name"] for id_, row in plain.sensors.items()} == {one: "b", other: "a"}
    assert plain_run("flexmeasures_topology", rename=True, **swapped)["changed"] is False


def test_what_the_api_does_not_take_is_warned_of(
    plain: FlexMeasures, plain_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []  # Ansible itself tells each warning once a process
    monkeypatch.setattr(AnsibleModule, "warn", lambda _self, text: warned.append(text))
    users = {EMAIL: {"username": "admin", "roles": ["admin"]}}
    given = {**topology(users=users, sensors={}), "user_passwords": {EMAIL: PASSWORD}}
    told = plain_run("flexmeasures_topology", **given)
    assert [text.partition(" stay")[0] for text in warned] == [
        f"FlexMeasures' own API does not take {what} of users: those of {EMAIL}" for what in ("roles", "passwords")
    ]
    assert PASSWORD not in told["_printed"]
    nothing = load(ROOT / "library/flexmeasures_topology.py").unheeded({"users": {EMAIL: {"username": "admin"}}}, {})
    assert list(nothing) == []


# --- every way to be refused -----------------------------------------------------------------------------------------


def html(status: int) -> Reply:
    return Reply(status, "<html><body>Sign in</body></html>")


ANSWERS: dict[str, tuple[Reply | Refusal, tuple[str, str]]] = {
    "400": (html(400), ("TRUSTED_HOSTS", "TRUSTED_HOSTS")),
    "401": (Refusal(401, "no"), ("flexmeasures_topology_token", "check email and password")),
    "403": (Refusal(403, "no"), ("something in front", "the right")),
    "404": (html(404), ("load our plugin", "still there")),
    "409": (Refusal(409, "in the way"), ("in the way", "in the way")),
    "429": (Reply(429, "slow", {"Retry-After": "7"}), ("try again", "try again in a minute")),
    "500": (html(500), ("docker logs", "docker logs")),
    "503": (Refusal(503, "away"), ("away", "away")),
    "redirect": (
        Reply(302, "", {"Location": "https://elsewhere.example/"}),
        ("is not sent on to", "is not sent on to"),
    ),
    "empty body": (Reply(200, None), ("not as our plugin does: nothing", "is not its API's")),
    "HTML page": (html(200), ("not as our plugin does", "is not its API's")),
    "JSON of another kind": (Reply(200, "[1, 2]"), ("not as our plugin does", "is not its API's")),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("answer", ANSWERS)
def test_every_other_answer_is_an_error_that_says_what_to_do(
    flexmeasures: FlexMeasures, run: Run, url: str, name: str, answer: str, pauses: list[float]
) -> None:
    reply, said = ANSWERS[answer]

    def always(_method: str, path: str) -> Reply | None:
        if path.endswith("Token"):
            return None
        if isinstance(reply, Refusal):
            raise reply
        return reply

    flexmeasures.before = always
    result = run(name, **OPTIONS[name])
    assert result["failed"] is True
    assert said[0 if flexmeasures.plugin else 1] in result["msg"]
    assert url in result["msg"]
    assert result["http_status"] == reply.status
    assert result["partial"] == []
    assert TOKEN not in result["_printed"]
    assert PASSWORD not in result["_printed"]
    # a login goes before; a new token that is refused is not renewed
    expected = (4 if answer in ("429", "500", "503") else 1) + (not flexmeasures.plugin)
    assert result["api_calls"] == len(flexmeasures.requests) == expected
    if answer == "429":
        assert pauses == [7, 7, 7]


# What is asked of what is there by then (OPTIONS of the asset and the sensor), so that one change is due.
CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "topology created": ("flexmeasures_topology", topology()),
    "topology updated": (
        "flexmeasures_topology",
        topology(assets={"Site": {"type": "building", "latitude": 14.7, "longitude": -61.0}}, sensors={}),
    ),
    "sensor created": ("flexmeasures_sensor", sensor(name="other")),
    "sensor updated": ("flexmeasures_sensor", sensor(unit="MW")),
    "sensor deleted": ("flexmeasures_sensor", {"name": "power", "state": "absent"}),
    "asset created": ("flexmeasures_asset", asset(name="Bat_02")),
    "asset updated": ("flexmeasures_asset", asset(latitude=14.7, longitude=-61.1)),
    "asset deleted": ("flexmeasures_asset", {"name": "Bat_01", "state": "absent"}),
}


def lacking(flexmeasures: FlexMeasures, run: Run, change: str) -> tuple[str, dict[str, Any]]:
    """Module and options of a change that is still to be made."""
    if change != "topology created":
        for name in MODULES[1:3]:
            run(name, **OPTIONS[name])
    flexmeasures.requests.clear()
    flexmeasures.bodies.clear()
    return CHANGES[change]


def to_changes(flexmeasures: FlexMeasures, reply: Reply | Refusal) -> None:
    """Answer every change so, and only those."""

    def before(method: str, path: str) -> Reply | None:
        if method == "GET" or path.endswith("Token"):
            return None
        if isinstance(reply, Refusal):
            raise reply
        return reply

    flexmeasures.before = before


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("answer", ANSWERS)
def test_every_other_answer_to_a_change_is_an_error_too(
    flexmeasures: FlexMeasures, run: Run, url: str, change: str, answer: str
) -> None:
    name, options = lacking(flexmeasures, run, change)
    there = copy.deepcopy((flexmeasures.assets, flexmeasures.sensors))
    reply, said = ANSWERS[answer]
    to_changes(flexmeasures, reply)
    result = run(name, **options)
    assert result["failed"] is True
    assert said[0 if flexmeasures.plugin else 1] in result["msg"]
    assert url in result["msg"]
    assert (result["http_status"], result["partial"]) == (reply.status, [])
    assert result["api_calls"] == len(flexmeasures.requests)
    # a token that is refused after it was taken is renewed once
    passing, renewed = answer in ("429", "500", "503"), answer == "401" and not flexmeasures.plugin
    assert len(writes(flexmeasures)) == (4 if passing else 2 if renewed else 1)
    assert TOKEN not in result["_printed"]
    assert PASSWORD not in result["_printed"]
    flexmeasures.before = lambda _method, _path: None
    assert (flexmeasures.assets, flexmeasures.sensors) == there
    assert run(name, **options)["changed"] is True, "the next run finishes"


@pytest.mark.parametrize("change", ["topology created", "sensor updated", "asset deleted"])
def test_a_change_that_is_never_answered_is_given_up(
    flexmeasures: FlexMeasures, run: Run, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, options = lacking(flexmeasures, run, change)
    for module in (http_api, flexmeasures_client):
        monkeypatch.setattr(module, "TRIES", 2)
    to_changes(flexmeasures, Reply(0, None, after=1.5))
    result = run(name, timeout=1, **options)
    assert (result["failed"], result["http_status"], result["partial"]) == (True, 0, [])
    assert "timed out" in result["msg"]
    assert len(writes(flexmeasures)) == 2


@pytest.mark.parametrize("page", [html(200), Reply(200, "[1, 2]")], ids=["HTML page", "JSON of another kind"])
def test_a_sensor_of_which_nobody_said_whether_it_has_data_stays(
    plain: FlexMeasures, plain_run: Run, page: Reply
) -> None:
    id_ = plain_run("flexmeasures_sensor", **sensor())["sensor"]["id"]
    plain.data.add(id_)
    plain.before = lambda _method, path: page if path.endswith("/stats") else None
    result = plain_run("flexmeasures_sensor", name="power", state="absent")
    assert "this answer is not its API's" in result["msg"]
    assert [*plain.sensors] == [id_]


@pytest.mark.parametrize("name", MODULES)
def test_no_answer_and_no_server_are_said(
    flexmeasures: FlexMeasures,
    run: Run,
    run_module: RunModule,
    name: str,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_api, "TRIES", 2)
    flexmeasures.before = lambda _method, _path: Reply(0, None, after=1.5)
    late = run(name, timeout=1, **OPTIONS[name])
    assert (late["failed"], late["http_status"], late["api_calls"]) == (True, 0, 2)
    assert "did not answer" in late["msg"]
    assert "timed out" in late["msg"]
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        account = {} if name == "flexmeasures_topology" else {"account": "Cariflex"}
        refused = run_module(name, {"url": nobody, **WAYS[way], **account, **OPTIONS[name]})
        assert "refused" in refused["msg"]


@pytest.mark.parametrize("name", MODULES)
def test_a_certificate_has_to_be_trusted(run_module: RunModule, name: str, way: str, certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    secured = FlexMeasures(plugin=way == "plugin")
    with serving(secured, context) as url:
        account = {} if name == "flexmeasures_topology" else {"account": "Cariflex"}
        given = {"url": url, **WAYS[way], **account, **OPTIONS[name]}
        refused = run_module(name, given)
        assert "certificate is not trusted" in refused["msg"]
        assert not secured.requests
        assert run_module(name, {**given, "ca_path": str(certificate)}, check=True)["failed"] is False


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("flexmeasures_sensor", sensor(name=None), "name: is missing"),
        ("flexmeasures_sensor", sensor(name=" x"), "name"),
        ("flexmeasures_sensor", sensor(id=0), "id = 0"),
        ("flexmeasures_sensor", sensor(resolution="5min"), 'resolution = "5min"'),
        ("flexmeasures_sensor", sensor(timezone="Mars"), 'timezone = "Mars"'),
        ("flexmeasures_sensor", sensor(asset="Sit"), "did you mean Site?"),
        ("flexmeasures_sensor", sensor(unit=None), "unit: is missing"),
        ("flexmeasures_sensor", sensor(asset=None), "asset: is missing"),
        ("flexmeasures_sensor", sensor(account="Nobody"), "account = "),
        ("flexmeasures_asset", asset(name=None), "name: is missing"),
        ("flexmeasures_asset", asset(type="batery"), "did you mean battery?"),
        ("flexmeasures_asset", asset(type=None), "type: is missing"),
        ("flexmeasures_asset", asset(parent="Sit"), "did you mean Site?"),
        ("flexmeasures_asset", asset(name="Site", parent="Site"), "part of itself"),
        ("flexmeasures_asset", asset(latitude=91.0, longitude=0.0), "latitude = 91.0"),
        ("flexmeasures_asset", asset(latitude=14.0), "longitude: is missing"),
        ("flexmeasures_asset", asset(id=99), "id = 99"),
        ("flexmeasures_asset", asset(flex_context={"p": [{"start": "2026-01-01T00:00"}]}), "flex_context.p.0.start"),
        ("flexmeasures_topology", topology(users={e: {"username": "x"} for e in ("a@b.c", "d@e.f")}), "username"),
        (
            "flexmeasures_topology",
            topology(assets={"Site": {"type": "building", "flex_model": {"soc-max": [{"end": "2026-01-01"}]}}}),
            "topology.assets.Site.flex_model.soc-max.0.end",
        ),
        ("flexmeasures_info", {"url": "server:5000"}, "is no address"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    flexmeasures: FlexMeasures, run: Run, name: str, options: dict[str, Any], said: str
) -> None:
    result = run(name, **{key: value for key, value in options.items() if value is not None})
    assert result["failed"] is True
    assert said in result["msg"]
    assert not writes(flexmeasures)


def test_of_several_of_a_name_one_has_to_be_chosen(flexmeasures: FlexMeasures, run: Run) -> None:
    run("flexmeasures_asset", **asset())
    for name in ("Site", "Bat_01"):
        run("flexmeasures_sensor", **sensor(asset=name))
    assert "is the name of several sensors" in run("flexmeasures_sensor", name="power", state="absent")["msg"]
    assert run("flexmeasures_sensor", name="power", asset="Site", state="absent")["changed"] is True


@pytest.mark.parametrize("name", MODULES)
def test_a_way_in_is_needed(run_module: RunModule, name: str) -> None:
    account = {} if name == "flexmeasures_topology" else {"account": "Cariflex"}
    given = {"url": "http://127.0.0.1:1", **account, **OPTIONS[name]}
    assert "one of the following is required: token, email" in run_module(name, given)["msg"]
    assert "required together" in run_module(name, {**given, "email": EMAIL})["msg"]
