"""Reading FRBC messages of s2-python into what the mapping works with."""

from typing import Any

from s2python.common import CommodityQuantity

from cariflex.s2.mapping import Actuator, Element, Mode, Range
from cariflex.s2.wire import RefusedError, Status

_ELECTRIC = (
    CommodityQuantity.ELECTRIC_POWER_3_PHASE_SYMMETRIC,
    CommodityQuantity.ELECTRIC_POWER_L1,
    CommodityQuantity.ELECTRIC_POWER_L2,
    CommodityQuantity.ELECTRIC_POWER_L3,
)


def actuator_of(description: Any) -> Actuator:
    """The one electric actuator of an FRBC.SystemDescription, with the modes that may be used in normal operation.

    Raises:
        RefusedError: INVALID_CONTENT, it has not exactly one that can be understood.
    """
    levels = _range(description.storage.fill_level_range)
    if levels.low >= levels.high:
        raise _wrong(description, "storage.fill_level_range is empty")
    found = [actuator for actuator in description.actuators if _has_power(actuator)]
    if len(found) != 1:
        raise _wrong(description, f"{len(found)} actuators have electric power; exactly one can be controlled")
    modes = [mode for mode in found[0].operation_modes if not mode.abnormal_condition_only]
    if not modes:
        raise _wrong(description, "no operation mode is for normal operation")
    return Actuator(
        str(found[0].id), tuple(Mode(str(m.id), tuple(_element(e) for e in m.elements)) for m in modes), levels
    )


def level_in_kwh(description: Any, level: float, energy_kwh: float) -> float:
    """Stored energy of a fill level: a level is in kWh where its label says so, otherwise in percent of capacity."""
    label = (description.storage.fill_level_label or "").lower()
    return level if "kwh" in label else level / 100 * energy_kwh


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
