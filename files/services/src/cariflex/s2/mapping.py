"""From OpenADR signals and wanted powers to FRBC settings. Pure: nothing here knows time, network or storage.

Powers are in kW, + is consumption. In FRBC an operation mode has a range of power [P0, P1] and is set by a factor f in
0..1: P(f) = P0 + f · (P1 - P0). For a device that can discharge, f = 0 is full discharge, so nothing here turns a
missing value into a factor: what is not known gives None, and for None nothing is sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# OpenADR SIMPLE level -> share of the maximum consumption that is allowed. Level 0 is normal operation: no limit.
# The standard leaves the meaning of the levels to the programme; ours only lowers consumption and never forces a
# device to discharge.
SHARE_OF_LEVEL: Mapping[int, float] = {1: 0.7, 2: 0.3, 3: 0.0}

_ROUNDING = 1e-6  # kW


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
    """An operation mode; `abnormal`: the CEM may not choose it."""

    id: str
    elements: tuple[Element, ...]
    abnormal: bool = False

    def element_at(self, fill_level: float) -> Element | None:
        """What holds at a fill level; a level beyond all elements is taken as the nearest one's."""
        if not self.elements:
            return None
        return min(self.elements, key=lambda e: abs(e.fill_levels.clamp(fill_level) - fill_level))


@dataclass(frozen=True)
class Transition:
    """A change of mode that a device allows: not before the `blocking` timers have run out; it starts others."""

    before: str
    after: str
    starts: tuple[str, ...] = ()
    blocking: tuple[str, ...] = ()


@dataclass(frozen=True)
class Actuator:
    """What a device told about its electric actuator and its storage.

    Attributes:
        modes: all of them.
        fill_levels: of the storage, in the device's unit.
        transitions: the only ways from one mode to another.
        timers: seconds of each timer by id.
    """

    id: str
    modes: tuple[Mode, ...]
    fill_levels: Range
    transitions: tuple[Transition, ...] = ()
    timers: Mapping[str, float] = field(default_factory=dict)

    def modes_from(self, mode_id: str | None, finished: Mapping[str, float], at: float) -> tuple[Mode, ...]:
        """The modes that may be chosen at a time.

        Args:
            mode_id: the present mode; None: not known, so every one.
            finished: when each timer that was started runs out.
            at: the time, as `finished` has it.
        """
        allowed = {mode_id} | {
            way.after
            for way in self.transitions
            if way.before == mode_id and all(finished.get(timer, at) <= at for timer in way.blocking)
        }
        return tuple(mode for mode in self.modes if not mode.abnormal and (mode_id is None or mode.id in allowed))

    def timers_started(self, before: str | None, after: str, at: float) -> dict[str, float]:
        """When the timers run out that a change of mode starts."""
        return {
            timer: at + self.timers.get(timer, 0.0)
            for way in self.transitions
            if (way.before, way.after) == (before, after)
            for timer in way.starts
        }

    def rate_of(self, mode_id: str, factor: float, fill_level: float) -> float:
        """Change of the fill level per second; 0 for an unknown mode."""
        for mode in self.modes:
            if mode.id == mode_id and (element := mode.element_at(fill_level)):
                return element.fill_rate[0] + factor * (element.fill_rate[1] - element.fill_rate[0])
        return 0.0

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


def process_load_dispatch(kw: float | None, able: Mapping[str, Range]) -> dict[str, float]:
    """OpenADR LOAD_DISPATCH: what each storage does so that all together have a power.

    Args:
        kw: power of all together, + is consumption; None: nothing is asked.
        able: what each storage can do now, by its limits, its description and its state of charge, in kW.

    Returns:
        Wanted power in kW by storage, each in proportion to its range in that direction, none beyond it; when all
        together cannot do it, the nearest they can. Empty when nothing is asked.
    """
    if kw is None:
        return {}
    rest = {name: power.clamp(0.0) for name, power in able.items()}  # as near to doing nothing as each can
    asked = kw - sum(rest.values())
    ends = {name: power.high if asked > 0 else power.low for name, power in able.items()}
    room = sum(ends.values()) - sum(rest.values())
    share = min(1.0, asked / room) if room else 0.0
    return {name: able[name].clamp(rest[name] + share * (ends[name] - rest[name])) for name in able}


