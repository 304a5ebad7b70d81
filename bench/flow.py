"""How long a price takes from the VTN's API to FlexMeasures, and how fast the VEN catches up after an outage.

    .venv/bin/python bench/flow.py
    .venv/bin/python bench/flow.py --events 20 --poll 1

A whole system of its own runs for it (tests/support/ems.py), as deployed but for names and addresses; its images are
those of `make test`. It makes no plans, which every price would bring anew: bench/plan.py measures them. Times are
those of the services' logs, which share one clock.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.support.ems import IMAGES, VEN, Ems, images, running, until
from tests.support.host import docker
from tests.support.images import references

OUTAGE_EVENTS = 60  # one a minute for an hour
OUTAGE_CELLS = 24  # of a quarter of an hour
DEVICES = 10  # that report each five minutes
# What the S2 devices would have queued in the hour: run in the VEN's container, where the outbox is.
QUEUE = """
import time
from pathlib import Path
from cariflex.ven.outbox import Destination, Outbox
outbox = Outbox(Path("/var/lib/cariflex"))
start = int(time.time()) // 300 * 300 - 7200
for cell in range(12):
    for device in range({devices}):
        outbox.queue(f"s2:bench_{{device}}", Destination(51 + device, "kWh", 300), start + 300 * cell, (50.0 + cell,))
"""


def moment(line: dict[str, Any]) -> float:
    """When a line was logged, in seconds since 1970."""
    return datetime.fromisoformat(line["time"]).timestamp()


def order(ems: Ems, event_id: str, signal: str, unit: str, start: datetime, values: Iterable[float], step: str) -> None:
    """Create an event."""
    intervals = [{"duration": step, "value": value} for value in values]
    body = {"signal_name": signal, "unit": unit, "start": start.isoformat(), "intervals": intervals, "targets": [VEN]}
    answer = ems.vtn("PUT", f"events/{event_id}", body, timeout=30)
    if not answer.ok:
        sys.exit(f"The VTN refused {event_id}: {answer.text}")


def first_lines(ems: Ems, service: str, message: str) -> dict[str, float]:
    """Event -> when a message about it was first logged."""
    times: dict[str, float] = {}
    for line in ems.log(service):
        if line["message"] == message:
            times.setdefault(str(line["event_id"]).partition(":")[0], moment(line))
    return times


def latency(ems: Ems, events: int, poll: int, hour: datetime) -> None:
    """Prices created at moments that have nothing to do with the VEN's polls."""
    # what was queued before FlexMeasures was there is tried again only after a pause, and goes first
    until(lambda: outbox(ems)["waiting"] == 0, 180, "the outbox is empty")
    load = os.getloadavg()[0]
    for number in range(events):
        order(
            *(ems, f"price-{number}", "ENERGY_PRICE", "EUR/MWh", hour + timedelta(hours=number)),
            *([100.0 + number], "PT1H"),
        )
        time.sleep(random.uniform(0, 3))  # noqa: S311
    until(lambda: len(first_lines(ems, "openadr-ven", "values stored")) >= events, 60, "all prices are stored")
    created, stored = (
        first_lines(ems, service, message)
        for service, message in (("openadr-vtn", "event created"), ("openadr-ven", "values stored"))
    )
    times = [stored[event_id] - began for event_id, began in created.items()]
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    print("| created → stored in FlexMeasures | poll s | events | p50 s | p99 s | longest s | load average |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    print(f"| | {poll} | {events} | {cuts[49]:.2f} | {cuts[98]:.2f} | {max(times):.2f} | {load:.1f} |\n", flush=True)


def outage(ems: Ems, hour: datetime) -> None:
    """What an hour brings while FlexMeasures is away, and how long it takes to get it in."""
    docker("stop", ems.container("flexmeasures-server"))
    for number in range(OUTAGE_EVENTS):
        start = hour + timedelta(hours=OUTAGE_CELLS / 4 * number)
        values = [float((number + cell) % 100) for cell in range(OUTAGE_CELLS)]
        order(ems, f"limit-{number}", "LOAD_CONTROL", "%", start, values, "PT15M")
    python = ("exec", ems.container("openadr-ven"), "/opt/cariflex/bin/python", "-c")
    docker(*python, QUEUE.format(devices=DEVICES))
    waiting = OUTAGE_EVENTS + 12 * DEVICES
    until(lambda: outbox(ems)["waiting"] >= waiting, 60, "the outbox is full")
    load = os.getloadavg()[0]
    docker("start", ems.container("flexmeasures-server"))
    until(lambda: ems.health("flexmeasures-server", 5000)["status"] == "ok", 300, "FlexMeasures is back")
    back = time.time()
    until(lambda: outbox(ems)["waiting"] == 0, 600, "the outbox is empty")
    lines = [line for line in ems.log("openadr-ven") if line["message"] == "values stored"][-waiting:]
    seconds, values = moment(lines[-1]) - moment(lines[0]), sum(line["values"] for line in lines)
    print("| after an hour without FlexMeasures | values | requests | s | values/s | first after s | load average |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    late = max(0.0, moment(lines[0]) - back)
    print(f"| | {values} | {len(lines)} | {seconds:.1f} | {values / seconds:.0f} | {late:.1f} | {load:.1f} |")


def outbox(ems: Ems) -> dict[str, Any]:
    """What the VEN tells of its outbox."""
    found: dict[str, Any] = ems.health("openadr-ven", 8080).get("outbox", {"waiting": -1})
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100, help="prices to create (default 100)")
    parser.add_argument("--poll", type=int, default=10, help="seconds between two polls (default 10)")
    options = parser.parse_args()
    for name, reference in references().items():
        os.environ.setdefault(f"CARIFLEX_TEST_{name.upper().replace('-', '_')}_IMAGE", reference)
    if missing := sorted(set(IMAGES) - images().keys()):
        sys.exit(f"Missing images: {', '.join(missing)}; see docs/tasks/measure.md")
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=24)
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), openadr={"poll_seconds": options.poll}, schedules=None) as ems,
    ):
        latency(ems, options.events, options.poll, hour)
        outage(ems, hour)


if __name__ == "__main__":
    main()
