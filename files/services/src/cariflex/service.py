"""The frame of every service: start, health and metrics over HTTP, stop on SIGTERM."""

import argparse
import asyncio
import gc
import logging
import signal
import ssl
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from cariflex import logs
from cariflex.settings import Settings, SettingsError

log = logging.getLogger(__name__)

EX_CONFIG = 78  # sysexits.h: a configuration error

# What a service says about itself: reasons why it is not well (none: it is), and facts worth showing.
Health = Callable[[], tuple[list[str], dict[str, Any]]]


def health_routes(health: Health, registry: CollectorRegistry = REGISTRY) -> list[web.RouteDef]:
    """`/health` (200, or 503 with the reasons) and `/metrics` (Prometheus text)."""

    async def get_health(_request: web.Request) -> web.Response:
        reasons, facts = health()
        status = "unavailable" if reasons else "ok"
        return web.json_response({"status": status, "reasons": reasons, **facts}, status=503 if reasons else 200)

    async def get_metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [web.get("/health", get_health), web.get("/metrics", get_metrics)]


async def listen(app: web.Application, host: str, port: int, tls: ssl.SSLContext | None = None) -> web.AppRunner:
    """Serve `app`, over HTTPS if `tls` is given; the caller cleans the runner up."""
    # Three seconds let answers under way finish, and stay well under the ten that Docker grants.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=3)
    await runner.setup()
    await web.TCPSite(runner, host, port, ssl_context=tls).start()
    return runner


def collect_rarely() -> None:
    """Let full garbage collections come after some hundred million allocations instead of some hundred thousand.

    A service holds a hundred objects for each connection and lets go of them with its next message. To the collector
    they look like growth: with 15,000 connections it would go through all of them every few seconds, for a second each.
    What is garbage in cycles dies young here, and the collections of young objects go on.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 1_000)


def run(
    name: str,
    settings_class: type[Settings],
    main: Callable[[Settings], Awaitable[None]],
    argv: list[str] | None = None,
) -> int:
    """Run a service until SIGTERM or SIGINT.

    Returns the exit status: 0 after a signal, 78 when the settings or secrets are wrong, 1 when the service broke.
    """
    parser = argparse.ArgumentParser(prog=f"cariflex-{name}", description=settings_class.__doc__)
    parser.add_argument("command", choices=["serve", "check"], help="serve, or only check the settings file")
    command = parser.parse_args(argv).command
    try:
        settings = settings_class.read(f"/etc/cariflex/{name}.yml")
        if command == "check":
            return 0
        logs.configure(name, settings.log_level)
        asyncio.run(_until_signalled(main(settings)))
    except SettingsError as error:
        print(f"cariflex-{name}: {error}", file=sys.stderr)
        return EX_CONFIG
    except Exception:
        log.critical("the service broke", exc_info=True)
        return 1
    return 0


async def _until_signalled(work: Awaitable[None]) -> None:
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        log.info("stopped by a signal")
