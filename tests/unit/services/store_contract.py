"""What every store must do. The stand-in of the unit tests and PostgreSQL are held to the same."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from cariflex.openadr.incoming import Datum, OfferedReport, OptSchedule, Period, Point, SentReport
from cariflex.vtn.events import ConflictError, Event, Interval, Opt
from cariflex.vtn.reports import KeptOpt, Reported, ValueQuery, WantedReport
from cariflex.vtn.store import RefusedError, Registration, Store
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
        asked=("group:north", VEN),
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

    async def test_an_opt_schedule_comes_back_and_its_answer_with_it(self) -> None:
        async with self.store() as store:
            await self.save(store, event())
            periods = (Period(NOW, timedelta(hours=1)), Period(NOW + timedelta(days=1), timedelta(seconds=90)))
            schedule = OptSchedule("17", "optOut", "x-tea", NOW, "http://market", periods, f"a:{VEN}", 0, ("ev_01",))
            opt = KeptOpt(VEN, schedule, NOW, "a")
            answer = Opt(0, "optOut", NOW)
            assert await store.keep_opt(opt, NOW, answer)
            assert not await store.keep_opt(replace(opt, received_at=NOW + timedelta(1)), NOW, answer)
            assert await store.opts(10) == await store.opts(10, VEN) == [opt]
            assert await store.opts(10, OTHER_VEN) == []
            found = await store.event("a")
            assert found is not None
            assert found.opts == {VEN: answer}
            with pytest.raises(RefusedError, match="another"):
                await store.keep_opt(replace(opt, schedule=replace(schedule, opt_type="optIn")), NOW)
            later = KeptOpt(VEN, replace(schedule, opt_id="18", event_id=None), NOW + timedelta(seconds=1))
            assert await store.keep_opt(later, NOW)
            assert await store.opts(1) == [later]
            for seconds in (5, 9):
                assert await store.cancel_opt(VEN, "17", NOW + timedelta(seconds=seconds))
            assert not await store.cancel_opt(OTHER_VEN, "17", NOW)
            assert (await store.opts(10))[1] == replace(opt, cancelled_at=NOW + timedelta(seconds=5))
            with pytest.raises(RefusedError, match="cancelled"):
                await store.keep_opt(opt, NOW)

    async def test_reported_values_are_kept_once_in_the_operators_unit(self) -> None:
        async with self.store() as store:
            wanted = report("usage", "ev_01", "ev_02")
            for _ in range(2):
                await store.register_reports(VEN, [wanted], NOW)
            later = NOW + timedelta(minutes=1)
            data = (
                Datum("ev_01", NOW, timedelta(seconds=1.5), 7000.0),
                Datum("ev_02", later, online=True, quality="ok"),
            )
            for _ in range(2):
                assert await store.keep_reports(VEN, [SentReport(wanted.request_id, data)]) == 2
            twice = (replace(data[0], value=1.0), replace(data[0], value=8000.0))
            assert await store.keep_reports(VEN, [SentReport(wanted.request_id, twice)]) == 1
            names = (VEN, "TELEMETRY_USAGE")
            expected = [
                Reported(*names, "res-ev_01", "kW", replace(data[0], value=8.0)),
                Reported(*names, "res-ev_02", "kW", data[1]),
            ]
            assert await store.reported(ValueQuery()) == expected
            assert await store.reported(ValueQuery(limit=1)) == expected[1:]
            assert await store.reported(ValueQuery(VEN, "res-ev_01", "TELEMETRY_USAGE", NOW, later)) == expected[:1]
            assert await store.reported(ValueQuery(OTHER_VEN)) == []
            points = await store.report_points()
            assert [(p.point.r_id, p.offered, p.last_value_at) for p in points] == [
                ("ev_01", True, NOW),
                ("ev_02", True, later),
            ]

    async def test_values_nobody_asked_for_are_refused_all_together(self) -> None:
        async with self.store() as store:
            wanted = report("usage", "ev_01")
            await store.register_reports(VEN, [wanted], NOW)
            data = (Datum("ev_01", NOW, value=1.0), Datum("ev_09", NOW, value=1.0))
            for ven_id, request_id in ((VEN, wanted.request_id), (VEN, "other"), (OTHER_VEN, wanted.request_id)):
                with pytest.raises(RefusedError, match="was not asked for"):
                    await store.keep_reports(ven_id, [SentReport(request_id, data)])
            assert await store.reported(ValueQuery()) == []
            await store.register_reports(VEN, [], NOW)
            with pytest.raises(RefusedError, match="was not asked for"):
                await store.keep_reports(VEN, [SentReport(wanted.request_id, data[:1])])

    async def test_pruning_forgets_old_values_opts_and_points_and_keeps_the_rest(self) -> None:
        async with self.store() as store:
            old, new = report("old", "ev_01"), report("new", "ev_01")
            hours = [NOW + timedelta(hours=n) for n in range(6)]
            for wanted, starts in ((old, hours[:2]), (new, hours[2:])):
                await store.register_reports(VEN, [wanted], NOW)
                await store.keep_reports(
                    VEN, [SentReport(wanted.request_id, tuple(Datum("ev_01", at, value=1.0) for at in starts))]
                )
            for number, at in enumerate(hours[:2]):
                await store.keep_opt(KeptOpt(VEN, OptSchedule(str(number), "optIn", "x", NOW), at), at)
            await store.prune(NOW, hours[1], 100)
            assert [v.datum.start for v in await store.reported(ValueQuery())] == hours[1:]
            assert {p.specifier_id for p in await store.report_points()} == {"old", "new"}
            assert [o.schedule.opt_id for o in await store.opts(10)] == ["1"]
            await store.prune(NOW, hours[1], 3)
            assert [v.datum.start for v in await store.reported(ValueQuery())] == hours[3:], "the latest three"
            assert {p.specifier_id for p in await store.report_points()} == {"new"}

    async def test_an_event_that_ended_long_ago_is_found_as_it_was_and_its_id_stays_used(self) -> None:
        async with self.store() as store:
            past = [event("past", hours=-9), event("past", number=1, hours=-9)]
            for version in past:
                await self.save(store, version)
            await self.save(store, event("live"))
            await store.answer("past", VEN, Opt(1, "optIn", NOW))
            before = await store.versions("past")
            listed = await store.events(10)
            assert await store.prune(NOW, NOW, 100) == 1
            assert await store.prune(NOW, NOW, 100) == 0
            assert await store.versions("past") == before
            assert await store.event("past") == before[-1]
            assert await store.events(10) == listed
            assert await store.events(1) == listed[:1]
            assert set((await store.snapshot(NOW)).events) == {"live"}

            def keep(current: Event | None, _live: Sequence[Event]) -> Event:
                assert current == before[-1]
                return current

            assert await store.save("past", NOW, keep) == (before[-1], False)


def report(specifier_id: str, *r_ids: str) -> WantedReport:
    points = tuple(Point(r_id, f"res-{r_id}", "powerReal", "kW", 0.001, "Direct Read") for r_id in r_ids)
    offered = OfferedReport("TELEMETRY_USAGE", specifier_id, points, timedelta(0), timedelta(days=1))
    return WantedReport(offered, timedelta(minutes=1))


async def _generator(store: Store) -> AsyncGenerator[None]:
    async for _ in store.changes():
        yield
