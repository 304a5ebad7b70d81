"""The VTN's store in PostgreSQL: the one truth about VENs, events, versions and opts."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import psycopg
from pydantic import SecretStr, TypeAdapter
from sqlalchemy import URL, Connection, RowMapping, create_engine, delete, func, insert, select, text, tuple_, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from cariflex.openadr.incoming import Datum, OptSchedule, Point, SentReport
from cariflex.vtn import schema
from cariflex.vtn.events import Event, Interval, Opt
from cariflex.vtn.reports import MOST_OPTS, MOST_POINTS, KeptOpt, KeptPoint, Reported, ValueQuery, WantedReport
from cariflex.vtn.settings import Database

log = logging.getLogger(__name__)

CHANNEL = "cariflex_vtn"  # PostgreSQL's NOTIFY: VTN processes tell each other that something changed
# Keys of advisory locks, arbitrary but fixed.
_LOCK_MIGRATION, _LOCK_EVENTS = 0x0CA21F1E, 0x0CA21F1F
_MIGRATIONS = Path(__file__).parent / "migrations"
_GATHER_SECONDS = 0.05  # notifications that come this close together are one change
_MOVED_AT_ONCE = 500  # events that one pruning moves, so that it holds the lock for a moment only
_QUIET_SECONDS = 5.0  # how long the listener waits before it makes sure that the database is still there

# Decides on the next version from the current one (if any) and the other live events; may raise.
Decide = Callable[[Event | None, Sequence[Event]], Event]


_VERSIONS = TypeAdapter(list[Event])
_SCHEDULE = TypeAdapter(OptSchedule)


class StoreError(Exception):
    """The database cannot be reached or refuses; nothing was changed."""


class RefusedError(Exception):
    """What a VEN wants kept contradicts what there is, or is too much; the text says which. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Registration:
    """A VEN's registration."""

    ven_id: str
    registration_id: str
    registered_at: datetime


@dataclass(frozen=True)
class Snapshot:
    """What a VTN process keeps in memory: registrations, and the events that have not ended."""

    registrations: dict[str, Registration]
    events: dict[str, Event]


class Store(Protocol):
    """What the VTN needs of a store. Every method raises StoreError when the database is not there."""

    async def open(self, ven_ids: Collection[str]) -> None:
        """Bring the tables up to date and make the admitted VENs known."""

    async def close(self) -> None:
        """Let all connections go."""

    async def snapshot(self, now: datetime) -> Snapshot:
        """Registrations and the events that end after `now`."""

    def changes(self) -> AsyncIterator[None]:
        """Yields once connected, and then whenever any VTN process changed something."""

    async def register(self, registration: Registration) -> None:
        """Keep a registration; a VEN has at most one."""

    async def deregister(self, ven_id: str) -> None:
        """Forget a VEN's registration."""

    async def save(self, event_id: str, now: datetime, decide: Decide) -> tuple[Event, bool]:
        """Let `decide` make the next version under a lock; store it unless it is the current one.

        Returns:
            The current version afterwards, and whether it is new.
        """

    async def answer(self, event_id: str, ven_id: str, opt: Opt) -> None:
        """Keep a VEN's answer to a version."""

    async def event(self, event_id: str) -> Event | None:
        """One event, live or past."""

    async def events(self, limit: int) -> list[Event]:
        """The events with the latest starts, live and past, latest first."""

    async def versions(self, event_id: str) -> list[Event]:
        """All versions of one event, first to current."""

    async def keep_opt(self, opt: KeptOpt, ends_at: datetime, answer: Opt | None = None) -> bool:
        """Keep an opt schedule, with the answer that it is to its event; whether it is new. If not, nothing changes.

        Raises:
            RefusedError: the VEN has used the id for another schedule or cancelled it, or has too many.
        """

    async def cancel_opt(self, ven_id: str, opt_id: str, now: datetime) -> bool:
        """Note that an opt schedule is cancelled, once; whether there is such a schedule."""

    async def opts(self, limit: int, ven_id: str | None = None) -> list[KeptOpt]:
        """The opt schedules received last, latest first."""

    async def register_reports(self, ven_id: str, wanted: Sequence[WantedReport], now: datetime) -> None:
        """Keep what a VEN is asked to report; whatever else it was asked for before is not offered any more.

        Raises:
            RefusedError: these are too many points.
        """

    async def keep_reports(self, ven_id: str, sent: Sequence[SentReport]) -> int:
        """Keep values, each once; the last one sent for a start counts. Returns how many.

        Raises:
            RefusedError: one of them was not asked for.
        """

    async def report_points(self) -> list[KeptPoint]:
        """All points that VENs were asked for."""

    async def reported(self, query: ValueQuery) -> list[Reported]:
        """The latest reported values that a query asks for, in the order of their starts."""

    async def prune(self, events_before: datetime, reports_before: datetime, most_values: int) -> int:
        """Move events that ended before a moment to the history, and forget old opt schedules and values.

        Returns:
            How many events moved.
        """


