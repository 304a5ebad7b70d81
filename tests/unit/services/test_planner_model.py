"""From events, prices and devices to a question for FlexMeasures, and from its answer to plans; what a plan saves."""

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cariflex.planner.model import (
    AnswerError,
    Window,
    known_until,
    limits,
    moment,
    on,
    plan_of,
    plannable,
    question,
    sale_prices,
    values_of,
    window_of,
)
from cariflex.planner.savings import at_once, savings
from cariflex.ven.grid import Stretch
from cariflex.ven.outbox import Flexibility

QUARTER = 900
START = 1_800_000_000 // 3600 * 3600
DAY = Window(START, START + 86400, QUARTER)
HOUR = Window(START, START + 3600, QUARTER)
BATTERY = Flexibility(-50.0, 50.0, 0.0, 100.0, 60.0)
POWERS = {"battery_01": 50.0, "ev_01": 22.0}
SENSORS = {"battery_01": 101, "ev_01": 106}

power = st.floats(-50, 50).map(lambda value: round(value, 3) + 0.0)
price = st.floats(-100, 500)


def asked(window: Window = HOUR, **different: Any) -> dict[str, Any]:
    """A question about a battery."""
    limited = different.pop("limited", {})
    device = different.pop("device", BATTERY)
    return question(window, {"battery_01": device}, SENSORS, limited, prices=(84, 85), **different)


# --- the question ----------------------------------------------------------------------------------------------------


def test_the_plan_begins_with_the_present_cell() -> None:
    assert window_of(START + 899.9, 86400, QUARTER) == DAY
    assert len(DAY.cells) == 96


def test_where_selling_pays_more_than_buying_costs_it_counts_as_much() -> None:
    bought = [120.0, 120.0, 80.0, 80.0]
    assert sale_prices(HOUR, bought, [100.0, 120.0, 80.0, -5.0]) is None
    capped = sale_prices(HOUR, bought, [100.0] * 4)
    half = moment(START + 1800)
    assert capped == [
        {"start": moment(START), "end": half, "value": "100 EUR/MWh"},
        {"start": half, "end": moment(START + 3600), "value": "80 EUR/MWh"},
    ]
    assert asked(sale=capped)["flex-context"]["production-price"] == capped


def test_all_devices_are_asked_about_together_with_prices_and_what_is_not_controlled() -> None:
    said = asked(production=[41, 42], consumption=[201], roundtrip_efficiency=0.9)
    assert said["flex-context"] == {
        "consumption-price": {"sensor": 84},
        "production-price": {"sensor": 85},
        "inflexible-production": [{"sensor": 41}, {"sensor": 42}],
        "inflexible-consumption": [{"sensor": 201}],
    }
    assert said["flex-model"] == [
        {
            "sensor": 101,
            "soc-at-start": "60 kWh",
            "soc-min": "0 kWh",
            "soc-max": "100 kWh",
            "power-capacity": "50 kW",
            "consumption-capacity": "50 kW",
            "production-capacity": "50 kW",
            "roundtrip-efficiency": "90%",
        }
    ]
    assert (said["start"], said["duration"]) == (moment(START), "PT1H")
    assert said["force-new-job-creation"] is True  # the same question after another price is another question


def test_a_limit_is_one_of_each_device_and_of_the_site_for_the_hours_of_the_event() -> None:
    event = [Stretch(START + 900, START + 2700, 50.0)]
    limited = limits(HOUR, event, [], POWERS)
    assert limited == {"battery_01": [50, 25, 25, 50], "ev_01": [22, 11, 11, 22]}
    said = asked(limited=limited)
    assert said["flex-context"]["site-consumption-capacity"] == [
        {"start": moment(START), "end": moment(START + 900), "value": "72 kW"},
        {"start": moment(START + 900), "end": moment(START + 2700), "value": "36 kW"},
        {"start": moment(START + 2700), "end": moment(START + 3600), "value": "72 kW"},
    ]
    assert said["flex-model"][0]["consumption-capacity"][1]["value"] == "25 kW"
    assert said["flex-model"][0]["production-capacity"] == "50 kW"  # a limit never forbids to give


