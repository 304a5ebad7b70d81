"""A VTN that answers what a test tells it to. Every message it gets is validated against the 2.0b schema."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from openleadr import messaging, objects

from cariflex.openadr.signals import SIGNALS
from cariflex.service import listen
from tests.unit.services.openadr_support import PATH, VEN, free_port

START = datetime(2027, 1, 1, tzinfo=UTC)
OK = {"response_code": 200, "response_description": "OK", "request_id": "r"}


def event(signal: str, value: float, **different: Any) -> objects.Event:
    """An event of three hours for the VEN, as a VTN sends it; `value` is on the wire."""
    known = SIGNALS[signal]
    intervals = [objects.Interval(dtstart=START, duration=timedelta(hours=1), signal_payload=value) for _ in range(3)]
    return objects.Event(
        event_descriptor=objects.EventDescriptor(
            event_id=different.get("event_id", f"{signal}:{VEN}"),
            modification_number=0,
            market_context="http://market",
            event_status=different.get("status", "far"),
            created_date_time=START,
        ),
        event_signals=[
            objects.EventSignal(
                intervals=intervals,
                signal_name=signal,
                signal_type=known.type,
                signal_id="s",
                measurement=known.measurement(),
            )
        ],
        targets=[objects.Target(ven_id=VEN)],
        active_period=objects.ActivePeriod(dtstart=START, duration=timedelta(hours=3)),
        response_required="always",
    )


@dataclass
class ScriptedVtn:
    """What it got, and what it answers: to polls one after the other, to other messages by type."""

    port: int = field(default_factory=free_port)
    got: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)  # type, payload, XML
    polls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    answers: dict[str, web.Response | tuple[str, dict[str, Any]]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{PATH}"

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The payloads of the messages of one type."""
        return [payload for of, payload, _ in self.got if of == kind]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        messaging.validate_xml_schema(body)
        kind, payload = messaging.parse_message(body)
        self.got.append((kind, payload, body.decode()))
        if kind == "oadrPoll":
            answer: Any = self.polls.pop(0) if self.polls else ("oadrResponse", {})
        elif kind in self.answers:
            answer = self.answers[kind]
        elif kind == "oadrCreatePartyRegistration":
            registered = {"ven_id": VEN, "registration_id": "reg", "poll_freq": timedelta(seconds=1)}
            profiles = [{"profile_name": "2.0b", "transports": [{"transport_name": "simpleHttp"}]}]
            answer = "oadrCreatedPartyRegistration", registered | {"profiles": profiles}
        elif kind == "oadrRegisterReport":
            answer = "oadrRegisteredReport", {"report_requests": []}
        elif kind == "oadrUpdateReport":
            answer = "oadrUpdatedReport", {}
        else:
            answer = "oadrResponse", {}
        if isinstance(answer, web.Response):
            return web.Response(status=answer.status, body=answer.body, content_type="application/xml")
        name, fields = answer
        fields = {"response": OK, "ven_id": VEN, "vtn_id": "VTN"} | fields
        text = messaging.create_message(name, **fields)
        messaging.validate_xml_schema(text)
        return web.Response(text=text, content_type="application/xml")


@asynccontextmanager
async def scripted_vtn() -> AsyncIterator[ScriptedVtn]:
    """It serves until the block ends."""
    vtn = ScriptedVtn()
    app = web.Application()
    app.add_routes([web.post(f"{PATH}/{{service}}", vtn.answer)])
    runner = await listen(app, "127.0.0.1", vtn.port)
    try:
        yield vtn
    finally:
        await runner.cleanup()
