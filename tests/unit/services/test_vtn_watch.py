"""The stream of events as they change."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from cariflex.vtn import watch
from tests.unit.services.openadr_support import TOKEN, VEN, RunningVtn, next_hour, price_body, running_vtn


@asynccontextmanager
async def stream(vtn: RunningVtn, query: str = "", token: str = TOKEN) -> AsyncIterator[aiohttp.ClientResponse]:
    """An open stream."""
    url = f"http://127.0.0.1:{vtn.settings.api_port}/api/v1/watch{query}"
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as answer:
        yield answer


async def told(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    """The next event that a stream tells."""
    async with asyncio.timeout(10):
        async for line in answer.content:
            if line.startswith(b"data: "):
                event: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
                return event
    raise AssertionError("the stream has ended")


async def put(vtn: RunningVtn, event_id: str, value: float, hours: int = 3) -> None:
    """Create or change an event."""
    status, answer = await vtn.api("PUT", f"/api/v1/events/{event_id}", price_body(next_hour(hours), value))
    assert status in (200, 201), answer


async def test_what_there_is_comes_first_and_then_every_change() -> None:
    async with running_vtn() as vtn:
        await put(vtn, "price-1", 1.0)
        async with stream(vtn) as answer:
            assert answer.content_type == "text/event-stream"
            assert ((event := await told(answer))["event_id"], event["modification_number"]) == ("price-1", 0)
            await put(vtn, "price-2", 2.0, hours=8)
            assert (await told(answer))["event_id"] == "price-2"
            await vtn.api("DELETE", "/api/v1/events/price-1")
            assert ((event := await told(answer))["event_id"], event["status"]) == ("price-1", "cancelled")


async def test_one_event_can_be_watched_alone_and_its_answers_are_told() -> None:
    async with running_vtn() as vtn:
        await put(vtn, "price-1", 1.0)
        await put(vtn, "price-2", 2.0, hours=8)
        async with stream(vtn, "?event_id=price-2") as answer:
            assert (await told(answer))["opts"] == {VEN: None}
            await put(vtn, "price-1", 3.0)
            await put(vtn, "price-2", 4.0, hours=8)
            event = await told(answer)
            assert (event["event_id"], event["intervals"][0]["value"]) == ("price-2", 4.0)


async def test_the_status_is_told_when_time_changes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.05)
    async with running_vtn() as vtn:
        await put(vtn, "price-1", 1.0)
        async with stream(vtn) as answer:
            assert (await told(answer))["status"] == "far"
            vtn.board.clock = lambda: next_hour(3)
            assert (await told(answer))["status"] == "active"
            vtn.board.clock = lambda: next_hour(5)
            assert (await told(answer))["status"] == "completed"


async def test_streams_end_with_the_service() -> None:
    async with running_vtn() as vtn:
        await put(vtn, "price-1", 1.0)
        url = f"http://127.0.0.1:{vtn.settings.api_port}/api/v1/watch"
        http = aiohttp.ClientSession()
        answer = await http.get(url, headers={"Authorization": f"Bearer {TOKEN}"})
        await told(answer)
        stopped = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - stopped < 2
    assert (await answer.content.read()).strip() == b""
    await http.close()


async def test_who_may_not_watch_and_what_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_vtn() as vtn:
        for query, token, status in (
            ("", "another", 401),
            ("?event_id=price-1", TOKEN, 404),
        ):
            async with stream(vtn, query, token) as answer:
                assert answer.status == status
                assert (await answer.json())["errors"]
        monkeypatch.setattr(watch, "MAX_WATCHERS", 1)
        monkeypatch.setattr(watch, "LOOK_SECONDS", 0.05)
        async with stream(vtn), stream(vtn) as second:
            assert second.status == 429
        await asyncio.sleep(0.2)
        async with stream(vtn) as third:
            assert third.status == 200
