"""The topology's rules: each mistake is found, named by its path, and comes with its fix; nothing else is reported."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.topology_rules import combined, override_problems, topology_problems, without_nulls
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PROJECT = Path(__file__).resolve().parents[3]


def changed(topology: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """The topology with one value set; path parts are separated by slashes, since names may contain dots."""
    spoiled = copy.deepcopy(topology)
    *parents, last = path.split("/")
    at = spoiled
    for key in parents:
        at = at[key]
    at[last] = value
    return spoiled


def test_declared_topology_is_valid(topology: dict[str, Any]) -> None:
    assert topology_problems(topology) == []


# path, value, part of the problem, part of the fix; the problem is expected at the path.
MISTAKES = [
    ("networks/openadr-internal/subnet", "192.168.240.0", "no subnet in CIDR form", "192.168.240.0/24"),
    ("networks/openadr-internal/subnet", "192.168.240.1/24", "has host bits set", "write 192.168.240.0/24"),
    ("networks/openadr-internal/subnet", "192.168.240.0/33", "no subnet in CIDR form", "prefix length"),
    ("networks/openadr-internal/subnet", 24, "no subnet in CIDR form", "prefix length"),
    ("networks/traefik-public/subnet", "8.8.8.0/24", "in use on the internet", "10.0.0.0/8"),
    ("networks/traefik-public/subnet", "10.0.0.0/30", "too small", "/29"),
    ("networks/flexmeasures-internal/subnet", "172.29.4.0/24", "overlaps topology.networks.traefik-public", "no other"),
    ("networks/openadr-internal/reserved", "192.168.241.1-192.168.241.9", "not within", "192.168.240.2"),
    ("networks/openadr-internal/reserved", "192.168.240.9-192.168.240.2", "no address range", "first-last"),
    ("networks/openadr-internal/internal", "yes", "not true or false", "without quotes"),
    ("containers/openadr-vtn/networks/openadr-internal", "192.168.1.10", "not within", "192.168.240.0/24"),
    ("containers/openadr-vtn/networks/openadr-internal", "192.168.240.0", "network or broadcast", "free address"),
    ("containers/openadr-vtn/networks/openadr-internal", "192.168.240.1", "gateway", "free address"),
    ("containers/openadr-vtn/networks/openadr-internal", "192.168.240.130", "reserved range", "free address"),
    ("containers/openadr-vtn/networks/openadr-internal", "192.168.240.1O", "no IPv4 address", "192.168.240.10"),
    ("containers/openadr-ven/networks/openadr-internal", "192.168.240.10", "same IP address as", "of its own"),
    ("containers/openadr-vtn/networks/openadr-internl", None, "not declared", "did you mean openadr-internal?"),
    ("containers/openadr-vtn/port", 80800, "not a whole number from 1 to 65535", "1 to 65535"),
    ("containers/openadr-vtn/ports", 8080, "unknown key", "did you mean port?"),
    ("sensors/pv_02_power/id", 41, "same sensor id as topology.sensors.pv_01_power.id", "such as 112"),
    ("sensors/pv_02_power/id", "42", "not a whole number", "without quotes"),
    ("sensors/pv_02_power/id", True, "not a whole number", "without quotes"),
    ("sensors/pv_02_power/unit", "kw", "no unit that FlexMeasures knows", "write kW"),
    ("sensors/pv_02_power/resolution", "5 minutes", "no ISO 8601 duration", "PT5M"),
    ("sensors/pv_02_power/resolution", "P1M", "no ISO 8601 duration of fixed length", "PT5M"),
    ("sensors/pv_02_power/asset", "PV_2", "names no declared asset", "did you mean PV_02?"),
    ("sensors/pv_02_power/units", "kW", "unknown key", "did you mean unit?"),
    ("assets/PV_01/parent", "Cariflx", "names no declared asset", "did you mean Cariflex?"),
    ("assets/Cariflex/parent", "PV_01", "part of itself", "break the loop"),
    ("assets/PV_01/type", "solr", "no declared asset type", "did you mean solar?"),
    ("assets/PV_01/latitude", 91, "out of range", "-90 to 90"),
    ("assets/PV_01/longitude", "-61", "not a number", "without quotes"),
    ("site/latitude", -90.5, "out of range", "-90 to 90"),
    ("site/timezone", "America/Martinque", "no known timezone", "America/Martinique"),
    ("site/timezone", 4, "no known timezone", "tz database"),
    ("domains/grafana", "https://grafana.example.org", "no hostname", "no scheme"),
    ("domains/grafana", "under_score.example.org", "no hostname", "underscore"),
    ("domains/grafana", "Cariflex.localhost", "same domain as topology.domains.flexmeasures", "of its own"),
    ("openadr/vtn_id", "cariflex", "all lowercase", "capital"),
    ("openadr/path", "OpenADR2", "no path", "/OpenADR2/Simple/2.0b"),
    ("openadr/poll_seconds", 0, "not a whole number from 1", "1 to 3600"),
    ("openadr/signals/ENERGY_PRICE", "consumption_prce", "names no declared sensor", "did you mean consumption_price?"),
    ("s2_resources/ev_01/plan_sensor", "ev_01_power_kW", "names no declared sensor", "did you mean ev_01_power_kw?"),
    (
        "s2_resources/ev_01/plan_sensor",
        "ev_02_power_kw",
        "belongs to the asset EV_02, not to EV_01",
        "a sensor of EV_01",
    ),
    ("s2_resources/ev_01/plan_sensor", "ev_01_power", "is in kWh", "name a sensor in kW"),
    ("schedules/consumption_price", "consumption_prce", "names no declared sensor", "consumption_price"),
    ("schedules/production_price", "irradiance", "is in W/m²", "name a sensor in EUR/MWh"),
    ("schedules/consumption", "temperature", "is not a list", "[a, b]"),
    ("schedules/every", "15 minutes", "no ISO 8601 duration", "PT5M"),
    ("schedules/roundtrip_efficiency", 90, "out of range", "from 0.01 to 1"),
    ("sensors/ev_01_power_kw/resolution", "PT5M", "is another than of other plans", "write PT15M"),
    ("s2_resources/ev_01/sensor", "ev_1_power", "names no declared sensor", "did you mean ev_01_power?"),
    ("s2_resources/ev_01/asset", "EV_1", "names no declared asset", "did you mean EV_01?"),
    ("s2_resources/ev_01/sensor", "pv_01_power", "belongs to the asset PV_01, not to EV_01", "a sensor of EV_01"),
    ("s2_resources/ev_01/min_kw", 22, "not below topology.s2_resources.ev_01.max_kw", "lower limit in min_kw"),
    ("s2_resources/ev_01/energy_kwh", 0, "out of range", "kWh from 0.001"),
    ("s2_resources/ev_01/max_kw", "22 kW", "not a number", "without quotes"),
    ("users/admin@digitribe.fr/roles", "admin", "not a list", "[a, b]"),
    ("account", "", "no name", "1 to 80"),
    ("sensor", {}, "unknown key", "did you mean sensors?"),
    ("sensors", [], "not a mapping", "key: value"),
]


@pytest.mark.parametrize(("path", "value", "problem", "fix"), MISTAKES, ids=[f"{m[0]}={m[1]}" for m in MISTAKES])
def test_mistake_is_named(topology: dict[str, Any], path: str, value: object, problem: str, fix: str) -> None:
    found = topology_problems(changed(topology, path, value))
    variable = "topology." + path.replace("/", ".")
    matching = [entry for entry in found if entry.variable == variable and problem in entry.problem]
    assert matching, f"nothing at {variable}: {found}"
    assert fix in matching[0].fix


def test_a_plan_counts_power_as_what_the_site_consumes(topology: dict[str, Any]) -> None:
    (found,) = topology_problems(changed(topology, "schedules/consumption", ["pv_01_power", "temperature"]))
    assert (found.variable, found.problem) == ("topology.schedules.consumption.1", "is in °C")


def test_without_schedules_nothing_is_planned_and_that_is_right(topology: dict[str, Any]) -> None:
    del topology["schedules"]
    assert topology_problems(topology) == []


HOUR = {"from": "08:00", "to": "09:00"}


@pytest.mark.parametrize(
    ("rule", "variable", "problem"),
    [
        ({}, "", "would refuse every event"),
        ({"start": "2027-03-01T08:00"}, "", "has one of start and end"),
        ({"start": "2027-03-01T08:00", "end": "2027-03-01T07:00"}, "", "ends before it starts"),
        ({"start": "2027-03-01T08:00Z", "end": "2027-03-01T09:00"}, "", "a timezone in one of start and end"),
        ({"start": "soon", "end": "2027-03-01T09:00"}, ".start", "is no time"),
        ({"days": ["mon"]}, "", "has days and no times"),
        ({"days": ["monday"], **HOUR}, ".days.0", "is no day of the week"),
        ({"from": 1320, "to": "23:00"}, ".from", "is no time of day"),
        ({"from": "08:00"}, "", "has one of from and to"),
        ({"from": "08:00", "to": "08:00"}, "", "covers no time"),
        ({**HOUR, "start": "2027-03-01T08:00", "end": "2027-03-01T09:00"}, "", "has start and from"),
        ({"signals": ["LOAD_CONTROLL"]}, ".signals.0", "is no OpenADR 2.0b signal"),
        ({"above": 3}, "", "has a limit for no or several signals"),
        ({"signals": ["SIMPLE"], "above": "much"}, ".above", "is not a number"),
        ({"signals": ["SIMPLE"], "until": 3}, ".until", "is an unknown key"),
        ({**HOUR, "reason": ""}, ".reason", "is not a text"),
    ],
)
def test_a_rule_to_opt_out_that_makes_no_sense(
    topology: dict[str, Any], rule: dict[str, Any], variable: str, problem: str
) -> None:
    """As the VEN judges it at its start (tests/unit/services/test_policy.py), before anything is deployed."""
    found = topology_problems(changed(topology, "openadr/opt_out", [{"reason": "because", **rule}]))
    named = [entry for entry in found if entry.variable == f"topology.openadr.opt_out.0{variable}"]
    assert [entry for entry in named if problem in entry.problem], found
    assert all(entry.fix for entry in named)


def test_rules_to_opt_out_that_make_sense(topology: dict[str, Any]) -> None:
    rules = [
        {"reason": "inverter swap", "start": "2027-03-01T08:00", "end": "2027-03-01T17:00"},
        {"reason": "night", "days": ["sat", "sun"], "from": "22:00", "to": "06:00", "signals": ["LOAD_CONTROL"]},
        {"reason": "too much", "signals": ["LOAD_DISPATCH"], "above": 100, "below": -100},
        {"reason": "never", "signals": ["CHARGE_STATE", "SIMPLE"]},
    ]
    assert topology_problems(changed(topology, "openadr/opt_out", rules)) == []


def test_signal_that_openadr_does_not_have(topology: dict[str, Any]) -> None:
    (found,) = topology_problems(changed(topology, "openadr/signals/ENERGYPRICE", "consumption_price"))
    assert found.variable == "topology.openadr.signals.ENERGYPRICE"
    assert found.fix == "did you mean ENERGY_PRICE?"


def test_groups_of_a_ven_are_a_list_of_names(topology: dict[str, Any]) -> None:
    path = "openadr/vens/Cariflex-VEN-001/groups"
    assert topology_problems(changed(topology, path, ["north", "sea-side"])) == []
    for wrong, variable in (("north", "groups"), (["group:north"], "groups.0")):
        (found,) = topology_problems(changed(topology, path, wrong))
        assert found.variable == f"topology.openadr.vens.Cariflex-VEN-001.{variable}"


def test_missing_section_is_named(topology: dict[str, Any]) -> None:
    del topology["openadr"]["vens"]
    (found,) = topology_problems(topology)
    assert (found.variable, found.value, found.problem) == ("topology.openadr.vens", None, "is missing")


def test_all_problems_come_at_once(topology: dict[str, Any]) -> None:
    topology["sensors"]["pv_01_power"].update(id=0, unit="kw", resolution="5M", asset="nowhere")
    topology["site"]["timezone"] = "Mars/Olympus"
    found = {problem.variable.removeprefix("topology.") for problem in topology_problems(topology)}
    wrong = {"id", "unit", "resolution", "asset"}
    assert found == {"site.timezone", *(f"sensors.pv_01_power.{key}" for key in wrong)}


def test_unit_that_the_operator_allows(topology: dict[str, Any]) -> None:
    spoiled = changed(topology, "sensors/pv_01_power/unit", "furlong")
    assert topology_problems(spoiled)
    assert topology_problems(spoiled, units_allowed=["furlong"]) == []


def test_message_names_variable_value_and_fix(topology: dict[str, Any]) -> None:
    (found,) = topology_problems(changed(topology, "sensors/pv_01_power/unit", "kw"))
    expected = 'topology.sensors.pv_01_power.unit = "kw": is no unit that FlexMeasures knows. Fix: write kW.'
    assert str(found) == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["10.0.0.0/31", "0.0.0.0/0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=8,
)
DECLARED = yaml.safe_load((PROJECT / "playbooks/vars/topology.yml").read_text(encoding="utf-8"))["topology_declared"]


@st.composite
def spoiled_topologies(draw: st.DrawFn) -> dict[str, Any]:
    """The declared topology with anything at all in one to three places, at any depth."""
    spoiled: dict[str, Any] = copy.deepcopy(DECLARED)
    for _ in range(draw(st.integers(1, 3))):
        at = spoiled
        while True:
            key = draw(st.sampled_from(sorted(at, key=str))) if at else "first"
            if isinstance(at.get(key), dict) and draw(st.integers(0, 3)):
                at = at[key]
            else:
                break
        at[draw(st.sampled_from([key, "added"]))] = draw(json_values)
    return spoiled


@given(spoiled_topologies())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_input_makes_the_rules_fail(spoiled: dict[str, Any]) -> None:
    for problem in topology_problems(spoiled):
        assert problem.variable.startswith("topology")
        assert problem.problem
        assert problem.fix
    assert override_problems(DECLARED, spoiled) is not None


@given(json_values)
def test_no_topology_at_all_is_refused(nothing: object) -> None:
    assert topology_problems(nothing)


# --- an environment's differences ----------------------------------------------------------------------------------


def test_override_changes_adds_and_removes(topology: dict[str, Any]) -> None:
    overrides = {
        "domains": {"grafana": "grafana.example.org"},
        "sensors": {"irradiance": None, "extra": {"id": 201, "unit": "kW", "resolution": "PT5M", "asset": "PV_01"}},
        "feeds": {"weather": {"irradiance": None}},  # which would feed a sensor that is gone
    }
    result = combined(topology, overrides)
    assert override_problems(topology, overrides) == []
    assert topology_problems(result) == []
    assert result["domains"] == {"flexmeasures": "cariflex.localhost", "grafana": "grafana.example.org"}
    assert "irradiance" not in result["sensors"]
    assert result["sensors"]["extra"]["id"] == 201
    assert "irradiance" in topology["sensors"]


def test_null_address_is_kept_because_docker_chooses_it(topology: dict[str, Any]) -> None:
    overrides = {"containers": {"flexmeasures-db": {"networks": {"traefik-public": None}, "port": None}}}
    database = combined(topology, overrides)["containers"]["flexmeasures-db"]
    assert database == {"networks": {"flexmeasures-internal": None, "traefik-public": None}}
    assert override_problems(topology, overrides) == []


def test_without_feeds_their_container_goes_too(topology: dict[str, Any]) -> None:
    for overrides in ({"feeds": None}, {"feeds": None, "containers": {"cariflex-feeds": None}}):
        result = combined(topology, overrides)
        assert "feeds" not in result
        assert set(topology["containers"]) - set(result["containers"]) == {"cariflex-feeds"}
        assert override_problems(topology, overrides) == topology_problems(result) == []


def test_without_nulls_keeps_everything_else(topology: dict[str, Any]) -> None:
    assert without_nulls(topology) == topology


def test_removal_of_what_is_not_there() -> None:
    (found,) = override_problems({"sensors": {"irradiance": {}}}, {"sensors": {"iradiance": None}})
    assert found.variable == "topology_overrides.sensors.iradiance"
    assert found.fix == "did you mean irradiance?"


@pytest.mark.parametrize("overrides", ["domains", ["domains"], 1])
def test_overrides_that_are_no_mapping(overrides: object) -> None:
    (found,) = override_problems({}, overrides)
    assert (found.variable, found.problem) == ("topology_overrides", "is not a mapping")
