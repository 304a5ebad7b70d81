"""A VEN and a VTN over loopback, with a FlexMeasures that keeps what it gets: the whole way and its troubles."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout, web
from openleadr import OpenADRClient

from cariflex.service import listen
from cariflex.ven.inbox import Inbox
from cariflex.ven.outbox import Outbox
from tests.unit.services.openadr_support import (
    PATH,
    VEN,
    FakeFlexMeasures,
    HastySession,
    MemoryStore,
    RunningVtn,
    eventually,
    free_port,
    next_hour,
    price_body,
    running_ven,
    running_vtn,
    vtn_settings,
)
from tests.unit.services.scripted_vtn import event, scripted_vtn


@asynccontextmanager
async def flexmeasures() -> AsyncIterator[FakeFlexMeasures]:
    fake = FakeFlexMeasures()
    await fake.start()
    try:
        yield fake
    finally:
        await fake.stop()


async def opted(vtn: RunningVtn, event_id: str, number: int = 0) -> Any:
    """The VEN's opt to a version, once it is there."""

    def answer() -> str | None:
        event = vtn.board.event(event_id)
        opt = event.opts.get(VEN) if event else None
        return opt.opt_type if opt and opt.modification_number == number else None

    return await eventually(answer)


async def test_prices_and_limits_arrive_in_their_sensors(tmp_path: Path) -> None:
    """24 hourly prices and a limit of 4 hours, with the right times, units and values; the VTN has optIn."""
    start = next_hour()
    limit = {
        "signal_name": "LOAD_CONTROL",
        "unit": "%",
        "start": start.isoformat(),
        "intervals": [{"duration": "PT2H", "value": 70.0}, {"duration": "PT2H", "value": 33.3}],
        "targets": "all",
    }
    prices = [round(80.0 + hour * 3.71, 2) for hour in range(24)]
    async with (
        flexmeasures() as fake,
        running_vtn() as vtn,
        running_ven(vtn.url, fake.url, tmp_path) as ven,
    ):
        await vtn.api("PUT", "/api/v1/events/day", price_body(start, *prices))
        await vtn.api("PUT", "/api/v1/events/limit", limit)
        assert await opted(vtn, "day") == "optIn"
        assert await opted(vtn, "limit") == "optIn"
        await eventually(lambda: len(fake.posts) == 2)
        await eventually(lambda: ven.outbox.state().waiting == 0)  # its answer has to arrive as well
        assert len(fake.posts) == 2
        assert ven.session.trouble is None
    hours = [start + timedelta(hours=n) for n in range(24)]
    assert fake.values(84) == dict(zip(hours, prices, strict=True))
    quarters = [start + timedelta(minutes=15 * n) for n in range(16)]
    assert fake.values(86) == dict(zip(quarters, [70.0] * 8 + [33.3] * 8, strict=True))
    assert {sensor: body["unit"] for sensor, body in fake.posts} == {84: "EUR/MWh", 86: "%"}


async def test_a_modification_and_a_cancellation_reach_the_sensor(tmp_path: Path) -> None:
    start = next_hour()

    def limit(value: float) -> dict[str, Any]:
        interval = {"duration": "PT15M", "value": value}
        return price_body(start, signal_name="LOAD_CONTROL", unit="%", intervals=[interval])

    async with (
        flexmeasures() as fake,
        running_vtn() as vtn,
        running_ven(vtn.url, fake.url, tmp_path),
    ):
        await vtn.api("PUT", "/api/v1/events/limit", limit(50.0))
        assert await opted(vtn, "limit") == "optIn"
        await vtn.api("PUT", "/api/v1/events/limit", limit(20.0))
        assert await opted(vtn, "limit", 1) == "optIn"
        await eventually(lambda: fake.values(86) == {start: 20.0})
        await vtn.api("DELETE", "/api/v1/events/limit")
        assert await opted(vtn, "limit", 2) == "optIn"
        await eventually(lambda: fake.values(86) == {start: 100.0})


