"""The VEN's conversation with its VTN, kept alive whatever happens to either.

openleadr's client builds, sends, parses and validates the messages. Its own `run` is not used: it gives up for ever
when the VTN is absent, stops its scheduler when a registration is refused, and answers every event with optOut after
one exception.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from time import monotonic
from typing import Any

from openleadr.utils import generate_id
from prometheus_client import Counter

from cariflex.ven.client import VtnClient
from cariflex.ven.inbox import Inbox
from cariflex.ven.reporter import REPORT_MESSAGES, Reporter
from cariflex.ven.reports import Reports
from cariflex.ven.schedule import Schedule
from cariflex.ven.settings import VenTls

log = logging.getLogger(__name__)

POLLS = Counter("cariflex_ven_polls_total", "Polls, by whether they were answered well.", ["result"])
SESSIONS = Counter("cariflex_ven_sessions_total", "Registrations that succeeded.")

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0
MISSED_POLLS = 3  # unanswered polls in a row after which a fresh client registers again


class SessionError(Exception):
    """This client cannot go on; a fresh one has to register."""


class Session:
    """Registers, polls and answers, for ever."""

    def __init__(
        self,
        ven_name: str,
        vtn_url: str,
        inbox: Inbox,
        tls: VenTls | None = None,
        reporter: Reporter | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        self._ven_name = ven_name
        self._vtn_url = vtn_url
        self._inbox = inbox
        self._tls = tls
        self._reporter = reporter or Reporter(Reports({}, dict))
        self._schedule = schedule
        self._last_poll: float | None = None
        self._heard: str | None = None
        self.poll_seconds = 10.0  # until the VTN says otherwise
        self.trouble: str | None = "not registered at the VTN yet"

    @property
    def seconds_since_poll(self) -> float | None:
        """Age of the last poll that was answered well; None before the first."""
        return None if self._last_poll is None else monotonic() - self._last_poll

    async def run(self) -> None:
        """Hold one session after the other; a pause between them grows while they fail."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            started = self._last_poll
            try:
                async with self._client() as client:
                    await self._hold(client)
            except SessionError as lost:
                self._failed(str(lost))
            except Exception as error:  # openleadr lets many kinds through; none may end the VEN
                log.exception("session broke")
                self._failed(f"{type(error).__name__}: {error}")
            if self._last_poll != started:
                pause = FIRST_PAUSE_SECONDS
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  spreads VENs after a VTN's restart
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS, max(self.poll_seconds, FIRST_PAUSE_SECONDS))

    def _failed(self, reason: str) -> None:
        if reason != self.trouble:
            log.warning("no session with the VTN", extra={"vtn_url": self._vtn_url, "reason": reason})
        self.trouble = reason

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Any]:
        """A fresh client; nothing of the last one is left."""
        client = VtnClient(self._ven_name, self._vtn_url, self._tls)
        client.add_hook("after_parse_xml", self._hear)
        try:
            yield client
        finally:
            if client.client_session is not None:
                await client.client_session.close()

    async def _hold(self, client: Any) -> None:
        await self._register(client)
        await self._handle(client, await client.request_event())
        if self._schedule:
            self._schedule.begin()
        missed = 0
        while True:
            began = monotonic()
            answer = await client.poll()
            if self._polled(answer):
                missed = 0
                await self._handle(client, answer)
                await self._tell_other_opts(client)
                if self._schedule:
                    await self._schedule.tell(client)
                await self._reporter.send(client)
            else:
                missed += 1
                if missed >= MISSED_POLLS:
                    raise SessionError(client.trouble or f"the VTN left {missed} polls unanswered")
            await asyncio.sleep(max(0.0, began + self.poll_seconds - monotonic()))

    def _hear(self, message_type: str, payload: Mapping[str, Any]) -> None:
        """Keep why the VTN refused: openleadr's registration tells only that it failed."""
        response = payload.get("response") or {}
        if response.get("response_code", 200) != 200:
            self._heard = f"the VTN answered {response['response_code']}: {response.get('response_description')}"
        elif message_type == "oadrCreatedPartyRegistration" and not payload.get("registration_id"):
            self._heard = "the VTN does not admit this VEN"

    async def _register(self, client: Any) -> None:
        self._heard = None
        answer = await client.create_party_registration()
        if answer is None or client.registration_id is None or client.ven_id is None:
            raise SessionError(self._heard or client.trouble or "the VTN did not register this VEN")
        if isinstance(client.poll_frequency, timedelta) and client.poll_frequency.total_seconds() >= 1:
            self.poll_seconds = client.poll_frequency.total_seconds()
        await self._reporter.offer(client)
        SESSIONS.inc()
        log.info(
            "registered",
            extra={
                "ven_id": client.ven_id,
                "registration_id": client.registration_id,
                "poll_seconds": self.poll_seconds,
            },
        )

    def _polled(self, answer: Any) -> bool:
        """Whether a poll was answered well; openleadr answers None or (None, {}) when it was not."""
        kind, payload = answer if isinstance(answer, tuple) else (None, {})
        code = payload.get("response", {}).get("response_code", 200) if isinstance(payload, Mapping) else None
        good = kind is not None and kind != "oadrRequestReregistration" and code == 200
        POLLS.labels("good" if good else "bad").inc()
        if kind == "oadrRequestReregistration":
            raise SessionError("the VTN asked to register again")
        if kind is not None and not good:
            raise SessionError(self._heard or f"the VTN answered {code}")
        if good:
            self._last_poll = monotonic()
            self.trouble = None
        return good

    async def _handle(self, client: Any, answer: Any) -> None:
        kind, payload = answer if isinstance(answer, tuple) else (None, {})
        if kind == "oadrDistributeEvent":
            for event in payload.get("events", []):
                opt_type = self._inbox.take(event)
                if opt_type is not None and event.get("response_required") == "always":
                    descriptor = event["event_descriptor"]
                    await client.created_event(
                        request_id=payload.get("request_id"),
                        event_id=descriptor["event_id"],
                        opt_type=opt_type,
                        modification_number=descriptor["modification_number"],
                    )
        elif kind in REPORT_MESSAGES:
            await self._reporter.handle(client, kind, payload)
        elif kind not in (None, "oadrResponse"):
            log.warning("message not supported", extra={"message_type": kind})

    async def _tell_other_opts(self, client: Any) -> None:
        """Answers that changed with the operator's rules, without a message of the VTN."""
        for answer in self._inbox.untold():
            response = {"response_code": 200, "response_description": "OK", "request_id": generate_id()}
            opt = {"event_id": answer.event_id, "modification_number": answer.modification_number}
            kind, _ = await client.ask(
                "EiEvent",
                "oadrCreatedEvent",
                response=response,
                event_responses=[response | opt | {"opt_type": answer.opt_type}],
            )
            if kind is not None:  # an error too: the VTN does not know the event any more
                self._inbox.told(answer)
