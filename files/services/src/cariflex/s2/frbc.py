"""Reading FRBC messages of s2-python into what the mapping works with."""

from collections.abc import Callable, Iterable
from typing import Any

from pydantic import BaseModel
from s2python.common import CommodityQuantity

from cariflex.s2.mapping import Actuator, Element, Mode, Range, Transition
from cariflex.s2.outlook import Span
from cariflex.s2.wire import RefusedError, Status

_ELECTRIC = (
    CommodityQuantity.ELECTRIC_POWER_3_PHASE_SYMMETRIC,
    CommodityQuantity.ELECTRIC_POWER_L1,
    CommodityQuantity.ELECTRIC_POWER_L2,
    CommodityQuantity.ELECTRIC_POWER_L3,
)

MOST = 1e12  # of any number: a terawatt


def actuator_of(description: Any) -> Actuator:
    """The one electric actuator of an FRBC.SystemDescription.

    Raises:
        RefusedError: INVALID_CONTENT, it has not exactly one that can be understood.
    """
    levels = _range(description.storage.fill_level_range)
    if levels.low >= levels.high:
        raise _wrong(description, "storage.fill_level_range is empty")
    found = [actuator for actuator in description.actuators if _has_power(actuator)]
    if len(found) != 1:
        raise _wrong(description, f"{len(found)} actuators have electric power; exactly one can be controlled")
    actuator = found[0]
    if all(mode.abnormal_condition_only for mode in actuator.operation_modes):
        raise _wrong(description, "no operation mode is for normal operation")
    if not _is_sane(description):
        raise _wrong(description, f"a number is beyond ±{MOST:g}")
    modes, timers = {mode.id for mode in actuator.operation_modes}, {timer.id for timer in actuator.timers}
    for way in actuator.transitions:
        if unknown := ({way.from_, way.to} - modes) | ({*way.start_timers, *way.blocking_timers} - timers):
            raise _wrong(description, f"transition {way.id} names {unknown.pop()}, which is not described")
    return Actuator(
        str(actuator.id),
        tuple(
            Mode(str(m.id), tuple(_element(e) for e in m.elements), m.abnormal_condition_only)
            for m in actuator.operation_modes
        ),
        levels,
        tuple(
            Transition(str(t.from_), str(t.to), _ids(t.start_timers), _ids(t.blocking_timers))
            for t in actuator.transitions
            if not t.abnormal_condition_only
        ),
        {str(timer.id): _seconds(timer.duration) for timer in actuator.timers},
    )


def level_in_kwh(description: Any, level: float, energy_kwh: float) -> float:
    """Stored energy of a fill level: a level is in kWh where its label says so, otherwise in percent of capacity."""
    label = (description.storage.fill_level_label or "").lower()
    return level if "kwh" in label else level / 100 * energy_kwh


def _is_sane(content: Any) -> bool:
    """Whether all numbers are such that sums and quotients of them stay numbers."""
    if isinstance(content, BaseModel):
        return all(_is_sane(getattr(content, name)) for name in type(content).model_fields)
    if isinstance(content, list):
        return all(map(_is_sane, content))
    return not isinstance(content, int | float) or abs(content) <= MOST


def checked_level(level: float) -> float:
    """A fill level.

    Raises:
        RefusedError: INVALID_CONTENT, it is no such thing.
    """
    if abs(level) > MOST:
        raise RefusedError(Status.INVALID_CONTENT, f"fill level {level:g} is beyond ±{MOST:g}")
    return level


def leakage_of(message: Any) -> tuple[Span, ...]:
    """The change of the fill level per second at some fill levels, of an FRBC.LeakageBehaviour."""
    return tuple(Span(*_ends(e.fill_level_range), -e.leakage_rate) for e in message.elements)


def usage_of(message: Any) -> tuple[Span, ...]:
    """The expected change of the fill level per second at some times, of an FRBC.UsageForecast."""
    return _in_time(message, lambda element: element.usage_rate_expected)


def targets_of(message: Any) -> tuple[Span, ...]:
    """The lowest fill level that is wanted at some times, of an FRBC.FillLevelTargetProfile."""
    return _in_time(message, lambda element: _range(element.fill_level_range).low)


def measured_kw(message: Any) -> float | None:
    """Electric power of a PowerMeasurement; None without one."""
    watts = [value.value for value in message.values if value.commodity_quantity in _ELECTRIC]
    return sum(watts) / 1000 if watts else None


def _in_time(message: Any, value: Callable[[Any], float]) -> tuple[Span, ...]:
    spans, start = [], message.start_time.timestamp()
    for element in message.elements:
        end = start + _seconds(element.duration)
        spans.append(Span(start, end, value(element)))
        start = end
    return tuple(spans)


def _seconds(duration: Any) -> float:
    """Seconds of a duration; one of more than 30,000 years is not longer than that."""
    return min(int(duration.root), 10**15) / 1000


def _ids(given: Iterable[Any]) -> tuple[str, ...]:
    return tuple(str(one) for one in given)


def _ends(given: Any) -> tuple[float, float]:
    levels = _range(given)
    return levels.low, levels.high


def _has_power(actuator: Any) -> bool:
    elements = [element for mode in actuator.operation_modes for element in mode.elements]
    return bool(elements) and all(any(p.commodity_quantity in _ELECTRIC for p in e.power_ranges) for e in elements)


def _element(element: Any) -> Element:
    ranges = [power for power in element.power_ranges if power.commodity_quantity in _ELECTRIC]
    power = Range(sum(p.start_of_range for p in ranges) / 1000, sum(p.end_of_range for p in ranges) / 1000)
    rate = (element.fill_rate.start_of_range, element.fill_rate.end_of_range)
    return Element(_range(element.fill_level_range), rate, power)


def _range(given: Any) -> Range:
    return Range(*sorted((given.start_of_range, given.end_of_range)))


def _wrong(description: Any, text: str) -> RefusedError:
    return RefusedError(Status.INVALID_CONTENT, text, description.message_id)
