"""What the CEM has to know again after a restart: what each device was told, and what it did before."""

import sqlite3
from pathlib import Path

from cariflex.s2.device import Order
from cariflex.ven.outbox import OutboxError


class Memory:
    """A file beside the VEN's outbox; this process alone uses it."""

    def __init__(self, folder: Path) -> None:
        path = folder / "s2.sqlite"
        try:
            self._connection = sqlite3.connect(path, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS device_order"
                " (device TEXT PRIMARY KEY, own_kw REAL NOT NULL, power_kw REAL NOT NULL, sent REAL NOT NULL) STRICT"
            )
        except sqlite3.Error as error:
            raise OutboxError(f"{path} cannot be used: {error}. The folder must be writable.") from error

    def order(self, device: str) -> Order | None:
        """What a device was told last, or None."""
        row = self._connection.execute(
            "SELECT own_kw, power_kw, sent FROM device_order WHERE device = ?", (device,)
        ).fetchone()
        return Order(*row) if row else None

    def remember(self, device: str, order: Order) -> None:
        """Keep what a device was told.

        Raises:
            OutboxError: it could not be stored.
        """
        values = (device, order.own_kw, order.power_kw, order.sent)
        try:
            self._connection.execute("INSERT OR REPLACE INTO device_order VALUES (?, ?, ?, ?)", values)
        except sqlite3.Error as error:
            raise OutboxError(f"what {device} was told could not be stored: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
