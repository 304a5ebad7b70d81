"""What devices are to do now and later: the order of precedence, sharing, and what holds for every device."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cariflex.s2.mapping import (
    Actuator,
    Element,
    Mode,
    Range,
    Transition,
    process_charge_state,
    process_load_dispatch,
)
from cariflex.s2.outlook import Outlook, Span
from cariflex.s2.program import Aim, Known, Signals, Site, ahead, aims_at
from cariflex.ven.grid import Stretch
from cariflex.ven.outbox import Asked

LEVELS = Range(0, 100)
NOW = 1_000_000.0


def battery(level: float = 50, own: float = 0, low: float = -50, high: float = 50, kwh: float = 100) -> Known:
    """A storage whose fill rate agrees with its power."""
    rate = 100 / kwh / 3600
    element = Element(LEVELS, (low * rate, high * rate), Range(low, high))
    return Known(
        Actuator("a", (Mode("m", (element,)),), LEVELS), Range(low, high), level, own, kwh, kwh / 100, mode_id="m"
    )


def asked(value: float, start: float = 0, end: float = 3600, event: str = "e") -> Asked:
    return Asked(int(NOW + start), int(NOW + end), value, event)


def site(known: dict[str, Known]) -> Site:
    return Site({name: one.allowed for name, one in known.items()}, sum(one.kwh for one in known.values()))


def told(signals: Signals, known: dict[str, Known]) -> dict[str, float]:
    """What each device would be set to now, in kW."""
    aims = aims_at(NOW, signals, site(known), known)
    found = {name: one.setting(aims[name], NOW) for name, one in known.items()}
    return {name: setting.power_kw for name, setting in found.items() if setting}


def test_the_order_of_precedence() -> None:
    known = {"a": battery(own=5)}
    plan = {"a": (Stretch(int(NOW), int(NOW) + 60, 40.0),)}
    assert told(Signals(), known) == {"a": pytest.approx(5)}
    assert told(Signals(plans=plan), known) == {"a": pytest.approx(40)}
    charge = (asked(60),)  # 10 kWh more within an hour
    assert told(Signals(charge=charge, plans=plan), known) == {"a": pytest.approx(10)}
    dispatch = (asked(-20, event="d"),)
    assert told(Signals(dispatch=dispatch, charge=charge, plans=plan), known) == {"a": pytest.approx(-20)}
    limit = (asked(0, event="l"),)
    up = (asked(30, event="d"),)
    assert told(Signals(load_control=limit, dispatch=up), known) == {"a": 0}
    assert told(Signals(load_control=limit, dispatch=dispatch), known) == {"a": pytest.approx(-20)}
    aim = aims_at(NOW, Signals(load_control=limit, dispatch=up), site(known), known)["a"]
    assert (aim.ceiling_kw, aim.reason, aim.events) == (0, "dispatch", ("l", "d"))


def test_a_dispatch_is_shared_by_range_and_state_of_charge() -> None:
    known = {"a": battery(), "b": battery(low=-22, high=22), "full": battery(level=100)}
    shares = told(Signals(dispatch=(asked(36),)), known)
    assert shares == {"a": pytest.approx(25), "b": pytest.approx(11), "full": 0}
    shares = told(Signals(dispatch=(asked(-122),)), known)
    assert shares == {"a": pytest.approx(-50), "b": pytest.approx(-22), "full": pytest.approx(-50)}


def test_a_storage_of_which_nothing_is_known_is_taken_to_hold_its_part() -> None:
    known = {"a": battery(level=50)}
    whole = Site({"a": LEVELS, "away": LEVELS}, 200)
    aim = aims_at(NOW, Signals(charge=(asked(120),)), whole, known)["a"]
    assert aim.wanted_kw == pytest.approx(10)  # its half of 120 kWh, from 50, within an hour


def test_what_is_not_asked_or_not_known_asks_nothing_of_a_storage() -> None:
    """A missing value is never a power, and never factor 0, which is full discharge."""
    assert process_load_dispatch(None, {"a": LEVELS}) == {}
    assert process_load_dispatch(10, {}) == {}
    assert process_charge_state(None, 60, {"a": 5}, {"a": LEVELS}) == {}
    assert process_charge_state(10, 60, {}, {}) == {}
    aims = aims_at(NOW, Signals(dispatch=(asked(10),), charge=(asked(10),)), Site({"a": LEVELS}, 100), {})
    assert aims["a"].wanted_kw is None
    assert ahead(NOW, Signals(dispatch=(asked(10, 60),)), Site({"a": LEVELS}, 100), {}) == {}


ranges = st.tuples(st.floats(-500, 500), st.floats(-500, 500)).map(lambda ends: Range(min(ends), max(ends)))


@given(st.floats(-3000, 3000), st.dictionaries(st.sampled_from("abcdef"), ranges))
def test_a_dispatch_is_met_as_far_as_all_together_can(kw: float, able: dict[str, Range]) -> None:
    shares = process_load_dispatch(kw, able)
    assert shares.keys() == able.keys()
    assert all(able[name].low - 1e-9 <= share <= able[name].high + 1e-9 for name, share in shares.items())
    can = Range(sum(r.low for r in able.values()), sum(r.high for r in able.values()))
    assert math.isclose(sum(shares.values()), can.clamp(kw), abs_tol=1e-6)


@given(
    st.floats(0, 300),
    st.floats(1, 7200),
    st.dictionaries(st.sampled_from("abc"), st.floats(0, 100), min_size=1),
)
def test_a_target_is_reached_at_its_end_or_all_go_as_far_as_they_can(
    kwh: float, seconds: float, stored: dict[str, float]
) -> None:
    able = {name: Range(-50, 50) for name in stored}
    shares = process_charge_state(kwh, seconds, stored, able)
    reached = sum(stored.values()) + sum(shares.values()) * seconds / 3600
    assert math.isclose(reached, kwh, abs_tol=1e-6) or all(abs(share) > 50 - 1e-9 for share in shares.values())


def test_the_steps_ahead_are_the_beginnings_and_ends_of_what_is_asked() -> None:
    known = {"ev": battery(own=22, low=-22, high=22)}
    steps = ahead(NOW, Signals(load_control=(asked(50, 600, 1200), asked(50, 1200, 1800))), site(known), known)["ev"]
    assert [(step.at - NOW, step.setting.power_kw) for step in steps] == [(600, 11), (1800, 22)]


def test_a_step_ahead_does_not_ask_a_storage_for_what_it_will_not_have() -> None:
    known = {"a": battery(level=50, own=50)}  # full after an hour
    steps = ahead(NOW, Signals(load_control=(asked(50, 4000, 5000),)), site(known), known)["a"]
    assert [step.setting.power_kw for step in steps] == [0]
    draining = {"a": replace(known["a"], own_kw=0.0, outlook=Outlook(usage=(Span(NOW, NOW + 9000, -0.1),)))}
    plan = {"a": (Stretch(int(NOW) + 600, int(NOW) + 900, -30.0),)}  # empty by then
    assert ahead(NOW, Signals(plans=plan), site(draining), draining)["a"] == []


def test_an_ev_is_not_discharged_below_what_its_departure_needs() -> None:
    full_rate = 50 * 100 / 100 / 3600  # % per second
    outlook = Outlook(targets=(Span(NOW + 3600, NOW + 7200, 80),))
    discharge = Signals(dispatch=(asked(-50, end=9000),))
    ev = replace(battery(level=50), outlook=outlook)
    assert ev.needed(NOW) == pytest.approx(80 - 3600 * full_rate)
    assert told(discharge, {"ev": ev}) == {"ev": -50}
    assert told(discharge, {"ev": replace(ev, fill_level=29.9)}) == {"ev": 0}
    assert replace(ev, outlook=Outlook()).needed(NOW) is None


OFF = Mode("off", (Element(LEVELS, (0, 0), Range(0, 0)),))
ON = Mode("on", (Element(LEVELS, (0.01, 0.02), Range(10, 20)),))
BOOST = Mode("boost", (Element(LEVELS, (0.05, 0.05), Range(50, 50)),), abnormal=True)
PUMP = Actuator(
    "p",
    (OFF, ON, BOOST),
    LEVELS,
    (Transition("off", "on", ("runs",), ("rests",)), Transition("on", "off", ("rests",), ("runs",))),
    {"runs": 300.0, "rests": 600.0},
)


def test_a_mode_changes_only_where_a_transition_allows_it_and_its_timers_have_run_out() -> None:
    running = Known(PUMP, Range(0, 50), 50, 20, 100, 1, mode_id="on", timers={"runs": NOW + 100})
    stop = Aim(ceiling_kw=0)
    early, late = running.setting(stop, NOW), running.setting(stop, NOW + 100)
    assert early is not None
    assert late is not None
    assert (early.mode_id, early.power_kw) == ("on", 10)  # the lowest it may
    assert (late.mode_id, late.power_kw) == ("off", 0)
    boosted = replace(running, own_kw=50.0).setting(Aim(), NOW)
    assert boosted is not None
    assert boosted.mode_id == "on"  # what is for abnormal conditions only is not chosen
    stuck = replace(running, actuator=replace(PUMP, transitions=()), timers={}).setting(stop, NOW)
    assert stuck is not None
    assert stuck.mode_id == "on"


def test_steps_ahead_respect_the_timers_that_they_start() -> None:
    pump = Known(PUMP, Range(0, 50), 50, 20, 100, 1, mode_id="on")
    limit = (asked(0, 60, 120, "l"), asked(100, 120, 900))  # the second says nothing; its end is a moment to look
    steps = ahead(NOW, Signals(load_control=limit), site({"p": pump}), {"p": pump})["p"]
    assert [(step.at - NOW, step.setting.mode_id) for step in steps] == [(60, "off"), (900, "on")]


stretches = st.lists(
    st.tuples(st.integers(-50, 5000), st.integers(1, 3000), st.floats(-300, 300)).map(
        lambda drawn: asked(drawn[2], drawn[0], drawn[0] + drawn[1])
    ),
    max_size=3,
).map(tuple)


@settings(max_examples=150, deadline=None)
@given(
    stretches,
    stretches,
    stretches,
    st.dictionaries(
        st.sampled_from("abc"),
        st.tuples(st.floats(0, 100), st.floats(-60, 60), st.floats(-50, 0), st.floats(1, 50)),
        min_size=1,
    ),
)
def test_now_and_ahead_never_beyond_limit_description_or_state_of_charge(
    caps: tuple[Asked, ...],
    dispatch: tuple[Asked, ...],
    charge: tuple[Asked, ...],
    drawn: dict[str, tuple[float, float, float, float]],
) -> None:
    known = {name: battery(level, own, low, high) for name, (level, own, low, high) in drawn.items()}
    signals = Signals(load_control=caps, dispatch=dispatch, charge=charge)
    for name, steps in ahead(NOW, signals, site(known), known).items():
        for step in steps:
            assert step.at > NOW
            assert known[name].allowed.low - 1e-6 <= step.setting.power_kw <= known[name].allowed.high + 1e-6
            assert step.aim.ceiling_kw is None or step.setting.power_kw <= step.aim.ceiling_kw + 1e-6
    for name, power in told(signals, known).items():
        level = known[name].fill_level
        assert not (level >= 100 and power > 1e-6)
        assert not (level <= 0 and power < -1e-6)
