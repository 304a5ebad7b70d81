"""Makes plans: looks what has changed, asks FlexMeasures, hands its answer to the CEM, and says what it saves."""

import asyncio
import logging
import sqlite3
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from prometheus_client import Counter, Gauge

from cariflex.durations import format_duration
from cariflex.planner import model
from cariflex.planner.agenda import Agenda, Pace
from cariflex.planner.flexmeasures import FlexMeasures, FlexMeasuresError
from cariflex.planner.model import AnswerError, Window, moment
from cariflex.planner.savings import Savings, savings
from cariflex.planner.settings import PlannerSettings, Price
from cariflex.ven.grid import Stretch
from cariflex.ven.observations import Observations
from cariflex.ven.outbox import Asked, Flexibility, Outbox, OutboxError
from cariflex.ven.plans import Plans

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.1  # how often the shared file is asked whether it has changed; the question costs microseconds
CLOCK_SECONDS = 1.0  # how often all of it is looked at
FRESH_SECONDS = 90.0  # the CEM tells twice a minute what devices can do
PRICES_SECONDS = 60.0  # how long a price may be on its way to FlexMeasures before a plan is made without it
JOB_SECONDS = 200.0  # FlexMeasures gives a job up after 180 s; a second one beside it would only make both slower
POLL_SECONDS = 0.2
SIDE_BY_SIDE = 4  # questions at a time
TRIGGERS, TRIGGER_SECONDS = 9, 305.0  # FlexMeasures takes 10 in 5 minutes from an account; one is left to people
LIMITS = ("LOAD_CONTROL", "SIMPLE")

RUNS = Counter("cariflex_planner_runs_total", "Attempts to plan, by what became of them.", ["result"])
SECONDS = Gauge("cariflex_planner_seconds", "How long the last plan took, by part.", ["part"])
PLANNED = Gauge("cariflex_planner_plan_timestamp_seconds", "When the last plan was made, as Unix time; 0: never.")
ENDS = Gauge("cariflex_planner_plan_end_timestamp_seconds", "When the last plan ends, as Unix time; 0: there is none.")
SAVED = Gauge("cariflex_planner_saved_eur", "What the last plan saves against doing nothing.")
SAVED_KWH = Gauge("cariflex_planner_saved_kwh", "The energy from the grid that the last plan saves.")
SAVED_PEAK = Gauge(
    "cariflex_planner_saved_peak_kw", "How much the last plan takes off the highest power from the grid."
)


class NothingToPlanError(Exception):
    """Something that a plan needs is not known; the text says what.

    `void`: what the present plan was made of is gone, so that it holds no longer.
    """

    def __init__(self, reason: str, *, void: bool = False) -> None:
        super().__init__(reason)
        self.void = void


@dataclass(frozen=True)
class Ground:
    """What plans depend on and what brings a new one when it changes."""

    prices: frozenset[Asked]
    limits: frozenset[Asked]
    devices: frozenset[Any]


@dataclass
class Run:
    """One plan, or one attempt."""

    causes: list[str]
    began: float
    events: list[str]
    window: Window | None = None
    devices: int = 0
    solver_seconds: float | None = None
    seconds: float = 0.0
    saved: Savings | None = None


