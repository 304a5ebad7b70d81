"""Has FlexMeasures forecast what is not controlled, one sensor at a time, so that plans can count with it."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prometheus_client import Counter

from cariflex.durations import format_duration
from cariflex.planner.flexmeasures import AwayError, FlexMeasuresError
from cariflex.planner.model import AnswerError
from cariflex.planner.planner import Planner
from cariflex.planner.settings import PlannerSettings

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
BETWEEN_SECONDS = 60.0  # between two forecasts: FlexMeasures has one worker, and plans must not wait for all of them
AGAIN_SECONDS = 3600.0  # after a failure
SOON_SECONDS = 60.0  # where FlexMeasures is away or there is too little to learn from: it may be on its way
KEPT_FOR_PLANS = 5  # of the triggers that FlexMeasures takes in five minutes
JOB_SECONDS = 900.0
HISTORY_HOURS, LEAST_HOURS = 7 * 24, 48  # where FlexMeasures has fewer hours of the last week, it learns nothing

FORECASTS = Counter("cariflex_planner_forecasts_total", "Forecasts, by what became of them.", ["result"])


@dataclass
class Forecast:
    """What became of a sensor's last forecast."""

    state: str = "not yet made"
    next: float = 0.0


class Forecasts:
    """On a rhythm; plans go first."""

    def __init__(self, settings: PlannerSettings, planner: Planner, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._planner = planner
        self._clock = clock
        self.sensors = {sensor: Forecast() for sensor in (*settings.production, *settings.consumption)}

    async def run(self) -> None:
        """Forecast for ever."""
        while True:
            sensor = self.due(self._clock())
            if sensor is not None and await self.forecast(sensor):
                await asyncio.sleep(BETWEEN_SECONDS)
            await asyncio.sleep(LOOK_SECONDS)

    def due(self, now: float) -> int | None:
        """The sensor to forecast now, the one that has waited longest; None where there is none, or a plan is due."""
        waiting = [(one.next, sensor) for sensor, one in self.sensors.items() if one.next <= now]
        if not waiting or self._planner.agenda.causes or self._planner.pace.wait(now, KEPT_FOR_PLANS) > 0:
            return None
        return min(waiting)[1]

    async def forecast(self, sensor: int) -> bool:
        """Have one made, or say why not; whether FlexMeasures was given work."""
        now, one = self._clock(), self.sensors[sensor]
        every = self._settings.forecast_every.total_seconds()
        try:
            since = int(now) // 3600 * 3600 - HISTORY_HOURS * 3600
            hours = await self._planner.hours_known(sensor, since, HISTORY_HOURS)
            if hours < LEAST_HOURS:
                FORECASTS.labels("nothing").inc()
                self._say(sensor, f"too little to learn from: {hours} of {LEAST_HOURS} hours", now + SOON_SECONDS)
                return False
            question = {"duration": format_duration(self._settings.horizon)}
            job = await self._planner.trigger(f"sensors/{sensor}/forecasts/trigger", question)
            await self._planner.finished(job, JOB_SECONDS)
        except (FlexMeasuresError, AnswerError) as error:
            FORECASTS.labels("failed").inc()
            pause = SOON_SECONDS if isinstance(error, AwayError) else AGAIN_SECONDS
            self._say(sensor, f"failed: {error}", now + pause)
            return not isinstance(error, AwayError)
        except Exception as error:  # whatever FlexMeasures says, plans go on
            log.exception("a forecast could not be made")
            self._say(sensor, f"failed: {type(error).__name__}", now + AGAIN_SECONDS)
            return True
        FORECASTS.labels("made").inc()
        one.state, one.next = "made", now + every
        log.info("forecast made", extra={"sensor": sensor, "job": job, "seconds": round(self._clock() - now, 1)})
        return True

    def _say(self, sensor: int, state: str, again: float) -> None:
        one = self.sensors[sensor]
        if one.state != state:
            log.warning("no forecast, plans go on without it", extra={"sensor": sensor, "reason": state})
        one.state, one.next = state, again

    def facts(self) -> dict[str, Any]:
        """For health: state of the last forecast by sensor."""
        return {str(sensor): one.state for sensor, one in self.sensors.items()}
