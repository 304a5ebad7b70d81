"""Intervals on the grid of a sensor."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cariflex.ven.grid import Run, Stretch, runs

HOUR, QUARTER = 3600, 900


def test_intervals_of_the_resolution_pass_unchanged() -> None:
    stretches = [Stretch(0, HOUR, 0.1 + 0.2), Stretch(HOUR, 2 * HOUR, 7.0)]
    assert runs(stretches, (0, 2 * HOUR), HOUR) == [Run(0, (0.1 + 0.2, 7.0))]


def test_longer_intervals_fill_every_cell() -> None:
    assert runs([Stretch(0, HOUR, 5.0)], (0, HOUR), QUARTER) == [Run(0, (5.0,) * 4)]


def test_finer_intervals_become_their_mean_weighted_with_time() -> None:
    stretches = [Stretch(0, QUARTER, 10.0), Stretch(QUARTER, HOUR, 30.0)]
    assert runs(stretches, (0, HOUR), HOUR) == [Run(0, (25.0,))]


def test_time_without_a_value_does_not_count() -> None:
    assert runs([Stretch(1800, HOUR, 50.0)], (1800, HOUR), HOUR) == [Run(0, (50.0,))]


def test_a_cell_without_any_is_left_out_or_neutral() -> None:
    stretches = [Stretch(0, QUARTER, 1.0), Stretch(3 * QUARTER, HOUR, 2.0)]
    assert runs(stretches, (0, HOUR), QUARTER) == [Run(0, (1.0,)), Run(3 * QUARTER, (2.0,))]
    assert runs(stretches, (0, HOUR), QUARTER, neutral=0.0) == [Run(0, (1.0, 0.0, 0.0, 2.0))]


@st.composite
def schedules(draw: st.DrawFn) -> tuple[list[Stretch], int]:
    """Stretches that follow each other with gaps, in seconds, and a resolution."""
    position = draw(st.integers(0, 100))
    stretches = []
    for _ in range(draw(st.integers(1, 8))):
        position += draw(st.integers(0, 20))
        end = position + draw(st.integers(1, 60))
        stretches.append(Stretch(position, end, draw(st.floats(-1e4, 1e4, allow_nan=False))))
        position = end
    return stretches, draw(st.sampled_from([1, 5, 15, 60]))


@given(schedules())
def test_every_cell_has_the_mean_of_its_covered_seconds(schedule: tuple[list[Stretch], int]) -> None:
    """The oracle looks at each second on its own."""
    stretches, resolution = schedule
    by_second = {second: s.value for s in stretches for second in range(s.start, s.end)}
    window = (stretches[0].start, stretches[-1].end)
    found = {
        run.start + n * resolution: value
        for run in runs(stretches, window, resolution)
        for n, value in enumerate(run.values)
    }
    cells = {second // resolution * resolution for second in by_second}
    assert set(found) == cells
    for cell, value in found.items():
        seen = [by_second[s] for s in range(cell, cell + resolution) if s in by_second]
        assert abs(value - sum(seen) / len(seen)) <= 1e-6 * max(1.0, *(abs(v) for v in seen))
        assert min(seen) - 1e-6 <= value <= max(seen) + 1e-6


@given(schedules())
def test_runs_are_in_order_and_never_touch(schedule: tuple[list[Stretch], int]) -> None:
    stretches, resolution = schedule
    found = runs(stretches, (stretches[0].start, stretches[-1].end), resolution)
    for left, right in pairwise(found):
        assert left.start + len(left.values) * resolution < right.start


def test_the_order_of_the_stretches_does_not_matter() -> None:
    stretches = [Stretch(0, 10, 1.0), Stretch(10, 20, 2.0), Stretch(25, 40, 3.0)]
    assert runs(stretches[::-1], (0, 40), 15) == runs(stretches, (0, 40), 15)