def _guarded(error: Exception) -> StoreError:
    # The driver's text names host and reason, and never the password.
    reason = str(getattr(error, "orig", None) or error).strip().splitlines()
    return StoreError(reason[0] if reason else type(error).__name__)


def _revision(connection: Connection) -> str | None:
    if connection.scalar(select(func.to_regclass("alembic_version"))) is None:
        return None
    revision: str = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def _upgrade(connection: Connection) -> None:
    # here, because they take 10 MB for as long as the process lives, and most starts do without
    import alembic.command
    import alembic.config

    config = alembic.config.Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    alembic.command.upgrade(config, "head")


class PostgresStore:
    """The store. One instance per process."""

    def __init__(self, database: Database, password: SecretStr) -> None:
        self._url = URL.create(
            "postgresql+psycopg",
            username=database.user,
            password=password.get_secret_value(),
            host=database.host,
            port=database.port,
            database=database.name,
        )
        # The application name is what the DBA sees in pg_stat_activity.
        self._connect_args: dict[str, Any] = {"connect_timeout": 5, "application_name": "openadr-vtn"}
        self._engine = create_async_engine(
            self._url, connect_args=self._connect_args, pool_pre_ping=True, pool_size=5, pool_timeout=10
        )

    async def open(self, ven_ids: Collection[str]) -> None:
        """Migrate, and make the admitted VENs known."""
        try:
            await asyncio.to_thread(self._migrate)
        except (DBAPIError, OSError) as error:
            raise _guarded(error) from error
        if rows := [{"ven_id": ven_id} for ven_id in sorted(ven_ids)]:
            async with self._transaction() as connection:
                await connection.execute(postgresql.insert(schema.ven).on_conflict_do_nothing(), rows)

    def _migrate(self) -> None:
        engine = create_engine(self._url, connect_args=self._connect_args)
        try:
            with engine.begin() as connection:
                # Several VTN processes may start at once: one migrates, the others wait and find it done.
                connection.execute(select(func.pg_advisory_xact_lock(_LOCK_MIGRATION)))
                if _revision(connection) != max(_MIGRATIONS.glob("versions/v*.py")).name[1:5]:
                    _upgrade(connection)
        finally:
            engine.dispose()

    async def close(self) -> None:
        """Let all connections go."""
        await self._engine.dispose()

    async def changes(self) -> AsyncIterator[None]:
        """Yield once connected and on every notification; raises StoreError when the connection is lost."""
        url = self._url.set(drivername="postgresql").render_as_string(hide_password=False)
        try:
            async with await psycopg.AsyncConnection.connect(url, autocommit=True, **self._connect_args) as connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                yield
                while True:
                    heard = [n async for n in connection.notifies(timeout=_QUIET_SECONDS, stop_after=1)]
                    if heard:
                        async for _ in connection.notifies(timeout=_GATHER_SECONDS):
                            pass
                        yield
                    else:
                        async with asyncio.timeout(_QUIET_SECONDS):
                            await connection.execute("SELECT 1")
        except (psycopg.Error, OSError, TimeoutError) as error:
            raise _guarded(error) from error

    async def snapshot(self, now: datetime) -> Snapshot:
        """Registrations and the events that end after `now`."""
        async with self._transaction() as connection:
            rows = await connection.execute(select(schema.ven).where(schema.ven.c.registration_id.is_not(None)))
            registrations = {row.ven_id: Registration(*row) for row in rows}
            live = await self._current(connection, schema.event_version.c.ends_at > now)
        return Snapshot(registrations, {event.event_id: event for event in live})

    async def register(self, registration: Registration) -> None:
        """Keep a registration; a VEN has at most one."""
        statement = postgresql.insert(schema.ven).values(
            ven_id=registration.ven_id,
            registration_id=registration.registration_id,
            registered_at=registration.registered_at,
        )
        async with self._transaction() as connection:
            await connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["ven_id"],
                    set_={
                        "registration_id": statement.excluded.registration_id,
                        "registered_at": statement.excluded.registered_at,
                    },
                )
            )
            await self._notify(connection)

    async def deregister(self, ven_id: str) -> None:
        """Forget a VEN's registration."""
        async with self._transaction() as connection:
            await connection.execute(
                update(schema.ven).where(schema.ven.c.ven_id == ven_id).values(registration_id=None, registered_at=None)
            )
            await self._notify(connection)

    async def save(self, event_id: str, now: datetime, decide: Decide) -> tuple[Event, bool]:
        """Let `decide` make the next version under a lock; store it unless it is the current one."""
        async with self._transaction() as connection:
            # One writer at a time: whether events overlap can only be judged while no other is being added.
            await connection.execute(select(func.pg_advisory_xact_lock(_LOCK_EVENTS)))
            current = await self._one(connection, event_id)
            others = await self._current(
                connection,
                schema.event_version.c.ends_at > now,
                schema.event_version.c.cancelled.is_(False),
                schema.event.c.event_id != event_id,
            )
            wanted = decide(current, others)
            if wanted is current:
                return wanted, False
            await self._insert(connection, wanted, new=current is None)
            await self._notify(connection)
            return wanted, True

    async def answer(self, event_id: str, ven_id: str, opt: Opt) -> None:
        """Keep a VEN's answer to a version."""
        async with self._transaction() as connection:
            await self._answer(connection, event_id, ven_id, opt)

    async def _answer(self, connection: AsyncConnection, event_id: str, ven_id: str, opt: Opt) -> None:
        await connection.execute(
            insert(schema.opt).values(
                event_id=event_id,
                modification_number=opt.modification_number,
                ven_id=ven_id,
                opt_type=opt.opt_type,
                received_at=opt.received_at,
            )
        )
        await self._notify(connection)

    async def event(self, event_id: str) -> Event | None:
        """One event, live or past."""
        async with self._transaction() as connection:
            return await self._one(connection, event_id)

    async def events(self, limit: int) -> list[Event]:
        """The events with the latest starts, live and past, latest first."""
        latest = select(schema.event_version.c.event_id).join(schema.event, _IS_CURRENT)
        latest = latest.order_by(schema.event_version.c.starts_at.desc()).limit(limit)
        history = select(schema.event_history.c.versions).order_by(schema.event_history.c.starts_at.desc()).limit(limit)
        async with self._transaction() as connection:
            found = await self._current(connection, schema.event.c.event_id.in_(latest))
            found += [_unpacked(versions)[-1] for versions in (await connection.execute(history)).scalars()]
        return sorted(found, key=lambda event: event.start, reverse=True)[:limit]

    async def versions(self, event_id: str) -> list[Event]:
        """All versions of one event, first to current."""
        async with self._transaction() as connection:
            found = await self._load(connection, schema.event.c.event_id == event_id, join=_OF_SAME_EVENT)
            return found or await self._past(connection, event_id)

    async def keep_opt(self, opt: KeptOpt, ends_at: datetime, answer: Opt | None = None) -> bool:
        """Keep an opt schedule, with the answer that it is to its event; whether it is new."""
        kept = schema.opt_schedule
        async with self._transaction() as connection:
            # One writer at a time per VEN, so that the count holds.
            await connection.execute(select(schema.ven.c.ven_id).filter_by(ven_id=opt.ven_id).with_for_update())
            same = select(kept).filter_by(ven_id=opt.ven_id, opt_id=opt.schedule.opt_id)
            if row := (await connection.execute(same)).mappings().one_or_none():
                refuse_other_opt(_kept_opt(row), opt)
                return False
            count = select(func.count()).select_from(kept).filter_by(ven_id=opt.ven_id)
            if (await connection.execute(count)).scalar_one() >= MOST_OPTS:
                raise RefusedError(f"the VTN keeps {MOST_OPTS} opts of a VEN, and has them")
            await connection.execute(
                insert(kept).values(
                    ven_id=opt.ven_id,
                    opt_id=opt.schedule.opt_id,
                    event_id=opt.event_id,
                    schedule=_SCHEDULE.dump_python(opt.schedule, mode="json"),
                    ends_at=ends_at,
                    received_at=opt.received_at,
                )
            )
            if opt.event_id is not None and answer is not None:
                await self._answer(connection, opt.event_id, opt.ven_id, answer)
            return True

    async def cancel_opt(self, ven_id: str, opt_id: str, now: datetime) -> bool:
        """Note that an opt schedule is cancelled, once; whether there is such a schedule."""
        kept = schema.opt_schedule.c
        first = func.coalesce(kept.cancelled_at, now)
        mark = update(schema.opt_schedule).where(kept.ven_id == ven_id, kept.opt_id == opt_id)
        async with self._transaction() as connection:
            return (await connection.execute(mark.values(cancelled_at=first))).rowcount > 0

    async def opts(self, limit: int, ven_id: str | None = None) -> list[KeptOpt]:
        """The opt schedules received last, latest first."""
        kept = schema.opt_schedule
        query = select(kept).order_by(kept.c.received_at.desc(), kept.c.opt_id).limit(limit)
        if ven_id is not None:
            query = query.where(kept.c.ven_id == ven_id)
        async with self._transaction() as connection:
            return [_kept_opt(row) for row in (await connection.execute(query)).mappings()]

    async def register_reports(self, ven_id: str, wanted: Sequence[WantedReport], now: datetime) -> None:
        """Keep what a VEN is asked to report; whatever else it was asked for before is not offered any more."""
        refuse_many_points(wanted)
        point = schema.report_point
        rows = [
            {
                "ven_id": ven_id,
                "report_name": report.offered.name,
                "specifier_id": report.offered.specifier_id,
                "r_id": described.r_id,
                "request_id": report.request_id,
                "resource_id": described.resource_id,
                "measurement": described.measurement,
                "unit": described.unit,
                "factor": described.factor,
                "reading_type": described.reading_type,
                "granularity_seconds": int(report.granularity.total_seconds()),
                "offered": True,
                "registered_at": now,
            }
            for report in wanted
            for described in report.offered.points
        ]
        async with self._transaction() as connection:
            await connection.execute(update(point).where(point.c.ven_id == ven_id).values(offered=False))
            if rows:
                statement = postgresql.insert(point)
                changed = {name: statement.excluded[name] for name in rows[0]}
                keys = ["ven_id", "specifier_id", "r_id"]
                await connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), rows)

    async def keep_reports(self, ven_id: str, sent: Sequence[SentReport]) -> int:
        """Keep values, each once; the last one sent for a start counts."""
        point, datum = schema.report_point, schema.report_datum
        asked = select(point).where(point.c.ven_id == ven_id, point.c.offered)
        async with self._transaction() as connection:
            points = {(row.request_id, row.r_id): row for row in await connection.execute(asked)}
            rows = {}
            for report in sent:
                for each in report.data:
                    row = points.get((report.request_id, each.r_id))
                    if row is None:
                        raise RefusedError(
                            f"rID {each.r_id!r} of report request {report.request_id!r} was not asked for"
                        )
                    rows[row.point_id, each.start] = _datum_row(row.point_id, row.factor, each)
            if rows:
                statement = postgresql.insert(datum)
                changed = {name: statement.excluded[name] for name in next(iter(rows.values()))}
                keys = ["point_id", "starts_at"]
                # In one order, so that two messages with the same values cannot wait for each other.
                ordered = [rows[key] for key in sorted(rows)]
                await connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), ordered)
            return len(rows)

    async def report_points(self) -> list[KeptPoint]:
        """All points that VENs were asked for."""
        point, datum = schema.report_point.c, schema.report_datum.c
        last = select(func.max(datum.starts_at)).where(datum.point_id == point.point_id).scalar_subquery()
        query = select(schema.report_point, last.label("last_value_at"))
        order = (point.ven_id, point.report_name, point.specifier_id, point.r_id)
        async with self._transaction() as connection:
            return [
                KeptPoint(
                    ven_id=row.ven_id,
                    report_name=row.report_name,
                    specifier_id=row.specifier_id,
                    point=Point(row.r_id, row.resource_id, row.measurement, row.unit, row.factor, row.reading_type),
                    granularity=timedelta(seconds=row.granularity_seconds),
                    offered=row.offered,
                    registered_at=row.registered_at,
                    last_value_at=row.last_value_at,
                )
                for row in await connection.execute(query.order_by(*order))
            ]

    async def reported(self, query: ValueQuery) -> list[Reported]:
        """The latest reported values that a query asks for, in the order of their starts."""
        point, datum = schema.report_point.c, schema.report_datum.c
        asked = [
            column == value
            for column, value in (
                (point.ven_id, query.ven_id),
                (point.resource_id, query.resource_id),
                (point.report_name, query.report_name),
            )
            if value is not None
        ]
        if query.start is not None:
            asked.append(datum.starts_at >= query.start)
        if query.end is not None:
            asked.append(datum.starts_at < query.end)
        found = select(schema.report_datum, point.ven_id, point.report_name, point.r_id, point.resource_id, point.unit)
        found = found.join(schema.report_point, point.point_id == datum.point_id).where(*asked)
        found = found.order_by(datum.starts_at.desc(), datum.point_id.desc()).limit(query.limit)
        async with self._transaction() as connection:
            return [_reported(row) for row in reversed((await connection.execute(found)).mappings().all())]

    async def prune(self, events_before: datetime, reports_before: datetime, most_values: int) -> int:
        """Move events that ended before a moment to the history, and forget old opt schedules and values."""
        point, datum, version = schema.report_point.c, schema.report_datum.c, schema.event_version.c
        async with self._transaction() as connection:
            await connection.execute(select(func.pg_advisory_xact_lock(_LOCK_EVENTS)))
            over = select(version.event_id).join(schema.event, _IS_CURRENT).where(version.ends_at < events_before)
            ids = list((await connection.execute(over.limit(_MOVED_AT_ONCE))).scalars())
            for event_id in ids:
                versions = await self._load(connection, schema.event.c.event_id == event_id, join=_OF_SAME_EVENT)
                packed = _VERSIONS.dump_python(versions, mode="json")
                moved = {"event_id": event_id, "starts_at": versions[-1].start, "versions": packed}
                await connection.execute(insert(schema.event_history).values(moved))
            for table in (schema.opt, schema.event_target, schema.event_interval, schema.event_version, schema.event):
                await connection.execute(delete(table).where(table.c.event_id.in_(ids)))
            await connection.execute(delete(schema.opt_schedule).where(schema.opt_schedule.c.ends_at < reports_before))
            await connection.execute(delete(schema.report_datum).where(datum.starts_at < reports_before))
            for ven_id in list((await connection.execute(select(point.ven_id).distinct())).scalars()):
                mine = datum.point_id.in_(select(point.point_id).where(point.ven_id == ven_id))
                first_over = select(datum.starts_at).where(mine).order_by(datum.starts_at.desc()).offset(most_values)
                oldest = first_over.limit(1).scalar_subquery()
                await connection.execute(delete(schema.report_datum).where(mine, datum.starts_at <= oldest))
            empty = point.point_id.not_in(select(datum.point_id))
            await connection.execute(delete(schema.report_point).where(point.offered.is_(False), empty))
            return len(ids)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.begin() as connection:
                yield connection
        except (DBAPIError, PoolTimeoutError, OSError) as error:
            raise _guarded(error) from error

    async def _notify(self, connection: AsyncConnection) -> None:
        await connection.execute(select(func.pg_notify(CHANNEL, "")))

    async def _one(self, connection: AsyncConnection, event_id: str) -> Event | None:
        found = await self._current(connection, schema.event.c.event_id == event_id)
        found = found or await self._past(connection, event_id)
        return found[-1] if found else None

    async def _past(self, connection: AsyncConnection, event_id: str) -> list[Event]:
        """All versions of an event that has moved to the history."""
        query = select(schema.event_history.c.versions).where(schema.event_history.c.event_id == event_id)
        versions = (await connection.execute(query)).scalar_one_or_none()
        return [] if versions is None else _unpacked(versions)

    async def _current(self, connection: AsyncConnection, *where: Any) -> list[Event]:
        return await self._load(connection, *where, join=_IS_CURRENT)

    async def _load(self, connection: AsyncConnection, *where: Any, join: Any) -> list[Event]:
        version = schema.event_version.c
        query = select(schema.event_version, schema.event.c.created_at).join(schema.event, join).where(*where)
        rows = (
            (await connection.execute(query.order_by(version.event_id, version.modification_number))).mappings().all()
        )
        keys = [(row["event_id"], row["modification_number"]) for row in rows]
        intervals, targets, opts = await self._parts(connection, keys)
        return [
            _event(row, intervals[key], targets[key], opts[row["event_id"]])
            for row, key in zip(rows, keys, strict=True)
        ]

    async def _parts(self, connection: AsyncConnection, keys: Sequence[tuple[str, int]]) -> tuple[Any, Any, Any]:
        intervals: defaultdict[tuple[str, int], list[Interval]] = defaultdict(list)
        targets: defaultdict[tuple[str, int], list[tuple[str, bool]]] = defaultdict(list)
        opts: defaultdict[str, dict[str, Opt]] = defaultdict(dict)
        if keys:
            i, t, o = schema.event_interval.c, schema.event_target.c, schema.opt.c
            query = select(schema.event_interval).where(tuple_(i.event_id, i.modification_number).in_(keys))
            for row in await connection.execute(query.order_by(i.position)):
                duration = timedelta(seconds=row.seconds)
                intervals[row.event_id, row.modification_number].append(Interval(duration, row.value))
            query = select(schema.event_target).where(tuple_(t.event_id, t.modification_number).in_(keys))
            for row in await connection.execute(query):
                targets[row.event_id, row.modification_number].append((row.ven_id, row.withdrawn))
            query = select(schema.opt).where(o.event_id.in_({event_id for event_id, _ in keys}))
            for row in await connection.execute(query.order_by(o.modification_number, o.opt_id)):
                opts[row.event_id][row.ven_id] = Opt(row.modification_number, row.opt_type, row.received_at)
        return intervals, targets, opts

    async def _insert(self, connection: AsyncConnection, event: Event, *, new: bool) -> None:
        key = {"event_id": event.event_id, "modification_number": event.modification_number}
        if new:
            await connection.execute(insert(schema.event).values(**key, created_at=event.created_at))
        else:
            await connection.execute(
                update(schema.event)
                .where(schema.event.c.event_id == event.event_id)
                .values(modification_number=event.modification_number)
            )
        await connection.execute(
            insert(schema.event_version).values(
                **key,
                signal_name=event.signal_name,
                starts_at=event.start,
                ends_at=event.end,
                priority=event.priority,
                test_event=event.test_event,
                cancelled=event.cancelled,
                modified_at=event.modified_at,
                asked=list(event.asked),
            )
        )
        await connection.execute(
            insert(schema.event_interval),
            [
                {**key, "position": position, "seconds": int(i.duration.total_seconds()), "value": i.value}
                for position, i in enumerate(event.intervals)
            ],
        )
        await connection.execute(insert(schema.event_target), list(_target_rows(key, event)))


