"""Which events the site does not take part in: the operator's rules, and the pure decision about an event."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cariflex.openadr.signals import SIGNALS
from cariflex.ven.grid import Stretch

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d|24:00")


class Rule(BaseModel):
    """One reason to opt out: without times it holds always, without signals for all.

    An event is refused when one of its intervals lies in the rule's times, in part at least, with a value beyond the
    rule's limits.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: str = Field(min_length=1, max_length=200, description="why, for logs and health", examples=["maintenance"])
    signals: tuple[str, ...] = Field((), description="the signals it holds for; none: all", examples=[["LOAD_CONTROL"]])
    start: datetime | None = Field(None, description="when it begins to hold", examples=["2027-03-01T08:00"])
    end: datetime | None = Field(None, description="when it ceases to hold", examples=["2027-03-01T17:00"])
    days: tuple[Day, ...] = Field((), description="the days of the week; none: every day", examples=[["sat", "sun"]])
    since: str | None = Field(None, alias="from", description="the local time of day it begins", examples=["22:00"])
    to: str | None = Field(None, description="the local time of day it ceases", examples=["06:00"])
    above: float | None = Field(
        None, allow_inf_nan=False, description="refuse values above, in the signal's unit", examples=[100]
    )
    below: float | None = Field(
        None, allow_inf_nan=False, description="refuse values below, in the signal's unit", examples=[-100]
    )

    @field_validator("since", "to", mode="before")
    @classmethod
    def _time_of_day(cls, value: object) -> object:
        if value is not None and not (isinstance(value, str) and _CLOCK.fullmatch(value)):
            raise ValueError("is not a time of day. Write it with quotes and two digits, for example '22:00'")
        return value

    @field_validator("signals")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in SIGNALS:
                raise ValueError(f"has an unknown signal {name}; known are {', '.join(SIGNALS)}")
        return value

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.start is None) != (self.end is None):
            raise ValueError("has one of start and end. Give both")
        if (self.since is None) != (self.to is None):
            raise ValueError("has one of from and to. Give both")
        if self.start is not None and self.since is not None:
            raise ValueError("has start and from. Give start and end, or days, from and to")
        if self.days and self.since is None:
            raise ValueError("has days and no times. Add from and to, for example '00:00' and '24:00'")
        if self.since is not None and self.since in (self.to, "24:00"):
            raise ValueError("covers no time. Give from and to that differ, for example '00:00' and '24:00'")
        if self.start is not None and self.end is not None:
            if (self.start.tzinfo is None) != (self.end.tzinfo is None):
                raise ValueError("has a timezone in one of start and end. Give it in both or in none")
            if self.start >= self.end:
                raise ValueError("ends before it starts. Exchange start and end")
        if (self.above is not None or self.below is not None) and len(self.signals) != 1:
            raise ValueError("has a limit for no or several signals, whose units differ. Name one signal in signals")
        if not (self.signals or self.start or self.since):
            raise ValueError("would refuse every event. Name signals, or times")
        return self

    @property
    def is_window(self) -> bool:
        """Whether it refuses every event at its times."""
        return not self.signals and (self.start is not None or self.since is not None)

    def concerns(self, value: float) -> bool:
        """Whether a value is beyond the rule's limits; every value is when it has none."""
        if self.above is None and self.below is None:
            return True
        return (self.above is not None and value > self.above) or (self.below is not None and value < self.below)

    def windows(self, start: int, end: int, timezone: tzinfo) -> Iterator[tuple[int, int]]:
        """The rule's times that overlap a time, in order; all in whole seconds since 1970."""
        if self.start is not None and self.end is not None:
            windows: Iterator[tuple[int, int]] = iter([(_seconds(self.start, timezone), _seconds(self.end, timezone))])
        elif self.since is not None and self.to is not None:
            windows = self._daily(start, end, timezone, self.since, self.to)
        else:
            windows = iter([(start, end)])
        return (window for window in windows if window[0] < end and window[1] > start)

    def _daily(self, start: int, end: int, timezone: tzinfo, since: str, to: str) -> Iterator[tuple[int, int]]:
        date = datetime.fromtimestamp(start, timezone).date() - timedelta(days=1)  # it may reach past midnight
        last = datetime.fromtimestamp(end, timezone).date()
        overnight = to == "24:00" or to < since
        last_time = time.fromisoformat("00:00" if to == "24:00" else to)
        while date <= last:
            if not self.days or DAYS[date.weekday()] in self.days:
                begin = datetime.combine(date, time.fromisoformat(since))
                until = datetime.combine(date + timedelta(days=overnight), last_time)
                yield _seconds(begin, timezone), _seconds(until, timezone)
            date += timedelta(days=1)


def refusal(signal_name: str, stretches: Sequence[Stretch], rules: Sequence[Rule], timezone: tzinfo) -> str | None:
    """Why the site does not take part in an event, by the first rule that refuses it; None: it does.

    Args:
        signal_name: the event's signal.
        stretches: its intervals, values in the operator's unit.
        rules: the operator's.
        timezone: the site's, for times of day and times without a timezone.
    """
    for rule in rules:
        if rule.signals and signal_name not in rule.signals:
            continue
        for stretch in stretches:
            if rule.concerns(stretch.value):
                for window in rule.windows(stretch.start, stretch.end, timezone):
                    return _why(rule, stretch, window, timezone)
    return None


def announced(rules: Sequence[Rule], since: int, until: int, timezone: tzinfo) -> list[tuple[int, int]]:
    """The windows in which every event is refused and that overlap a time, in order; in seconds since 1970."""
    return sorted({window for rule in rules if rule.is_window for window in rule.windows(since, until, timezone)})


def _why(rule: Rule, stretch: Stretch, window: tuple[int, int], timezone: tzinfo) -> str:
    details = []
    if rule.start is not None or rule.since is not None:
        begin, end = (datetime.fromtimestamp(moment, timezone).isoformat(timespec="minutes") for moment in window)
        details.append(f"{begin} to {end}")
    if rule.above is not None or rule.below is not None:
        details.append(f"value {stretch.value:g}")
    return f"{rule.reason} ({', '.join(details)})" if details else rule.reason


def _seconds(moment: datetime, timezone: tzinfo) -> int:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone)
    return int(aware.astimezone(UTC).timestamp())