async def test_a_vtn_that_is_absent_at_first_is_found_later(tmp_path: Path) -> None:
    """Plain openleadr gives up after 0.01 s without a word."""
    settings = vtn_settings()
    url = f"http://127.0.0.1:{settings.port}{PATH}"
    async with flexmeasures() as fake, running_ven(url, fake.url, tmp_path) as ven:
        await asyncio.sleep(0.5)
        assert ven.session.seconds_since_poll is None
        assert ven.session.trouble == "the VTN cannot be reached"
        async with running_vtn(settings=settings):
            await eventually(lambda: ven.session.seconds_since_poll is not None)
            assert ven.session.trouble is None


async def test_a_vtn_that_restarts_gets_its_ven_back_and_loses_no_event(tmp_path: Path) -> None:
    settings, store = vtn_settings(), MemoryStore()
    url = f"http://127.0.0.1:{settings.port}{PATH}"
    async with flexmeasures() as fake, running_ven(url, fake.url, tmp_path) as ven:
        async with running_vtn(store, settings):
            await eventually(lambda: ven.session.seconds_since_poll is not None)
        async with running_vtn(store, settings) as vtn:
            await vtn.api("PUT", "/api/v1/events/price-1", price_body(next_hour()))
            assert await opted(vtn, "price-1") == "optIn"
        store.registrations.clear()
        async with running_vtn(store, settings) as vtn:
            await eventually(lambda: VEN in store.registrations)
        await eventually(lambda: len(fake.posts) == 1)


async def test_a_refused_ven_goes_on_asking_and_says_why(tmp_path: Path) -> None:
    """Plain openleadr stops its scheduler for ever."""
    settings = vtn_settings(vens={})
    admitting = vtn_settings(port=settings.port)
    url = f"http://127.0.0.1:{settings.port}{PATH}"
    async with flexmeasures() as fake, running_ven(url, fake.url, tmp_path) as ven:
        async with running_vtn(settings=settings):
            await eventually(lambda: "463" in (ven.session.trouble or ""))
            assert "not admitted" in (ven.session.trouble or "")
        async with running_vtn(settings=admitting):
            await eventually(lambda: ven.session.trouble is None)


async def test_a_vtn_that_hangs_is_left_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and never answers; openleadr's client waits 10 s for each message."""
    monkeypatch.setattr(OpenADRClient, "_ensure_client_session", _impatient)
    settings = vtn_settings()
    url = f"http://127.0.0.1:{settings.port}{PATH}"

    async def hang(_request: web.Request) -> web.Response:
        await asyncio.sleep(2)
        return web.Response()

    async with flexmeasures() as fake, running_ven(url, fake.url, tmp_path) as ven:
        app = web.Application()
        app.add_routes([web.route("*", "/{any:.*}", hang)])
        runner = await listen(app, "127.0.0.1", settings.port)
        await asyncio.sleep(1)
        assert ven.session.trouble == "the VTN cannot be reached"
        await asyncio.wait_for(runner.cleanup(), 10)
        async with running_vtn(settings=settings):
            await eventually(lambda: ven.session.trouble is None)


async def _impatient(client: Any) -> None:
    """openleadr's session with a shorter wait."""
    if not client.client_session:
        client.client_session = ClientSession(
            headers={"content-type": "application/xml"}, timeout=ClientTimeout(total=0.3)
        )


async def test_an_answer_lost_on_the_way_is_given_again(tmp_path: Path) -> None:
    async with (
        flexmeasures() as fake,
        running_vtn() as vtn,
        running_ven(vtn.url, fake.url, tmp_path) as ven,
    ):
        await eventually(lambda: ven.session.seconds_since_poll is not None)
        await vtn.api("PUT", "/api/v1/events/price-1", price_body(next_hour()))
        vtn.store.broken = True
        await eventually(lambda: any("oadrCreatedEvent" in request for request, _ in vtn.exchanges))
        assert vtn.store.history["price-1"][-1].opts == {}
        vtn.store.broken = False
        assert await opted(vtn, "price-1") == "optIn"
        await eventually(lambda: len(fake.posts) == 1)
        await asyncio.sleep(0.5)
        assert len(fake.posts) == 1, "the event came more than once, its values went out once"


