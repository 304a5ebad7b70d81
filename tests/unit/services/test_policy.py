"""What the site opts out of: rules, their times in the site's timezone, and what of them is announced."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cariflex.ven.grid import Stretch
from cariflex.ven.policy import DAYS, Rule, announced, refusal

MARTINIQUE = ZoneInfo("America/Martinique")  # UTC-4, no summer time
PARIS = ZoneInfo("Europe/Paris")


def rule(**fields: Any) -> Rule:
    return Rule.model_validate({"reason": "because"} | fields)


def at(text: str, zone: ZoneInfo = MARTINIQUE) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp())


def refused(start: str, end: str, *rules: Rule, signal: str = "LOAD_CONTROL", value: float = 50.0) -> str | None:
    return refusal(signal, [Stretch(at(start), at(end), value)], rules, MARTINIQUE)


def test_an_event_that_overlaps_a_maintenance_window_is_refused_with_the_reason_and_the_time() -> None:
    window = rule(reason="inverter swap", start="2027-03-01T08:00", end="2027-03-01T17:00")
    said = refused("2027-03-01T16:00", "2027-03-01T20:00", window)
    assert said == "inverter swap (2027-03-01T08:00-04:00 to 2027-03-01T17:00-04:00)"
    assert refused("2027-03-01T17:00", "2027-03-01T20:00", window) is None
    assert refused("2027-03-01T07:00", "2027-03-01T08:00", window) is None


def test_a_window_may_name_its_timezone() -> None:
    window = rule(start="2027-03-01T12:00Z", end="2027-03-01T13:00Z")
    assert refused("2027-03-01T08:30", "2027-03-01T08:45", window)
    assert refused("2027-03-01T09:00", "2027-03-01T09:45", window) is None


def test_a_weekly_window_reaches_over_midnight() -> None:
    window = rule(days=["sat"], **{"from": "22:00", "to": "06:00"})
    assert refused("2027-03-07T05:00", "2027-03-07T05:30", window), "Sunday morning"
    assert refused("2027-03-07T06:00", "2027-03-07T21:59", window) is None
    assert refused("2027-03-06T05:00", "2027-03-06T05:30", window) is None, "Saturday morning"
    assert refused("2027-03-06T23:59", "2027-03-07T00:30", window)


def test_a_whole_day_can_be_named() -> None:
    window = rule(days=["sun"], **{"from": "00:00", "to": "24:00"})
    assert refused("2027-03-07T23:59", "2027-03-08T00:00", window)
    assert refused("2027-03-08T00:00", "2027-03-08T01:00", window) is None


def test_times_of_day_follow_summer_time() -> None:
    window = rule(**{"from": "12:00", "to": "13:00"})
    for day in ("2027-01-15", "2027-07-15"):
        noon = at(f"{day}T12:30", PARIS)
        assert refusal("SIMPLE", [Stretch(noon, noon + 60, 1.0)], [window], PARIS)
        assert not refusal("SIMPLE", [Stretch(noon - 3600, noon - 1801, 1.0)], [window], PARIS)


def test_a_signal_can_be_refused_always_and_another_within_limits() -> None:
    rules = rule(signals=["LOAD_CONTROL"]), rule(signals=["ENERGY_PRICE"], above=500, below=-100)
    hour = "2027-03-01T08:00", "2027-03-01T09:00"
    assert refused(*hour, *rules) == "because"
    assert refused(*hour, *rules, signal="SIMPLE") is None
    assert refused(*hour, *rules, signal="ENERGY_PRICE", value=500.0) is None
    assert refused(*hour, *rules, signal="ENERGY_PRICE", value=500.5) == "because (value 500.5)"
    assert refused(*hour, *rules, signal="ENERGY_PRICE", value=-100.5)


def test_a_limit_counts_for_the_intervals_in_its_times_only() -> None:
    night = rule(signals=["ENERGY_PRICE"], above=100, **{"from": "22:00", "to": "06:00"})
    day = Stretch(at("2027-03-01T08:00"), at("2027-03-01T22:00"), 200.0)
    cheap_night = Stretch(at("2027-03-01T22:00"), at("2027-03-02T06:00"), 50.0)
    assert refusal("ENERGY_PRICE", [day, cheap_night], [night], MARTINIQUE) is None
    assert refusal("ENERGY_PRICE", [Stretch(day.start, cheap_night.end, 200.0)], [night], MARTINIQUE)


def test_windows_for_every_signal_are_announced() -> None:
    rules = [
        rule(start="2027-03-01T08:00", end="2027-03-01T10:00"),
        rule(start="2027-03-01T10:00", end="2027-03-01T12:00"),
        rule(signals=["SIMPLE"], start="2027-03-03T08:00", end="2027-03-03T10:00"),
        rule(signals=["LOAD_CONTROL"]),
        rule(days=["fri"], **{"from": "22:00", "to": "02:00"}),
    ]
    found = announced(rules, at("2027-03-01T00:00"), at("2027-03-08T00:00"), MARTINIQUE)
    assert found == [
        (at("2027-03-01T08:00"), at("2027-03-01T10:00")),
        (at("2027-03-01T10:00"), at("2027-03-01T12:00")),
        (at("2027-03-05T22:00"), at("2027-03-06T02:00")),
    ]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "would refuse every event"),
        ({"start": "2027-03-01T08:00"}, "one of start and end"),
        ({"start": "2027-03-01T08:00", "end": "2027-03-01T07:00"}, "ends before it starts"),
        ({"start": "2027-03-01T08:00Z", "end": "2027-03-01T09:00"}, "a timezone in one of start and end"),
        ({"days": ["mon"]}, "days and no times"),
        ({"days": ["monday"], "from": "08:00", "to": "09:00"}, "'mon'"),
        ({"from": 1320, "to": "23:00"}, "with quotes and two digits"),
        ({"from": "8:00", "to": "23:00"}, "with quotes and two digits"),
        ({"from": "08:00"}, "one of from and to"),
        ({"from": "08:00", "to": "08:00"}, "covers no time"),
        ({"from": "08:00", "to": "09:00", "start": "2027-03-01T08:00", "end": "2027-03-01T09:00"}, "start and from"),
        ({"signals": ["LOAD_CONTROLL"]}, "unknown signal LOAD_CONTROLL"),
        ({"above": 3}, "Name one signal"),
        ({"signals": ["SIMPLE", "LOAD_CONTROL"], "above": 3}, "Name one signal"),
        ({"signals": ["SIMPLE"], "above": float("nan")}, "finite"),
        ({"signals": ["SIMPLE"], "until": 3}, "until"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        rule(**fields)


clocks = st.builds("{:02d}:{:02d}".format, st.integers(0, 23), st.sampled_from([0, 15, 30, 45]))


@given(
    days=st.lists(st.sampled_from(DAYS), unique=True),
    since=clocks,
    to=clocks | st.just("24:00"),
    start=st.integers(at("2027-03-24T00:00", PARIS) // 900, at("2027-04-02T00:00", PARIS) // 900),
    quarters=st.integers(1, 30),
)
def test_a_weekly_rule_refuses_exactly_what_the_clock_on_the_wall_says(
    days: list[Any], since: str, to: str, start: int, quarters: int
) -> None:
    """Around the change to summer time, judged quarter by quarter by what the local clock shows."""
    if since == to:
        return
    window = rule(days=days, **{"from": since, "to": to})

    def inside(quarter: int) -> bool:
        local = datetime.fromtimestamp(quarter * 900, UTC).astimezone(PARIS)
        clock, today = local.strftime("%H:%M"), DAYS[local.weekday()]
        yesterday = DAYS[(local - timedelta(hours=24)).weekday()]
        if to > since:
            return since <= clock < to and (not days or today in days)
        return (clock >= since and (not days or today in days)) or (clock < to and (not days or yesterday in days))

    event = [Stretch(start * 900, (start + quarters) * 900, 1.0)]
    expected = any(inside(quarter) for quarter in range(start, start + quarters))
    skipped = ("02:00", "02:15", "02:30", "02:45")  # on the night when these do not exist
    if since not in skipped and to not in skipped:
        assert (refusal("SIMPLE", event, [window], PARIS) is not None) == expected
