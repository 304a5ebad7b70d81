"""ISO 8601 durations."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cariflex.durations import format_duration, parse_duration


@given(st.integers(min_value=0, max_value=400 * 86400))
def test_a_written_duration_reads_back_as_the_same(seconds: int) -> None:
    duration = timedelta(seconds=seconds)
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("PT1H", 3600), ("PT15M", 900), ("P1D", 86400), ("P1DT30M", 88200), ("PT90M", 5400)]
)
def test_usual_durations_are_read(text: str, seconds: int) -> None:
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize(
    "text", ["", "P", "PT", "P1DT", "1H", "PT-1H", "P1M", "P1Y", "P1W", "PT1.5H", "PT1H ", 3600, None]
)
def test_what_is_not_such_a_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="ISO 8601"):
        parse_duration(text)


def test_a_duration_beyond_the_calendar_is_refused() -> None:
    with pytest.raises(ValueError, match="calendar"):
        parse_duration("P9999999999D")