def test_the_strictest_limit_of_a_cell_counts_however_short_it_holds() -> None:
    short = [Stretch(START + 100, START + 101, 0.0)]
    assert limits(HOUR, short, [], POWERS)["ev_01"] == [0, 22, 22, 22]
    level = [Stretch(START, START + 3600, 2.0)]
    assert limits(HOUR, [Stretch(START, START + 900, 10.0)], level, {"ev_01": 20.0}) == {"ev_01": [2, 6, 6, 6]}
    assert limits(HOUR, [Stretch(START - 900, START, 0.0), Stretch(START + 3600, START + 7200, 0.0)], [], POWERS) == {}
    assert limits(HOUR, [Stretch(START, START + 900, 100.0)], [], POWERS) == {}


def test_an_ev_is_planned_to_hold_what_it_wants_when_it_leaves() -> None:
    leaves = START + 1000
    ev = Flexibility(-22, 22, 0, 60, 30, (Stretch(leaves, leaves + 900, 48.0), Stretch(START + 9000, START + 9900, 60)))
    (minimum,) = asked(device=ev)["flex-model"][0]["soc-minima"]  # the second is beyond the window
    assert minimum == {"start": moment(START + 1800), "end": moment(START + 2700), "value": "48 kWh"}


def test_a_state_of_charge_a_little_outside_the_storage_is_its_end() -> None:
    over = Flexibility(-50, 50, 10, 90, 90.001)
    assert asked(device=over)["flex-model"][0]["soc-at-start"] == "90 kWh"


def test_an_ev_that_is_away_is_not_planned() -> None:
    away = Flexibility(0, 0, 0, 60, 30)
    assert plannable({"ev_01": away, "battery_01": BATTERY}) == {"battery_01": BATTERY}


def test_a_plan_reaches_as_far_as_the_price_is_known() -> None:
    hours = {START: 100.0, START + 3600: 110.0, START + 10800: 90.0}
    assert known_until(DAY, hours, 3600) == START + 7200
    assert known_until(DAY, {}, 3600) == START
    later = Window(START + 1800, START + 5400, QUARTER)
    assert known_until(later, hours, 3600) == later.end
    assert on(later, hours, 3600) == [100.0, 100.0, 110.0, 110.0]


def test_a_finer_series_becomes_its_mean() -> None:
    assert on(HOUR, {START: 1.0, START + 300: 2.0, START + 600: 6.0}, 300) == [3.0, 0.0, 0.0, 0.0]


# --- the answer ------------------------------------------------------------------------------------------------------


@given(st.lists(power, min_size=1, max_size=96), st.sampled_from([("kW", 1.0), ("MW", 1000.0), ("W", 0.001)]))
def test_what_flexmeasures_says_is_what_the_device_gets(values: list[float], unit: tuple[str, float]) -> None:
    """In every unit, + is consumption, each cell once, in order, without gaps."""
    name, kw = unit
    window = Window(START, START + QUARTER * len(values), QUARTER)
    answer = {"start": moment(START), "unit": name, "values": [value / kw for value in values]}
    plan = plan_of(answer, window)
    assert plan[0].start == START
    assert plan[-1].end == window.end
    assert all(one.end == after.start for one, after in pairwise(plan))
    assert values_of(plan, window) == pytest.approx(values, abs=1e-5)


@given(st.lists(power, min_size=97, max_size=99))
def test_no_plan_is_longer_than_what_was_asked(values: list[float]) -> None:
    plan = plan_of({"start": moment(START), "unit": "kW", "values": values}, DAY)
    assert plan[-1].end == DAY.end


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"start": moment(START), "unit": "kW", "values": []},
        {"start": moment(START + 900), "unit": "kW", "values": [1.0]},
        {"start": moment(START), "unit": "kWh", "values": [1.0]},
        {"start": moment(START), "unit": "kW", "values": [1.0, None]},
        {"start": moment(START), "unit": "kW", "values": [math.nan]},
        {"start": moment(START), "unit": "kW", "values": [math.inf]},
        {"start": "soon", "unit": "kW", "values": [1.0]},
        {"start": moment(START), "unit": "kW", "values": 7},
    ],
)
def test_an_answer_that_is_no_plan_is_none(answer: dict[str, Any]) -> None:
    with pytest.raises(AnswerError):
        plan_of(answer, HOUR)