_IS_CURRENT = (schema.event.c.event_id == schema.event_version.c.event_id) & (
    schema.event.c.modification_number == schema.event_version.c.modification_number
)
_OF_SAME_EVENT = schema.event.c.event_id == schema.event_version.c.event_id


def _target_rows(key: dict[str, Any], event: Event) -> Iterable[dict[str, Any]]:
    yield from ({**key, "ven_id": ven_id, "withdrawn": False} for ven_id in sorted(event.targets))
    yield from ({**key, "ven_id": ven_id, "withdrawn": True} for ven_id in sorted(event.withdrawn))


def _event(row: RowMapping, intervals: list[Interval], targets: list[tuple[str, bool]], opts: dict[str, Opt]) -> Event:
    return Event(
        event_id=row["event_id"],
        modification_number=row["modification_number"],
        signal_name=row["signal_name"],
        start=row["starts_at"],
        intervals=tuple(intervals),
        targets=frozenset(ven_id for ven_id, withdrawn in targets if not withdrawn),
        withdrawn=frozenset(ven_id for ven_id, withdrawn in targets if withdrawn),
        priority=row["priority"],
        test_event=row["test_event"],
        cancelled=row["cancelled"],
        created_at=row["created_at"],
        modified_at=row["modified_at"],
        asked=tuple(row["asked"]),
        opts=opts,
    )


