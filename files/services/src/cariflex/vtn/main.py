"""The VTN's process: store, OpenADR on one port, API and health on another."""

import asyncio
import logging
import sys
from datetime import timedelta
from typing import Any

from prometheus_client import Counter, Gauge

from cariflex.openadr.tls import own_certificate, server_context
from cariflex.service import collect_rarely, listen, run
from cariflex.vtn.api import Api
from cariflex.vtn.board import Board
from cariflex.vtn.commands import events
from cariflex.vtn.protocol import Vtn
from cariflex.vtn.reports import MOST_VALUES
from cariflex.vtn.settings import VtnSettings
from cariflex.vtn.store import PostgresStore, Store, StoreError

log = logging.getLogger(__name__)

CERTIFICATE = Gauge(
    "cariflex_vtn_certificate_expiry_timestamp_seconds",
    "When the VTN's own certificate ends, as Unix time; 0 without TLS.",
)
HANDSHAKES_REFUSED = Counter(
    "cariflex_vtn_handshakes_refused_total", "Connections that ended before a message, by TLS' reason.", ["reason"]
)
TOKEN_LENGTH = 16  # characters at least
PRUNE_SECONDS = 600.0


async def serve(settings: VtnSettings) -> None:
    """Serve until cancelled.

    The API is there at once, so that /health can say what is being waited for; OpenADR only when the store has been
    read: a VTN that has forgotten its VENs would send them all to register again.
    """
    token = settings.secret("openadr_api_token", TOKEN_LENGTH)
    # before anything is opened: a file that cannot be used ends the start
    tls = server_context(settings.tls, _handshake_refused) if settings.tls else None
    certificate = own_certificate(settings.tls) if settings.tls else None
    CERTIFICATE.set(certificate.expires.timestamp() if certificate else 0)
    store = PostgresStore(settings.database, settings.secret("openadr_db_password"))
    board = Board(store, settings.vens)
    _observe(board)

    def health() -> tuple[list[str], dict[str, Any]]:
        now = board.clock()
        polls = {ven: (now - board.last_poll[ven]).total_seconds() for ven in board.ven_ids if ven in board.last_poll}
        facts: dict[str, Any] = {"events": len(board.live()), "seconds_since_last_poll": polls}
        reasons = [board.trouble] if board.trouble else []
        if certificate:
            facts["certificate"] = certificate.as_dict()
            reasons += certificate.troubles()
        return reasons, facts

    runners = [await listen(Api(settings, token, board, store, health).app, settings.host, settings.api_port)]
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(board.follow())
            tasks.create_task(prune(settings, board, store))
            await board.loaded.wait()
            collect_rarely()
            runners.append(await listen(Vtn(settings, board, store).app, settings.host, settings.port, tls))
    finally:
        for runner in reversed(runners):
            await runner.cleanup()
        await store.close()


def _handshake_refused(reason: str) -> None:
    HANDSHAKES_REFUSED.labels(reason).inc()
    log.warning("TLS handshake refused", extra={"reason": reason})


async def prune(settings: VtnSettings, board: Board, store: Store) -> None:
    """Keep the live tables small, for ever: a round when the store is there and every few minutes."""
    await board.loaded.wait()
    while True:
        now = board.clock()
        history, reports = (now - timedelta(days=days) for days in (settings.history_days, settings.report_days))
        try:
            while moved := await store.prune(history, reports, MOST_VALUES):
                log.info("events moved to the history", extra={"events": moved})
        except StoreError as error:
            log.warning("the store could not be pruned", extra={"reason": str(error)})
        await asyncio.sleep(PRUNE_SECONDS)


def _observe(board: Board) -> None:
    events = Gauge("cariflex_vtn_live_events", "Events that have not ended.")
    events.set_function(lambda: len(board.live()))
    reachable = Gauge("cariflex_vtn_store_reachable", "1 when the store can be reached.")
    reachable.set_function(lambda: 0 if board.trouble else 1)


def cli() -> None:
    """Entry point of `cariflex-vtn`."""
    if sys.argv[1:2] == ["events"]:
        sys.exit(events(sys.argv[2:]))
    sys.exit(run("vtn", VtnSettings, serve))
