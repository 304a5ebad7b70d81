"""Which archives are kept, over years of made-up calendars."""

import hashlib
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cariflex_backup import pruning
from cariflex_backup.errors import BackupError
from cariflex_backup.retention import Policy, kept

NOW = datetime(2026, 5, 4, 3, tzinfo=UTC)
DOCUMENTED = Policy()
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - they get a zone


def nightly(days: int, until: datetime = NOW) -> list[datetime]:
    """One every night."""
    return [until - timedelta(days=day) for day in range(days)]


def test_what_is_documented() -> None:
    """Daily 30 days, weekly 12 weeks, monthly for ever."""
    reasons = kept(nightly(3 * 365), DOCUMENTED, NOW)
    assert [time for time in reasons if "daily" in reasons[time]] == nightly(30)
    assert len([time for time in reasons if "weekly" in reasons[time]]) == 12
    assert {(time.year, time.month) for time in nightly(3 * 365)} == {(time.year, time.month) for time in reasons}
    # 30 days back to 5 April, six Sundays before them, and the last day of each of the 35 months before April's
    assert len(reasons) == 30 + 6 + 35


@settings(max_examples=150, deadline=None)
@given(st.sets(MOMENTS, max_size=120), MOMENTS, st.integers(1, 40), st.integers(0, 15), st.integers(0, 20))
def test_of_any_calendar(times: set[datetime], now: datetime, days: int, weeks: int, months: int) -> None:
    reasons = kept(times, Policy(days, weeks, months), now)
    past = {time for time in times if time <= now}
    assert set(reasons) <= times
    assert times - past <= set(reasons), "what is dated ahead was removed"
    if past:
        assert "newest" in reasons[max(past)]
    # the last of each period: of the newest periods, and no others
    for reason, count, period in (
        ("daily", days, lambda time: time.date()),
        ("weekly", weeks, lambda time: time.isocalendar()[:2]),
        ("monthly", months or 10_000, lambda time: (time.year, time.month)),
    ):
        newest = sorted({period(time) for time in past}, reverse=True)[:count]
        expected = {max(time for time in past if period(time) == one) for one in newest}
        assert {time for time, why in reasons.items() if reason in why} == expected
    # a second look at what is left removes nothing more
    assert kept(set(reasons), Policy(days, weeks, months), now) == reasons


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(200, 800))
def test_pruned_every_night_over_years_with_gaps(seed: int, nights: int) -> None:
    """What is removed night by night is never missed later: every month has its last archive for ever."""
    chance = random.Random(seed)
    there: set[datetime] = set()
    made: list[datetime] = []
    now = datetime(2021, 1, 1, 2, tzinfo=UTC)
    for _ in range(nights):
        # mostly a day; sometimes a host that was off for long, sometimes another one by hand
        now += timedelta(hours=chance.choice([24] * 20 + [1, 5, 60 * 24, 20 * 24]))
        there.add(now)
        made.append(now)
        there &= kept(there, DOCUMENTED, now).keys()
        assert now in there
    last_of_months = {(time.year, time.month): time for time in made}
    assert set(last_of_months.values()) <= there
    last_of_days = {time.date(): time for time in made}
    assert set(list(last_of_days.values())[-30:]) <= there
    assert len(there) <= 30 + 12 + len(last_of_months)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 400), st.integers(1, 900))
def test_a_clock_that_jumps_costs_nothing(seed: int, nights: int, jump: int) -> None:
    """A clock that ran ahead for some nights and was set back: what was made since is kept, and so is the past."""
    chance = random.Random(seed)
    before = nightly(nights, NOW)
    ahead = [NOW + timedelta(days=jump + night) for night in range(chance.randrange(1, 60))]
    there = set(before)
    for time in ahead:  # made while the clock was wrong, pruned by the wrong clock
        there.add(time)
        there &= kept(there, DOCUMENTED, time).keys()
    for night in range(1, 40):  # the clock is right again
        now = NOW + timedelta(days=night, minutes=1)
        there.add(now)
        there &= kept(there, DOCUMENTED, now).keys()
        assert now in there
    months = {(time.year, time.month): time for time in sorted(before)}
    lost = {month for month, time in months.items() if time not in there}
    assert lost <= {(NOW.year, NOW.month)}, "a month of the past was lost"


def archive(root: Path, time: datetime, content: bytes = b"archive") -> Path:
    """A file that is an archive as far as its name and its checksum go."""
    path = root / f"{time:%Y%m%d_%H%M%S}.tar.gz"
    path.write_bytes(content)
    path.with_name(f"{path.name}.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  {path.name}\n")
    return path


def test_pruning_is_shown_first_and_touches_only_what_it_made(tmp_path: Path) -> None:
    start = datetime.now(UTC).replace(microsecond=0)
    ours = [archive(tmp_path, time) for time in nightly(200, start)]
    foreign = [tmp_path / name for name in ("20200101_000000.tar.gz", "notes.txt", "20200101_000000.tar.gz.age")]
    for path in foreign:
        path.touch()
    planned = [one.path for one, reasons in pruning.planned(tmp_path, DOCUMENTED) if not reasons]
    assert all(path.exists() for path in ours)
    removed = [one.path for one in pruning.prune(tmp_path, DOCUMENTED)]
    assert removed == planned
    assert [path for path in ours if not path.exists()] == sorted(planned, reverse=True)
    assert {path.name for path in tmp_path.iterdir()} >= {path.name for path in foreign}
    assert len(list(tmp_path.glob("*.sha256"))) == 200 - len(removed)
    assert pruning.prune(tmp_path, DOCUMENTED) == []


def test_nothing_is_removed_while_the_newest_archive_is_damaged(tmp_path: Path) -> None:
    start = datetime.now(UTC).replace(microsecond=0)
    ours = [archive(tmp_path, time) for time in nightly(100, start)]
    ours[0].write_bytes(b"arcHive")
    with pytest.raises(BackupError, match=r"Nothing was removed, for the newest archive is not good: .*differs"):
        pruning.prune(tmp_path, DOCUMENTED)
    assert all(path.exists() for path in ours)