def refuse_other_opt(kept: KeptOpt, opt: KeptOpt) -> None:
    """Refuse an opt under an id that the VEN has used for another, or has cancelled; raises RefusedError."""
    if kept.cancelled_at is not None:
        raise RefusedError(f"opt {opt.schedule.opt_id!r} was cancelled")
    if kept.schedule != opt.schedule:
        raise RefusedError(f"opt {opt.schedule.opt_id!r} is another one")


def refuse_many_points(wanted: Sequence[WantedReport]) -> None:
    """Refuse more points than the VTN keeps of one VEN; raises RefusedError."""
    if sum(len(report.offered.points) for report in wanted) > MOST_POINTS:
        raise RefusedError(f"the VTN takes {MOST_POINTS} points of a VEN")


def _unpacked(versions: Any) -> list[Event]:
    return _VERSIONS.validate_python(versions)


def _kept_opt(row: RowMapping) -> KeptOpt:
    schedule = _SCHEDULE.validate_python(row["schedule"])
    return KeptOpt(row["ven_id"], schedule, row["received_at"], row["event_id"], row["cancelled_at"])


def _datum_row(point_id: int, factor: float, datum: Datum) -> dict[str, Any]:
    return {
        "point_id": point_id,
        "starts_at": datum.start,
        "seconds": None if datum.duration is None else datum.duration.total_seconds(),
        "value": None if datum.value is None else datum.value * factor,
        "online": datum.online,
        "manual_override": datum.manual_override,
        "quality": datum.quality,
    }


def _reported(row: RowMapping) -> Reported:
    datum = Datum(
        r_id=row["r_id"],
        start=row["starts_at"],
        duration=None if row["seconds"] is None else timedelta(seconds=row["seconds"]),
        value=row["value"],
        online=row["online"],
        manual_override=row["manual_override"],
        quality=row["quality"],
    )
    return Reported(row["ven_id"], row["report_name"], row["resource_id"], row["unit"], datum)
