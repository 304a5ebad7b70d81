"""Events that flow through the VTN's API all the time, and what they have to come to."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count, cycle
from typing import Any

import requests

from tests.support.ems import VEN, Ems

STEP_SECONDS = 1.5
LONGEST_WAIT_SECONDS = 100  # for an answer of the VTN's API: more than the longest freeze
SENSORS = {"ENERGY_PRICE": 84, "LOAD_CONTROL": 86, "SIMPLE": 87}
UNITS = {"ENERGY_PRICE": "EUR/MWh", "LOAD_CONTROL": "%", "SIMPLE": "dimensionless"}
CELLS = {"ENERGY_PRICE": timedelta(hours=1), "LOAD_CONTROL": timedelta(minutes=15), "SIMPLE": timedelta(minutes=15)}
NEUTRAL = {"LOAD_CONTROL": 100.0, "SIMPLE": 0.0}  # after a cancellation; a cancelled price is taken back
SHARE_OF_LEVEL = {0: 1.0, 1: 0.7, 2: 0.3, 3: 0.0}
EV_KW = 22.0


@dataclass
class Told:
    """An event that the VTN has accepted.

    Attributes:
        versions: the value of each accepted version, which holds in all cells; None for the cancellation.
    """

    event_id: str
    signal: str
    start: datetime
    cells: int
    versions: list[float | None] = field(default_factory=list)

    def body(self, value: float) -> dict[str, Any]:
        """Of a PUT."""
        minutes = int(CELLS[self.signal].total_seconds() // 60) * self.cells
        return {
            "signal_name": self.signal,
            "unit": UNITS[self.signal],
            "start": self.start.isoformat(),
            "intervals": [{"duration": f"PT{minutes}M", "value": value}],
            "targets": [VEN],
        }

    def starts(self) -> Iterator[datetime]:
        """Of the sensor's cells."""
        return (self.start + n * CELLS[self.signal] for n in range(self.cells))

    def fault_of(self, stored: list[float]) -> str | None:
        """What is wrong with the values of one cell in FlexMeasures, the first one first; None: nothing."""
        last, neutral = self.versions[-1], NEUTRAL.get(self.signal)
        if last is None and neutral is None:
            return f"{stored} and was cancelled" if stored else None
        expected = [neutral if value is None else value for value in self.versions]
        if stored[-1:] != expected[-1:] and (stored or last is not None):  # the VEN need not have known it before
            return f"{stored} and not {expected[-1]} as its last"
        rest = iter(expected)  # each version at most once and in order; the VEN may have missed some in between
        if not all(value in rest for value in stored):
            return f"{stored} is more than {expected}"
        return None


