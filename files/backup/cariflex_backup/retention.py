"""Which archives are kept. Pure: it is given times and says which may go.

Counted are days, weeks and months that have an archive, as restic counts them, not days of the calendar: a clock that
jumped, or a month without backups, costs no old archive. What is dated in the future was made while a clock was wrong:
it is kept until its time has come, and takes nobody's place.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Policy:
    """How many days, weeks and months keep their last archive; 0 months: all."""

    days: int = 30
    weeks: int = 12
    months: int = 0


def kept(times: Iterable[datetime], policy: Policy, now: datetime) -> dict[datetime, tuple[str, ...]]:
    """The times to keep, each with its reasons: `newest`, `daily`, `weekly`, `monthly`, `future`.

    Args:
        times: when the good archives were made, in the zone whose days are meant.
        policy: how many of each.
        now: what the clock says.
    """
    given = sorted(set(times), reverse=True)
    newest_first = [time for time in given if time <= now]
    reasons: dict[datetime, list[str]] = {time: ["future"] for time in given if time > now}
    reasons |= {time: ["newest"] for time in newest_first[:1]}
    for reason, period, count in (
        ("daily", lambda time: time.date(), policy.days),
        ("weekly", lambda time: time.isocalendar()[:2], policy.weeks),
        ("monthly", lambda time: (time.year, time.month), policy.months or len(newest_first)),
    ):
        for time in _last_of_each(newest_first, period)[:count]:
            reasons.setdefault(time, []).append(reason)
    return {time: tuple(why) for time, why in reasons.items()}


def _last_of_each(newest_first: list[datetime], period: Callable[[datetime], Hashable]) -> list[datetime]:
    last: dict[Hashable, datetime] = {}
    for time in newest_first:
        last.setdefault(period(time), time)
    return list(last.values())
