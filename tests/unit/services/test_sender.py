"""The way from the outbox to FlexMeasures."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from cariflex.ven import sender as module
from cariflex.ven.grid import Stretch
from cariflex.ven.outbox import AT_ITS_END, Destination, Outbox, Post, ReceivedEvent
from cariflex.ven.sender import Sender
from tests.unit.services.openadr_support import DESTINATIONS, FakeFlexMeasures, eventually

T0 = 1_800_000_000


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(module, "LONGEST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(module, "ASIDE_PAUSE_SECONDS", 0.2)
    monkeypatch.setattr(module, "FAILURES_BEFORE_ASIDE", 3)


def add(outbox: Outbox, value: float, hour: int = 0, event_id: str = "e", number: int = 0) -> None:
    start = T0 + hour * 3600
    event = ReceivedEvent(event_id, number, "ENERGY_PRICE", start, start + 3600, (Stretch(start, start + 3600, value),))
    outbox.accept(event, DESTINATIONS)


@asynccontextmanager
async def sending(outbox: Outbox, fake: FakeFlexMeasures, password: str | None = None) -> AsyncIterator[Sender]:
    sender = Sender(fake.url, "ven@cariflex.internal", SecretStr(password or fake.password), outbox)
    task = asyncio.create_task(sender.run())
    try:
        yield sender
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await fake.stop()


def empty(outbox: Outbox) -> bool:
    return outbox.state().waiting == 0


async def test_values_arrive_with_unit_times_and_belief(tmp_path: Path) -> None:
    outbox, fake = Outbox(tmp_path), FakeFlexMeasures()
    await fake.start()
    add(outbox, 120.0)
    async with sending(outbox, fake):
        await eventually(lambda: empty(outbox))
    ((sensor, body),) = fake.posts
    assert sensor == 84
    assert (body["start"], body["duration"]) == ("2027-01-15T08:00:00+00:00", "PT1H")
    assert (body["values"], body["unit"]) == ([120.0], "EUR/MWh")
    assert body["prior"].endswith("+00:00")


async def test_values_of_others_say_whose_they_are_and_when_they_were_known(tmp_path: Path) -> None:
    outbox, fake = Outbox(tmp_path), FakeFlexMeasures()
    await fake.start()
    outbox.queue("feed", Destination(81, "W/m²", 3600, source="Open-Meteo"), 1_800_000_000, (500.0,), 1_799_999_000)
    outbox.queue("feed", Destination(41, "kW", 300, source="simulator"), 1_800_000_000, (1.0, 2.0), AT_ITS_END)
    async with sending(outbox, fake):
        await eventually(lambda: empty(outbox))
    (_, weather), (_, power) = fake.posts
    assert (weather["source"], weather["prior"]) == ("Open-Meteo", "2027-01-15T07:43:20+00:00")
    assert (power["source"], power["values"], power["prior"]) == ("simulator", [1.0, 2.0], None)


async def test_a_price_that_is_cancelled_is_taken_back(tmp_path: Path) -> None:
    """FlexMeasures stores no empty value: our plugin there removes what came before."""
    outbox, fake = Outbox(tmp_path), FakeFlexMeasures()
    await fake.start()
    add(outbox, 120.0)
    add(outbox, 90.0, hour=1, event_id="f")
    outbox.accept(ReceivedEvent("e", 1, "ENERGY_PRICE", T0, T0 + 3600, (), cancelled=True), DESTINATIONS)
    async with sending(outbox, fake):
        await eventually(lambda: empty(outbox))
    assert list(fake.values(84).values()) == [90.0]


async def test_a_new_value_wakes_the_sender(tmp_path: Path) -> None:
    outbox, fake = Outbox(tmp_path), FakeFlexMeasures()
    await fake.start()
    async with sending(outbox, fake) as sender:
        await asyncio.sleep(0.1)
        add(outbox, 1.0)
        sender.wake.set()
        await eventually(lambda: empty(outbox), 2)


async def test_values_that_another_process_queues_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.1)
    outbox, fake = Outbox(tmp_path), FakeFlexMeasures()
    await fake.start()
    async with sending(outbox, fake):
        await asyncio.sleep(0.05)
        beside = Outbox(tmp_path)
        beside.queue("s2:battery_01", Destination(51, "kWh", 300), T0, (48.5,))
        beside.close()
        await eventually(lambda: fake.posts and empty(outbox), 2)
    assert [(sensor, body["values"]) for sensor, body in fake.posts] == [(51, [48.5])]


async def test_an_absent_flexmeasures_is_waited_for_and_the_order_kept(tmp_path: Path) -> None:
    outbox, fake = Outbox(tmp_path), FakeFlexMeasures()
    for hour in range(5):
        add(outbox, float(hour), hour, event_id=f"e{hour}")
    async with sending(outbox, fake) as sender:
        await eventually(lambda: sender.trouble)
        assert "cannot be reached" in (sender.trouble or "")
        await fake.start()
        await eventually(lambda: empty(outbox))
        assert sender.trouble is None
    assert [body["values"] for _, body in fake.posts] == [[float(hour)] for hour in range(5)]


async def test_an_expired_token_means_one_new_login(tmp_path: Path) -> None:
    outbox, fake = Outbox(tmp_path), FakeFlexMeasures()
    await fake.start()
    add(outbox, 1.0)
    async with sending(outbox, fake) as sender:
        await eventually(lambda: empty(outbox))
        fake.tokens.clear()
        add(outbox, 2.0, 1, event_id="f")
        sender.wake.set()
        await eventually(lambda: empty(outbox))
    assert fake.logins == 2
    assert len(fake.posts) == 2


async def test_a_wrong_password_is_said_without_showing_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    outbox, fake = Outbox(tmp_path), FakeFlexMeasures()
    await fake.start()
    add(outbox, 1.0)
    async with sending(outbox, fake, password="not-the-password") as sender:
        await eventually(lambda: sender.trouble)
        assert "login with 401; check the user ven@cariflex.internal and the secret" in (sender.trouble or "")
        assert outbox.state().waiting == 1
    assert "not-the-password" not in "".join(str(vars(record)) for record in caplog.records)


async def test_429_is_obeyed(tmp_path: Path) -> None:
    outbox, fake = Outbox(tmp_path), FakeFlexMeasures()
    await fake.start()
    asked: list[float] = []

    def once(_sensor: int, _body: dict[str, Any]) -> web.Response | None:
        asked.append(asyncio.get_running_loop().time())
        return web.Response(status=429, headers={"Retry-After": "1"}) if len(asked) == 1 else None

    fake.refuse = once
    add(outbox, 1.0)
    async with sending(outbox, fake):
        await eventually(lambda: empty(outbox))
    assert asked[1] - asked[0] >= 1.0


async def test_a_500_is_tried_again_before_anything_else(tmp_path: Path) -> None:
    outbox, fake = Outbox(tmp_path), FakeFlexMeasures()
    await fake.start()
    answers = iter([500, 503])
    fake.refuse = lambda _s, _b: web.Response(status=status) if (status := next(answers, None)) else None
    add(outbox, 1.0)
    add(outbox, 2.0, 1, event_id="f")
    async with sending(outbox, fake):
        await eventually(lambda: empty(outbox))
    assert [body["values"] for _, body in fake.posts] == [[1.0], [2.0]]


@pytest.mark.parametrize("status", [400, 403, 404, 413, 422, 500])
async def test_a_value_that_is_always_refused_does_not_hold_up_the_others(tmp_path: Path, status: int) -> None:
    outbox, fake = Outbox(tmp_path), FakeFlexMeasures()
    await fake.start()
    fake.refuse = lambda _s, body: web.Response(status=status, text="no") if body["values"] == [1.0] else None
    add(outbox, 1.0, event_id="poison")
    add(outbox, 2.0, 1, event_id="f")
    async with sending(outbox, fake):
        await eventually(lambda: outbox.state().waiting == 1)
        assert outbox.state().problems == [f"event poison, sensor 84: FlexMeasures answered {status}: no"]
        fake.refuse = lambda _s, _b: None  # the operator mends it
        await eventually(lambda: empty(outbox))
    assert [body["values"] for _, body in fake.posts] == [[2.0], [1.0]]


async def test_while_flexmeasures_is_unwell_no_value_is_set_aside(tmp_path: Path) -> None:
    outbox, fake = Outbox(tmp_path), FakeFlexMeasures()
    await fake.start()
    fake.ready = False
    fake.refuse = lambda _s, _b: web.Response(status=502)
    add(outbox, 1.0)
    async with sending(outbox, fake):
        await asyncio.sleep(1)
        assert outbox.state().aside == 0


async def test_a_taken_belief_time_is_replaced_by_the_next(tmp_path: Path) -> None:
    """FlexMeasures answers 403 when another value has the same event and belief time."""
    outbox, fake = Outbox(tmp_path), FakeFlexMeasures()
    await fake.start()
    add(outbox, 1.0)
    post = outbox.next()
    assert post is not None
    taken = module._moment(post.belief)
    fake.beliefs[84, T0, taken] = 99.0
    async with sending(outbox, fake):
        await eventually(lambda: empty(outbox))
    ((_, body),) = fake.posts
    assert body["prior"] > taken


async def test_a_post_that_was_stored_but_not_noted_is_stored_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between FlexMeasures' answer and the note of it: the same post goes out again and changes nothing."""
    outbox, fake = Outbox(tmp_path), FakeFlexMeasures()
    await fake.start()
    add(outbox, 1.0)

    class CrashError(Exception):
        """The process ends here."""

    def crash(_post: Post) -> None:
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "delivered", crash)
        sender = Sender(fake.url, "ven@cariflex.internal", SecretStr(fake.password), outbox)
        with pytest.raises(CrashError):
            await sender.run()
    async with sending(outbox, fake):
        await eventually(lambda: empty(outbox))
    assert len(fake.posts) == 2
    assert len(fake.beliefs) == 1
