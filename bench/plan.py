"""How long an event takes to become a new plan at the devices, and where the time goes.

    .venv/bin/python bench/plan.py
    .venv/bin/python bench/plan.py --events 20 --poll 10
    .venv/bin/python bench/plan.py --alone

A whole system of its own runs for it (tests/support/ems.py), as deployed but for names and addresses, with ten
simulated devices; its images are those of `make test`. Each event turns the price round, so that batteries that gave
charge and the other way round. Times are those of the services' logs, which share one clock. First with FlexMeasures'
own solver, which has to prove that there is no better plan, then as deployed; --alone leaves the first out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.integration.faults.conftest import night
from tests.integration.faults.test_schedules import order, production_prices, this_hour
from tests.support.ems import IMAGES, Ems, images, running, until
from tests.support.images import references

DEVICES, SENSOR = 10, 84
KINDS: dict[str, dict[str, Any]] = {
    "FlexMeasures' own solver": {"flexmeasures_solver_options": {}},
    "as deployed": {},
}
DEAR, CHEAP = [500.0, 400.0, *[50.0] * 24], [10.0, 20.0, *[500.0] * 24]
TROUBLE = ("no new plan, the last one holds", "nothing is planned", "the plan ends")
PARTS = ("until the VEN has it", "price to FlexMeasures", "planner", "queue and solver", "CEM", "until the last device")


def moment(line: dict[str, Any]) -> float:
    """When a line was logged, in seconds since 1970."""
    return datetime.fromisoformat(line["time"]).timestamp()


def one(ems: Ems, number: int) -> dict[str, float]:
    """Seconds that each part takes of one event."""
    prices = DEAR if number % 2 else CHEAP
    production_prices(ems, [0.8 * price for price in prices])
    began = time.time()
    order(ems, "bench-price", "ENERGY_PRICE", "EUR/MWh", this_hour(), prices, "PT1H")

    def lines(service: str, message: str) -> list[dict[str, Any]]:
        found = [line for line in ems.log("openadr-ven") if line["service"] == service and moment(line) > began]
        return [line for line in found if line["message"] == message]

    def made() -> list[dict[str, Any]]:
        return [line for line in lines("planner", "plan made") if "prices" in line["causes"]]

    plan = until(made, 300, "the plan")[0]
    time.sleep(2)  # the devices are told within
    answered, at_cem = moment(lines("ven", "event answered")[0]), moment(plan)
    stored = max(moment(line) for line in lines("ven", "values stored") if line["sensor"] == SENSOR)
    told = [moment(line) for line in lines("s2", "device told") if line["reason"] == "plan"]
    last = max((at for at in told if at > at_cem - 0.1), default=at_cem)
    solver = plan["solver_seconds"]
    times = (answered - began, stored - answered, at_cem - stored - solver, solver, last - at_cem, last - began)
    return dict(zip(PARTS, times, strict=True))


def measured(options: argparse.Namespace, variables: Mapping[str, Any]) -> list[dict[str, float]]:
    """What each event took in a system with such variables of roles."""
    found: list[dict[str, float]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), variables, site={"timezone": night()}, openadr={"poll_seconds": options.poll}) as ems,
    ):
        for number in range(options.events):
            found.append(one(ems, number))
            print(" ".join(f"{part}: {seconds:.2f}" for part, seconds in found[-1].items()), flush=True)
            time.sleep(35 if options.events > 8 else 3)  # FlexMeasures takes ten triggers in five minutes
        for line in ems.log("openadr-ven"):
            if line["service"] == "planner" and "reason" in line and line["message"] in TROUBLE:
                print(f"{line['time']} {line['message']}: {line['reason']}")
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=8, help="how often the price changes (default 8)")
    parser.add_argument("--poll", type=int, default=10, help="seconds between two polls (default 10)")
    parser.add_argument("--alone", action="store_true", help="only as deployed")
    options = parser.parse_args()
    for name, reference in references().items():
        os.environ.setdefault(f"CARIFLEX_TEST_{name.upper().replace('-', '_')}_IMAGE", reference)
    if missing := sorted(set(IMAGES) - images().keys()):
        sys.exit(f"Missing images: {', '.join(missing)}; see docs/tasks/measure.md")
    print(f"{options.events} price events, {DEVICES} devices, polled every {options.poll} s")
    for title, variables in KINDS.items():
        if options.alone and variables:
            continue
        load = os.getloadavg()[0]
        found = measured(options, variables)
        print(f"\n{title}, load average {load:.1f} to {os.getloadavg()[0]:.1f}")
        print("| part | p50 s | longest s |\n|---|---:|---:|")
        for part in PARTS:
            times = [row[part] for row in found]
            print(f"| {part} | {statistics.median(times):.2f} | {max(times):.2f} |", flush=True)


if __name__ == "__main__":
    main()
