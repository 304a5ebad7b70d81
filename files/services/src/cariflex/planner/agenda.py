"""When to plan. Pure: the caller says what time it is, in seconds."""

from collections import deque
from dataclasses import dataclass, field

QUIET_SECONDS = 0.3  # without a further change, before a change is answered: one plan for events that come together
LONGEST_SECONDS = 5.0  # however many changes come
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 5.0, 300.0


@dataclass
class Agenda:
    """On a rhythm, soon after every change, and again after a failure.

    Attributes:
        every: seconds between two plans; they are due at multiples of it.
        causes: what has changed since the last plan.
    """

    every: int
    causes: list[str] = field(default_factory=lambda: ["start"])
    _first: float = 0.0
    _last: float = 0.0
    _next: float = 0.0
    _not_before: float = 0.0
    _failures: int = 0
    _held: bool = False  # FlexMeasures has said how long to wait

    def notice(self, cause: str, now: float) -> None:
        """Something that plans depend on has changed."""
        if not self.causes:
            self._first = now
        if cause not in self.causes:
            self.causes.append(cause)
        self._last = now
        if self._failures and not self._held:  # what has changed may be what was missing
            self._not_before = min(self._not_before, now + FIRST_PAUSE_SECONDS)

    def due(self, now: float) -> bool:
        """Whether to plan now."""
        if self._next and now >= self._next and "rhythm" not in self.causes:
            self.causes.append("rhythm")
            self._last = min(self._last, now - QUIET_SECONDS)
        quiet = now >= min(self._last + QUIET_SECONDS, self._first + LONGEST_SECONDS)
        return bool(self.causes) and quiet and now >= self._not_before

    def begin(self, now: float) -> list[str]:
        """A plan is being made; what changes from now on needs another one. Returns why."""
        causes, self.causes = self.causes, []
        self._next = now // self.every * self.every + self.every
        return causes

    def done(self) -> None:
        """The plan is made."""
        self._failures = 0
        self._not_before = 0.0

    def failed(self, causes: list[str], now: float, pause: float | None = None) -> float:
        """It is not: try again after `pause` seconds, or ever later. Returns the seconds until then."""
        seconds = pause or min(FIRST_PAUSE_SECONDS * 2.0**self._failures, LONGEST_PAUSE_SECONDS)
        self._failures = min(self._failures + 1, 20)
        self._held = pause is not None
        self._not_before = now + seconds
        self.causes = causes + [cause for cause in self.causes if cause not in causes]
        return seconds


class Pace:
    """No more triggers than FlexMeasures takes: so many in so many seconds."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._spent: deque[float] = deque()

    def wait(self, now: float, keep: int = 0) -> float:
        """Seconds until one may be sent, with `keep` left for others after it; 0: now."""
        while self._spent and self._spent[0] <= now - self._seconds:
            self._spent.popleft()
        room = self._most - keep
        return 0.0 if len(self._spent) < room else self._spent[len(self._spent) - room] + self._seconds - now

    def spend(self, now: float) -> None:
        """One is sent."""
        self._spent.append(now)
