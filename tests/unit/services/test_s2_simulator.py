"""The simulated devices obey physics."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cariflex.s2.mapping import Range
from cariflex.s2.simulator.physics import Ev, Storage

LIMITS = Range(-50, 50)


def storage(energy: float = 50) -> Storage:
    return Storage(100, LIMITS, energy)


def test_charging_stores_less_than_is_consumed_and_discharging_takes_more_than_is_given() -> None:
    device = storage()
    device.set_power(20)
    device.pass_time(3600)
    assert device.energy_kwh == pytest.approx(50 + 20 * 0.95)
    device.set_power(-20)
    device.pass_time(3600)
    assert device.energy_kwh == pytest.approx(50 + 20 * 0.95 - 20 / 0.95)


def test_it_stops_by_itself_when_it_is_full() -> None:
    device = storage(99)
    device.set_power(50)
    device.pass_time(3600)
    assert (device.energy_kwh, device.power_kw) == (100, 0)
    assert device.set_power(10) == 0
    assert device.set_power(-10) == -10


@given(st.floats(0, 100), st.lists(st.tuples(st.floats(-200, 200), st.floats(0, 7200))))
def test_energy_is_conserved(energy: float, steps: list[tuple[float, float]]) -> None:
    """Whatever it is told: within its limits, and all that passes the meter is stored, taken, or lost on the way."""
    device, losses = storage(energy), 0.0
    for power, seconds in steps:
        assert device.set_power(power) in LIMITS
        before, set_to = device.energy_kwh, device.power_kw
        metered = device.pass_time(seconds)
        stored = device.energy_kwh - before
        assert 0 <= device.energy_kwh <= 100
        assert abs(metered) <= abs(set_to) * seconds / 3600 + 1e-9
        assert stored == pytest.approx(metered * 0.95 if metered > 0 else metered / 0.95, abs=1e-9)
        losses += metered - stored
    assert losses >= -1e-6


@given(st.lists(st.integers(0, 86400), max_size=50), st.integers(0, 9))
def test_an_ev_that_is_away_takes_and_gives_nothing(seconds: list[int], number: int) -> None:
    ev = Ev(60, Range(-22, 22), number)
    day = datetime(2026, 5, 4, tzinfo=UTC)
    for second in sorted(seconds):
        now = day + timedelta(seconds=second)
        ev.move(now)
        assert ev.is_there == (not ev.leaves <= now.time() < ev.comes)
        assert 0 <= ev.storage.energy_kwh <= 60
        if ev.is_there:
            assert (now + ev.until_departure(now)).time() == ev.leaves
        else:
            assert (ev.own_power(now), ev.storage.pass_time(60)) == (0, 0)


def test_an_ev_leaves_comes_back_with_less_and_charges() -> None:
    ev = Ev(60, Range(-22, 22), 0)
    day = datetime(2026, 5, 4, tzinfo=UTC)
    ev.move(day + timedelta(hours=6))
    assert (ev.is_there, ev.own_power(day)) == (True, 22)
    ev.move(day + timedelta(hours=12))
    assert (ev.is_there, ev.own_power(day), ev.storage.power_kw) == (False, 0, 0)
    ev.move(day + timedelta(hours=17))
    assert ev.is_there
    assert ev.storage.energy_kwh == pytest.approx(30 - 24)
