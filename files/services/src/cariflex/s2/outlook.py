"""What a device says will happen to its storage by itself, and what it has to hold at some time. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A value from one end, included, to the other: of times (seconds since 1970) or of fill levels."""

    start: float
    end: float
    value: float


@dataclass(frozen=True)
class Outlook:
    """Leakage, usage and targets of a storage; empty where the device has told none.

    Attributes:
        leakage: change of the fill level per second, by fill level.
        usage: expected change of the fill level per second, by time.
        targets: the lowest fill level that is wanted, by time.
    """

    leakage: tuple[Span, ...] = ()
    usage: tuple[Span, ...] = ()
    targets: tuple[Span, ...] = ()

    def drift(self, fill_level: float, at: float) -> float:
        """Change of the fill level per second that comes without the actuator."""
        return _value(self.leakage, fill_level) + _value(self.usage, at)

    def needed(self, at: float, fastest: float) -> float | None:
        """The fill level that must be there at a time, so that every later target can still be reached.

        Args:
            at: the time.
            fastest: the highest fill rate of the device, per second.

        Returns:
            The level, or None when there is no target any more.
        """
        levels = [span.value - max(0.0, fastest) * max(0.0, span.start - at) for span in self.targets if at < span.end]
        return max(levels, default=None)


def _value(spans: tuple[Span, ...], at: float) -> float:
    return next((span.value for span in spans if span.start <= at < span.end), 0.0)
