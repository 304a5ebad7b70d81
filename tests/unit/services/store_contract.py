"""What every store must do. The stand-in of the unit tests and PostgreSQL are held to the same."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from cariflex.vtn.events import ConflictError, Event, Interval, Opt
from cariflex.vtn.store import Registration, Store
from tests.unit.services.openadr_support import OTHER_VEN, VEN, next_hour

NOW = next_hour(0)


def event(event_id: str = "a", number: int = 0, hours: int = 1, value: float = 0.1 + 0.2) -> Event:
    return Event(
        event_id=event_id,
        modification_number=number,
        signal_name="ENERGY_PRICE",
        start=NOW + timedelta(hours=hours),
        intervals=(Interval(timedelta(hours=1), value), Interval(timedelta(minutes=15), -1.0)),
        targets=frozenset({VEN}),
        withdrawn=frozenset({OTHER_VEN}) if number else frozenset(),
        priority=3,
        test_event=True,
        created_at=NOW,
        modified_at=NOW + timedelta(seconds=number),
    )


class StoreContract:
    """Tests for a store; a subclass says how to open one."""

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        raise NotImplementedError
        yield

    @staticmethod
    async def save(store: Store, wanted: Event) -> tuple[Event, bool]:
        return await store.save(wanted.event_id, NOW, lambda _current, _live: wanted)

    async def test_an_event_comes_back_as_it_was_stored(self) -> None:
        async with self.store() as store:
            for number in (0, 1):
                assert await self.save(store, event(number=number)) == (event(number=number), True)
            assert await store.event("a") == event(number=1)
            assert await store.versions("a") == [event(), event(number=1)]
            assert await store.event("b") is None
            assert await store.versions("b") == []

    async def test_deciding_for_the_current_version_changes_nothing(self) -> None:
        async with self.store() as store:
            await self.save(store, event())

            def keep(current: Event | None, _live: Sequence[Event]) -> Event:
                assert current == event()
                return current

            assert await store.save("a", NOW, keep) == (event(), False)
            assert len(await store.versions("a")) == 1

    async def test_a_refusal_changes_nothing(self) -> None:
        async with self.store() as store:

            def refuse(_current: Event | None, _live: Sequence[Event]) -> Event:
                raise ConflictError([])

            with pytest.raises(ConflictError):
                await store.save("a", NOW, refuse)
            assert await store.event("a") is None

    async def test_who_decides_sees_the_other_live_events(self) -> None:
        async with self.store() as store:
            await self.save(store, event("live", hours=1))
            await self.save(store, event("past", hours=-9))
            await self.save(store, replace(event("gone"), cancelled=True))
            await self.save(store, event("a"))
            seen: list[str] = []

            def look(current: Event | None, live: Sequence[Event]) -> Event:
                assert current is not None
                seen.extend(other.event_id for other in live)
                return current

            await store.save("a", NOW, look)
            assert seen == ["live"]

    async def test_a_snapshot_has_what_has_not_ended_and_who_is_registered(self) -> None:
        async with self.store() as store:
            await self.save(store, event("live"))
            await self.save(store, event("past", hours=-9))
            await self.save(store, replace(event("gone"), cancelled=True))
            await store.register(Registration(VEN, "reg-old", NOW))
            await store.register(Registration(VEN, f"reg-{VEN}", NOW + timedelta(seconds=1)))
            await store.register(Registration(OTHER_VEN, f"reg-{OTHER_VEN}", NOW))
            await store.deregister(OTHER_VEN)
            snapshot = await store.snapshot(NOW)
            assert set(snapshot.events) == {"live", "gone"}
            assert snapshot.registrations == {VEN: Registration(VEN, f"reg-{VEN}", NOW + timedelta(seconds=1))}

    async def test_the_last_answer_of_a_ven_counts(self) -> None:
        async with self.store() as store:
            await self.save(store, event())
            answers = [Opt(0, "optIn", NOW), Opt(0, "optOut", NOW + timedelta(seconds=1))]
            for opt in answers:
                await store.answer("a", VEN, opt)
            await store.answer("a", OTHER_VEN, answers[0])
            found = await store.event("a")
            assert found is not None
            assert found.opts == {VEN: answers[1], OTHER_VEN: answers[0]}

    async def test_events_are_listed_by_start_latest_first(self) -> None:
        async with self.store() as store:
            for hours in (-9, 5, 1):
                await self.save(store, event(f"e{hours}", hours=hours))
            assert [e.event_id for e in await store.events(10)] == ["e5", "e1", "e-9"]
            assert [e.event_id for e in await store.events(2)] == ["e5", "e1"]

    async def test_changes_are_heard(self) -> None:
        async with self.store() as store, aclosing(_generator(store)) as changes:
            await anext(changes)  # connected
            await self.save(store, event())
            async with asyncio.timeout(5):
                await anext(changes)
            await store.register(Registration(VEN, f"reg-{VEN}", NOW))
            async with asyncio.timeout(5):
                await anext(changes)


async def _generator(store: Store) -> AsyncGenerator[None]:
    async for _ in store.changes():
        yield
