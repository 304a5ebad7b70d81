"""A VTN that means no good: whatever it answers, the VEN goes on, and nothing that makes no sense is stored."""

import asyncio
import copy
import json
import math
from datetime import timedelta
from pathlib import Path
from typing import Any

from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openleadr import messaging
from openleadr.messaging import etree

from cariflex.openadr.signals import SIGNALS
from cariflex.service import listen
from cariflex.ven.client import VtnClient
from cariflex.ven.inbox import Inbox
from cariflex.ven.outbox import Outbox
from cariflex.ven.reporter import Reporter
from cariflex.ven.reports import BACKLOG, MOST_REQUESTS, Reports
from cariflex.ven.session import Session, SessionError
from cariflex.ven.settings import ReportedResource
from tests.unit.services.openadr_support import DESTINATIONS, VEN, free_port
from tests.unit.services.scripted_vtn import OK, START, event

ODD = [
    *(
        "",
        " ",
        "NaN",
        "INF",
        "-INF",
        "-1e400",
        "1e308",
        "-0",
        "99999999999999999999",
        "0.1",
        "true",
        "cancelled",
        "none",
    ),
    *("P", "PT0S", "-PT1H", "P99999999Y", "P1M", "PT1S", "P10000D", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
    *("LOAD_CONTROL", "LOAD_DISPATCH", "price", "setpoint", "x-loadControlSetpoint", "x-loadControlLevelOffset", "k"),
    *("TELEMETRY_USAGE", "a:power", "é\u202e\U0001f4a5", "x" * 5000, "always", "never", "1", "-1", "../../etc"),
]


def _messages() -> list[bytes]:
    wanted = {
        "report_request_id": "r",
        "report_specifier": {
            "report_specifier_id": "TELEMETRY_USAGE",
            "granularity": timedelta(minutes=1),
            "report_back_duration": timedelta(minutes=1),
            "report_interval": {"dtstart": START, "duration": timedelta(hours=1)},
            "specifier_payloads": [{"r_id": "a:power", "reading_type": "Direct Read"}],
        },
    }
    common: dict[str, Any] = {"response": OK, "request_id": "r", "vtn_id": "VTN", "ven_id": VEN}
    everything = [event(name, 1.0) for name in SIGNALS]
    messages: list[tuple[str, dict[str, Any]]] = [
        *(("oadrDistributeEvent", {"events": [one]}) for one in everything),
        ("oadrDistributeEvent", {"events": everything}),
        ("oadrDistributeEvent", {"events": [event("ENERGY_PRICE", 1.0, status="cancelled")]}),
        ("oadrCreateReport", {"report_requests": [wanted]}),
        ("oadrCancelReport", {"report_request_id": "r", "report_to_follow": True}),
        ("oadrRegisteredReport", {"report_requests": [wanted]}),
        ("oadrRequestReregistration", {}),
        ("oadrResponse", {}),
    ]
    return [messaging.create_message(kind, **common, **fields).encode() for kind, fields in messages]


@st.composite
def answers(draw: st.DrawFn, messages: list[bytes]) -> bytes:
    """A message with some of its elements changed, taken away or doubled, or some of its bytes."""
    tree = etree.fromstring(draw(st.sampled_from(messages)))
    for _ in range(draw(st.integers(0, 2))):
        elements = list(tree.iter())[1:]
        change = draw(st.sampled_from(["text", "text", "text", "text", "remove", "double", "swap"]))
        mutable = [element for element in elements if change != "text" or not len(element)]
        if not mutable:  # all is gone
            break
        element = mutable[draw(st.integers(0, len(mutable) - 1))]
        if change == "text":
            element.text = draw(st.sampled_from(ODD))
        elif change == "remove":
            element.getparent().remove(element)
        elif change == "double":
            element.addnext(copy.deepcopy(element))
        else:
            element.tag = elements[draw(st.integers(0, len(elements) - 1))].tag
    body = bytearray(etree.tostring(tree))
    if draw(st.integers(0, 19)) == 19:
        for _ in range(draw(st.integers(1, 5))):
            body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
        del body[draw(st.integers(0, len(body))) :]
    return bytes(body)


def sensible(outbox: Outbox) -> None:
    """What is stored has meaning, whoever sent it."""
    for row in outbox._connection.execute("SELECT * FROM event"):
        stretches = json.loads(row["stretches"])
        assert row["opt_type"] in ("optIn", "optOut")
        assert row["modification_number"] >= 0
        assert row["start"] < row["end"] <= row["start"] + 366 * 86400
        for start, end, value in stretches:
            assert start < end
            assert SIGNALS[row["signal_name"]].fault_of(value) is None
    for row in outbox._connection.execute('SELECT "values" FROM post'):
        assert all(value is None or math.isfinite(value) for value in json.loads(row["values"]))


def test_whatever_a_vtn_answers_the_ven_goes_on_and_stores_no_nonsense(tmp_path: Path) -> None:
    messages, outbox = _messages(), Outbox(tmp_path)
    outbox._connection.execute("PRAGMA synchronous = OFF")
    reports = Reports({"a": ReportedResource(min_kw=-1, max_kw=1)}, outbox.states)
    port = free_port()
    session = Session(VEN, f"http://127.0.0.1:{port}", Inbox(outbox, DESTINATIONS), reporter=Reporter(reports))
    body = b""

    async def serve(request: web.Request) -> web.Response:
        ours = b"oadrPoll" in await request.read()
        return web.Response(body=body if ours else messages[-1], content_type="application/xml")

    app = web.Application()
    app.add_routes([web.post("/{service}", serve)])
    understood = 0

    with asyncio.Runner() as loop:
        runner = loop.run(listen(app, "127.0.0.1", port))
        client = VtnClient(VEN, f"http://127.0.0.1:{port}")
        client.ven_id = VEN

        async def poll() -> None:
            nonlocal understood
            answer = await client.poll()
            try:
                session._polled(answer)
            except SessionError:
                return  # it registers again
            if isinstance(answer, tuple) and answer[0]:
                understood += 1
            await session._handle(client, answer)
            reports.sample()

        @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
        @given(answers(messages))
        def fuzz(answer: bytes) -> None:
            nonlocal body
            body = answer
            loop.run(poll())

        fuzz()
        loop.run(client.client_session.close())
        loop.run(runner.cleanup())
    sensible(outbox)
    assert understood > 30, "most answers were so odd that nothing was tried"
    assert len(reports.pending()) <= MOST_REQUESTS
    assert all(len(request.values) <= BACKLOG for request in reports._requests.values())
