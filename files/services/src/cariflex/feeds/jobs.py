"""What the feeds do, each on its rhythm: they queue values, and the outbox's sender brings them to FlexMeasures.

Every job can be done again at any time: the same values with the same source are stored once.
"""

import json
import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from cariflex.feeds.open_meteo import OpenMeteo, OpenMeteoError
from cariflex.feeds.settings import FedSensor
from cariflex.feeds.storages import Fleet
from cariflex.feeds.weather import CLEAR_SKY, QUANTITIES, Place, clear_sky
from cariflex.ven.outbox import AT_ITS_END, Destination, Outbox

log = logging.getLogger(__name__)

HOUR, DAY = 3600, 86_400
AHEAD_SECONDS = 2 * DAY  # how far ahead a tariff is told; the planner looks a day ahead
SIMULATOR = "simulator"  # the name of its data source
AT_ONCE = 2016  # values in one post: a week of five minutes
CELL = 300


class Job(Protocol):
    """Something to do again and again.

    Attributes:
        name: for log, health and metrics.
        ours: whether it is we who fail when it does; else somebody elsewhere, for whom nothing is called unwell.
    """

    name: str
    ours: bool

    async def run(self, now: float) -> float:
        """Do it; returns the seconds to the next time.

        Raises:
            JobError: it could not be done now.
        """
        ...

    def restless(self, now: float) -> str | None:
        """Why it is not well, or None."""
        ...


class JobError(Exception):
    """A job could not be done; `pause` says when to try again, in seconds."""

    def __init__(self, reason: str, pause: float) -> None:
        super().__init__(reason)
        self.pause = pause


