"""Putting the intervals of events on the resolution grid of a sensor."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Stretch:
    """A time with one value: start and end in whole seconds since 1970 (UTC), value in the sensor's unit."""

    start: int
    end: int
    value: float


@dataclass(frozen=True)
class Run:
    """Values for consecutive cells of the grid; `start` in seconds since 1970 (UTC)."""

    start: int
    values: tuple[float, ...]


def runs(
    stretches: Sequence[Stretch], window: tuple[int, int], resolution: int, neutral: float | None = None
) -> list[Run]:
    """Values of every cell of the grid that `window` touches.

    A cell's value is the mean of the stretches in it, weighted with the time each takes of the cell. Time that no
    stretch covers does not count; a cell without any gets `neutral`, or is left out when that is None.

    Args:
        stretches: not overlapping, in any order.
        window: start and end in seconds since 1970.
        resolution: seconds of a cell; cells begin at multiples of it.

    Returns:
        The cells in order, consecutive ones together.
    """
    ordered = sorted(stretches, key=lambda stretch: stretch.start)
    found: list[tuple[int, float]] = []
    first = 0
    for cell in range(window[0] // resolution * resolution, window[1], resolution):
        while first < len(ordered) and ordered[first].end <= cell:
            first += 1
        value = _mean(ordered[first:], cell, cell + resolution)
        if value is None:
            value = neutral
        if value is not None:
            found.append((cell, value))
    return _joined(found, resolution)


def joined(windows: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Windows (start, end) in order, with those that overlap or touch made one."""
    whole: list[tuple[int, int]] = []
    for start, end in sorted(windows):
        if whole and start <= whole[-1][1]:
            whole[-1] = (whole[-1][0], max(whole[-1][1], end))
        else:
            whole.append((start, end))
    return whole


def gaps(found: Sequence[Run], window: tuple[int, int], resolution: int) -> list[tuple[int, int]]:
    """Start and number of cells of each stretch of the window's grid in which no run has a value."""
    gaps: list[tuple[int, int]] = []
    position = window[0] // resolution * resolution
    end = -(-window[1] // resolution) * resolution
    for start, cells in [*((run.start, len(run.values)) for run in found), (end, 0)]:
        if start > position:
            gaps.append((position, (start - position) // resolution))
        position = start + cells * resolution
    return gaps


def _mean(stretches: Iterable[Stretch], start: int, end: int) -> float | None:
    weights: list[tuple[float, int]] = []
    for stretch in stretches:
        if stretch.start >= end:
            break
        if (seconds := min(stretch.end, end) - max(stretch.start, start)) > 0:
            weights.append((stretch.value, seconds))
    if not weights:
        return None
    if len({value for value, _ in weights}) == 1:
        return weights[0][0]  # exactly the value that was sent, without rounding
    return sum(value * seconds for value, seconds in weights) / sum(seconds for _, seconds in weights)


def _joined(cells: Sequence[tuple[int, float]], resolution: int) -> list[Run]:
    joined: list[Run] = []
    for cell, value in cells:
        last = joined[-1] if joined else None
        if last is not None and last.start + len(last.values) * resolution == cell:
            joined[-1] = Run(last.start, (*last.values, value))
        else:
            joined.append(Run(cell, (value,)))
    return joined
