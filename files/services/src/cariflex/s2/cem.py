"""The CEM: what holds for which device when, the devices under it, and the door through which they come."""

import asyncio
import hmac
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from aiohttp import web
from prometheus_client import Gauge

from cariflex.s2.device import SETTLE_SECONDS, Device, Order
from cariflex.s2.door import HEARTBEAT_SECONDS, Door
from cariflex.s2.excess import Excess
from cariflex.s2.mapping import Range
from cariflex.s2.memory import Memory
from cariflex.s2.program import OWN_WILL, Aim, Known, Signals, Site, ahead, aims_at
from cariflex.s2.settings import S2Settings
from cariflex.s2.wire import MAX_MESSAGE_BYTES
from cariflex.service import health_routes, listen
from cariflex.ven.grid import Stretch
from cariflex.ven.observations import Observations
from cariflex.ven.outbox import Destination, DeviceState, Flexibility, Outbox, OutboxError
from cariflex.ven.plans import Plans

log = logging.getLogger(__name__)

TELL_SECONDS = 30  # how often a state that has not changed is told again
LOOK_SECONDS = 0.01  # how often the VEN's file is asked whether it has changed; the question costs microseconds
TOGETHER_SECONDS = 60.0  # how often what is asked of all storages together is shared anew
DEVICES = Gauge("cariflex_s2_devices_connected", "Devices that are connected.")
EXPECTED = Gauge("cariflex_s2_devices_expected", "Devices that are declared.")
AWAY = Gauge("cariflex_s2_device_away_seconds", "How long a device has been away; 0 while it is connected.", ["device"])
POWER = Gauge("cariflex_s2_power_kw", "Power of a device, + is consumption; NaN when not known.", ["device"])
LEVEL = Gauge("cariflex_s2_stored_kwh", "Energy in a device's storage.", ["device"])
LIMIT = Gauge("cariflex_s2_limit_kw", "Upper limit of a device; NaN without one.", ["device"])
ABOVE = Gauge("cariflex_s2_above_limit", "1 while a device goes on measuring more than its limit, else 0.", ["device"])
NAN = float("nan")
STATE_SECONDS = 60.0  # how often a device's state is kept when nothing happens


