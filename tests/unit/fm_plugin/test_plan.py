"""Planning: what must be true of every plan, and every reason for which FlexMeasures cannot take a topology."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cariflex.fm_plugin.plan import (
    DIFFERENT,
    Account,
    Asset,
    Described,
    Problem,
    Sensor,
    State,
    User,
    apply,
    below,
    conflicts,
    plan,
    removal_conflicts,
    undeclared,
    with_names,
    with_standard,
)

names = st.sampled_from(["Cariflex", "Bat_01", "PV_01", "Été 2", "x"])
users = st.builds(
    User, names, names, st.lists(names, max_size=2).map(tuple), st.sampled_from([DIFFERENT, "as declared"])
)
assets = st.builds(Asset, names, st.none() | names, st.none() | st.floats(-90, 90), st.none() | st.floats(-180, 180))
sensors = st.builds(
    Sensor,
    names,
    st.sampled_from(["kW", "W/m²", "%"]),
    st.integers(0, 10**6).map(lambda seconds: timedelta(seconds=seconds)),
    st.sampled_from(["America/Martinique", "UTC"]),
    names,
    st.none() | names,
)
states = st.builds(
    State,
    accounts=st.dictionaries(names, st.just(Account())),
    roles=st.dictionaries(names, st.builds(Described, names)),
    asset_types=st.dictionaries(names, st.builds(Described, names)),
    users=st.dictionaries(names, users),
    assets=st.dictionaries(names, assets),
    sensors=st.dictionaries(st.integers(1, 5), sensors),
)


@given(states, states)
def test_a_plan_reaches_what_is_declared_and_leaves_the_rest_alone(current: State, desired: State) -> None:
    after = {(kind, key): entity for kind, key, entity in apply(current, plan(current, desired)).items()}
    before = {(kind, key): entity for kind, key, entity in current.items()}
    declared = {(kind, key): entity for kind, key, entity in desired.items()}
    assert after == {**before, **declared}


@given(states, states)
def test_nothing_is_left_to_do_after_a_plan(current: State, desired: State) -> None:
    assert plan(apply(current, plan(current, desired)), desired) == []
    assert plan(desired, desired) == []


@given(states, states)
def test_every_change_names_exactly_what_differs(current: State, desired: State) -> None:
    for change in plan(current, desired):
        differences = change.differences()
        if change.before is None:
            assert all(old is None for old, _ in differences.values())
        else:
            assert replace(change.before, **{name: new for name, (_, new) in differences.items()}) == change.after
            assert differences


def test_a_new_sensor_shows_its_id() -> None:
    (change,) = plan(State(), State(sensors={41: SENSOR}))
    assert change.path == "sensors.pv_01_power"
    assert change.differences()["id"] == (None, 41)


SENSOR = Sensor("pv_01_power", "kW", timedelta(minutes=5), "America/Martinique", "PV_01", "Cariflex")
OPERATOR = User("Cariflex", "operator", ("admin",))
DESIRED = State(
    accounts={"Cariflex": Account()},
    roles={"admin": Described("Super user")},
    asset_types={"solar": Described("solar panel(s)")},
    users={"operator@example.org": OPERATOR},
    assets={"PV_01": Asset("solar", None, 14.6, -61.0)},
    sensors={41: SENSOR},
)


def found(current: State, desired: State = DESIRED, **facts: Any) -> list[Problem]:
    given_: dict[str, Any] = {
        "ambiguous_assets": {},
        "passwords": {"operator@example.org"},
        "with_data": set(),
        **facts,
    }
    return conflicts(current, desired, **given_)


def test_an_empty_flexmeasures_and_an_equal_one_take_the_topology() -> None:
    assert found(State()) == []
    assert found(DESIRED, passwords=()) == []


def other(**fields: Any) -> State:
    """FlexMeasures as declared, but for one sensor."""
    return replace(DESIRED, sensors={41: replace(SENSOR, **fields)})


@pytest.mark.parametrize(
    ("current", "facts", "path", "text"),
    [
        (State(), {"passwords": ()}, "users.operator@example.org", "no password"),
        (
            replace(DESIRED, users={"operator@example.org": replace(OPERATOR, account="Other")}),
            {},
            "users.operator@example.org",
            "a user of the account Other",
        ),
        (
            State(users={"somebody@example.org": OPERATOR}),
            {},
            "users.operator@example.org.username",
            "the username of somebody@example.org",
        ),
        (DESIRED, {"ambiguous_assets": {"PV_01": (3, 9)}}, "assets.PV_01", "several assets of the account: 3, 9"),
        (other(name="grid"), {}, "sensors.pv_01_power.id", "taken by the sensor grid on the asset PV_01"),
        (other(account="Other"), {}, "sensors.pv_01_power.id", "of the account Other"),
        (State(sensors={7: SENSOR}), {}, "sensors.pv_01_power.id", "with the id 7"),
        (other(unit="MW"), {"with_data": {41}}, "sensors.pv_01_power.unit", "differs from MW"),
        (
            other(resolution=timedelta(hours=1)),
            {"with_data": {41}},
            "sensors.pv_01_power.resolution",
            "differs from PT1H",
        ),
    ],
)
def test_what_is_in_the_way_is_named(current: State, facts: dict[str, Any], path: str, text: str) -> None:
    (problem,) = found(current, **facts)
    assert problem.path == path
    assert text in problem.problem
    assert problem.fix


def test_unit_and_resolution_of_a_sensor_without_data_may_change() -> None:
    assert found(other(unit="MW", resolution=timedelta(hours=1))) == []


def test_two_users_may_exchange_their_usernames() -> None:
    one, two = User("Cariflex", "one", ()), User("Cariflex", "two", ())
    current = State(users={"a@example.org": one, "b@example.org": two})
    assert found(current, State(users={"a@example.org": two, "b@example.org": one})) == []


def test_all_problems_are_named_at_once() -> None:
    assert len(found(other(unit="MW", resolution=timedelta(0)), passwords=(), with_data={41})) == 2


def test_types_and_roles_that_flexmeasures_brings_are_created_when_missing() -> None:
    declared = State(
        users={"a@example.org": User("Cariflex", "a", ("admin",))},
        assets={"Bat_01": Asset("battery", None, None, None), "Site": Asset("site", None, None, None)},
        asset_types={"site": Described("energy site")},
    )
    completed = with_standard(declared, State(asset_types={"battery": Described("as it is")}))
    assert completed.roles == {"admin": Described("Super user")}
    assert completed.asset_types == {"battery": Described("as it is"), "site": Described("energy site")}


@pytest.mark.parametrize(
    ("desired", "path", "fix"),
    [
        (State(assets={"Bat_01": Asset("batery", None, None, None)}), "assets.Bat_01.type", "battery"),
        (State(users={"a@example.org": User("Cariflex", "a", ("amdin",))}), "users.a@example.org.roles", "admin"),
    ],
)
def test_an_unknown_type_or_role_comes_with_the_nearest_known(desired: State, path: str, fix: str) -> None:
    current = State(users={"a@example.org": User("Cariflex", "a", ())})
    (problem,) = found(current, with_standard(desired, current))
    assert problem.path == path
    assert fix in problem.fix


def test_what_is_not_declared_is_listed_but_only_of_the_account() -> None:
    current = replace(
        DESIRED,
        users={**DESIRED.users, "b@example.org": User("Cariflex", "b", ()), "c@example.org": User("Other", "c", ())},
        assets={**DESIRED.assets, "Old": Asset("solar", None, None, None)},
        sensors={**DESIRED.sensors, 1: replace(SENSOR, name="old"), 2: replace(SENSOR, account="Other")},
    )
    assert undeclared(current, DESIRED, "Cariflex") == {
        "users": [{"email": "b@example.org", "username": "b"}],
        "assets": [{"name": "Old"}],
        "sensors": [{"id": 1, "name": "old", "asset": "PV_01"}],
    }


# --- renames and removals --------------------------------------------------------------------------------------------

TREE = State(
    accounts={"Cariflex": Account()},
    assets={
        "Site": Asset("building", None, 14.6, -61.0),
        "Bat": Asset("battery", "Site", 14.6, -61.0),
        "Cell": Asset("battery", "Bat", 14.6, -61.0),
    },
    sensors={1: replace(SENSOR, name="power", asset="Cell"), 2: replace(SENSOR, asset="Cell", account="Other")},
)


@given(states, st.data())
def test_what_is_removed_is_gone_and_all_else_is_left(current: State, data: st.DataObject) -> None:
    keys: list[Any] = [(kind, key) for kind, key, _ in current.items() if kind in ("assets", "sensors")]
    removed = data.draw(st.lists(st.sampled_from(keys), unique=True)) if keys else []
    changes = plan(current, State(), removed=removed)
    left = {(kind, key) for kind, key, _ in apply(current, changes).items()}
    assert left == {(kind, key) for kind, key, _ in current.items()} - set(removed)
    assert all(change.action == "delete" and change.differences() for change in changes)


@given(states, names)
def test_names_given_and_given_back_change_nothing(current: State, name: str) -> None:
    assert with_names(with_names(current, {name: "New"}), {"New": name}) == current


def test_what_is_below_goes_first_and_only_of_the_account() -> None:
    removed = below(TREE, "Cariflex", ["Site"])
    changes = plan(TREE, State(), removed=removed)
    assert [change.path for change in changes] == ["sensors.power", "assets.Cell", "assets.Bat", "assets.Site"]


def test_a_renamed_asset_shows_both_names() -> None:
    current = with_names(TREE, {"Bat": "Battery"})
    desired = State(assets={"Battery": TREE.assets["Bat"]})
    (change,) = plan(current, desired, renamed={"Battery": "Bat"})
    assert (change.path, change.differences()) == ("assets.Battery", {"name": ("Bat", "Battery")})
    assert current.assets["Cell"].parent == "Battery"


def test_a_sensor_is_renamed_only_when_told_to_and_where_the_name_is_free() -> None:
    current = other(name="grid")
    assert found(current, rename=True) == []
    (change,) = plan(current, DESIRED)[-1:]
    assert change.differences() == {"name": ("grid", "pv_01_power")}
    taken = replace(current, sensors={**current.sensors, 7: SENSOR})
    (problem,) = found(taken, rename=True)
    assert "with the id 7" in problem.problem
    assert found(taken, rename=True, removed=[("sensors", 7)]) == []


@pytest.mark.parametrize(
    ("told", "facts", "texts"),
    [
        ([("sensors", 1)], {}, []),
        ([("sensors", 1)], {"with_data": {1}}, ["sensors.power: has data"]),
        ([("sensors", 1)], {"with_data": {1}, "force": True}, []),
        ([("sensors", 2)], {"force": True}, ["sensors.pv_01_power: is a sensor of the account Other"]),
        ([("assets", "Bat")], {}, ["assets.Cell: is below Bat"]),
        ([("assets", "Bat"), ("assets", "Cell")], {}, []),
    ],
)
def test_what_may_not_be_removed_is_named(told: list[Any], facts: dict[str, Any], texts: list[str]) -> None:
    names_ = {str(key) for kind, key in told if kind == "assets"}
    removed = list(dict.fromkeys([*told, *below(TREE, "Cariflex", names_)]))
    desired = State(accounts={"Cariflex": Account()})
    given_: dict[str, Any] = {"with_data": set(), "force": False, **facts}
    problems = removal_conflicts(TREE, desired, told, removed, **given_)
    assert len(problems) == len(texts)
    for problem, text in zip(problems, texts, strict=True):
        assert text in f"{problem.path}: {problem.problem}"


def test_what_is_declared_is_not_removed() -> None:
    (problem,) = removal_conflicts(TREE, TREE, [("assets", "Cell")], [("assets", "Cell")], set(), force=True)
    assert "is declared" in problem.problem
