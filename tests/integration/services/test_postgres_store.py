"""The VTN's store on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pydantic import SecretStr
from sqlalchemy import URL, create_engine, text

from cariflex.vtn.board import Board
from cariflex.vtn.events import Event
from cariflex.vtn.schema import metadata
from cariflex.vtn.settings import Database
from cariflex.vtn.store import PostgresStore, Registration, Store, StoreError
from tests.integration.services.conftest import PASSWORD, Postgres
from tests.unit.services.openadr_support import OTHER_VEN, VEN, eventually, next_hour, price_body, running_vtn
from tests.unit.services.store_contract import NOW, StoreContract, event

pytestmark = pytest.mark.docker
VENS = (VEN, OTHER_VEN)


def make(postgres: Postgres, database: str, password: str = PASSWORD) -> PostgresStore:
    where = Database(host=postgres.host, port=postgres.port, name=database, user="openadr")
    return PostgresStore(where, SecretStr(password))


def url(postgres: Postgres, database: str) -> URL:
    return URL.create("postgresql+psycopg", "openadr", PASSWORD, postgres.host, postgres.port, database)


class TestPostgresStore(StoreContract):
    """The contract, held to PostgreSQL."""

    @pytest.fixture(autouse=True)
    def _server(self, postgres: Postgres, database: str) -> None:
        self.postgres, self.database = postgres, database

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        store = make(self.postgres, self.database)
        await store.open(VENS)
        try:
            yield store
        finally:
            await store.close()


async def test_many_processes_migrate_at_once_and_again(postgres: Postgres, database: str) -> None:
    stores = [make(postgres, database) for _ in range(4)]
    await asyncio.gather(*(store.open(VENS) for store in stores))
    await stores[0].open([*VENS, "Cariflex-VEN-003"])
    for store in stores:
        await store.close()
    with create_engine(url(postgres, database)).connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == ["0002"]
        assert connection.execute(text("SELECT count(*) FROM ven")).scalar_one() == 3


async def test_the_migrations_make_exactly_the_tables_of_the_schema(postgres: Postgres, database: str) -> None:
    store = make(postgres, database)
    await store.open(VENS)
    await store.close()
    with create_engine(url(postgres, database)).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        declared = {str(c.name) for table in metadata.tables.values() for c in table.constraints if c.name}
        query = "SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'"
        made = set(connection.execute(text(query)).scalars())
        assert declared <= made


async def test_concurrent_writers_make_consecutive_versions(postgres: Postgres, database: str) -> None:
    stores = [make(postgres, database) for _ in range(3)]
    await asyncio.gather(*(store.open(VENS) for store in stores))

    def following(current: Event | None, _live: Sequence[Event]) -> Event:
        return event(number=0 if current is None else current.modification_number + 1)

    await asyncio.gather(*(store.save("a", NOW, following) for store in stores for _ in range(5)))
    assert [v.modification_number for v in await stores[0].versions("a")] == list(range(15))
    for store in stores:
        await store.close()


async def test_two_vtns_share_what_they_know(postgres: Postgres, database: str) -> None:
    """An event created at one is at the other within a second, and so is the answer."""
    first, second = make(postgres, database), make(postgres, database)
    async with running_vtn(first) as one, running_vtn(second) as two:
        _, answer = await one.api("PUT", "/api/v1/events/price-1", price_body(NOW + timedelta(hours=1)))
        assert answer["changed"]
        await eventually(lambda: two.board.pending(VEN), 1)
        await second.register(Registration(VEN, f"reg-{VEN}", NOW))
        await eventually(lambda: one.board.registration(VEN), 1)
    await first.close()
    await second.close()


async def test_a_restart_of_the_database_is_survived(postgres: Postgres, database: str) -> None:
    store = make(postgres, database)
    board = Board(store, VENS)
    following = asyncio.create_task(board.follow())
    await asyncio.wait_for(board.loaded.wait(), 10)
    await store.save("a", NOW, lambda _c, _l: event())
    await eventually(lambda: board.pending(VEN))
    await asyncio.to_thread(postgres.docker, "restart", "--time", "5")
    trouble = await eventually(lambda: board.trouble)
    assert "the store cannot be reached" in str(trouble)
    assert PASSWORD not in str(trouble)
    assert board.pending(VEN), "polls go on from memory"
    await asyncio.to_thread(postgres.wait)
    await eventually(lambda: board.trouble is None, 20)
    await store.save("b", NOW, lambda _c, _l: event("b"))
    await eventually(lambda: board.event("b"))
    following.cancel()
    await store.close()


async def test_a_frozen_database_is_noticed(postgres: Postgres, database: str) -> None:
    store = make(postgres, database)
    board = Board(store, VENS)
    following = asyncio.create_task(board.follow())
    await asyncio.wait_for(board.loaded.wait(), 10)
    postgres.docker("pause")
    try:
        await eventually(lambda: board.trouble, 20)
    finally:
        postgres.docker("unpause")
    await eventually(lambda: board.trouble is None, 20)
    following.cancel()
    await store.close()


@pytest.mark.parametrize("attempt", ["wrong password", "no such database", "no such host"])
async def test_what_is_in_the_way_is_said_without_the_password(postgres: Postgres, database: str, attempt: str) -> None:
    wrong: dict[str, Any] = {
        "wrong password": (postgres, database, "not-the-password"),
        "no such database": (postgres, "missing", PASSWORD),
        "no such host": (Postgres("", "127.0.0.1", 9), database, PASSWORD),
    }
    store = make(*wrong[attempt])
    with pytest.raises(StoreError) as caught:
        await store.open(VENS)
    await store.close()
    words = {"wrong password": "authentication failed", "no such database": "does not exist", "no such host": "refused"}
    assert words[attempt] in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert "not-the-password" not in str(caught.value)


async def test_a_preview_says_what_would_be_and_changes_nothing(postgres: Postgres, database: str) -> None:
    store = make(postgres, database)
    async with running_vtn(store) as vtn:
        for _ in range(2):
            status, answer = await vtn.api("POST", "/api/v1/events/a/preview", price_body(next_hour(), 1.0))
            assert (status, answer["changed"], answer["event"]["modification_number"]) == (200, True, 0)
            assert await store.versions("a") == []
        assert (await vtn.api("PUT", "/api/v1/events/a", price_body(next_hour(), 1.0)))[0] == 201
        _, answer = await vtn.api("POST", "/api/v1/events/a/preview", price_body(next_hour(), 2.0))
        assert (answer["changed"], answer["event"]["modification_number"]) == (True, 1)
        assert len(await store.versions("a")) == 1
        _, answer = await vtn.api("POST", "/api/v1/events/a/preview", price_body(next_hour(), 1.0))
        assert answer["changed"] is False
