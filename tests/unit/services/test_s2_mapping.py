"""From signals and powers to FRBC settings: the documented figures, and what holds for every device."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cariflex.s2.mapping import (
    SHARE_OF_LEVEL,
    Actuator,
    Element,
    Mode,
    Range,
    factor_to_power,
    power_to_factor,
    process_demand_response,
    process_load_control,
    setting_for,
    strictest,
)

BATTERY, EV = Range(-50, 50), Range(-22, 22)
kw = st.floats(-1000, 1000)
levels = Range(0, 100)


def ranges(values: st.SearchStrategy[float]) -> st.SearchStrategy[Range]:
    return st.tuples(values, values).map(lambda pair: Range(min(pair), max(pair)))


@st.composite
def actuators(draw: st.DrawFn) -> Actuator:
    """Devices with one to three modes whose fill rate has the sign of the power, or any."""
    modes = []
    for number in range(draw(st.integers(1, 3))):
        power = draw(ranges(kw))
        scale = draw(st.floats(0.001, 0.1))
        modes.append(Mode(str(number), (Element(levels, (power.low * scale, power.high * scale), power),)))
    return Actuator("a", tuple(modes), levels)


def simple(power: Range) -> Actuator:
    return Actuator("a", (Mode("m", (Element(levels, (power.low / 100, power.high / 100), power),)),), levels)


@pytest.mark.parametrize(
    ("power", "limits", "factor"),
    [(-50, BATTERY, 0.0), (0, BATTERY, 0.5), (50, BATTERY, 1.0), (11, EV, 0.75), (-22, EV, 0.0), (99, EV, 1.0)],
)
def test_the_documented_factors(power: float, limits: Range, factor: float) -> None:
    assert power_to_factor(power, limits) == factor


@given(ranges(kw), st.floats(0, 1))
def test_factor_and_power_are_inverse(power: Range, factor: float) -> None:
    there = factor_to_power(factor, power)
    assert there in power
    assert factor_to_power(power_to_factor(there, power), power) == pytest.approx(there, abs=1e-6)


def test_load_control_limits_consumption_to_a_share_of_the_maximum() -> None:
    assert process_load_control(50, {"battery_01": BATTERY, "ev_01": EV}) == {"battery_01": 25, "ev_01": 11}
    assert process_load_control(0, {"battery_01": BATTERY}) == {"battery_01": 0}  # no consumption; no forced discharge
    assert process_load_control(100, {"battery_01": BATTERY}) == {}
    assert process_load_control(None, {"battery_01": BATTERY}) == {}


def test_demand_response_follows_the_documented_table() -> None:
    assert SHARE_OF_LEVEL == {1: 0.7, 2: 0.3, 3: 0.0}
    asked = [process_demand_response(level, {"battery_01": BATTERY}) for level in (None, 0, 1, 2, 3, 7)]
    assert asked == [{}, {}, {"battery_01": 35}, {"battery_01": 15}, {"battery_01": 0}, {"battery_01": 0}]


@given(st.floats(0, 3), st.floats(0, 3), ranges(kw))
def test_a_higher_level_never_allows_more(one: float, other: float, power: Range) -> None:
    low, high = (process_demand_response(level, {"x": power}).get("x", 1e9) for level in sorted((one, other)))
    assert high <= low


def test_where_limits_meet_the_strictest_holds() -> None:
    assert strictest([{"a": 5.0, "b": 3.0}, {"a": 2.0}, {}]) == {"a": 2.0, "b": 3.0}


def test_what_is_not_known_is_never_turned_into_a_setting() -> None:
    """A factor of 0 is full discharge, so a missing value must not become one."""
    assert setting_for(None, 10, 50, simple(BATTERY), BATTERY) is None
    assert setting_for(5, 10, None, simple(BATTERY), BATTERY) is None
    assert setting_for(5, 10, 50, Actuator("a", (), levels), BATTERY) is None


def test_the_limit_goes_before_what_is_wanted() -> None:
    told = setting_for(50, 25, 40, simple(BATTERY), BATTERY)
    assert told is not None
    assert (told.power_kw, told.factor) == (25, 0.75)


def test_a_full_storage_is_not_charged_and_an_empty_one_not_discharged() -> None:
    for level, wanted in ((100, 50), (0, -50)):
        told = setting_for(wanted, None, level, simple(BATTERY), BATTERY)
        assert told is not None
        assert (told.power_kw, told.factor) == (0, 0.5)


def test_a_device_that_cannot_run_low_is_rather_off_than_above_its_limit() -> None:
    modes = (
        Mode("off", (Element(levels, (0, 0), Range(0, 0)),)),
        Mode("on", (Element(levels, (0.1, 0.4), Range(6, 22)),)),
    )
    told = setting_for(22, 4, 50, Actuator("a", modes, levels), Range(0, 22))
    assert told is not None
    assert (told.mode_id, told.power_kw) == ("off", 0)


@given(actuators(), st.none() | kw, st.none() | st.floats(0, 1000), st.none() | st.floats(-5, 105), ranges(kw))
def test_never_beyond_limit_description_or_state_of_charge(
    actuator: Actuator, wanted: float | None, ceiling: float | None, level: float | None, allowed: Range
) -> None:
    told = setting_for(wanted, ceiling, level, actuator, allowed)
    if wanted is None or level is None:
        assert told is None
        return
    if told is None:
        return
    assert 0 <= told.factor <= 1
    element = next(mode for mode in actuator.modes if mode.id == told.mode_id).elements[0]
    assert told.power_kw in element.power_kw
    assert allowed.low - 1e-5 <= told.power_kw <= allowed.high + 1e-5
    rate = element.fill_rate[0] + told.factor * (element.fill_rate[1] - element.fill_rate[0])
    assert not (level >= levels.high and rate > 1e-6)
    assert not (level <= levels.low and rate < -1e-6)
    if ceiling is not None and told.power_kw > ceiling + 1e-6:  # only where nothing lower can be done
        for mode in actuator.modes:
            safe = mode.elements[0].safe_power(level, levels)
            lower = safe is not None and safe.low < max(ceiling, allowed.low) - 1e-6 and safe.high >= allowed.low
            assert not lower or allowed.low > ceiling
