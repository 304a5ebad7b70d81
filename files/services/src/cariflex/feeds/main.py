"""The feeds' process: jobs on their rhythm, one outbox, one health."""

import asyncio
import logging
import sqlite3
import sys
import time
from contextlib import closing
from typing import Any
from zoneinfo import ZoneInfo

from aiohttp import web
from prometheus_client import Counter, Gauge

from cariflex.feeds.jobs import Job, JobError, Progress, SimulatorJob, TariffJob, WeatherJob
from cariflex.feeds.load import Consumption, Load
from cariflex.feeds.open_meteo import OpenMeteo
from cariflex.feeds.settings import FeedsSettings, Simulated
from cariflex.feeds.storages import Fleet, Storage
from cariflex.feeds.tariff import Daily, TariffError, listed
from cariflex.feeds.weather import Place
from cariflex.service import health_routes, listen, run
from cariflex.settings import SettingsError
from cariflex.ven.outbox import Outbox, OutboxError
from cariflex.ven.sender import Sender

log = logging.getLogger(__name__)

RUNS = Counter("cariflex_feeds_runs_total", "Times that a job was done, by what became of it.", ["job", "result"])
LAST = Gauge("cariflex_feeds_last_run_timestamp_seconds", "When a job was last done well, as Unix time.", ["job"])
WAITING = Gauge("cariflex_feeds_outbox_rows", "Rows in the outbox.")
OLDEST = Gauge("cariflex_feeds_outbox_oldest_seconds", "Age of the oldest row in the outbox.")
AGAIN_SECONDS = 60.0  # after a job broke


async def serve(settings: FeedsSettings) -> None:
    """Serve until cancelled."""
    password = settings.secret("flexmeasures_ven_password")
    try:
        outbox = Outbox(settings.data_dir)
    except OutboxError as error:
        raise SettingsError(str(error)) from None
    with closing(outbox):
        sender = Sender(str(settings.flexmeasures.url), settings.flexmeasures.email, password, outbox)
        jobs = jobs_of(settings, outbox)
        troubles: dict[str, str] = {}

        def health() -> tuple[list[str], dict[str, Any]]:
            state, now = outbox.state(), time.time()
            said = {job: troubles.get(job.name) or job.restless(now) for job in jobs}
            reasons = [f"{job.name}: {why}" for job, why in said.items() if why and job.ours]
            notes = [f"{job.name}: {why}" for job, why in said.items() if why and not job.ours]
            if state.oldest_seconds > settings.outbox_age_limit_seconds:
                reasons.append(f"a value waits for {state.oldest_seconds:.0f} s: {sender.trouble or 'others go first'}")
            reasons += [f"refused, set aside: {problem}" for problem in state.problems]
            rows = {"waiting": state.waiting, "oldest_seconds": state.oldest_seconds, "aside": state.aside}
            return reasons, {"outbox": rows, "jobs": [job.name for job in jobs], "notes": notes}

        WAITING.set_function(lambda: outbox.state().waiting)
        OLDEST.set_function(lambda: outbox.state().oldest_seconds)
        app = web.Application()
        app.add_routes(health_routes(health))
        runner = await listen(app, settings.host, settings.port)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(sender.run())
                for job in jobs:
                    tasks.create_task(_repeat(job, sender, troubles))
        finally:
            await runner.cleanup()
            for gauge in (WAITING, OLDEST):  # whoever asks now finds the outbox closed
                gauge.set_function(lambda: 0.0)


async def _repeat(job: Job, sender: Sender, troubles: dict[str, str]) -> None:
    """Do a job for ever, whatever becomes of it once."""
    while True:
        try:
            pause = await job.run(time.time())
            troubles.pop(job.name, None)
            RUNS.labels(job.name, "done").inc()
            LAST.labels(job.name).set_to_current_time()
            sender.wake.set()
        except (JobError, OutboxError, TariffError, sqlite3.Error) as error:
            pause = error.pause if isinstance(error, JobError) else AGAIN_SECONDS
            troubles[job.name] = str(error)
            RUNS.labels(job.name, "failed").inc()
            log.warning("job not done", extra={"job": job.name, "reason": str(error), "again_in_seconds": pause})
        await asyncio.sleep(pause)


def jobs_of(settings: FeedsSettings, outbox: Outbox) -> list[Job]:
    """The jobs that the settings ask for.

    Raises:
        SettingsError: the tariff's file or a secret cannot be used.
    """
    zone, place = ZoneInfo(settings.timezone), Place(settings.latitude, settings.longitude)
    progress = Progress(settings.data_dir)
    simulated = settings.simulated
    jobs: list[Job] = []
    if settings.weather:
        key = settings.secret("open_meteo_api_key") if settings.weather.with_key else None
        cache = settings.data_dir / "open-meteo.json"
        open_meteo = OpenMeteo(place, cache, url=str(settings.weather.url), api_key=key)
        sensors = {str(name): fed for name, fed in settings.weather.sensors.items()}
        history = simulated.history if simulated else None
        jobs.append(WeatherJob(open_meteo, sensors, place, outbox, progress, fallback_history=history))
    if tariff := settings.tariff:
        try:
            prices = Daily(tariff.daily, zone) if tariff.daily is not None else listed(tariff.file)  # type: ignore[arg-type]
        except TariffError as error:
            raise SettingsError(f"tariff: {error}") from None
        history = simulated.history if simulated else None
        jobs.append(TariffJob(prices.at, tariff.sensor, outbox, progress, *([history] if history else [])))
    if simulated:
        jobs.append(_simulator(settings, simulated, zone, outbox, progress))
    return jobs


def _simulator(
    settings: FeedsSettings, simulated: Simulated, zone: ZoneInfo, outbox: Outbox, progress: Progress
) -> Job:
    from cariflex.feeds.pv import Array, Sky  # only the image for dev has pvlib

    sky = Sky(settings.latitude, settings.longitude, zone, simulated.seed)
    arrays = [Array(name, pv.peak_kw, pv.tilt, pv.azimuth) for name, pv in simulated.pv.items()]
    loads = {name: Load(load.base_kw, load.peak_kw) for name, load in simulated.loads.items()}
    consumption = Consumption(loads, zone, simulated.seed)
    storages = {
        name: Storage(one.kind, one.min_kw, one.max_kw, one.energy_kwh, number)
        for number, (name, one) in enumerate(simulated.storages.items())
    }
    return SimulatorJob(
        lambda start, cells: sky.powers(arrays, start, cells) | consumption.powers(start, cells),
        lambda start: Fleet(storages, zone, start),
        {name: pv.sensor for name, pv in simulated.pv.items()}
        | {name: load.sensor for name, load in simulated.loads.items()}
        | {name: one.sensor for name, one in simulated.storages.items()},
        {name: one.live for name, one in simulated.storages.items()},
        outbox,
        progress,
        simulated.history,
    )


def cli() -> None:
    """Entry point of `cariflex-feeds`."""
    sys.exit(run("feeds", FeedsSettings, serve))
