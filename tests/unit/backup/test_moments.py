"""Which moments can be restored, with what, and what is kept for it."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cariflex_backup.errors import BackupError
from cariflex_backup.moments import (
    SEGMENT_BYTES,
    Base,
    Mark,
    bases_kept,
    chain,
    chosen,
    log_needed,
    lsn_of,
    merged,
    moment_of,
    ranges,
    segment_of,
    segments_between,
    segments_kept,
)

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def base(day: float, parent: Base | None = None, timeline: int = 1, system: str = "7") -> Base:
    """One of a day, with ten segments of log a day."""
    start = int(day * 10 * SEGMENT_BYTES)
    return Base(
        stamp=f"{system}-{timeline}-{day}",
        system=system,
        timeline=timeline,
        start=start,
        end=start + 100,
        ready=NOW + day * DAY,
        parent=parent.stamp if parent else "",
        environment="test",
        version="17.1",
        size=1,
    )


def marks(begin: float, end: float, timeline: int = 1) -> list[Mark]:
    """One an hour."""
    hours = range(int(begin * 24), int(end * 24) + 1)
    return [
        Mark(NOW + timedelta(hours=hour), "7", timeline, int(hour / 24 * 10 * SEGMENT_BYTES) + 200) for hour in hours
    ]


def log(begin: float, end: float, timeline: int = 1) -> set[tuple[str, str]]:
    """The segments of some days."""
    names = segments_between(timeline, int(begin * 10 * SEGMENT_BYTES), int(end * 10 * SEGMENT_BYTES) + 300)
    return {("7", name) for name in names}


def test_names_of_segments() -> None:
    assert lsn_of("1/FE000028") == 0x1FE000028
    assert segment_of(1, lsn_of("1/FE000028")) == "0000000100000001000000FE"
    assert segment_of(0x1A, lsn_of("2/0")) == "0000001A0000000200000000"
    # a place at a segment's very end takes no further one
    assert segments_between(1, 0, SEGMENT_BYTES) == ["0" * 7 + "1" + "0" * 16]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2026-05-04T08:00:00", "Type 2026-05-04T08:00:00-04:00 if it is Martinique's time, or 2026-05-04T08:00:00"),
        ("last night", "'last night' is no moment. Type it as 2026-11-27T05:00:00-04:00"),
        ("2026-05-04T08:00:01-04:00", "lies ahead: it is 2026-05-04T12:00:00+00:00 now"),
    ],
)
def test_a_moment_has_a_zone_and_is_past(text: str, words: str) -> None:
    with pytest.raises(BackupError) as refused:
        moment_of(text, NOW)
    assert words in str(refused.value)
    assert moment_of("2026-05-04T08:00:00-04:00", NOW) == NOW


def test_every_moment_from_a_bases_end_to_the_last_mark() -> None:
    full = base(0)
    more = base(1, full)
    there = ranges([full, more], marks(0, 2), log(0, 2))
    assert merged(there) == [(NOW, NOW + 2 * DAY)]
    assert chosen(NOW + 1.5 * DAY, there).base == more, "the nearer base takes less log"
    assert chosen(NOW + 0.5 * DAY, there).base == full
    for moment in (NOW - DAY, NOW + 3 * DAY):
        with pytest.raises(BackupError, match=r"cannot be restored\. What can be: 2026-05-04T12.* to 2026-05-06T12"):
            chosen(moment, there)
    # up to a commit that came after the moment, and no further
    needed = log_needed(full, NOW + 0.5 * DAY, marks(0, 2))
    assert needed == [name for _, name in sorted(log(0, 0.5))]


def test_a_gap_ends_what_can_be_restored() -> None:
    full, later = base(0), base(1)
    lost = segment_of(1, 5 * SEGMENT_BYTES)
    segments = log(0, 2) - {("7", lost)}
    there = ranges([full, later], marks(0, 2), segments)
    assert [(one.base, one.missing) for one in there] == [(full, lost), (later, "")]
    assert there[0].end < NOW + 0.5 * DAY
    with pytest.raises(BackupError, match=f"The archive has a gap: {lost} of the log is missing"):
        chosen(NOW + 0.7 * DAY, there)
    assert chosen(NOW + 1.2 * DAY, there).base == later


def test_lines_are_told_apart() -> None:
    """After a restore the log begins another line; both have their own moments."""
    old, new = base(0), base(1.25, timeline=2)
    there = ranges([old, new], marks(0, 1) + marks(1.25, 2, 2), log(0, 1) | log(1.25, 2, 2))
    assert merged(there) == [(NOW, NOW + DAY), (NOW + 1.25 * DAY, NOW + 2 * DAY)]
    assert chosen(NOW + 0.9 * DAY, there).base == old
    assert chosen(NOW + 1.9 * DAY, there).base == new


def test_a_base_without_its_parent_or_log_is_none() -> None:
    full = base(0)
    child = base(1, full)
    assert chain(child, [child]) == []
    assert ranges([child], marks(0, 2), log(0, 2)) == []
    assert ranges([full], [], log(0, 2)) == []
    with pytest.raises(BackupError, match="No moment can be restored"):
        chosen(NOW, [])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 20))
def test_what_is_kept_restores_every_moment_of_the_last_days(full: list[bool], days: int) -> None:
    bases: list[Base] = []
    for day, is_full in enumerate([True, *full]):
        bases.append(base(day, None if is_full else bases[-1]))
    last = len(full)
    now = NOW + last * DAY
    before = ranges(bases, marks(0, last), log(0, last))
    kept = bases_kept(bases, days, now)
    segments = segments_kept(log(0, last), kept)
    after = ranges(kept, marks(0, last), segments)
    for hours in range(min(days, last) * 24 + 1):
        moment = now - timedelta(hours=hours)
        if any(one.begin <= moment <= one.end for one in before):
            assert chosen(moment, after)
    # nothing that is older than what the oldest kept moment takes
    assert all(one.ready > now - (days + 61) * DAY for one in kept)
    assert min(segments) == ("7", segment_of(1, min(one.start for one in kept)))
    assert bases_kept(kept, days, now) == kept
