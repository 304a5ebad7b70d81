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

import alembic.command
import alembic.config
import psycopg
from pydantic import SecretStr
from sqlalchemy import URL, RowMapping, create_engine, func, insert, select, tuple_, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from cariflex.vtn import schema
from cariflex.vtn.events import Event, Interval, Opt
from cariflex.vtn.settings import Database

log = logging.getLogger(__name__)

CHANNEL = "cariflex_vtn"  # PostgreSQL's NOTIFY: VTN processes tell each other that something changed
# Keys of advisory locks, arbitrary but fixed.
_LOCK_MIGRATION, _LOCK_EVENTS = 0x0CA21F1E, 0x0CA21F1F
_GATHER_SECONDS = 0.05  # notifications that come this close together are one change
_QUIET_SECONDS = 5.0  # how long the listener waits before it makes sure that the database is still there

# Decides on the next version from the current one (if any) and the other live events; may raise.
Decide = Callable[[Event | None, Sequence[Event]], Event]


class StoreError(Exception):
    """The database cannot be reached or refuses; nothing was changed."""


@dataclass(frozen=True)
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


def _guarded(error: Exception) -> StoreError:
    # The driver's text names host and reason, and never the password.
    reason = str(getattr(error, "orig", None) or error).strip().splitlines()
    return StoreError(reason[0] if reason else type(error).__name__)


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
        config = alembic.config.Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        engine = create_engine(self._url, connect_args=self._connect_args)
        try:
            with engine.begin() as connection:
                # Several VTN processes may start at once: one migrates, the others wait and find it done.
                connection.execute(select(func.pg_advisory_xact_lock(_LOCK_MIGRATION)))
                config.attributes["connection"] = connection
                alembic.command.upgrade(config, "head")
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
        async with self._transaction() as connection:
            found = await self._current(connection, schema.event.c.event_id.in_(latest))
        return sorted(found, key=lambda event: event.start, reverse=True)

    async def versions(self, event_id: str) -> list[Event]:
        """All versions of one event, first to current."""
        async with self._transaction() as connection:
            return await self._load(connection, schema.event.c.event_id == event_id, join=_OF_SAME_EVENT)

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
        return found[0] if found else None

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
        opts=opts,
    )