class Cem:
    """Customer energy manager of all declared devices."""

    def __init__(
        self,
        settings: S2Settings,
        tokens: Mapping[str, str],
        outbox: Outbox,
        plans: Plans,
        observations: Observations,
        memory: Memory,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._outbox = outbox
        self._plans = plans
        self._observations = observations
        self._memory = memory
        self._clock = clock
        self._tokens = {name: tokens[name] for name in settings.resources}
        powers = {name: Range(r.min_kw, r.max_kw) for name, r in settings.resources.items()}
        self._site = Site(powers, sum(r.energy_kwh for r in settings.resources.values()))
        self.devices = {
            name: Device(name, powers[name], resource.energy_kwh, memory.orders(name), self._reported, clock)
            for name, resource in settings.resources.items()
        }
        self._signals = Signals()
        self._aims: dict[str, Aim] = {}
        self._decided_at = self._next = 0.0
        self._prepare_now = asyncio.Event()
        self._prepared: Any = None
        self._able: Any = None
        self._unsaved: set[str] = set()
        self._told: dict[str, Any] = {}  # by device: the state that was reported last
        self._told_planner: dict[str, Flexibility | None] = {}
        self._told_planner_in = 0  # in which half minute
        self._kept: dict[str, tuple[Any, float]] = {}  # by device: what was kept of its state last, and when
        self._queued_to: dict[str, int] = {}
        self._excess = {name: Excess(SETTLE_SECONDS) for name in settings.resources}
        self._alive = monotonic()
        self._trouble: dict[str, str] = {}  # by what could not be stored
        EXPECTED.set(len(self.devices))

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            SettingsError: a file for TLS cannot be used.
        """
        settings = self._settings
        health, door = health_routes(self.health), web.get("/s2", self._connect)
        sites: dict[int, tuple[list[web.RouteDef], ssl.SSLContext | None]]
        if settings.health_port is None or settings.health_port == settings.port:
            sites = {settings.port: ([door, *health], None)}
        else:
            sites = {settings.port: ([door], settings.server_tls()), settings.health_port: (health, None)}
        async with AsyncExitStack() as servers:
            for port, (routes, tls) in sites.items():
                app = web.Application()
                app.add_routes(routes)
                runner = await listen(app, settings.host, port, tls)
                servers.push_async_callback(runner.cleanup)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._follow())
                    tasks.create_task(self._prepare())
                    tasks.create_task(self._watch())
            finally:
                for device in self.devices.values():
                    await device.dismiss("the CEM stops")

    # --- the door ------------------------------------------------------------------------------------------------

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        name = self._device_of(request.headers.get("Authorization", ""))
        if name is None:
            log.warning("connection refused: no device has this token", extra={"address": request.remote})
            raise web.HTTPUnauthorized(text="The header is `Authorization: Bearer <token of the device>`.")
        socket = web.WebSocketResponse(timeout=1, heartbeat=HEARTBEAT_SECONDS, max_msg_size=MAX_MESSAGE_BYTES)
        await socket.prepare(request)
        with suppress(ConnectionError):  # the device is gone
            await self.devices[name].converse(Door(socket, name))
        return socket

    def _device_of(self, header: str) -> str | None:
        given = header.removeprefix("Bearer ").encode(errors="replace")
        # every token is compared, in constant time, so that the time of the answer tells nothing
        found = [name for name, token in self._tokens.items() if hmac.compare_digest(token.encode(), given)]
        return found[0] if found and header.startswith("Bearer ") else None

    # --- what devices are to do now ------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Read what is asked whenever it has changed, and look at the clock in between."""
        version: int | None = None
        while True:
            now = self._clock()
            if (seen := self._outbox.version()) != version:
                version = seen
                if (signals := self._read(now)) != self._signals:
                    self._signals = signals
                    self._next = now
            if now >= self._next or now < self._decided_at:
                await self._decide(now)
            self._alive = monotonic()
            await asyncio.sleep(LOOK_SECONDS)

    def _read(self, now: float) -> Signals:
        asked = {
            field: tuple(self._outbox.asked(name, now))
            for field, name in (
                ("load_control", "LOAD_CONTROL"),
                ("simple", "SIMPLE"),
                ("dispatch", "LOAD_DISPATCH"),
                ("charge", "CHARGE_STATE"),
            )
        }
        return Signals(**asked, plans=self._plans.since(now))

    async def _decide(self, now: float) -> None:
        """Tell every device what holds from now on, and find out until when."""
        known = {name: one for name, device in self.devices.items() if (one := device.known())}
        aims = aims_at(now, self._signals, self._site, known)
        later = self._signals.moments(now)
        self._next = min(
            [*later[:1], *([now + TOGETHER_SECONDS] if self._signals.asks_together(now) else [])] or [1e12]
        )
        self._decided_at = now
        if _limits(aims) != _limits(self._aims):
            events = sorted({event for aim in aims.values() for event in aim.events})
            log.info("limits changed", extra={"limits_kw": _limits(aims), "event_ids": events})
        self._aims = aims
        for device in self.devices.values():
            await self._control(device)
        self._save()
        self._prepare_now.set()

    async def _reported(self, device: Device) -> None:
        await self._control(device)
        self._save()

    async def _control(self, device: Device) -> None:
        aim = self._aims.get(device.name, OWN_WILL)
        setting = device.decide(aim)
        if setting is None:
            return
        self._unsaved.add(device.name)
        try:
            order = await device.instruct(setting, aim)
        except (ConnectionError, RuntimeError) as error:  # it has just gone; it is told when it comes back
            log.warning("device not told", extra={"resource": device.name, "reason": str(error)})
            return
        log.info("device told", extra=device.line(order))

    # --- what they are to do later -------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        """Keep the devices' instructions for later right, so that they follow when the CEM is away."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._prepare_now.wait()
            self._prepare_now.clear()
            now = self._clock()
            known = {name: one for name, device in self.devices.items() if (one := device.known())}
            # fill levels move all the time; a look at them once a minute is enough
            seen = [
                (name, one.actuator, one.own_kw, one.outlook, self.devices[name].connections)
                for name, one in known.items()
            ]
            present = (self._signals, self._decided_at, int(now // TOGETHER_SECONDS), seen)
            if present == self._prepared:
                continue
            self._prepared = present
            steps = {}
            if self._signals.moments(now):
                # a day of quarter hours for a hundred devices takes a third of a second; events go on meanwhile
                steps = await asyncio.to_thread(ahead, now, self._signals, self._site, known)
            for name in known:
                device = self.devices[name]
                if device.ahead or steps.get(name):
                    self._unsaved.add(name)
                    with suppress(ConnectionError, RuntimeError, ValueError):  # it has just gone
                        await device.prepare(steps.get(name, []))
            self._save()

    def _save(self) -> None:
        """Remember what was told; control goes on where the disk is full."""
        if self._unsaved and self._stored(
            "orders", lambda: self._memory.remember({name: self.devices[name].orders() for name in self._unsaved})
        ):
            self._unsaved.clear()

    # --- once a second -------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Close connections that are stuck, repeat what had no effect, report and queue what devices say."""
        while True:
            DEVICES.set(sum(device.door is not None for device in self.devices.values()))
            for device in self.devices.values():
                if device.door is not None and device.door.is_stuck:
                    await device.door.close("a message was left unanswered")
                await self._control(device)
                self._observe(device)
                self._look_at_limit(device)
                self.queue_energy(device)
            self._save()
            self._tell_ven()
            self._tell_planner()
            self._observe_all()
            self._look_at_abilities()
            await asyncio.sleep(1)

    def _look_at_abilities(self) -> None:
        """What is asked of all together is shared anew when one comes or goes, gets full or empty."""
        now = self._clock()
        if self._signals.asks_together(now):
            able = {
                name: one.reach(self._aims[name].ceiling_kw, now)
                for name, device in self.devices.items()
                if name in self._aims and (one := device.known())
            }
            if able != self._able:
                self._able = able
                self._next = now

    def _observe(self, device: Device) -> None:
        """The metrics of a device."""
        name, connected, now = device.name, device.door is not None, self._clock()
        power, energy, limit = device.present_kw(), device.stored_kwh(), self._limit(name)
        AWAY.labels(name).set(0.0 if connected else max(0.0, now - device.gone_at))
        POWER.labels(name).set(NAN if power is None else power)
        LIMIT.labels(name).set(NAN if limit is None else limit)
        if energy is not None:
            LEVEL.labels(name).set(energy)

    def _tell_ven(self) -> None:
        """Present states for the VEN's reports: those that have changed, and every half minute all of them."""
        now, states = self._clock(), {}
        for name, device in self.devices.items():
            seen = (device.present_kw(), device.stored_kwh(), device.door is not None)
            # told again each half minute, so that it is not taken for old
            if self._told.get(name) != (present := (*seen, int(now) // TELL_SECONDS)):
                states[name] = (DeviceState(*seen, now), present)
        told = {name: state for name, (state, _) in states.items()}
        if told and self._stored("states of devices", lambda: self._outbox.report_states(told)):
            self._told |= {name: present for name, (_, present) in states.items()}

    def _tell_planner(self) -> None:
        """What devices can do, for the planner: what has changed, and every half minute all of it."""
        now = self._clock()
        able = {name: _flexibility(one) if (one := device.known()) else None for name, device in self.devices.items()}
        told = self._told_planner if int(now) // TELL_SECONDS == self._told_planner_in else {}
        changed = {name: one for name, one in able.items() if name not in told or told[name] != one}
        if changed and self._stored("what devices can do", lambda: self._outbox.report_flexibility(changed, now)):
            self._told_planner, self._told_planner_in = able, int(now) // TELL_SECONDS

    def _look_at_limit(self, device: Device) -> None:
        """A device that does not do what its limit asks is told of once, until it does."""
        excess, measured, limit = self._excess[device.name], device.measured(), self._limit(device.name)
        before = excess.is_lasting
        excess.look(measured, limit, self._clock())
        ABOVE.labels(device.name).set(excess.is_lasting)
        if excess.is_lasting and not before and measured:
            found = {"resource": device.name, "power_kw": measured[0], "limit_kw": limit}
            log.warning("device above its limit", extra=found | {"event_ids": self._aims[device.name].events})

    def _observe_all(self) -> None:
        """Keep for FlexMeasures' database what became of instructions, and states: once a minute, or at a change."""
        now, found = self._clock(), []
        touched = [(device, order) for device in self.devices.values() for order in device.touched.values()]
        found += [_instruction(device.name, order) for device, order in touched]
        states = {}
        for name, device in self.devices.items():
            power, limit = device.present_kw(), self._limit(name)
            state = (None if power is None else round(power, 1), limit, device.door is not None)
            before, kept_at = self._kept.get(name, (None, 0.0))
            if state != before or now - kept_at >= STATE_SECONDS:
                states[name] = (state, now)
                found.append(_state(device, now, power, limit))
        if found and self._stored("observations", lambda: self._observations.add(found)):
            self._kept |= states
            for device, order in touched:
                device.touched.pop(order.id, None)

    def _limit(self, name: str) -> float | None:
        return self._aims[name].ceiling_kw if name in self._aims else None

    def queue_energy(self, device: Device) -> None:
        """Give the energy at the beginning of the present cell of the sensor to the VEN, which sends it.

        Only what is known: nothing is queued for a device that is away or has said nothing for a whole cell.
        """
        resource, now = self._settings.resources[device.name], self._clock()
        cell = int(resource.resolution.total_seconds())
        start = int(now) // cell * cell
        first = self._queued_to.setdefault(device.name, start)  # the cell in which we began is not known from its start
        energy = device.stored_kwh()
        if start == first:
            return
        self._queued_to[device.name] = start
        if device.door is not None and energy is not None and device.status_at and now - device.status_at < cell:
            destination = Destination(resource.sensor, resource.unit, cell)
            values = (round(energy, 6),)
            self._stored(
                f"energy of {device.name}", lambda: self._outbox.queue(f"s2:{device.name}", destination, start, values)
            )

    def _stored(self, what: str, store: Callable[[], None]) -> bool:
        """Store something, and say whether it worked; control goes on where the disk is full."""
        try:
            store()
        except OutboxError as error:
            if what not in self._trouble:
                log.error("not stored", extra={"what": what, "reason": str(error)})
            self._trouble[what] = str(error)
            return False
        self._trouble.pop(what, None)
        return True

    def health(self) -> tuple[list[str], dict[str, Any]]:
        """Well means: what is asked is being followed, and every connected device speaks.

        A declared device that is away is a fact, and a metric to alert on: the service itself is well without it.
        """
        reasons = list(self._trouble.values())
        if (age := monotonic() - self._alive) > 10:
            reasons.append(f"limits have not been looked at for {age:.0f} s")
        facts: dict[str, Any] = {}
        for name, device in self.devices.items():
            silent = None if device.door is None else monotonic() - device.door.heard
            if silent is not None and silent > self._settings.silence_limit_seconds:
                reasons.append(f"{name} is connected and silent for {silent:.0f} s")
            facts[name] = {
                "connected": device.door is not None,
                "away_seconds": None if device.door else max(0.0, self._clock() - device.gone_at),
                "seconds_since_message": silent,
                "power_kw": device.present_kw(),
                "stored_kwh": device.stored_kwh(),
                "limit_kw": self._limit(name),
                "told_kw": device.order.power_kw if device.order else None,
                "told_ahead": len(device.ahead),
            }
        connected = sum(fact["connected"] for fact in facts.values())
        return reasons, {"connected": connected, "expected": len(facts), "devices": facts}


def _flexibility(known: Known) -> Flexibility:
    """What a planner has to know of a device: its normal modes within the operator's range, storage and targets."""
    powers = [e.power_kw for mode in known.actuator.modes if not mode.abnormal for e in mode.elements]
    levels, per_level = known.actuator.fill_levels, known.kwh_per_level
    return Flexibility(
        low_kw=known.allowed.clamp(min((power.low for power in powers), default=0.0)),
        high_kw=known.allowed.clamp(max((power.high for power in powers), default=0.0)),
        least_kwh=round(levels.low * per_level, 3),
        most_kwh=round(levels.high * per_level, 3),
        stored_kwh=round(levels.clamp(known.fill_level) * per_level, 3),
        targets=tuple(
            Stretch(int(one.start), int(one.end), round(one.value * per_level, 3))
            for one in known.outlook.targets
            if one.value > levels.low and int(one.start) < int(one.end)
        ),
    )


def _instruction(resource: str, order: Order) -> dict[str, Any]:
    return {
        "kind": "s2_instruction",
        "resource": resource,
        "instruction_id": order.id,
        "execution_time": _moment(order.at),
        "power_kw": order.power_kw,
        "limit_kw": order.limit_kw,
        "factor": order.factor,
        "mode": order.mode_id,
        "reason": order.reason,
        "event_ids": list(order.events[:100]),
        "status": order.status,
        "times": {status: _moment(at) for status, at in order.times.items()},
    }


def _state(device: Device, now: float, power: float | None, limit: float | None) -> dict[str, Any]:
    return {
        "kind": "s2_status",
        "resource": device.name,
        "time": _moment(now),
        "power_kw": power,
        "stored_kwh": device.stored_kwh(),
        "fill_level": device.fill_level,
        "connected": device.door is not None,
        "limit_kw": limit,
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _limits(aims: Mapping[str, Aim]) -> dict[str, float]:
    return {name: aim.ceiling_kw for name, aim in aims.items() if aim.ceiling_kw is not None}
