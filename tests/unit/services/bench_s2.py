"""What bench/s2.py measures: the CEM's own process on one core, the VEN's outbox and the devices on another.

python -m tests.unit.services.bench_s2 EVENTS DEVICES…
"""

import asyncio
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cariflex.s2.mapping import Range
from cariflex.s2.simulator.manager import Manager
from cariflex.s2.simulator.physics import Ev
from cariflex.ven.grid import Stretch
from cariflex.ven.outbox import Destination, Outbox, ReceivedEvent
from tests.unit.services.openadr_support import ENVIRONMENT, free_port
from tests.unit.services.s2_support import NIGHT

CORES = sorted(os.sched_getaffinity(0))
PAUSE_SECONDS = 0.5  # between two events
LONGEST_WAIT_SECONDS = 10.0


class TimedManager(Manager):
    """An EV that notes when it is told something."""

    def __init__(self, name: str) -> None:
        super().__init__(name, Ev(60, Range(-22, 22), 0), lambda: NIGHT)
        self.told: list[float] = []

    def _instructed(self, message: Any) -> list[Any]:
        self.told.append(time.perf_counter())
        return super()._instructed(message)


def settings(folder: Path, port: int, names: list[str]) -> dict[str, str]:
    """Write the CEM's files; the environment of its process."""
    resource = {"sensor": 61, "unit": "kWh", "resolution": "PT5M", "min_kw": -22, "max_kw": 22, "energy_kwh": 60}
    content = {"host": "127.0.0.1", "port": port, "data_dir": str(folder), "secrets_dir": str(folder)}
    (folder / "s2.yml").write_text(json.dumps(content | {"resources": dict.fromkeys(names, resource)}))
    (folder / "s2_tokens").write_text(json.dumps({name: token(name) for name in names}))
    return ENVIRONMENT | {"CARIFLEX_CONFIG": str(folder / "s2.yml")}


def token(name: str) -> str:
    """Of a device."""
    return f"token-of-the-device-{name}"


async def measure(events: int, devices: int) -> list[float]:
    """Seconds from an event at the VEN to the instruction at each device."""
    names = [f"ev_{number:03}" for number in range(devices)]
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        script = "from cariflex.s2.main import cli; cli()"
        command = ["taskset", "--cpu-list", str(CORES[0]), sys.executable, "-c", script, "serve"]
        environment = settings(folder, port, names)
        cem = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        managers = [TimedManager(name) for name in names]
        tasks = [asyncio.create_task(m.run(f"ws://127.0.0.1:{port}/s2", token(m.name))) for m in managers]
        try:
            async with asyncio.timeout(60):
                while not all(manager.controlled for manager in managers):
                    await asyncio.sleep(0.1)
            await asyncio.sleep(2)
            return await order(Outbox(folder), managers, events)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            cem.terminate()
            cem.wait()


async def order(outbox: Outbox, managers: list[TimedManager], events: int) -> list[float]:
    """Change a limit again and again."""
    times: list[float] = []
    first = int(time.time()) - 1
    for number in range(events):
        for manager in managers:
            manager.told.clear()
        stretch = Stretch(first, first + 3600, (50.0, 80.0)[number % 2])
        begin = time.perf_counter()
        outbox.accept(
            ReceivedEvent("bench", number, "LOAD_CONTROL", first, stretch.end, (stretch,)),
            {"LOAD_CONTROL": Destination(86, "%", 900, 100.0)},
        )
        async with asyncio.timeout(LONGEST_WAIT_SECONDS):
            while not all(manager.told for manager in managers):
                await asyncio.sleep(0.005)
        times += [manager.told[0] - begin for manager in managers]
        await asyncio.sleep(PAUSE_SECONDS)
    outbox.close()
    return times


def main(events: int, populations: list[int]) -> None:
    """Measure and print the table."""
    logging.basicConfig(level=logging.ERROR)  # devices say how often they tried to connect
    os.sched_setaffinity(0, {CORES[-1]})
    print("| devices | events | p50 ms | p99 ms | longest ms | load average |")
    print("|---:|---:|---:|---:|---:|---:|")
    for devices in populations:
        load = os.getloadavg()[0]
        times = [seconds * 1000 for seconds in asyncio.run(measure(events, devices))]
        cuts = statistics.quantiles(times, n=100)
        print(f"| {devices} | {events} | {cuts[49]:.1f} | {cuts[98]:.1f} | {max(times):.1f} | {load:.1f} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), [int(devices) for devices in sys.argv[2:]])
