"""From OpenADR signals and wanted powers to FRBC settings. Pure: nothing here knows time, network or storage.

Powers are in kW, + is consumption. In FRBC an operation mode has a range of power [P0, P1] and is set by a factor f in
0..1: P(f) = P0 + f · (P1 - P0). For a device that can discharge, f = 0 is full discharge, so nothing here turns a
missing value into a factor: what is not known gives None, and for None nothing is sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# OpenADR SIMPLE level -> share of the maximum consumption that is allowed. Level 0 is normal operation: no limit.
# The standard leaves the meaning of the levels to the programme; ours only lowers consumption and never forces a
# device to discharge.
SHARE_OF_LEVEL: Mapping[int, float] = {1: 0.7, 2: 0.3, 3: 0.0}


@dataclass(frozen=True)
class Range:
    """A closed range; `low` is not above `high`."""

    low: float
    high: float

    def clamp(self, value: float) -> float:
        """The nearest value within."""
        return min(max(value, self.low), self.high)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Element:
    """What an operation mode does at some fill levels, at factor 0 and at factor 1.

    Attributes:
        fill_levels: where it holds, in the device's own unit.
        fill_rate: change of the fill level per second, at factor 0 and 1.
        power_kw: power at factor 0 and 1.
    """

    fill_levels: Range
    fill_rate: tuple[float, float]
    power_kw: Range

    def power(self, factor: float) -> float:
        """kW at a factor."""
        return factor_to_power(factor, self.power_kw)

    def safe_power(self, fill_level: float, storage: Range) -> Range | None:
        """The powers that do not overfill a full storage nor drain an empty one, or None when there are none."""
        first, last = self.fill_rate
        low, high = 0.0, 1.0
        if fill_level >= storage.high:  # the fill rate must not be above 0
            low, high = _factors_below_zero(first, last)
        if fill_level <= storage.low:  # nor below 0 here
            from_empty = _factors_below_zero(-first, -last)
            low, high = max(low, from_empty[0]), min(high, from_empty[1])
        return Range(self.power(low), self.power(high)) if low <= high else None


def _factors_below_zero(first: float, last: float) -> tuple[float, float]:
    """The factors within 0..1 at which a rate that goes from `first` to `last` is at most 0; (1, 0) for none."""
    if first <= 0 and last <= 0:
        return 0.0, 1.0
    if first > 0 and last > 0:
        return 1.0, 0.0
    crossing = first / (first - last)
    return (0.0, crossing) if first <= 0 else (crossing, 1.0)


@dataclass(frozen=True)
class Mode:
    """An operation mode that the CEM may choose."""

    id: str
    elements: tuple[Element, ...]

    def element_at(self, fill_level: float) -> Element | None:
        """What holds at a fill level; a level beyond all elements is taken as the nearest one's."""
        if not self.elements:
            return None
        return min(self.elements, key=lambda e: abs(e.fill_levels.clamp(fill_level) - fill_level))


@dataclass(frozen=True)
class Actuator:
    """What a device told about its electric actuator and its storage."""

    id: str
    modes: tuple[Mode, ...]
    fill_levels: Range

    def power_of(self, mode_id: str, factor: float, fill_level: float) -> float | None:
        """kW of a mode at a factor; None for an unknown mode."""
        for mode in self.modes:
            if mode.id == mode_id and (element := mode.element_at(fill_level)):
                return element.power(factor)
        return None


@dataclass(frozen=True)
class Setting:
    """What an FRBC.Instruction says."""

    mode_id: str
    factor: float
    power_kw: float


def factor_to_power(factor: float, power_kw: Range) -> float:
    """kW at a factor in 0..1."""
    return power_kw.clamp(power_kw.low + factor * (power_kw.high - power_kw.low))


def power_to_factor(power: float, power_kw: Range) -> float:
    """The factor in 0..1 whose power is nearest to `power` (kW)."""
    span = power_kw.high - power_kw.low
    return 0.0 if span <= 0 else Range(0.0, 1.0).clamp((power - power_kw.low) / span)


def process_load_control(percent: float | None, resources: Mapping[str, Range]) -> dict[str, float]:
    """OpenADR LOAD_CONTROL (x-loadControlCapacity): the upper limit of each resource.

    Args:
        percent: the share of maximum consumption that is allowed, 0 to 100; None: there is no limit.
        resources: the power range of each resource in kW, + is consumption.

    Returns:
        Upper limit in kW by resource; empty without a limit. A limit is never below 0: it does not force discharge.
    """
    if percent is None or percent >= 100:
        return {}
    share = max(0.0, percent) / 100
    return {name: share * max(0.0, power.high) for name, power in resources.items()}


def process_demand_response(level: float | None, resources: Mapping[str, Range]) -> dict[str, float]:
    """OpenADR SIMPLE: the upper limit of each resource, by `SHARE_OF_LEVEL`.

    Args:
        level: 0 to 3; a value in between counts as the next higher level; None: nothing is asked.
        resources: the power range of each resource in kW, + is consumption.

    Returns:
        Upper limit in kW by resource; empty for level 0 and None.
    """
    if level is None or level <= 0:
        return {}
    share = next((share for known, share in SHARE_OF_LEVEL.items() if level <= known), min(SHARE_OF_LEVEL.values()))
    return process_load_control(100 * share, resources)


def strictest(limits: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Limits that hold at the same time: the lowest of each resource."""
    names = {name for limit in limits for name in limit}
    return {name: min(limit[name] for limit in limits if name in limit) for name in names}


def setting_for(
    wanted_kw: float | None, ceiling_kw: float | None, fill_level: float | None, actuator: Actuator, allowed: Range
) -> Setting | None:
    """How to set a device: the limit first, then what is wanted, never beyond what the device says of itself.

    Args:
        wanted_kw: the plan, or what the device does by itself.
        ceiling_kw: upper limit, or None.
        fill_level: of the storage, in the device's unit.
        actuator: the device's description.
        allowed: the range that the operator allows, in kW.

    Returns:
        The setting nearest to what is wanted under the limit; where the device can do nothing under the limit, its
        lowest power. None when something needed is not known or the device can do nothing at this fill level.
    """
    if wanted_kw is None or fill_level is None:
        return None
    ceiling = allowed.high if ceiling_kw is None else max(min(ceiling_kw, allowed.high), allowed.low)
    aim = min(allowed.clamp(wanted_kw), ceiling)
    possible: list[tuple[bool, float, Setting]] = []
    for mode in actuator.modes:
        element = mode.element_at(fill_level)
        safe = element.safe_power(fill_level, actuator.fill_levels) if element else None
        if element is None or safe is None:
            continue
        power = safe.clamp(aim)
        factor = power_to_factor(power, element.power_kw)
        possible.append((power > ceiling, abs(power - aim), Setting(mode.id, factor, element.power(factor))))
    return min(possible, key=lambda entry: entry[:2])[2] if possible else None
