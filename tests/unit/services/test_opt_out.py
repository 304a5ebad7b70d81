"""The operator's rules on the way: what the VTN hears, and what FlexMeasures and the CEM no longer have."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from cariflex.ven.inbox import Inbox
from cariflex.ven.outbox import Outbox
from cariflex.ven.policy import Rule
from cariflex.ven.schedule import Schedule
from cariflex.ven.session import Session
from tests.unit.services.openadr_support import (
    VEN,
    FakeFlexMeasures,
    HastySession,
    MemoryStore,
    eventually,
    next_hour,
    price_body,
    running_ven,
    running_vtn,
    vtn_settings,
)
from tests.unit.services.scripted_vtn import ScriptedVtn, scripted_vtn


def window(start: datetime, hours: int = 1) -> Rule:
    return Rule.model_validate({"reason": "maintenance", "start": start, "end": start + timedelta(hours=hours)})


async def test_rules_that_change_at_a_restart_reach_the_vtn_flexmeasures_and_the_cem(tmp_path: Path) -> None:
    fake, store, settings = FakeFlexMeasures(), MemoryStore(), vtn_settings()
    await fake.start()
    start = next_hour(3)

    def opt(event_id: str) -> str | None:
        answer = store.history[event_id][-1].opts.get(VEN)
        return answer.opt_type if answer else None

    async with running_vtn(store, settings) as vtn:
        async with running_ven(vtn.url, fake.url, tmp_path) as ven:
            await vtn.api("PUT", "/api/v1/events/price", price_body(start, 1.0, 2.0))
            limit = {"duration": "PT1H", "value": 40.0}
            body = price_body(start, signal_name="LOAD_CONTROL", unit="%", intervals=[limit])
            await vtn.api("PUT", "/api/v1/events/limit", body)
            await eventually(lambda: opt("price") == opt("limit") == "optIn")
            await eventually(lambda: ven.outbox.state().waiting == 0)
        async with running_ven(vtn.url, fake.url, tmp_path, rules=[window(start)]) as ven:
            await eventually(lambda: opt("price") == opt("limit") == "optOut")
            await eventually(lambda: ven.outbox.state().waiting == 0)
            assert fake.values(84) == {}
            assert set(fake.values(86).values()) == {100.0}
            assert ven.outbox.asked("LOAD_CONTROL", 0) == []
            await eventually(lambda: ven.outbox.untold() == [])
        async with running_ven(vtn.url, fake.url, tmp_path) as ven:
            await eventually(lambda: opt("price") == opt("limit") == "optIn")
            await eventually(lambda: ven.outbox.state().waiting == 0)
            assert list(fake.values(84).values()) == [1.0, 2.0]
            assert set(fake.values(86).values()) == {40.0}
    await fake.stop()


async def test_an_event_in_a_window_is_answered_opt_out_and_stored_nowhere(tmp_path: Path) -> None:
    fake, start = FakeFlexMeasures(), next_hour(3)
    await fake.start()
    async with running_vtn() as vtn, running_ven(vtn.url, fake.url, tmp_path, rules=[window(start)]):
        await vtn.api("PUT", "/api/v1/events/inside", price_body(start, 1.0))
        await vtn.api("PUT", "/api/v1/events/after", price_body(start + timedelta(hours=1), 2.0))
        await eventually(lambda: fake.posts)
        inside = vtn.store.history["inside"][-1].opts[VEN]
        assert inside.opt_type == "optOut"
    await fake.stop()
    assert [body["values"] for _, body in fake.posts] == [[2.0]]


@asynccontextmanager
async def scheduling(vtn: ScriptedVtn, outbox: Outbox, *rules: Rule) -> AsyncIterator[Session]:
    session = HastySession(VEN, vtn.url, Inbox(outbox, {}), schedule=Schedule(outbox, rules, UTC))
    task = asyncio.create_task(session.run())
    try:
        yield session
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_windows_are_told_ahead_and_taken_back_when_they_go(tmp_path: Path) -> None:
    """Each message is validated against the schema by the VTN of the test."""
    outbox = Outbox(tmp_path)
    soon, late = window(next_hour(24), 3), window(next_hour(24 * 30))
    async with scripted_vtn() as vtn:
        vtn.answers["oadrCreateOpt"] = "oadrCreatedOpt", {"opt_id": "o"}
        vtn.answers["oadrCancelOpt"] = "oadrCanceledOpt", {"opt_id": "o"}
        async with scheduling(vtn, outbox, soon, late):
            (sent,) = await eventually(lambda: vtn.of("oadrCreateOpt"))
        assert (sent["opt_type"], sent["opt_reason"], sent["ven_id"]) == ("optOut", "x-schedule", VEN)
        assert "PT3H" in next(xml for kind, _, xml in vtn.got if kind == "oadrCreateOpt")
        async with scheduling(vtn, outbox, soon):
            await eventually(lambda: len(vtn.of("oadrCreatePartyRegistration")) == 2)
            await asyncio.sleep(0.5)
        assert len(vtn.of("oadrCreateOpt")) == 1, "the VTN knows it"
        assert vtn.of("oadrCancelOpt") == []
        async with scheduling(vtn, outbox):
            (gone,) = await eventually(lambda: vtn.of("oadrCancelOpt"))
        assert gone["opt_id"] == sent["opt_id"]
        assert outbox.announced() == {}


async def test_a_vtn_without_opt_schedules_is_asked_once_and_events_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with scripted_vtn() as vtn:
        vtn.answers["oadrCreateOpt"] = web.Response(status=404)
        async with scheduling(vtn, Outbox(tmp_path), window(next_hour(24)), window(next_hour(48))) as session:
            await eventually(lambda: len(vtn.of("oadrPoll")) > 10)
            assert session.trouble is None
        assert len(vtn.of("oadrCreateOpt")) == 1
    said = [record for record in caplog.records if "opt schedules" in record.message]
    assert [vars(record)["reason"] for record in said] == ["the VTN answered HTTP 404: "]


async def test_an_answer_that_changed_is_given_also_when_the_vtn_does_not_send_the_event_again(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    event: dict[str, Any] = {
        "event_descriptor": {"event_id": "e", "modification_number": 2, "event_status": "far"},
        "active_period": {"dtstart": next_hour(5)},
        "event_signals": [
            {
                "signal_name": "LOAD_CONTROL",
                "signal_type": "x-loadControlCapacity",
                "intervals": [{"duration": timedelta(hours=1), "uid": 0, "signal_payload": 0.5}],
            }
        ],
    }
    Inbox(outbox, {}).take(event)
    inbox = Inbox(outbox, {}, rules=[window(next_hour(5))])
    inbox.reconsider()
    async with scripted_vtn() as vtn:
        task = asyncio.create_task(HastySession(VEN, vtn.url, inbox).run())
        (answer,) = await eventually(lambda: vtn.of("oadrCreatedEvent"))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(vtn.of("oadrCreatedEvent")) == 1
    (response,) = answer["event_responses"]
    assert (response["event_id"], response["modification_number"], response["opt_type"]) == ("e", 2, "optOut")
