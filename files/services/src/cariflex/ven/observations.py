"""What the CEM has observed, on its way to FlexMeasures' database: kept in the shared file until it is stored there."""

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client import Counter

from cariflex.ven.outbox import OutboxError
from cariflex.ven.sender import LONGEST_PAUSE_SECONDS, TIMEOUT, Sender, UnreachableError

log = logging.getLogger(__name__)

OBSERVATIONS = Counter("cariflex_ven_observations_total", "Observations, by what became of them.", ["result"])

PATH = "/cariflex/v1/observations"
PAUSE_SECONDS = 2.0
BATCH = 500
KEPT_SECONDS = 30 * 86400  # what could not be stored for so long is given up; the file stays below 200 MB


@dataclass(frozen=True)
class Waiting:
    """How many observations wait, and for how long the oldest."""

    count: int
    oldest_seconds: float


class Observations:
    """A row for each, apart from the prices and limits: neither waits for the other."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        path = folder / "outbox.sqlite"
        try:
            self._connection = sqlite3.connect(path)
            self._connection.execute("PRAGMA journal_mode = WAL")
            with self._connection:
                self._connection.execute(
                    "CREATE TABLE IF NOT EXISTS observation (seq INTEGER PRIMARY KEY AUTOINCREMENT,"
                    " created REAL NOT NULL, content TEXT NOT NULL) STRICT"
                )
        except sqlite3.Error as error:
            raise OutboxError(f"{path} cannot be used: {error}. The folder must be writable.") from error

    def add(self, observations: Iterable[dict[str, Any]]) -> None:
        """Keep observations until they are stored; all or none of them.

        Raises:
            OutboxError: they could not be kept.
        """
        now = self._clock()
        rows = [(now, json.dumps(one)) for one in observations]
        try:
            with self._connection:
                self._connection.executemany("INSERT INTO observation (created, content) VALUES (?, ?)", rows)
                self._connection.execute("DELETE FROM observation WHERE created < ?", (now - KEPT_SECONDS,))
        except sqlite3.Error as error:
            raise OutboxError(f"observations could not be kept: {error}") from error

    def first(self, count: int) -> list[tuple[int, dict[str, Any]]]:
        """The oldest ones, in order."""
        rows = self._connection.execute("SELECT seq, content FROM observation ORDER BY seq LIMIT ?", (count,))
        return [(seq, json.loads(content)) for seq, content in rows]

    def done(self, sequence: Iterable[int]) -> None:
        """Forget these."""
        with self._connection:
            self._connection.executemany("DELETE FROM observation WHERE seq = ?", [(seq,) for seq in sequence])

    def waiting(self) -> Waiting:
        """For health."""
        count, oldest = self._connection.execute("SELECT count(*), min(created) FROM observation").fetchone()
        return Waiting(count, 0.0 if oldest is None else max(0.0, self._clock() - oldest))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class Observer:
    """Brings them to FlexMeasures, in order, many at a time."""

    def __init__(self, observations: Observations, sender: Sender) -> None:
        self._observations = observations
        self._sender = sender
        self._batch = BATCH
        self.waiting = observations.waiting
        self.trouble: str | None = None

    async def run(self) -> None:
        """Send what there is, for ever."""
        pause = PAUSE_SECONDS
        async with aiohttp.ClientSession(timeout=TIMEOUT) as http:
            while True:
                try:
                    while await self.send(http):
                        pass
                    self.trouble, pause = None, PAUSE_SECONDS
                except (UnreachableError, sqlite3.Error) as error:
                    if self.trouble is None:
                        log.warning("observations not sent yet", extra={"reason": str(error)})
                    self.trouble, pause = str(error), min(2 * pause, LONGEST_PAUSE_SECONDS)
                await asyncio.sleep(pause)

    async def send(self, http: aiohttp.ClientSession) -> bool:
        """Send the oldest ones; whether there were any.

        Where FlexMeasures refuses some, they are sent one by one; one that is refused alone is given up and logged.

        Raises:
            UnreachableError: FlexMeasures cannot take them now; they stay.
        """
        rows = self._observations.first(self._batch)
        if not rows:
            return False
        body = {"observations": [content for _, content in rows]}
        status, text, _ = await self._sender.post(http, PATH, body)
        if status == 200:
            self._batch = BATCH
            OBSERVATIONS.labels("stored").inc(len(rows))
        elif status not in (400, 413, 422):
            raise UnreachableError(f"FlexMeasures answered observations with {status}: {text}")
        elif len(rows) > 1:
            self._batch = 1
            return True
        else:
            OBSERVATIONS.labels("refused").inc()
            log.error("observation refused", extra={"reason": text, "observation": rows[0][1]})
        self._observations.done(seq for seq, _ in rows)
        return True
