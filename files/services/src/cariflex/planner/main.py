"""The planner's process: plans, forecasts, health."""

import asyncio
import sys
from contextlib import ExitStack, closing
from typing import Any

from aiohttp import web

from cariflex.planner.flexmeasures import FlexMeasures
from cariflex.planner.forecasts import Forecasts
from cariflex.planner.planner import Planner
from cariflex.planner.settings import PlannerSettings
from cariflex.service import health_routes, listen, run
from cariflex.settings import SettingsError
from cariflex.ven.observations import Observations
from cariflex.ven.outbox import Outbox, OutboxError
from cariflex.ven.plans import Plans


async def serve(settings: PlannerSettings) -> None:
    """Serve until cancelled."""
    password = settings.secret("flexmeasures_ven_password")
    folder = settings.data_dir
    with ExitStack() as stores:
        try:
            outbox = stores.enter_context(closing(Outbox(folder)))
            plans = stores.enter_context(closing(Plans(folder)))
            observations = stores.enter_context(closing(Observations(folder)))
        except OutboxError as error:
            raise SettingsError(str(error)) from None
        async with FlexMeasures(str(settings.flexmeasures.url), settings.flexmeasures.email, password) as flexmeasures:
            planner = Planner(settings, flexmeasures, outbox, plans, observations)
            forecasts = Forecasts(settings, planner)

            def health() -> tuple[list[str], dict[str, Any]]:
                reasons, facts = planner.health()
                return reasons, facts | {"forecasts": forecasts.facts()}

            app = web.Application()
            app.add_routes(health_routes(health))
            runner = await listen(app, settings.host, settings.port)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(planner.run())
                    tasks.create_task(forecasts.run())
            finally:
                await runner.cleanup()


def cli() -> None:
    """Entry point of `cariflex-planner`."""
    sys.exit(run("planner", PlannerSettings, serve))
