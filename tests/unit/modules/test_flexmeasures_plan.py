"""Planning for FlexMeasures' own API: what must be true of every plan."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .conftest import ROOT  # noqa: F401 - makes our module_utils importable

from ansible.module_utils.flexmeasures_plan import (  # isort: skip
    Change,
    Entities,
    Key,
    apply,
    below,
    canonical,
    naive_times,
    plan,
    removal_conflicts,
    undeclared,
    wanted,
    with_names,
)

names = st.sampled_from(["Site", "Bat_01", "PV_01", "Été 2"])
settings = st.none() | st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 2), max_size=2)
numbers = st.none() | st.floats(-90, 90)
assets = st.fixed_dictionaries(
    {"type": names, "parent": st.none() | names, "latitude": numbers, "longitude": numbers, "attributes": settings}
)
sensors = st.fixed_dictionaries(
    {"name": names, "unit": st.sampled_from(["kW", "%"]), "resolution": st.just("PT1H"), "asset": names}
    | {"attributes": settings}
)
users = st.fixed_dictionaries({"username": names})


@st.composite
def entities(draw: st.DrawFn) -> dict[Key, dict[str, Any]]:
    """Some of everything."""
    found: dict[Key, dict[str, Any]] = {}
    for kind, keys, fields in (
        ("users", names, users),
        ("assets", names, assets),
        ("sensors", st.integers(1, 5), sensors),
    ):
        drawn: dict[Any, Any] = draw(st.dictionaries(keys, fields, max_size=4))
        for key, value in drawn.items():
            found[kind, key] = value
    return found


def full(of: Entities) -> dict[Key, dict[str, Any]]:
    """As FlexMeasures has it: settings are never None there."""
    return {
        key: {name: {} if name == "attributes" and value is None else value for name, value in fields.items()}
        for key, fields in of.items()
    }


@given(entities(), entities(), st.data())
def test_a_plan_makes_what_is_declared_and_then_nothing_is_left_to_do(
    before: Entities, desired: Entities, data: st.DataObject
) -> None:
    current = full(before)
    removed = data.draw(st.lists(st.sampled_from(sorted(current, key=str)), unique=True)) if current else []
    after = apply(current, plan(current, desired, removed))
    for key, fields in desired.items():
        assert all(after[key][name] == value for name, value in fields.items() if value is not None)
    assert plan(after, desired, removed) == []
    assert after.keys() == (current.keys() - set(removed)) | desired.keys()
    for key in current.keys() - desired.keys() - set(removed):
        assert after[key] == current[key], "what nobody declared is left alone"


@given(entities())
def test_a_plan_for_what_is_there_is_empty(before: Entities) -> None:
    current = full(before)
    assert plan(current, current) == []
    assert undeclared(current, current) == []


@given(entities(), entities())
def test_every_change_names_exactly_what_differs(before: Entities, desired: Entities) -> None:
    for change in plan(full(before), desired):
        told = change.told()
        assert set(change.differences()) <= {*told["before"], *told["after"]}
        assert change.before is None or change.after is None or change.differences()
        assert told["action"] == ("create" if change.before is None else "update")


@given(entities())
def test_names_given_and_given_back_change_nothing(before: Entities) -> None:
    current = full(before)
    assert with_names(with_names(current, {"Site": "New"}), {"New": "Site"}) == current


@given(entities(), names)
def test_what_goes_with_an_asset_leaves_nothing_that_hangs_in_the_air(before: Entities, name: str) -> None:
    current = full(before)
    gone = set(below(current, [name]))
    left = apply(current, [Change(*key, current[key], None) for key in gone])
    for (kind, _), fields in left.items():
        place = {"assets": "parent", "sensors": "asset"}.get(kind)
        assert place is None or fields[place] != name or ("assets", name) not in current


@pytest.mark.parametrize(
    ("given_", "shortest"),
    [
        ("PT60M", "PT1H"),
        ("PT86400S", "P1D"),
        ("P1W", "P7D"),
        ("PT0S", "PT0S"),
        ("P1DT90M", "P1DT1H30M"),
        ("P1M", "P1M"),
    ],
)
def test_durations_are_compared_in_their_shortest_form(given_: str, shortest: str) -> None:
    assert canonical(given_) == shortest
    assert canonical(shortest) == shortest


def test_a_declaration_names_coordinates_of_its_parents_and_sensors_by_id() -> None:
    declared = wanted(
        {
            "account": "Cariflex",
            "timezone": "UTC",
            "users": {"a@b.c": {"username": "a", "roles": []}},
            "assets": {
                "Bat": {"type": "battery", "parent": "Site", "flex_model": {"soc-max": [{"sensor": "power"}]}},
                "Site": {"type": "building", "latitude": 1.0, "longitude": 2.0},
            },
            "sensors": {"power": {"id": 5, "unit": "kW", "resolution": "PT60M", "asset": "Bat"}},
        }
    )
    assert [*declared] == [
        ("accounts", "Cariflex"),
        ("users", "a@b.c"),
        ("assets", "Site"),
        ("assets", "Bat"),
        ("sensors", 5),
    ]
    assert declared["assets", "Bat"]["latitude"] == 1.0
    assert declared["assets", "Bat"]["flex_model"] == {"soc-max": [{"sensor": 5}]}


def test_times_have_a_timezone() -> None:
    found = list(
        naive_times({"a": [{"start": "2026-01-01T00:00", "end": "2026-01-01T00:00Z"}], "datetime": "now"}, "x")
    )
    assert [problem.variable for problem in found] == ["x.a.0.start"]


def test_what_is_declared_or_below_is_not_removed() -> None:
    current: Entities = {
        ("assets", "Site"): {"parent": None},
        ("assets", "Bat"): {"parent": "Site"},
        ("sensors", 1): {"name": "power", "asset": "Bat"},
    }
    told: list[Key] = [("assets", "Site")]
    removed = below(current, ["Site"])
    texts = [str(each) for each in removal_conflicts(current, {}, told, removed, {1: True}, force=False)]
    assert [text.partition(":")[0] for text in texts] == ["assets.Bat", "sensors.power"]
    assert not list(removal_conflicts(current, {}, told, removed, {1: True}, force=True))
    declared: Entities = {("assets", "Bat"): {}}
    (problem,) = removal_conflicts(current, declared, told, removed, {}, force=True)
    assert "is declared" in problem.problem
