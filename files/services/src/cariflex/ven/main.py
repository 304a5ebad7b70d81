"""The VEN's process: session with the VTN, outbox, sender to FlexMeasures, health."""

import asyncio
import logging
import sqlite3
import sys
from typing import Any
from zoneinfo import ZoneInfo

from aiohttp import web
from prometheus_client import Gauge

from cariflex.openadr.signals import SIGNALS
from cariflex.openadr.tls import Certificate, client_context, own_certificate
from cariflex.service import Health, health_routes, listen, run
from cariflex.settings import SettingsError
from cariflex.ven.inbox import Inbox
from cariflex.ven.observations import Observations, Observer
from cariflex.ven.outbox import Destination, Outbox, OutboxError
from cariflex.ven.reporter import Reporter
from cariflex.ven.reports import Reports
from cariflex.ven.schedule import Schedule
from cariflex.ven.sender import Sender
from cariflex.ven.session import Session
from cariflex.ven.settings import VenSettings

CERTIFICATE = Gauge(
    "cariflex_ven_certificate_expiry_timestamp_seconds",
    "When the VEN's certificate ends, as Unix time; 0 without TLS.",
)
log = logging.getLogger(__name__)


async def serve(settings: VenSettings) -> None:
    """Serve until cancelled."""
    password = settings.secret("flexmeasures_ven_password")
    certificate = own_certificate(settings.tls) if settings.tls else None
    if settings.tls:  # a file that cannot be used ends the start
        client_context(settings.tls, settings.tls.vtn_fingerprint)
    CERTIFICATE.set(certificate.expires.timestamp() if certificate else 0)
    try:
        outbox, observations = Outbox(settings.data_dir), Observations(settings.data_dir)
    except OutboxError as error:
        raise SettingsError(str(error)) from None
    sender = Sender(str(settings.flexmeasures.url), settings.flexmeasures.email, password, outbox, settings.ven_name)
    observer = Observer(observations, sender)
    destinations = {
        name: Destination(target.sensor, target.unit, int(target.resolution.total_seconds()), SIGNALS[name].neutral)
        for name, target in settings.signals.items()
    }
    timezone = ZoneInfo(settings.timezone)
    inbox = Inbox(
        outbox, destinations, sender.wake.set, settings.opt_out, timezone, settings.ven_name, observations.add
    )
    try:
        inbox.reconsider()  # the rules may be others than at the last start
    except OutboxError as error:
        log.error("the events are not judged by the present rules", extra={"reason": str(error)})
    reports = Reports(settings.resources, outbox.states)
    schedule = Schedule(outbox, settings.opt_out, timezone)
    session = Session(settings.ven_name, str(settings.vtn_url), inbox, settings.tls, Reporter(reports), schedule)
    _observe(session, outbox)
    app = web.Application()
    app.add_routes(health_routes(_health(settings, certificate, session, inbox, outbox, sender, observer)))
    runner = await listen(app, settings.host, settings.port)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(session.run())
            tasks.create_task(sender.run())
            tasks.create_task(_sample(reports))
            tasks.create_task(observer.run())
    finally:
        await runner.cleanup()
        observations.close()
        outbox.close()


async def _sample(reports: Reports) -> None:
    while True:
        try:
            reports.sample()
        except sqlite3.Error as error:  # the CEM holds the file, or the disk is gone: the next second may do
            log.warning("the devices' states cannot be read", extra={"reason": str(error)})
        await asyncio.sleep(1)


def _health(
    settings: VenSettings,
    certificate: Certificate | None,
    session: Session,
    inbox: Inbox,
    outbox: Outbox,
    sender: Sender,
    observer: Observer,
) -> Health:
    """Well means: polls are answered, events can be stored, and no value or observation waits long or is refused."""

    def health() -> tuple[list[str], dict[str, Any]]:
        state, age = outbox.state(), session.seconds_since_poll
        reasons = []
        if age is None or age > 3 * session.poll_seconds + 5:
            last = "never" if age is None else f"{age:.0f} s ago"
            reasons.append(f"last good poll {last}: {session.trouble or 'the VTN does not answer'}")
        if inbox.trouble:
            reasons.append(inbox.trouble)
        if state.oldest_seconds > settings.outbox_age_limit_seconds:
            reasons.append(f"a value waits for {state.oldest_seconds:.0f} s: {sender.trouble or 'others go first'}")
        kept = observer.waiting()
        if kept.oldest_seconds > settings.outbox_age_limit_seconds:
            reasons.append(f"an observation waits for {kept.oldest_seconds:.0f} s: {observer.trouble or 'many do'}")
        reasons += [f"refused, set aside: {problem}" for problem in state.problems]
        facts: dict[str, Any] = {
            "seconds_since_last_poll": age,
            "outbox": {"waiting": state.waiting, "oldest_seconds": state.oldest_seconds, "aside": state.aside},
            "opted_out": {answer.event_id: answer.reason for answer in outbox.opted_out()[:20]},
            "observations": {"waiting": kept.count, "oldest_seconds": kept.oldest_seconds},
        }
        if certificate:
            facts["certificate"] = certificate.as_dict()
            reasons += certificate.troubles()
        return reasons, facts

    return health


def _observe(session: Session, outbox: Outbox) -> None:
    poll = Gauge("cariflex_ven_seconds_since_last_poll", "Age of the last good poll; -1 before the first.")
    poll.set_function(lambda: -1 if (age := session.seconds_since_poll) is None else age)
    waiting = Gauge("cariflex_ven_outbox_rows", "Rows in the outbox.")
    waiting.set_function(lambda: outbox.state().waiting)
    oldest = Gauge("cariflex_ven_outbox_oldest_seconds", "Age of the oldest row in the outbox.")
    oldest.set_function(lambda: outbox.state().oldest_seconds)
    aside = Gauge("cariflex_ven_outbox_rows_aside", "Rows that FlexMeasures refuses.")
    aside.set_function(lambda: outbox.state().aside)


def cli() -> None:
    """Entry point of `cariflex-ven`."""
    sys.exit(run("ven", VenSettings, serve))
