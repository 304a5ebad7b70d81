"""The plan of each S2 device, in the file that the VEN and the CEM share. A scheduler writes it, the CEM follows it."""

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from cariflex.ven.grid import Stretch
from cariflex.ven.outbox import OutboxError


class Plans:
    """Power in kW by device and time, + is consumption. Outside a plan a device does what it does by itself."""

    def __init__(self, folder: Path) -> None:
        path = folder / "outbox.sqlite"
        try:
            self._connection = sqlite3.connect(path)
            self._connection.execute("PRAGMA journal_mode = WAL")
            with self._connection:
                self._connection.execute(
                    "CREATE TABLE IF NOT EXISTS plan (device TEXT NOT NULL, start INTEGER NOT NULL,"
                    ' "end" INTEGER NOT NULL CHECK ("end" > start), power_kw REAL NOT NULL,'
                    " PRIMARY KEY (device, start)) STRICT"
                )
        except sqlite3.Error as error:
            raise OutboxError(f"{path} cannot be used: {error}. The folder must be writable.") from error

    def replace(self, device: str, stretches: Sequence[Stretch]) -> None:
        """Put a new plan in the place of a device's whole plan; an empty one ends it.

        Raises:
            ValueError: two stretches overlap, or one has no length.
            OutboxError: it could not be stored; the former plan is still there.
        """
        self.replace_all({device: stretches})

    def replace_all(self, plans: Mapping[str, Sequence[Stretch]]) -> None:
        """As `replace`, for several devices at once: all of them or none.

        Raises:
            ValueError: two stretches of a device overlap, or one has no length.
            OutboxError: they could not be stored; the former plans are still there.
        """
        rows = []
        for device, stretches in plans.items():
            ordered = sorted(stretches, key=lambda stretch: stretch.start)
            ends = [ordered[0].start if ordered else 0, *(stretch.end for stretch in ordered)]
            for stretch, before in zip(ordered, ends, strict=False):
                if stretch.start < before or stretch.end <= stretch.start:
                    raise ValueError(f"the plan of {device} is not a row of stretches: see {stretch}")
            rows += [(device, stretch.start, stretch.end, stretch.value) for stretch in ordered]
        try:
            with self._connection:
                self._connection.executemany("DELETE FROM plan WHERE device = ?", [(device,) for device in plans])
                self._connection.executemany("INSERT INTO plan VALUES (?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise OutboxError(f"the plans of {', '.join(plans)} could not be stored: {error}") from error

    def since(self, moment: float) -> dict[str, tuple[Stretch, ...]]:
        """The plans from a time on, in order, by device."""
        plans: dict[str, tuple[Stretch, ...]] = {}
        rows = self._connection.execute('SELECT * FROM plan WHERE "end" > ? ORDER BY start', (moment,))
        for device, *stretch in rows:
            plans[device] = (*plans.get(device, ()), Stretch(*stretch))
        return plans

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
