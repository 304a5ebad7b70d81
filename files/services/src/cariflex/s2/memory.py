"""What the CEM has to know again after a restart: what each device was told, and what it did before."""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

from cariflex.s2.device import Order
from cariflex.ven.outbox import OutboxError


class Memory:
    """A file beside the VEN's outbox; this process alone uses it."""

    def __init__(self, folder: Path) -> None:
        path = folder / "s2.sqlite"
        try:
            self._connection = sqlite3.connect(path)
            self._connection.execute("PRAGMA journal_mode = WAL")
            with self._connection:
                self._connection.execute("DROP TABLE IF EXISTS device_order")  # of the first release
                self._connection.execute(
                    "CREATE TABLE IF NOT EXISTS orders (device TEXT PRIMARY KEY, orders TEXT NOT NULL) STRICT"
                )
        except sqlite3.Error as error:
            raise OutboxError(f"{path} cannot be used: {error}. The folder must be writable.") from error

    def orders(self, device: str) -> list[Order]:
        """What a device was told for now and for later, in order of time."""
        row = self._connection.execute("SELECT orders FROM orders WHERE device = ?", (device,)).fetchone()
        known = json.loads(row[0]) if row else []
        return [Order(**{**one, "events": tuple(one["events"])}) for one in known]

    def remember(self, orders: Mapping[str, Iterable[Order]]) -> None:
        """Keep what devices were told, in place of what was kept of them; all or nothing.

        Raises:
            OutboxError: it could not be stored.
        """
        rows = [(device, json.dumps([vars(one) for one in told])) for device, told in orders.items()]
        try:
            with self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO orders VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            raise OutboxError(f"what devices were told could not be stored: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
