"""What every device is to do now and later: limits first, then dispatch, target, plan, its own will. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal, TypeVar

from cariflex.s2.mapping import (
    Actuator,
    Mode,
    Range,
    Setting,
    process_charge_state,
    process_demand_response,
    process_load_control,
    process_load_dispatch,
    reach,
    setting_for,
    strictest,
)
from cariflex.s2.outlook import Outlook
from cariflex.ven.grid import Stretch
from cariflex.ven.outbox import Asked

HORIZON_SECONDS = 86400.0  # how far ahead devices are told
MOST_STEPS = 100  # and how many steps at most: a day of quarter hours

Reason = Literal["dispatch", "charge", "plan", "own"]


@dataclass(frozen=True)
class Signals:
    """What is asked of the devices, now and later.

    Attributes:
        load_control: in % of maximum consumption.
        simple: levels 0 to 3.
        dispatch: kW of all storages together.
        charge: kWh of all storages together at the end of each stretch.
        plans: kW of each device.
    """

    load_control: tuple[Asked, ...] = ()
    simple: tuple[Asked, ...] = ()
    dispatch: tuple[Asked, ...] = ()
    charge: tuple[Asked, ...] = ()
    plans: Mapping[str, tuple[Stretch, ...]] = field(default_factory=dict)

    def moments(self, now: float) -> list[float]:
        """When something begins or ends after now, within the horizon, in order."""
        groups = (self.load_control, self.simple, self.dispatch, self.charge, *self.plans.values())
        ends = {float(end) for group in groups for stretch in group for end in (stretch.start, stretch.end)}
        return sorted(moment for moment in ends if now < moment <= now + HORIZON_SECONDS)[:MOST_STEPS]

    def asks_together(self, now: float) -> bool:
        """Whether something is asked now of all storages together."""
        return bool(holding(self.dispatch, now) or holding(self.charge, now))


@dataclass(frozen=True)
class Known:
    """A device of which everything is known that control needs.

    Attributes:
        own_kw: what it does by itself.
        mode_id: its present mode.
        timers: when each started timer runs out, seconds since 1970.
        kwh: energy of the whole storage.
        kwh_per_level: energy of one unit of the fill level.
    """

    actuator: Actuator
    allowed: Range
    fill_level: float
    own_kw: float
    kwh: float
    kwh_per_level: float
    mode_id: str | None = None
    timers: Mapping[str, float] = field(default_factory=dict)
    outlook: Outlook = field(default_factory=Outlook)

    def modes(self, at: float) -> tuple[Mode, ...]:
        """The modes that may be chosen at a time."""
        return self.actuator.modes_from(self.mode_id, self.timers, at)

    def needed(self, at: float) -> float | None:
        """The fill level below which it must not be discharged."""
        rates = [max(element.fill_rate) for mode in self.modes(at) for element in mode.elements]
        return self.outlook.needed(at, max(rates, default=0.0))

    def reach(self, ceiling_kw: float | None, at: float) -> Range | None:
        """The powers between which it can be set."""
        return reach(ceiling_kw, self.fill_level, self.actuator, self.allowed, self.modes(at), self.needed(at))

    def setting(self, aim: "Aim", at: float) -> Setting | None:
        """How to set it for an aim."""
        wanted = self.own_kw if aim.wanted_kw is None else aim.wanted_kw
        return setting_for(
            wanted, aim.ceiling_kw, self.fill_level, self.actuator, self.allowed, self.modes(at), self.needed(at)
        )

    def after(self, setting: Setting, at: float, seconds: float) -> "Known":
        """As it will be when it has been set so for a time."""
        rate = self.actuator.rate_of(setting.mode_id, setting.factor, self.fill_level)
        rate += self.outlook.drift(self.fill_level, at)
        timers = {**self.timers, **self.actuator.timers_started(self.mode_id, setting.mode_id, at)}
        level = self.actuator.fill_levels.clamp(self.fill_level + rate * seconds)
        return replace(self, fill_level=level, mode_id=setting.mode_id, timers=timers)


@dataclass(frozen=True)
class Aim:
    """What is asked of one device at a time.

    Attributes:
        wanted_kw: None for its own will.
        ceiling_kw: None without a limit.
        reason: where `wanted_kw` comes from.
        events: ids of the events behind both.
    """

    wanted_kw: float | None = None
    ceiling_kw: float | None = None
    reason: Reason = "own"
    events: tuple[str, ...] = ()


OWN_WILL = Aim()


@dataclass(frozen=True)
class Site:
    """The declared devices: the power range of each in kW, and the energy of all storages together."""

    powers: Mapping[str, Range]
    kwh: float


@dataclass(frozen=True)
class Step:
    """What a device is to do from a time on (seconds since 1970)."""

    at: float
    aim: Aim
    setting: Setting


def holding(asked: Sequence[Asked], now: float) -> list[Asked]:
    """Those that hold at a time."""
    return [one for one in asked if one.start <= now < one.end]


def limits_at(
    now: float, load_control: Sequence[Stretch], simple: Sequence[Stretch], powers: Mapping[str, Range]
) -> dict[str, float]:
    """Upper limit in kW of each device at a time; where events overlap the strictest holds.

    Args:
        now: seconds since 1970.
        load_control: values in % of maximum consumption.
        simple: levels 0 to 3.
        powers: power range of each device in kW.
    """
    percents = [stretch.value for stretch in load_control if stretch.start <= now < stretch.end]
    levels = [stretch.value for stretch in simple if stretch.start <= now < stretch.end]
    return strictest(
        [
            process_load_control(min(percents, default=None), powers),
            process_demand_response(max(levels, default=None), powers),
        ]
    )


def aims_at(now: float, signals: Signals, site: Site, known: Mapping[str, Known]) -> dict[str, Aim]:
    """What is asked of each device at a time.

    Limits hold whatever else is asked. Of the rest, a dispatch goes before a target, that before a plan, and that
    before the device's own will. Of two events of one signal the one that began last counts.

    Args:
        now: seconds since 1970.
        signals: all that is asked.
        site: the declared devices.
        known: the devices that can be controlled; what is asked of all together is shared among these.
    """
    limits = limits_at(now, signals.load_control, signals.simple, site.powers)
    limiting = tuple(
        one.event_id for one in (*holding(signals.load_control, now), *holding(signals.simple, now)) if limits
    )
    wanted: dict[str, float] = {}
    reason: Reason = "own"
    events: tuple[str, ...] = ()
    if signals.asks_together(now):
        able = {name: power for name, one in known.items() if (power := one.reach(limits.get(name), now))}
        if dispatch := _last(holding(signals.dispatch, now)):
            wanted, reason, events = process_load_dispatch(dispatch.value, able), "dispatch", (dispatch.event_id,)
        elif charge := _last(holding(signals.charge, now)):
            stored = {name: known[name].fill_level * known[name].kwh_per_level for name in able}
            # a storage of which nothing is known is taken to hold its part
            part = sum(known[name].kwh for name in able) / site.kwh
            wanted = process_charge_state(charge.value * part, charge.end - now, stored, able)
            reason, events = "charge", (charge.event_id,)
    aims = {}
    for name in site.powers:
        own = limiting if name in limits else ()
        if name in wanted:
            aims[name] = Aim(wanted[name], limits.get(name), reason, own + events)
        elif plan := _last([one for one in signals.plans.get(name, ()) if one.start <= now < one.end]):
            aims[name] = Aim(plan.value, limits.get(name), "plan", own)
        else:
            aims[name] = Aim(None, limits.get(name), "own", own)
    return aims


def ahead(now: float, signals: Signals, site: Site, known: Mapping[str, Known]) -> dict[str, list[Step]]:
    """What each known device is to do from each moment after now on, by what is known now.

    The fill levels are foretold with the device's own rates, leakage and usage, so that a step does not ask a storage
    for what it will not have.

    Returns:
        By device the steps in order; of steps at which nothing changes only the first.
    """
    steps: dict[str, list[Step]] = {name: [] for name in known}
    state = dict(known)
    moments = [now, *signals.moments(now)]
    for start, end in pairwise([*moments, moments[-1] + 1.0]):
        aims = aims_at(start, signals, site, state)
        for name, device in state.items():
            setting = device.setting(aims[name], start)
            if setting is None:
                continue
            state[name] = device.after(setting, start, end - start)
            before = steps[name][-1] if steps[name] else None
            if before is None or before.setting != setting:
                steps[name].append(Step(start, aims[name], setting))
    return {name: [step for step in found if step.at > now] for name, found in steps.items()}


_Kind = TypeVar("_Kind", bound=Stretch)


def _last(stretches: Sequence[_Kind]) -> _Kind | None:
    return max(stretches, key=lambda stretch: stretch.start, default=None)
