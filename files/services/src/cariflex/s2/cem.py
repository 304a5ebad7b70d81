"""The CEM: which limit holds when, the devices under it, and the door through which they come."""

import asyncio
import hmac
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic
from typing import Any

from aiohttp import web
from prometheus_client import Gauge

from cariflex.s2.device import Device
from cariflex.s2.door import HEARTBEAT_SECONDS, Door
from cariflex.s2.mapping import Range, process_demand_response, process_load_control, strictest
from cariflex.s2.memory import Memory
from cariflex.s2.settings import S2Settings
from cariflex.s2.wire import MAX_MESSAGE_BYTES
from cariflex.service import health_routes, listen
from cariflex.ven.grid import Stretch
from cariflex.ven.outbox import Destination, Outbox, OutboxError

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.02  # how often the VEN's file is asked whether it has changed; the question costs microseconds
DEVICES = Gauge("cariflex_s2_devices_connected", "Devices that are connected.")
LEVEL = Gauge("cariflex_s2_stored_kwh", "Energy in a device's storage.", ["device"])
LIMIT = Gauge("cariflex_s2_limit_kw", "Upper limit of a device; NaN without one.", ["device"])


def limits_at(
    now: float, load_control: list[Stretch], simple: list[Stretch], powers: Mapping[str, Range]
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


class Cem:
    """Customer energy manager of all declared devices."""

    def __init__(
        self,
        settings: S2Settings,
        tokens: Mapping[str, str],
        outbox: Outbox,
        memory: Memory,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._outbox = outbox
        self._memory = memory
        self._clock = clock
        self._tokens = {name: tokens[name] for name in settings.resources}
        self._powers = {name: Range(r.min_kw, r.max_kw) for name, r in settings.resources.items()}
        self.devices = {
            name: Device(name, self._powers[name], resource.energy_kwh, memory.order(name), self._control, clock)
            for name, resource in settings.resources.items()
        }
        self._load_control: list[Stretch] = []
        self._simple: list[Stretch] = []
        self._limits: dict[str, float] = {}
        self._queued_to: dict[str, int] = {}
        self._alive = monotonic()
        self._trouble: dict[str, str] = {}  # by device: what could not be stored

    async def run(self) -> None:
        """Serve until cancelled."""
        app = web.Application()
        app.add_routes([web.get("/s2", self._connect), *health_routes(self.health)])
        runner = await listen(app, self._settings.host, self._settings.port)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow_limits())
                tasks.create_task(self._watch())
        finally:
            for device in self.devices.values():
                if device.door is not None:
                    await device.door.close("the CEM stops")
            await runner.cleanup()

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

    # --- limits --------------------------------------------------------------------------------------------------

    async def _follow_limits(self) -> None:
        """Read the events whenever the VEN has written, and look at the clock in between."""
        version: int | None = None
        while True:
            now = self._clock()
            if (seen := self._outbox.version()) != version:
                version = seen
                self._load_control = self._outbox.stretches("LOAD_CONTROL", now)
                self._simple = self._outbox.stretches("SIMPLE", now)
            limits = limits_at(now, self._load_control, self._simple, self._powers)
            if limits != self._limits:
                self._limits = limits
                log.info("limits changed", extra={"limits_kw": limits})
                for device in self.devices.values():
                    await self._control(device)
            self._alive = monotonic()
            await asyncio.sleep(LOOK_SECONDS)

    async def _control(self, device: Device) -> None:
        setting = device.decide(self._limits.get(device.name))
        if setting is None:
            return
        try:
            order = await device.instruct(setting)
        except (ConnectionError, RuntimeError) as error:  # it has just gone; it is told when it comes back
            log.warning("device not told", extra={"resource": device.name, "reason": str(error)})
            return
        self._stored(device, lambda: self._memory.remember(device.name, order))
        log.info(
            "device told",
            extra={"resource": device.name, "power_kw": setting.power_kw, "limit_kw": self._limits.get(device.name)},
        )

    # --- once a second -------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Close connections that are stuck, repeat what had no effect, queue the stored energy."""
        while True:
            DEVICES.set(sum(device.door is not None for device in self.devices.values()))
            for device in self.devices.values():
                if device.door is not None and device.door.is_stuck:
                    await device.door.close("a message was left unanswered")
                await self._control(device)
                LIMIT.labels(device.name).set(self._limits.get(device.name, float("nan")))
                self.queue_energy(device)
            await asyncio.sleep(1)

    def queue_energy(self, device: Device) -> None:
        """Give the energy at the beginning of the present cell of the sensor to the VEN, which sends it.

        Only what is known: nothing is queued for a device that is away or has said nothing for a whole cell.
        """
        resource, now = self._settings.resources[device.name], self._clock()
        cell = int(resource.resolution.total_seconds())
        start = int(now) // cell * cell
        first = self._queued_to.setdefault(device.name, start)  # the cell in which we began is not known from its start
        energy = device.stored_kwh()
        if energy is not None:
            LEVEL.labels(device.name).set(energy)
        if start == first:
            return
        self._queued_to[device.name] = start
        if device.door is not None and energy is not None and device.status_at and now - device.status_at < cell:
            destination = Destination(resource.sensor, resource.unit, cell)
            values = (round(energy, 6),)
            self._stored(device, lambda: self._outbox.queue(f"s2:{device.name}", destination, start, values))

    def _stored(self, device: Device, store: Callable[[], None]) -> None:
        """Store something; control goes on where the disk is full."""
        try:
            store()
            self._trouble.pop(device.name, None)
        except OutboxError as error:
            self._trouble[device.name] = str(error)
            log.error("not stored", extra={"resource": device.name, "reason": str(error)})

    def health(self) -> tuple[list[str], dict[str, Any]]:
        """Well means: the limits are being followed, and every connected device speaks."""
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
                "seconds_since_message": silent,
                "power_kw": device.power_kw,
                "stored_kwh": device.stored_kwh(),
                "limit_kw": self._limits.get(name),
            }
        return reasons, {"devices": facts}
