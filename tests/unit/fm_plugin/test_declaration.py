"""Reading a request: the project's own topology is taken, and every wrong one refused with all its problems."""

import copy
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cariflex.fm_plugin.declaration import DeclarationError, read
from cariflex.fm_plugin.plan import Account, Asset, Problem

ROOT = Path(__file__).parents[3]
KNOWN_UNITS = {"kW", "kWh", "W/m²", "°C", "m/s", "EUR/MWh", "%", "dimensionless"}


def is_unit(unit: str) -> bool:
    return unit in KNOWN_UNITS


def small() -> dict[str, Any]:
    """A request as small as one can be that has everything."""
    return {
        "topology": {
            "account": "Cariflex",
            "timezone": "America/Martinique",
            "users": {"operator@example.org": {"username": "operator", "roles": ["admin"]}},
            "asset_types": {"site": "energy site"},
            "assets": {
                "PV_01": {"type": "solar", "parent": "Site"},
                "Site": {"type": "site", "latitude": 14.6, "longitude": -61.0},
            },
            "sensors": {"pv_01_power": {"id": 41, "unit": "kW", "resolution": "PT5M", "asset": "PV_01"}},
        },
        "passwords": {"operator@example.org": "correct horse"},
    }


def problems(body: object) -> list[Problem]:
    with pytest.raises(DeclarationError) as caught:
        read(body, is_unit)
    return caught.value.problems


def test_the_projects_own_topology_is_taken() -> None:
    declared = yaml.safe_load((ROOT / "playbooks/vars/topology.yml").read_text())["topology_declared"]
    sections = ("account", "users", "asset_types", "assets", "sensors")
    topology = {"timezone": declared["site"]["timezone"], **{name: declared[name] for name in sections}}
    state = read({"topology": topology}, is_unit).state
    assert len(state.sensors) == len(declared["sensors"])
    assert {id_: (s.name, s.unit) for id_, s in state.sensors.items()} == {
        s["id"]: (name, s["unit"]) for name, s in declared["sensors"].items()
    }


def test_a_request_becomes_a_state() -> None:
    declaration = read(small(), is_unit)
    assert declaration.dry_run is False
    assert declaration.passwords == {"operator@example.org": "correct horse"}
    state = declaration.state
    assert state.accounts == {"Cariflex": Account()}
    assert list(state.assets) == ["Site", "PV_01"], "parents come first"
    assert state.assets["PV_01"] == Asset("solar", "Site", 14.6, -61.0), "its parent's coordinates"
    assert state.sensors[41].resolution == timedelta(minutes=5)
    assert state.sensors[41].timezone == "America/Martinique"


def changed(path: str, value: Any) -> dict[str, Any]:
    """The small request with one value replaced."""
    body = small()
    *parents, last = path.split("/")
    target = body
    for parent in parents:
        target = target[parent]
    target[last] = value
    return body


SENSOR = {"id": 41, "unit": "kW", "resolution": "PT5M", "asset": "PV_01"}