class Planner:
    """Keeps the devices' plans right."""

    def __init__(
        self,
        settings: PlannerSettings,
        flexmeasures: FlexMeasures,
        outbox: Outbox,
        plans: Plans,
        observations: Observations,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._flexmeasures = flexmeasures
        self._outbox = outbox
        self._plans = plans
        self._observations = observations
        self._clock = clock
        self._resolution = int(settings.resolution.total_seconds())
        self.agenda = Agenda(int(settings.every.total_seconds()))
        self.pace = Pace(TRIGGERS, TRIGGER_SECONDS)
        self._ground: Ground | None = None
        self._site: int | None = None
        self._began = clock()
        self._last: Run | None = None
        self._planned_at: float | None = None
        self.waits_for: str | None = None  # what a plan needs and is not known
        self.trouble: str | None = None  # why the last attempt failed
        self._trouble_since = 0.0

    # --- when ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Plan for ever."""
        version, looked = None, 0.0
        while True:
            now = self._clock()
            try:
                if (seen := self._outbox.version()) != version or now - looked >= CLOCK_SECONDS:
                    version, looked = seen, now
                    self._look(now)
            except sqlite3.Error as error:
                log.warning("the events cannot be read", extra={"reason": str(error)})
            if self.agenda.due(now) and self.pace.wait(now) <= 0:
                await self.plan_now()
            await asyncio.sleep(LOOK_SECONDS)

    def _look(self, now: float) -> None:
        """Notice what has changed since the last look."""
        ground, before = self._read(now), self._ground
        self._ground = ground
        if before is None:
            return
        for cause, new, old in (
            ("prices", ground.prices, before.prices),
            ("limits", ground.limits, before.limits),
        ):
            if new != {one for one in old if one.end > now}:  # one that has ended is no change
                self.agenda.notice(cause, now)
        if ground.devices != before.devices:
            self.agenda.notice("devices", now)

    def _read(self, now: float) -> Ground:
        devices = self._outbox.flexibilities(now - FRESH_SECONDS)
        able = {
            (name, one.low_kw, one.high_kw, one.least_kwh, one.most_kwh, tuple((t.value, t.start) for t in one.targets))
            for name, one in devices.items()
        }

        def asked(*signals: str) -> frozenset[Asked]:
            # an event is there until its last interval has ended
            return frozenset(one for signal in signals for one in self._outbox.asked(signal, now) if one.end > now)

        return Ground(prices=asked("ENERGY_PRICE"), limits=asked(*LIMITS), devices=frozenset(able))

    # --- one plan ------------------------------------------------------------------------------------------------

    async def plan_now(self) -> None:
        """Make a plan, or say why there is none."""
        now = self._clock()
        causes = self.agenda.begin(now)
        ground = self._ground or self._read(now)
        run = Run(causes, now, sorted({one.event_id for one in (*ground.prices, *ground.limits)}))
        try:
            await self._plan(run)
        except NothingToPlanError as error:
            self.agenda.done()
            self._nothing(str(error), void=error.void)
            return
        except (FlexMeasuresError, AnswerError, OutboxError, sqlite3.Error) as error:
            pause = error.pause if isinstance(error, FlexMeasuresError) else None
            self._failed(run, str(error), pause)
            return
        except Exception as error:  # whatever FlexMeasures says, the planner goes on
            log.exception("a plan could not be made")
            self._failed(run, f"{type(error).__name__}: {error}", None)
            return
        self.agenda.done()
        self.trouble = self.waits_for = None

    async def _plan(self, run: Run) -> None:
        await self._prices_are_stored()
        settings = self._settings
        began = self._clock()
        window = model.window_of(began, int(settings.horizon.total_seconds()), self._resolution)
        bought, sold = await asyncio.gather(
            *(self.values(p.sensor, p, window) for p in (settings.consumption_price, settings.production_price))
        )
        window = self._priced(window, bought, sold)
        devices = model.plannable(self._outbox.flexibilities(began - FRESH_SECONDS))
        devices = {name: one for name, one in devices.items() if name in settings.resources}
        if not devices:
            raise NothingToPlanError("no device has told its state of charge and what it can do")
        run.window, run.devices = window, len(devices)
        limited = model.limits(
            window,
            self._outbox.asked("LOAD_CONTROL", window.start),
            self._outbox.asked("SIMPLE", window.start),
            {name: resource.max_kw for name, resource in settings.resources.items()},
        )
        sensors = {name: resource.sensor for name, resource in settings.resources.items()}
        question = model.question(
            *(window, devices, sensors, limited),
            prices=(settings.consumption_price.sensor, settings.production_price.sensor),
            sale=model.sale_prices(window, *self._by_cell(window, bought, sold)),
            production=settings.production,
            consumption=settings.consumption,
            roundtrip_efficiency=settings.roundtrip_efficiency,
        )
        job = await self.trigger(f"assets/{await self._asset()}/schedules/trigger", question)
        asked = self._clock()
        await self.finished(job)
        run.solver_seconds = self._clock() - asked
        span = format_duration(timedelta(seconds=window.end - window.start))
        answers = await self._schedules(job, [sensors[name] for name in devices], span)
        found = {name: model.plan_of(answer, window) for name, answer in zip(devices, answers, strict=True)}
        gone = {name: () for name in settings.resources if name not in found}
        self._plans.replace_all({**found, **gone})
        run.seconds = self._clock() - run.began
        self._planned_at = self._clock()
        await self._planned(run, job, found, devices, limited, (bought, sold))

    def _by_cell(self, window: Window, bought: Mapping[int, float], sold: Mapping[int, float]) -> list[list[float]]:
        """Both prices in each cell of a window."""
        both = ((self._settings.consumption_price, bought), (self._settings.production_price, sold))
        return [model.on(window, series, int(price.resolution.total_seconds())) for price, series in both]

    async def _prices_are_stored(self) -> None:
        """A price that an event has brought is on its way to FlexMeasures; plan when it is there."""
        sensors = {self._settings.consumption_price.sensor, self._settings.production_price.sensor}
        deadline = self._clock() + PRICES_SECONDS
        while self._outbox.waiting(sensors):
            if self._clock() > deadline:
                raise FlexMeasuresError(f"prices have been on their way to FlexMeasures for {PRICES_SECONDS:.0f} s")
            await asyncio.sleep(LOOK_SECONDS)

    def _priced(self, window: Window, bought: Mapping[int, float], sold: Mapping[int, float]) -> Window:
        """The window as far as both prices are known: where FlexMeasures knows none it would go on with the last."""
        end = window.end
        for price, series in ((self._settings.consumption_price, bought), (self._settings.production_price, sold)):
            until = model.known_until(window, series, int(price.resolution.total_seconds()))
            if until == window.start:
                reason = f"there is no price at sensor {price.sensor} from {moment(window.start)} on"
                raise NothingToPlanError(reason, void=True)
            end = min(end, until)
        return Window(window.start, end, window.resolution)

    async def values(self, sensor: int, grid: Price | None, window: Window) -> dict[int, float]:
        """What FlexMeasures knows of a sensor: value by start of a cell, of the grid of a price or of the plan."""
        cell = int(grid.resolution.total_seconds()) if grid else window.resolution
        start = window.start // cell * cell
        query = {
            "start": moment(start),
            "duration": format_duration(timedelta(seconds=-(-(window.end - start) // cell) * cell)),
            "resolution": format_duration(timedelta(seconds=cell)),
            "unit": grid.unit if grid else "kW",
        }
        values = await self._data(sensor, query)
        return {start + cell * i: value for i, value in enumerate(values) if value is not None}

    async def hours_known(self, sensor: int, start: int, hours: int) -> int:
        """In how many hours from a full hour on FlexMeasures has a power of a sensor."""
        # at the sensor's own resolution: made coarser, a row that begins with missing values comes as missing ones only
        query = {"start": moment(start), "duration": format_duration(timedelta(hours=hours)), "unit": "kW"}
        values = await self._data(sensor, query)
        return len({i * hours // len(values) for i, value in enumerate(values) if value is not None})

    async def _data(self, sensor: int, query: Mapping[str, str]) -> list[float | None]:
        answer = await self._get(f"sensors/{sensor}/data", query)
        values = answer.get("values")
        if not isinstance(values, list):
            raise AnswerError(f"the values of sensor {sensor} cannot be read")
        return [float(v) if isinstance(v, (int, float)) and v == v else None for v in values]

    async def _asset(self) -> int:
        """The site: the asset of the price's sensor."""
        if self._site is None:
            answer = await self._get(f"sensors/{self._settings.consumption_price.sensor}")
            if not isinstance(found := answer.get("generic_asset_id", answer.get("asset_id")), int):
                raise AnswerError(f"sensor {self._settings.consumption_price.sensor} has no asset")
            self._site = found
        return self._site

    # --- questions -----------------------------------------------------------------------------------------------

    async def _get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        status, answer = await self._flexmeasures.ask("GET", path, query=query)
        if status != 200:
            raise AnswerError(f"FlexMeasures answered {path} with {status}: {_said(answer)}")
        return answer

    async def _schedules(self, job: str, sensors: Sequence[int], span: str) -> list[Any]:
        """What a job has planned for each sensor: from our plugin in one answer, else from FlexMeasures one by one."""
        query = {"sensors": ",".join(map(str, sensors))}
        status, answer = await self._flexmeasures.ask("GET", f"/cariflex/v1/schedules/{job}", query=query)
        if status == 404:
            paths = [f"sensors/{sensor}/schedules/{job}" for sensor in sensors]
            return list(await self._all(paths, {"duration": span, "unit": "kW"}))
        schedules = answer.get("schedules")
        if status != 200 or not isinstance(schedules, dict):
            raise AnswerError(f"FlexMeasures answered the question for the schedules with {status}: {_said(answer)}")
        return [schedules.get(str(sensor)) for sensor in sensors]

    async def _all(self, paths: Sequence[str], query: Mapping[str, str]) -> list[dict[str, Any]]:
        gate = asyncio.Semaphore(SIDE_BY_SIDE)

        async def one(path: str) -> dict[str, Any]:
            async with gate:
                return await self._get(path, query)

        return await asyncio.gather(*map(one, paths))

    async def trigger(self, path: str, question: Mapping[str, Any]) -> str:
        """Give FlexMeasures something to do; returns the job.

        Raises:
            FlexMeasuresError: it cannot now.
            AnswerError: it does not accept the question.
        """
        self.pace.spend(self._clock())
        status, answer = await self._flexmeasures.ask("POST", path, body=question)
        job = answer.get("job", answer.get("schedule", answer.get("forecast")))
        if status not in (200, 202) or not isinstance(job, str):
            raise AnswerError(f"FlexMeasures answered {path} with {status}: {_said(answer)}")
        return job

    async def finished(self, job: str, seconds: float = JOB_SECONDS) -> None:
        """Wait until FlexMeasures has done something.

        Raises:
            FlexMeasuresError: it does not get it done.
        """
        deadline = self._clock() + seconds
        while True:
            status, answer = await self._flexmeasures.ask("GET", f"jobs/{job}")
            if status == 200:
                return
            if status != 202:
                raise FlexMeasuresError(f"FlexMeasures' job {job} failed: {_said(answer)}")
            if self._clock() > deadline:
                state = str(answer.get("status", "")).lower()
                raise FlexMeasuresError(
                    f"FlexMeasures' job {job} is {state} after {seconds:.0f} s; look at flexmeasures-worker"
                )
            await asyncio.sleep(POLL_SECONDS)

    # --- what became of it ---------------------------------------------------------------------------------------

    async def _planned(
        self,
        run: Run,
        job: str,
        plans: Mapping[str, Sequence[Stretch]],
        devices: Mapping[str, Flexibility],
        limited: Mapping[str, Sequence[float]],
        prices: tuple[Mapping[int, float], Mapping[int, float]],
    ) -> None:
        window, settings, solver = run.window, self._settings, run.solver_seconds or 0.0
        assert window is not None  # noqa: S101  _plan has set it
        facts = {
            "job": job,
            "causes": run.causes,
            "event_ids": run.events,
            "devices": len(plans),
            "until": moment(window.end),
            "seconds": round(run.seconds, 3),
            "solver_seconds": round(solver, 3),
        }
        log.info("plan made", extra=facts)
        try:
            run.saved = await self._savings(window, plans, devices, limited, prices)
        except (FlexMeasuresError, AnswerError) as error:  # the devices have their plans all the same
            log.warning("what the plan saves is not known", extra={"reason": str(error)})
        self._last = run
        RUNS.labels("planned").inc()
        SECONDS.labels("solver").set(solver)
        SECONDS.labels("own").set(run.seconds - solver)
        PLANNED.set(self._clock())
        ENDS.set(window.end)
        if run.saved:
            SAVED.set(run.saved.eur)
            SAVED_KWH.set(run.saved.kwh)
            SAVED_PEAK.set(run.saved.peak_kw)
            log.info("plan compared", extra={"job": job, "saved": run.saved.as_dict()})
        missing = sorted(settings.resources.keys() - plans.keys())
        if missing:
            log.info("devices without a plan", extra={"resources": missing, "reason": "away, or not known"})
        self._observe(run, "ok", None)

    async def _savings(
        self,
        window: Window,
        plans: Mapping[str, Sequence[Stretch]],
        devices: Mapping[str, Flexibility],
        limited: Mapping[str, Sequence[float]],
        prices: tuple[Mapping[int, float], Mapping[int, float]],
    ) -> Savings:
        settings = self._settings
        powers = {name: model.values_of(plan, window) for name, plan in plans.items()}
        most = {}
        for name, values in powers.items():
            highest = devices[name].high_kw
            limit = limited.get(name, [highest] * len(values))
            most[name] = [max(power, min(highest, one)) for power, one in zip(values, limit, strict=True)]
        other = [0.0] * len(window.cells)
        for sign, sensors in ((-1, settings.production), (1, settings.consumption)):
            for sensor in sensors:
                series = await self.values(sensor, None, window)
                other = [a + sign * b for a, b in zip(other, model.on(window, series, window.resolution), strict=True)]
        bought, sold = self._by_cell(window, *prices)
        return savings(powers, most, other, (bought, sold), window.hours)

    def _nothing(self, reason: str, *, void: bool) -> None:
        if reason != self.waits_for:
            log.warning("nothing is planned", extra={"reason": reason})
        self.waits_for, self.trouble = reason, None
        RUNS.labels("nothing").inc()
        if void and self._plans.since(self._clock()):
            self._plans.replace_all(dict.fromkeys(self._settings.resources, ()))
            ENDS.set(0)
            log.warning("the plan ends", extra={"reason": reason})

    def _failed(self, run: Run, reason: str, pause: float | None) -> None:
        now = self._clock()
        again = self.agenda.failed(run.causes, now, pause)
        if self.trouble is None:
            self._trouble_since = now
        self.trouble = reason
        RUNS.labels("failed").inc()
        log.warning(
            "no new plan, the last one holds",
            extra={"causes": run.causes, "reason": reason, "again_in_seconds": round(again, 1)},
        )
        run.seconds = now - run.began
        self._observe(run, "failed", reason)

    def _observe(self, run: Run, status: str, error: str | None) -> None:
        """Keep for FlexMeasures' database what became of it."""
        window, saved = run.window, run.saved
        planned, without = (saved.planned, saved.without) if saved else (None, None)
        observation = {
            "kind": "schedule_run",
            "id": str(uuid.uuid4()),
            "started_at": moment(run.began),
            "finished_at": moment(run.began + run.seconds),
            "trigger": ", ".join(run.causes)[:100],
            "status": status,
            "error": error and error[:500],
            "horizon_start": moment(window.start) if window else None,
            "horizon_end": moment(window.end) if window else None,
            "devices": run.devices,
            "solver_seconds": run.solver_seconds,
            "cost_eur": planned and planned.eur,
            "baseline_cost_eur": without and without.eur,
            "energy_kwh": planned and planned.kwh,
            "baseline_energy_kwh": without and without.kwh,
            "peak_kw": planned and planned.peak_kw,
            "baseline_peak_kw": without and without.peak_kw,
        }
        try:
            self._observations.add([observation])
        except OutboxError as problem:
            log.error("not stored", extra={"what": "the run", "reason": str(problem)})

    def health(self) -> tuple[list[str], dict[str, Any]]:
        """Well means: plans are made when they are due. That something needed is not known is a fact, no reason."""
        now, every = self._clock(), self._settings.every.total_seconds()
        reasons = []
        if self.trouble and now - self._trouble_since > 2 * every:
            reasons.append(f"no new plan for {now - self._trouble_since:.0f} s: {self.trouble}")
        last = self._last
        facts: dict[str, Any] = {
            "nothing_planned_because": self.waits_for,
            "trouble": self.trouble,
            "seconds_since_plan": None if self._planned_at is None else round(now - self._planned_at, 1),
            "plan": None,
        }
        if last and last.window:
            facts["plan"] = {
                "from": moment(last.window.start),
                "until": moment(last.window.end),
                "devices": last.devices,
                "causes": last.causes,
                "seconds": round(last.seconds, 3),
                "solver_seconds": None if last.solver_seconds is None else round(last.solver_seconds, 3),
                "saved": last.saved.as_dict() if last.saved else None,
            }
        return reasons, facts


def _said(answer: Mapping[str, Any]) -> str:
    """What an answer says is wrong, on a line."""
    return str(answer.get("message") or answer)[:300]