# --- savings ---------------------------------------------------------------------------------------------------------

cells = st.shared(st.integers(1, 12), key="cells")


def rows(element: st.SearchStrategy[float]) -> st.SearchStrategy[list[float]]:
    """One value for each cell."""
    return cells.flatmap(lambda count: st.lists(element, min_size=count, max_size=count))


def saved(plan: list[float], bought: list[float], sold: list[float], other: list[float] | None = None) -> Any:
    """What the plan of one device of 50 kW saves."""
    return savings({"d": plan}, {"d": [50.0] * len(plan)}, other or [0.0] * len(plan), (bought, sold), 0.25)


@given(rows(power), st.floats(0, 500))
def test_at_one_price_for_all_and_always_no_plan_saves_money(plan: list[float], everywhere: float) -> None:
    flat = [everywhere] * len(plan)
    assert saved(plan, flat, flat).eur == pytest.approx(0, abs=1e-6)


@given(rows(power), rows(price), rows(price), rows(st.floats(-200, 200)))
def test_money_follows_the_prices_and_energy_and_peak_do_not(
    plan: list[float], bought: list[float], sold: list[float], other: list[float]
) -> None:
    once, twice = saved(plan, bought, sold, other), saved(plan, [2 * p for p in bought], [2 * p for p in sold], other)
    assert twice.eur == pytest.approx(2 * once.eur, abs=1e-6)
    assert (twice.kwh, twice.peak_kw) == (once.kwh, once.peak_kw)


@given(rows(st.floats(0, 50)), rows(price), rows(price), rows(st.floats(-200, 200)))
def test_charging_at_once_is_doing_nothing_and_saves_nothing(
    plan: list[float], bought: list[float], sold: list[float], other: list[float]
) -> None:
    found = saved(at_once(plan, [50.0] * len(plan)), bought, sold, other)
    assert (found.eur, found.kwh, found.peak_kw) == pytest.approx((0, 0, 0), abs=1e-6)


@given(rows(st.floats(0, 50)))
def test_charging_at_once_brings_the_same_energy_no_later(plan: list[float]) -> None:
    early = at_once(plan, [50.0] * len(plan))
    assert sum(early) == pytest.approx(sum(plan))
    assert all(sum(early[: n + 1]) >= sum(plan[: n + 1]) - 1e-9 for n in range(len(plan)))


def test_charging_in_the_cheap_hours_saves_the_difference() -> None:
    # 12.5 kWh now at 300 EUR/MWh, or half of it in each of two quarters at 100: 2.50 EUR less and half the peak
    found = saved([0.0, 25.0, 25.0], [300.0, 100.0, 100.0], [0.0] * 3)
    assert (found.eur, found.kwh, found.peak_kw) == pytest.approx((2.5, 0.0, 25.0))


def test_charging_from_the_sun_saves_energy_from_the_grid() -> None:
    found = saved([0.0, 40.0], [200.0, 200.0], [100.0, 100.0], [0.0, -40.0])
    assert (found.kwh, found.peak_kw) == pytest.approx((10.0, 40.0))
    assert found.eur == pytest.approx(10 * 0.2 - 10 * 0.1)


def test_emptying_a_battery_is_no_saving_of_itself() -> None:
    found = saved([-50.0, 0.0], [200.0, 100.0], [200.0, 100.0])
    assert found.eur == pytest.approx(12.5 * (0.2 - 0.15))  # it gave at 200 what costs 150 in the mean
    assert found.kwh == pytest.approx(-12.5)