class Progress:
    """Up to when each job has told what it tells, over restarts. When it is lost, things are told again."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "feeds.json"
        try:
            self._done: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._done = {}

    def get(self, name: str) -> Any:
        """What was kept under a name, or None."""
        return self._done.get(name)

    def keep(self, name: str, value: Any) -> None:
        """Keep something; what does not reach the disk is told again after a restart."""
        self._done[name] = value
        new = self._path.with_suffix(".new")
        try:
            new.write_text(json.dumps(self._done), encoding="utf-8")
            new.replace(self._path)
        except OSError as error:
            log.warning("progress is not kept", extra={"file": str(self._path), "reason": str(error)})


def destination(fed: FedSensor, source: str = "") -> Destination:
    """Where values of a sensor go."""
    return Destination(fed.sensor, fed.unit, int(fed.resolution.total_seconds()), source=source)


class WeatherJob:
    """Weather, as it was and as it will be. With `fallback`, a clear sky where Open-Meteo cannot be reached."""

    name = "weather"
    ours = False

    def __init__(
        self,
        open_meteo: OpenMeteo,
        sensors: Mapping[str, FedSensor],
        place: Place,
        outbox: Outbox,
        progress: Progress,
        *,
        fallback_history: timedelta | None = None,
    ) -> None:
        self._open_meteo = open_meteo
        self._sensors = sensors
        self._place = place
        self._outbox = outbox
        self._progress = progress
        self._fallback_history = fallback_history

    async def run(self, now: float) -> float:
        """See Job."""
        try:
            weather, failure = await self._open_meteo.weather(), None
        except OpenMeteoError as error:
            if self._fallback_history is None:
                raise JobError(str(error), error.pause or HOUR) from None
            failure = error
            known = self._progress.get(f"{self.name} until") is not None
            past = 24 if known else int(self._fallback_history.total_seconds()) // HOUR
            weather = clear_sky(self._place, now, past_hours=past)
            log.info("a clear sky is told instead of the weather", extra={"reason": str(error)})
        # the hours since the last time, and those before it that Open-Meteo has looked at again
        told = self._progress.get(f"{self.name} until") or 0
        for quantity in QUANTITIES:
            if quantity.name not in self._sensors:
                continue
            to = destination(self._sensors[quantity.name], weather.source)
            for piece in weather.actual(quantity, int(told) - HOUR, now):
                # what Open-Meteo says of an hour changes; a clear sky could be known as soon as the hour was over
                belief = AT_ITS_END if weather.source == CLEAR_SKY else piece.belief
                self._outbox.queue(self.name, to, piece.start, piece.values, belief)
            for piece in weather.forecast(quantity, now):
                self._outbox.queue(self.name, to, piece.start, piece.values, piece.belief)
        self._progress.keep(f"{self.name} until", int(now) // HOUR * HOUR)
        next_hour = HOUR - now % HOUR + 60
        return min(next_hour, failure.pause) if failure and failure.pause else next_hour

    def restless(self, now: float) -> str | None:
        """Not well without weather for what comes; in dev the fallback stands in."""
        if self._fallback_history is not None:
            return None
        last = self._open_meteo.last
        if last is None or last.end < now + 6 * HOUR:
            return f"no weather is known for the next six hours: {self._open_meteo.trouble or 'not asked yet'}"
        return None


class TariffJob:
    """The price of what is fed in: the history of the first start, and two days ahead."""

    name = "tariff"
    ours = True

    def __init__(
        self,
        price_at: Callable[[int], float | None],
        sensor: FedSensor,
        outbox: Outbox,
        progress: Progress,
        history: timedelta = timedelta(0),
    ) -> None:
        self._price_at = price_at
        self._to = destination(sensor)
        self._outbox = outbox
        self._progress = progress
        self._history = int(history.total_seconds())
        self._known_until: float = 0

    async def run(self, now: float) -> float:
        """See Job."""
        cell = self._to.resolution
        kept = self._progress.get(self.name) or {}
        first = int(now) // cell * cell
        first -= 0 if kept else self._history // cell * cell
        end = (int(now) + AHEAD_SECONDS) // cell * cell
        cells = range(first, end, cell)
        prices = {start: price for start in cells if (price := self._price_at(start)) is not None}
        told = {int(start): price for start, price in (kept.get("prices") or {}).items()}
        changed = {start: price for start, price in prices.items() if told.get(start) != price}
        for start, values in _runs(changed, cell):
            self._outbox.queue(self.name, self._to, start, values)
        self._known_until = max(prices, default=0) + cell
        if changed or not kept:
            self._progress.keep(self.name, {"prices": {start: prices[start] for start in prices if start >= now - DAY}})
        return HOUR - now % HOUR + 5

    def restless(self, now: float) -> str | None:
        """Not well when the tariff ends within the day that is planned."""
        if self._known_until and self._known_until < now + DAY:
            return "the tariff says nothing of the next 24 hours"
        return None


class SimulatorJob:
    """PV, consumers, batteries and EVs that do not exist: what they did up to now; at first also their history.

    Their values count as known when a meter would have told them: nobody who looks back finds out what was to come.
    """

    name = "simulator"
    ours = True

    def __init__(
        self,
        powers: Callable[[int, int], Mapping[str, tuple[float, ...]]],
        fleet_at: Callable[[int], Fleet],
        sensors: Mapping[str, FedSensor],
        live: Mapping[str, bool],
        outbox: Outbox,
        progress: Progress,
        history: timedelta,
    ) -> None:
        self._powers = powers
        self._fleet_at = fleet_at
        self._fleet: Fleet | None = None
        self._sensors = sensors
        self._live = live
        self._outbox = outbox
        self._progress = progress
        self._history = int(history.total_seconds())

    async def run(self, now: float) -> float:
        """See Job."""
        end = int(now) // CELL * CELL
        done = self._progress.get(self.name)
        start = max(int(done or 0), end - max(self._history, DAY)) // CELL * CELL
        if done is None:
            start = end - self._history // CELL * CELL
        while start < end:
            cells = min((end - start) // CELL, AT_ONCE)
            if self._fleet is None or self._fleet.time != start:
                self._fleet = self._fleet_at(start)
            found = {**self._powers(start, cells), **self._fleet.live(cells)}
            for name, values in found.items():
                if done is None or self._live.get(name, True):
                    to = destination(self._sensors[name], SIMULATOR)
                    self._outbox.queue(self.name, to, start, values, AT_ITS_END)
            start += cells * CELL
            self._progress.keep(self.name, start)
        return CELL - now % CELL + 2

    def restless(self, now: float) -> str | None:
        """Not well when it has fallen behind."""
        done = self._progress.get(self.name)
        if done is not None and now - done > 4 * CELL:
            return f"the simulator is {now - done:.0f} s behind"
        return None


def _runs(values: Mapping[int, float], cell: int) -> list[tuple[int, tuple[float, ...]]]:
    """Consecutive cells together."""
    found: list[tuple[int, list[float]]] = []
    for start in sorted(values):
        if found and found[-1][0] + cell * len(found[-1][1]) == start and len(found[-1][1]) < AT_ONCE:
            found[-1][1].append(values[start])
        else:
            found.append((start, [values[start]]))
    return [(start, tuple(run)) for start, run in found]