class Flow:
    """Creates, modifies and cancels events of three signals, an operation every `STEP_SECONDS`.

    What it orders for the future has values of its own in cells of its own. Two events hold now, and so long as the
    flow lasts: a limit and a level, which steer the devices.
    """

    def __init__(self, ems: Ems, name: str) -> None:
        """`name` begins the events' ids."""
        self.events: list[Told] = []
        self.refused: list[str] = []
        self._ems = ems
        self._name = name
        self._before = {key: len(values) for key, values in ems.beliefs().items()}
        now = datetime.now(UTC).replace(second=0, microsecond=0)
        now -= timedelta(minutes=now.minute % 15)
        self._future = {signal: now.replace(minute=0) + timedelta(hours=48) for signal in SENSORS}
        self._numbers = count(1)
        self.limit = Told(f"{name}-limit", "LOAD_CONTROL", now, 8)
        self.level = Told(f"{name}-level", "SIMPLE", now, 8)
        self._steps = cycle(self._steps_of_a_round())
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # --- orders ----------------------------------------------------------------------------------------------------

    def _steps_of_a_round(self) -> Iterator[Any]:
        limits, levels = cycle((50.0, 100.0, 20.0, 0.0, 80.0)), cycle((0, 1, 0, 2, 0, 3))
        while True:
            price, cut, ask, gone = (self._next(signal) for signal in (*SENSORS, "ENERGY_PRICE"))
            yield lambda price=price: self._put(price)
            yield lambda gone=gone: self._put(gone)
            yield lambda: self._put(self.limit, next(limits))
            yield lambda cut=cut: self._put(cut)
            yield lambda price=price: self._put(price)
            yield lambda ask=ask: self._put(ask)
            yield lambda cut=cut: self._put(cut)
            yield lambda: self._put(self.level, next(levels))
            yield lambda cut=cut: self._cancel(cut)
            yield lambda gone=gone: self._cancel(gone)
            yield lambda ask=ask: self._put(ask)
            yield lambda ask=ask: self._cancel(ask)

    def _next(self, signal: str) -> Told:
        cells = 2
        start = self._future[signal]
        self._future[signal] = start + cells * CELLS[signal]
        return Told(f"{self._name}-{signal.lower()}-{next(self._numbers)}", signal, start, cells)

    def _put(self, event: Told, value: float | None = None) -> None:
        if value is None:
            number = next(self._numbers)
            value = {"ENERGY_PRICE": number + 0.25, "LOAD_CONTROL": number * 7.5 % 99, "SIMPLE": 1 + number % 3}[
                event.signal
            ]
        if event.versions and event.versions[-1] == value:
            value = value + 1 if event.signal != "SIMPLE" else 3 - value
        self._order("PUT", event, float(value))

    def _cancel(self, event: Told) -> None:
        self._order("DELETE", event, None)

    def _order(self, method: str, event: Told, value: float | None) -> None:
        """Ask the VTN until it accepts, as an operator would."""
        body = None if value is None else event.body(value)
        while True:
            try:
                answer = self._ems.vtn(method, f"events/{event.event_id}", body, timeout=LONGEST_WAIT_SECONDS)
            except requests.RequestException:
                time.sleep(0.5)
                continue
            if answer.status_code == 503:
                time.sleep(0.5)
                continue
            if answer.ok:
                event.versions.append(value)
                if event not in self.events:
                    self.events.append(event)
            else:
                self.refused.append(f"{method} {event.event_id}: {answer.status_code} {answer.text}")
            return

    # --- running ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Let events flow."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def pause(self, seconds: float) -> None:
        """Stop after the order under way, which has to be accepted within `seconds`."""
        assert self._thread is not None
        self._stop.set()
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"the VTN has not accepted an order for {seconds:g} s"

    def _run(self) -> None:
        while not self._stop.is_set():
            next(self._steps)()
            self._stop.wait(STEP_SECONDS)

    # --- what has to come of it ------------------------------------------------------------------------------------

    def faults(self) -> list[str]:
        """What is not yet, or not, as ordered; empty when everything is. Also troubles that services tell of."""
        found = list(self.refused)
        try:
            found += self._ems.troubles() or [*self._in_flexmeasures(), *self._opts(), *self._devices()]
        except (requests.RequestException, AssertionError) as error:
            found.append(f"cannot be asked: {error}")
        return found

    def _in_flexmeasures(self) -> Iterator[str]:
        """Every interval once, with the value of its last version."""
        since = {key: values[self._before.get(key, 0) :] for key, values in self._ems.beliefs().items()}
        beliefs = {key: values for key, values in since.items() if values}
        for event in self.events:
            for start in event.starts():
                if fault := event.fault_of(beliefs.pop((SENSORS[event.signal], start), [])):
                    yield f"{event.event_id} at {start:%d. %H:%M}: FlexMeasures has {fault}"
        yield from (f"nobody ordered {values} at {start:%d. %H:%M}" for (_, start), values in beliefs.items())

    def _opts(self) -> Iterator[str]:
        """The VTN has the VEN's optIn to the last version of each event."""
        listed = self._ems.vtn("GET", "events?limit=1000").json()["events"]
        opts = {event["event_id"]: (event["modification_number"], event["opts"].get(VEN)) for event in listed}
        for event in self.events:
            number, opt = opts.get(event.event_id, (None, None))
            if number != len(event.versions) - 1:
                yield f"{event.event_id}: the VTN has version {number} and was told {len(event.versions)}"
            elif opt is None or (opt["opt_type"], opt["modification_number"]) != ("optIn", number):
                yield f"{event.event_id}: the answer to version {number} is {opt}"

    def expected_kw(self) -> float:
        """What each EV has to do: charge as fast as it may."""
        limit, level = (event.versions[-1] if event.versions else None for event in (self.limit, self.level))
        shares = (1.0 if limit is None else limit / 100, SHARE_OF_LEVEL[int(level or 0)])
        return EV_KW * min(shares)

    def _devices(self) -> Iterator[str]:
        """Every EV follows the last limit; the batteries rest, as they do at night without being told."""
        wanted = self.expected_kw()
        seen = self._ems.health("openadr-ven", 8765)["devices"]
        real = self._ems.health("openadr-simulator", 8080)["devices"]
        for name, device in seen.items():
            expected = wanted if name.startswith("ev") else 0.0
            does = (device["power_kw"], real[name]["power_kw"])
            if any(power is None or abs(power - expected) > 0.02 for power in does):
                yield f"{name}: is to do {expected:g} kW; the CEM sees {does[0]}, it does {does[1]}"