@pytest.mark.parametrize(
    ("path", "value", "where", "what"),
    [
        ("topology/acount", "x", "acount", "not known"),
        ("topology/account", "", "account", "at least 1 character"),
        ("topology/account", None, "account", "string"),
        ("topology/timezone", "America/Martinik", "timezone", "no known timezone"),
        ("topology/timezone", "../etc/passwd", "timezone", "no known timezone"),
        ("topology/users/operator@example.org/roles", "admin", "users.operator@example.org.roles", "list"),
        (
            "topology/users/second@example.org",
            {"username": "operator"},
            "users.second@example.org.username",
            "the same",
        ),
        ("topology/assets/PV_01/parent", "Sit", "assets.PV_01.parent", "no declared asset"),
        ("topology/assets/Site/parent", "PV_01", "assets.PV_01.parent", "part of itself"),
        ("topology/assets/Site/latitude", 91, "assets.Site.latitude", "less than or equal to 90"),
        ("topology/assets/Site/latitude", None, "assets.Site", "one coordinate of two"),
        ("topology/assets/Site/latitude", float("nan"), "assets.Site.latitude", "finite number"),
        ("topology/sensors/pv_01_power/id", 0, "sensors.pv_01_power.id", "greater than or equal to 1"),
        ("topology/sensors/pv_01_power/id", 2**31, "sensors.pv_01_power.id", "less than or equal to"),
        ("topology/sensors/pv_01_power/id", "41", "sensors.pv_01_power.id", "integer"),
        ("topology/sensors/pv_01_power/id", True, "sensors.pv_01_power.id", "integer"),
        ("topology/sensors/pv_01_power/unit", "W/m2", "sensors.pv_01_power.unit", "no unit"),
        ("topology/sensors/pv_01_power/resolution", "5min", "sensors.pv_01_power.resolution", "ISO 8601"),
        ("topology/sensors/pv_01_power/asset", "PV_1", "sensors.pv_01_power.asset", "no declared asset"),
        ("topology/sensors/pv_01_power/timezone", "Mars", "sensors.pv_01_power.timezone", "no known timezone"),
        ("topology/sensors/second", SENSOR, "sensors.second.id", "the same as sensors.pv_01_power.id"),
        ("passwords/nobody@example.org", "correct horse", "passwords.nobody@example.org", "no declared user"),
        ("passwords/operator@example.org", "short", "passwords.operator@example.org", "at least 8"),
        ("remove", True, "remove", "valid dictionary"),
        ("remove", {"users": ["a@b.c"]}, "remove.users", "not known"),
        ("dry_run", "yes", "dry_run", "boolean"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path_and_a_fix(path: str, value: Any, where: str, what: str) -> None:
    found = {problem.path: problem for problem in problems(changed(path, value))}
    assert what.lower() in found[where].problem.lower()
    assert found[where].fix


def test_every_problem_is_named_at_once() -> None:
    body = changed("topology/sensors/pv_01_power/unit", "Mw")
    body["topology"]["sensors"]["pv_01_power"]["asset"] = "PV_1"
    body["topology"]["assets"]["PV_01"]["parent"] = "Sit"
    assert {problem.path for problem in problems(body)} == {
        "assets.PV_01.parent",
        "sensors.pv_01_power.asset",
        "sensors.pv_01_power.unit",
    }


@pytest.mark.parametrize("password", ["hunter2", "", 12345678, None, ["hunter22"], {"hunter22": 1}])
def test_a_password_is_never_repeated(password: object) -> None:
    body = changed("passwords/operator@example.org", password)
    body["topology"]["sensors"]["pv_01_power"]["unit"] = "Mw"
    assert "hunter2" not in repr(problems(body))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, st.data())
def test_whatever_stands_anywhere_is_taken_or_refused(value: Any, data: st.DataObject) -> None:
    body: Any = copy.deepcopy(small())
    target, key = body, None
    while isinstance(target, dict) and target and (key is None or data.draw(st.booleans())):
        parent, key = target, data.draw(st.sampled_from(sorted(target)))
        target = parent[key]
    parent[key] = value
    problems_found: list[Problem] | None = None
    try:
        read(body, is_unit)
    except DeclarationError as refused:
        problems_found = refused.problems
    assert problems_found is None or problems_found != []
    json.dumps([problem._asdict() for problem in problems_found or ()], allow_nan=False)


def test_settings_of_the_scheduler_name_sensors_and_become_ids() -> None:
    body = small()
    assets = body["topology"]["assets"]
    assets["Site"]["flex_context"] = {"consumption-price": {"sensor": "pv_01_power"}, "x": [{"sensor": 7}]}
    assets["PV_01"]["flex_model"] = {"soc-max": "100 kWh"}
    body["topology"]["sensors"]["pv_01_power"]["attributes"] = {"capacity_in_mw": 0.05}
    state = read(body, is_unit).state
    assert state.assets["Site"].flex_context == {"consumption-price": {"sensor": 41}, "x": [{"sensor": 7}]}
    assert state.assets["Site"].flex_model is None, "not declared, so left as it is"
    assert state.assets["PV_01"].flex_model == {"soc-max": "100 kWh"}
    assert state.sensors[41].attributes == {"capacity_in_mw": 0.05}


def test_what_flexmeasures_refuses_of_them_is_named() -> None:
    body = small()
    body["topology"]["assets"]["Site"]["flex_context"] = {"a": [{"sensor": "pv_1_power"}]}
    assert [(p.path, p.value, p.fix) for p in problems(body)] == [
        ("assets.Site.flex_context.a.0.sensor", "pv_1_power", "write pv_01_power")
    ]
    body["topology"]["assets"]["Site"]["flex_context"] = {"soc": 1}
    with pytest.raises(DeclarationError) as caught:
        read(body, is_unit, lambda which, given: dict.fromkeys(given, f"not in a {which}"))
    assert [(p.path, p.value, p.problem) for p in caught.value.problems] == [
        ("assets.Site.flex_context.soc", 1, "not in a flex_context")
    ]
