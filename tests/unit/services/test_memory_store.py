"""The stand-in for PostgreSQL does what PostgreSQL does (tests/integration/services/test_postgres_store.py)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cariflex.vtn.store import Store
from tests.unit.services.openadr_support import MemoryStore
from tests.unit.services.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    """The contract, held to the stand-in."""

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        yield MemoryStore()