async def test_a_ven_that_lost_its_outbox_gets_the_live_events_again(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    async with flexmeasures() as fake, running_vtn() as vtn:
        for folder in (first, second):
            folder.mkdir()
            async with running_ven(vtn.url, fake.url, folder):
                await vtn.api("PUT", "/api/v1/events/price-1", price_body(next_hour()))
                assert await opted(vtn, "price-1") == "optIn"
                await eventually(lambda: fake.posts)
            fake.posts, posts = [], fake.posts
            assert len(posts) == 1


async def test_while_flexmeasures_is_away_events_are_answered_and_kept(tmp_path: Path) -> None:
    """With a handler that posts by itself, plain openleadr answers optOut from the first failure on."""
    fake = FakeFlexMeasures()
    async with running_vtn() as vtn, running_ven(vtn.url, fake.url, tmp_path) as ven:
        for hour in (1, 2, 3):
            await vtn.api("PUT", f"/api/v1/events/price-{hour}", price_body(next_hour(hour), float(hour)))
        for hour in (1, 2, 3):
            assert await opted(vtn, f"price-{hour}") == "optIn"
        assert ven.outbox.state().waiting == 3
        await fake.start()
        await eventually(lambda: ven.outbox.state().waiting == 0)
    await fake.stop()
    assert list(fake.values(84).values()) == [1.0, 2.0, 3.0]


BOMB = """<!DOCTYPE x [<!ENTITY a "aaaa">]><p xmlns="http://openadr.org/oadr-2.0b/2012/07">&a;</p>"""


async def test_a_vtn_that_answers_nonsense_is_survived(tmp_path: Path) -> None:
    port = free_port()
    answers = [
        web.Response(),
        web.Response(text="<a/>"),
        web.Response(status=500),
        web.Response(text="\x00"),
        web.Response(text=BOMB),
    ]

    async def nonsense(_request: web.Request) -> web.Response:
        answer = answers[nonsense.count % len(answers)]  # type: ignore[attr-defined]
        nonsense.count += 1  # type: ignore[attr-defined]
        return web.Response(status=answer.status, text=answer.text)

    nonsense.count = 0  # type: ignore[attr-defined]
    app = web.Application()
    app.add_routes([web.route("*", "/{any:.*}", nonsense)])
    async with running_ven(f"http://127.0.0.1:{port}{PATH}", "http://127.0.0.1:9", tmp_path) as ven:
        runner = await listen(app, "127.0.0.1", port)
        await eventually(lambda: nonsense.count >= 5)  # type: ignore[attr-defined]
        assert ven.session.seconds_since_poll is None
        await runner.cleanup()


async def test_an_event_id_that_looks_like_a_number_is_answered_as_it_was_sent(tmp_path: Path) -> None:
    """openleadr's parser makes 7 of `007` and 1.1 of `1.10`; the VTN would not know these."""
    outbox = Outbox(tmp_path)
    async with scripted_vtn() as vtn:
        events = [event("LOAD_CONTROL", 0.5, event_id=event_id) for event_id in ("007", "1.10")]
        vtn.polls.append(("oadrDistributeEvent", {"request_id": "r", "events": events}))
        task = asyncio.create_task(HastySession(VEN, vtn.url, Inbox(outbox, {})).run())
        await eventually(lambda: len(vtn.of("oadrCreatedEvent")) == 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        answers = [xml for kind, _, xml in vtn.got if kind == "oadrCreatedEvent"]
    assert "<ei:eventID>007<" in answers[0]
    assert "<ei:eventID>1.10<" in answers[1]
