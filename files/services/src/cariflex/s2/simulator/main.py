"""The simulator's process: one resource manager, and one connection, for each device."""

import asyncio
import ssl
import sys
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from aiohttp import web
from prometheus_client import Gauge

from cariflex.s2.mapping import Range
from cariflex.s2.settings import read_tokens
from cariflex.s2.simulator.manager import Manager
from cariflex.s2.simulator.physics import Battery, Ev, Machine
from cariflex.s2.simulator.settings import SimulatorSettings
from cariflex.service import health_routes, listen, run
from cariflex.settings import SettingsError

POWER = Gauge("cariflex_s2_simulated_kw", "Power of a simulated device, + is consumption.", ["device"])
ENERGY = Gauge("cariflex_s2_simulated_kwh", "Energy in a simulated device.", ["device"])
CONTROLLED = Gauge("cariflex_s2_simulated_controlled", "1 where the CEM controls it.", ["device"])

MACHINES: dict[str, type[Machine]] = {"battery": Battery, "ev": Ev}


async def serve(settings: SimulatorSettings) -> None:
    """Serve until cancelled."""
    tokens = read_tokens(settings)
    if missing := sorted(settings.devices.keys() - tokens.keys()):
        raise SettingsError(f"{settings.secrets_dir / 's2_tokens'}: no token for {', '.join(missing)}.")
    try:
        tls = ssl.create_default_context(cafile=settings.ca) if settings.ca else True
    except OSError as error:
        raise SettingsError(f"ca: {settings.ca} is no certificate in PEM form ({error}).") from None
    zone = ZoneInfo(settings.timezone)
    managers = [
        Manager(
            name,
            MACHINES[device.kind](device.energy_kwh, Range(device.min_kw, device.max_kw), number),
            lambda: datetime.now(zone),
            tls=tls,
        )
        for number, (name, device) in enumerate(settings.devices.items())
    ]

    for manager in managers:
        _observe(manager)

    def health() -> tuple[list[str], dict[str, Any]]:
        lost = [manager.name for manager in managers if not manager.controlled]
        facts = {
            m.name: {"energy_kwh": m.machine.storage.energy_kwh, "power_kw": m.machine.storage.power_kw}
            for m in managers
        }
        return [f"{name} is not connected to the CEM" for name in lost], {"devices": facts}

    app = web.Application()
    app.add_routes(health_routes(health))
    runner = await listen(app, settings.host, settings.port)
    try:
        async with asyncio.TaskGroup() as tasks:
            for manager in managers:
                tasks.create_task(manager.run(settings.url, tokens[manager.name]))
    finally:
        await runner.cleanup()


def _observe(manager: Manager) -> None:
    storage = manager.machine.storage
    POWER.labels(manager.name).set_function(lambda: storage.power_kw)
    ENERGY.labels(manager.name).set_function(lambda: storage.energy_kwh)
    CONTROLLED.labels(manager.name).set_function(lambda: float(manager.controlled))


def cli() -> None:
    """Entry point of `cariflex-s2-simulator`."""
    sys.exit(run("s2-simulator", SimulatorSettings, serve))
