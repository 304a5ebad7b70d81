"""A CEM and simulated devices over loopback websockets."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from cariflex.s2.cem import Cem
from cariflex.s2.mapping import Range
from cariflex.s2.memory import Memory
from cariflex.s2.settings import S2Settings
from cariflex.s2.simulator.manager import Manager
from cariflex.s2.simulator.physics import Battery, Ev, Machine
from cariflex.ven.grid import Stretch
from cariflex.ven.observations import Observations
from cariflex.ven.outbox import Destination, Outbox, ReceivedEvent
from cariflex.ven.plans import Plans
from tests.unit.services.openadr_support import eventually, free_port, is_free

TOKENS = {"battery_01": "token-of-battery-01", "ev_01": "token-of-ev-number-01"}
RESOURCES = {
    "battery_01": {"sensor": 51, "unit": "kWh", "resolution": "PT5M", "min_kw": -50, "max_kw": 50, "energy_kwh": 100},
    "ev_01": {"sensor": 61, "unit": "kWh", "resolution": "PT5M", "min_kw": -22, "max_kw": 22, "energy_kwh": 60},
}
NIGHT = datetime(2026, 5, 4, 2, tzinfo=UTC)  # batteries rest, EVs are there and charge


@dataclass
class RunningCem:
    """A CEM, and the outbox as the VEN's process has it open."""

    cem: Cem
    ven: Outbox
    plans: Plans
    observations: Observations
    url: str

    def event(self, event_id: str, value: float, start: float = -1, seconds: float = 60, **different: Any) -> None:
        """The VEN accepts an event that begins `start` seconds from now."""
        name = different.get("signal", "LOAD_CONTROL")
        first = int(time.time() + start)
        last = first + int(seconds)
        cancelled = different.get("cancelled", False)
        stretches = () if cancelled else (Stretch(first, last, value),)
        number = different.get("number", 0)
        event = ReceivedEvent(event_id, number, name, first, last, stretches, cancelled)
        self.ven.accept(event, {"LOAD_CONTROL": Destination(86, "%", 900, 100.0)})


@asynccontextmanager
async def running_cem(
    folder: Path, clock: Callable[[], float] = time.time, **different: Any
) -> AsyncIterator[RunningCem]:
    """A CEM that serves until the block ends; `different` are settings."""
    port = free_port()
    settings = S2Settings.model_validate(
        {"host": "127.0.0.1", "port": port, "data_dir": folder, "resources": RESOURCES} | different
    )
    ven, outbox, plans, memory = Outbox(folder), Outbox(folder), Plans(folder), Memory(folder)
    observations = Observations(folder)
    cem = Cem(settings, TOKENS, outbox, plans, observations, memory, clock)
    task = asyncio.create_task(cem.run())
    try:
        await eventually(lambda: not is_free(port))
        yield RunningCem(cem, ven, plans, observations, f"{'wss' if settings.tls_key else 'ws'}://127.0.0.1:{port}/s2")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for store in (ven, outbox, plans, observations, memory):
            store.close()


def machine_of(name: str) -> Machine:
    """A battery or an EV, half full."""
    return Battery(100, Range(-50, 50), 0) if name.startswith("battery") else Ev(60, Range(-22, 22), 0)


@asynccontextmanager
async def simulated(
    url: str, *names: str, clock: Callable[[], datetime] = lambda: NIGHT
) -> AsyncIterator[list[Manager]]:
    """Simulated devices that stay connected until the block ends."""
    managers = [Manager(name, machine_of(name), clock, step_seconds=0.02) for name in names]
    tasks = [asyncio.create_task(manager.run(url, TOKENS[manager.name])) for manager in managers]
    try:
        yield managers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Raw:
    """A resource manager by hand."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def say(self, message: dict[str, Any] | str | bytes) -> dict[str, Any]:
        """Send something; the ReceptionStatus that answers it."""
        if isinstance(message, dict):
            message = json.dumps(message)
        if isinstance(message, bytes):
            await self.socket.send_bytes(message)
        else:
            await self.socket.send_str(message)
        return await self.next("ReceptionStatus")

    async def next(self, kind: str) -> dict[str, Any]:
        """The next message of a type."""
        while True:
            message: dict[str, Any] = await self.socket.receive_json(timeout=5)
            if message["message_type"] == kind:
                return message

    async def introduce(self, *control_types: str) -> dict[str, Any]:
        """Handshake and details; the control type that the CEM selects."""
        await self.say(message_of("Handshake", role="RM", supported_protocol_versions=["0.0.2-beta"]))
        await self.next("HandshakeResponse")
        await self.say(details(*control_types or ("FILL_RATE_BASED_CONTROL",)))
        return await self.next("SelectControlType")


@asynccontextmanager
async def raw(url: str, token: str = TOKENS["battery_01"]) -> AsyncIterator[Raw]:
    """A connection of a resource manager by hand."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}))
        yield Raw(await stack.enter_async_context(http.ws_connect(url)))


def message_of(kind: str, **content: Any) -> dict[str, Any]:
    """A message with an id of its own."""
    return {"message_type": kind, "message_id": str(uuid.uuid4())} | content


def details(*control_types: str) -> dict[str, Any]:
    """ResourceManagerDetails of a battery."""
    return message_of(
        "ResourceManagerDetails",
        resource_id=str(uuid.uuid4()),
        roles=[{"role": "ENERGY_STORAGE", "commodity": "ELECTRICITY"}],
        instruction_processing_delay=0,
        available_control_types=list(control_types),
        provides_forecast=False,
        provides_power_measurement_types=["ELECTRIC.POWER.3_PHASE_SYMMETRIC"],
    )