def process_charge_state(
    kwh: float | None, seconds: float, stored: Mapping[str, float], able: Mapping[str, Range]
) -> dict[str, float]:
    """OpenADR CHARGE_STATE: what each storage does so that all together hold an energy at the end of the interval.

    Args:
        kwh: energy of all together at the end; None: nothing is asked.
        seconds: until the end.
        stored: energy of each storage now, in kWh.
        able: as in `process_load_dispatch`; of storages in `stored`.

    Returns:
        Wanted power in kW by storage; empty when nothing is asked. Losses show in `stored` the next time it is asked.
    """
    if kwh is None or not able:
        return {}
    missing = kwh - sum(stored[name] for name in able)
    return process_load_dispatch(missing * 3600 / max(seconds, 1.0), able)


def reach(
    ceiling_kw: float | None,
    fill_level: float,
    actuator: Actuator,
    allowed: Range,
    modes: Sequence[Mode],
    needed: float | None = None,
) -> Range | None:
    """The powers between which a device can be set now, as `setting_for` does; None when there are none."""
    highest = allowed.high if ceiling_kw is None else max(min(ceiling_kw, allowed.high), allowed.low)
    ranges = [
        Range(max(safe.low, allowed.low), min(safe.high, highest))
        for _, _, safe in _safe_modes(modes, fill_level, _storage(actuator, needed))
        if safe.low <= highest and safe.high >= allowed.low
    ]
    return Range(min(r.low for r in ranges), max(r.high for r in ranges)) if ranges else None


def setting_for(
    wanted_kw: float | None,
    ceiling_kw: float | None,
    fill_level: float | None,
    actuator: Actuator,
    allowed: Range,
    modes: Sequence[Mode] | None = None,
    needed: float | None = None,
) -> Setting | None:
    """How to set a device: the limit first, then what is wanted, never beyond what the device says of itself.

    Args:
        wanted_kw: the plan, or what the device does by itself.
        ceiling_kw: upper limit, or None.
        fill_level: of the storage, in the device's unit.
        actuator: the device's description.
        allowed: the range that the operator allows, in kW.
        modes: those that may be chosen now; None: every one for normal operation.
        needed: the fill level below which the storage must not be discharged, or None.

    Returns:
        The setting nearest to what is wanted under the limit; where the device can do nothing under the limit, its
        lowest power. None when something needed is not known, or the device can do nothing at this fill level that the
        operator allows.
    """
    if wanted_kw is None or fill_level is None:
        return None
    ceiling = allowed.high if ceiling_kw is None else max(min(ceiling_kw, allowed.high), allowed.low)
    aim = min(allowed.clamp(wanted_kw), ceiling)
    possible: list[tuple[bool, float, Setting]] = []
    chosen_from = actuator.modes_from(None, {}, 0.0) if modes is None else modes
    for mode, element, safe in _safe_modes(chosen_from, fill_level, _storage(actuator, needed)):
        power = safe.clamp(aim)
        if allowed.low - _ROUNDING <= power <= allowed.high + _ROUNDING:
            factor = power_to_factor(power, element.power_kw)
            possible.append((power > ceiling, abs(power - aim), Setting(mode.id, factor, element.power(factor))))
    return min(possible, key=lambda entry: entry[:2])[2] if possible else None


def _safe_modes(modes: Sequence[Mode], fill_level: float, storage: Range) -> list[tuple[Mode, Element, Range]]:
    found = []
    for mode in modes:
        element = mode.element_at(fill_level)
        safe = element.safe_power(fill_level, storage) if element else None
        if element is not None and safe is not None:
            found.append((mode, element, safe))
    return found


def _storage(actuator: Actuator, needed: float | None) -> Range:
    """The fill levels between which the storage may move."""
    levels = actuator.fill_levels
    return levels if needed is None else Range(levels.clamp(needed), levels.high)
