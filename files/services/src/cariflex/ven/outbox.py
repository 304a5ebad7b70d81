"""The VEN's memory on disk: the events it has answered, and the values that still have to reach FlexMeasures.

SQLite with a write-ahead log and full synchronisation: what `accept` has returned survives kill -9 and power cuts.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any, Literal

from cariflex.ven.grid import Stretch, gaps, joined, runs

OptType = Literal["optIn", "optOut"]

HISTORY_SECONDS = 7 * 86400  # how long an event that has ended is remembered
AT_ITS_END = 0  # the belief time of values of which each was known at the end of its interval, as what is measured

# The steps from an empty file to the present form; each is made once, in one transaction. Append, never change.
_STEPS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE event (
            event_id TEXT PRIMARY KEY,
            modification_number INTEGER NOT NULL,
            signal_name TEXT NOT NULL,
            start INTEGER NOT NULL,          -- seconds since 1970, UTC
            end INTEGER NOT NULL,
            stretches TEXT NOT NULL,         -- JSON: [[start, end, value], ...]; empty when cancelled or a test
            content TEXT NOT NULL,           -- what makes two messages the same
            opt_type TEXT NOT NULL
        ) STRICT
        """,
        """
        CREATE TABLE post (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            event_id TEXT NOT NULL,
            modification_number INTEGER NOT NULL,
            sensor INTEGER NOT NULL,
            unit TEXT NOT NULL,
            start INTEGER NOT NULL,
            resolution INTEGER NOT NULL,     -- seconds
            "values" TEXT NOT NULL,          -- JSON
            belief INTEGER NOT NULL,         -- when we learned them, seconds since 1970
            created REAL NOT NULL,
            due REAL NOT NULL,               -- not before this time
            attempts INTEGER NOT NULL DEFAULT 0,
            aside INTEGER NOT NULL DEFAULT 0, -- 1: FlexMeasures refuses it; others go first
            problem TEXT
        ) STRICT
        """,
        "CREATE INDEX post_aside ON post (aside, seq)",
        "CREATE TABLE belief (sensor INTEGER PRIMARY KEY, last INTEGER NOT NULL) STRICT",
    ),
    (
        """
        CREATE TABLE telemetry (
            device TEXT PRIMARY KEY,
            power_kw REAL,                   -- + is consumption; NULL: not known
            stored_kwh REAL,
            connected INTEGER NOT NULL,
            at REAL NOT NULL                 -- seconds since 1970
        ) STRICT
        """,
    ),
    (
        # `stretches` is what holds; an event that was opted out of holds nothing and may do so again with other rules.
        "ALTER TABLE event ADD COLUMN offered TEXT NOT NULL DEFAULT '[]'",
        "UPDATE event SET offered = stretches",
        "ALTER TABLE event ADD COLUMN reason TEXT",  # of an optOut
        "ALTER TABLE event ADD COLUMN told INTEGER NOT NULL DEFAULT 1",  # 0: the VTN does not know this opt yet
        """
        CREATE TABLE announced (
            opt_id TEXT PRIMARY KEY,
            start INTEGER NOT NULL,          -- seconds since 1970
            end INTEGER NOT NULL
        ) STRICT
        """,
    ),
    (
        """
        CREATE TABLE flexibility (
            device TEXT PRIMARY KEY,
            content TEXT NOT NULL,           -- JSON, as `Flexibility`
            at REAL NOT NULL                 -- seconds since 1970
        ) STRICT
        """,
    ),
    (
        # whose values they are, where they are not the VEN's own: the name of a data source in FlexMeasures
        "ALTER TABLE post ADD COLUMN source TEXT NOT NULL DEFAULT ''",
    ),
)


class OutboxError(Exception):
    """The outbox cannot be used; the text says why and what to do."""


@dataclass(frozen=True)
class Destination:
    """The sensor of a signal; `resolution` in seconds. `source` names the data source, empty: the VEN itself."""

    sensor: int
    unit: str
    resolution: int
    neutral: float | None = None
    source: str = ""


@dataclass(frozen=True)
class Asked(Stretch):
    """A stretch, and the event that says it."""

    event_id: str


@dataclass(frozen=True)
class ReceivedEvent:
    """A version of an event as the VEN understood it.

    `stretches` are empty for a cancelled event and for a test event, which are answered but bring no values.
    """

    event_id: str
    modification_number: int
    signal_name: str
    start: int
    end: int
    stretches: tuple[Stretch, ...]
    cancelled: bool = False
    test_event: bool = False

    def content(self) -> str:
        """What makes two messages the same: not the status, which changes by itself with time."""
        return json.dumps(
            [self.modification_number, self.signal_name, self.start, self.end, self.cancelled, self._stretches()]
        )

    def _stretches(self) -> list[tuple[int, int, float]]:
        return [(s.start, s.end, s.value) for s in self.stretches]

    def stretches_json(self) -> str:
        """The stretches as they are stored."""
        return json.dumps(self._stretches())


@dataclass(frozen=True)
class Post:
    """Values for consecutive cells of one sensor, waiting to be sent. Times in seconds since 1970, UTC."""

    seq: int
    event_id: str
    modification_number: int
    sensor: int
    unit: str
    start: int
    resolution: int
    values: tuple[float | None, ...]  # None: what FlexMeasures has there is to be taken back
    belief: int  # or AT_ITS_END
    attempts: int
    aside: bool
    source: str = ""

    @property
    def withdraws(self) -> bool:
        """Whether it takes values back; a post does that in all its cells or in none."""
        return self.values[0] is None


@dataclass(frozen=True)
class Answer:
    """An opt to a version of an event."""

    event_id: str
    modification_number: int
    opt_type: OptType
    reason: str | None


@dataclass(frozen=True)
class DeviceState:
    """The last that the CEM knows of a device; `at` in seconds since 1970, None: not known."""

    power_kw: float | None
    stored_kwh: float | None
    connected: bool
    at: float


@dataclass(frozen=True)
class Flexibility:
    """What a device can do, for those who plan: power in kW (+ is consumption), energy of its storage in kWh.

    `targets` are energies that have to be stored at some times, as far as the device has told.
    """

    low_kw: float
    high_kw: float
    least_kwh: float
    most_kwh: float
    stored_kwh: float
    targets: tuple[Stretch, ...] = ()


@dataclass(frozen=True)
class State:
    """What health and metrics show: counts, the age of the oldest value waiting, and why values were set aside."""

    waiting: int
    oldest_seconds: float
    aside: int
    problems: list[str] = field(default_factory=list)


class Outbox:
    """One file. The VEN writes events and sends; the CEM beside it reads the events and queues values."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        path = folder / "outbox.sqlite"
        try:
            self._connection = sqlite3.connect(path, isolation_level=None)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._migrate()
        except sqlite3.Error as error:
            raise OutboxError(
                f"{path} cannot be used: {error}. The folder must be writable. A damaged file can be moved away: "
                "at its next start the VEN asks the VTN for all live events."
            ) from error

    def _migrate(self) -> None:
        """Bring the file to the present form; the CEM's process may come at the same time."""
        with self._transaction():
            done = self._connection.execute("PRAGMA user_version").fetchone()[0]
            for step in _STEPS[done:]:
                for statement in step:
                    self._connection.execute(statement)
            if done < len(_STEPS):
                self._connection.execute(f"PRAGMA user_version = {len(_STEPS)}")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def known(self, event_id: str, content: str) -> OptType | None:
        """The answer already given to exactly this version, or None."""
        row = self._connection.execute(
            "SELECT opt_type FROM event WHERE event_id = ? AND content = ?", (event_id, content)
        ).fetchone()
        return row["opt_type"] if row else None

    def accept(
        self, event: ReceivedEvent, destinations: Mapping[str, Destination], refusal: str | None = None
    ) -> OptType:
        """Remember a version and queue the values it changes; durable when this returns.

        The VTN's last word counts, whatever its modification number: after a restore from a backup the VTN may
        count again from an earlier one. A version that is known already queues nothing.

        Args:
            event: the version.
            destinations: the sensor of each signal; a signal without one brings no values to FlexMeasures.
            refusal: why the site does not take part. The values are kept, and do not hold.

        Raises:
            OutboxError: nothing was stored (disk full, for example); the event must not be answered.
        """
        if opt_type := self.known(event.event_id, event.content()):
            return opt_type
        try:
            with self._transaction():
                self._hold(event, event.content(), destinations, refusal)
                self._connection.execute("DELETE FROM event WHERE end < ?", (int(self._clock()) - HISTORY_SECONDS,))
        except sqlite3.Error as error:
            raise OutboxError(f"the event could not be stored: {error}") from error
        return "optOut" if refusal else "optIn"

    def refuse(self, event_id: str, number: int, reason: str, destinations: Mapping[str, Destination]) -> None:
        """A version that is not understood: what an earlier one said holds no longer.

        Raises:
            OutboxError: nothing was stored; the event must not be answered.
        """
        try:
            with self._transaction():
                row = self._row(event_id)
                if row is not None and row["stretches"] != "[]":
                    void = ReceivedEvent(event_id, number, row["signal_name"], row["start"], row["end"], ())
                    self._hold(void, json.dumps([number, reason]), destinations, reason)
        except sqlite3.Error as error:
            raise OutboxError(f"the event could not be stored: {error}") from error

    def reconsider(
        self, judge: Callable[[ReceivedEvent], str | None], destinations: Mapping[str, Destination]
    ) -> list[Answer]:
        """Judge the events that have not ended again, and queue the values that this changes.

        Returns:
            The answers that are others than before; they are `untold` until the VTN has them.

        Raises:
            OutboxError: nothing was stored.
        """
        try:
            with self._transaction():
                rows = self._connection.execute(
                    "SELECT * FROM event WHERE end > ? AND offered <> '[]'", (int(self._clock()),)
                ).fetchall()
                for row in rows:
                    event = _event(row)
                    refusal = judge(event)
                    if refusal != row["reason"]:
                        self._hold(event, row["content"], destinations, refusal)
                changed = [row["event_id"] for row in rows if self._row(row["event_id"])["opt_type"] != row["opt_type"]]
                for event_id in changed:
                    self._connection.execute("UPDATE event SET told = 0 WHERE event_id = ?", (event_id,))
        except sqlite3.Error as error:
            raise OutboxError(f"the events could not be judged again: {error}") from error
        return [answer for answer in self.untold() if answer.event_id in changed]

    def untold(self) -> list[Answer]:
        """The answers that changed by themselves and that the VTN does not know yet."""
        rows = self._connection.execute("SELECT * FROM event WHERE told = 0 ORDER BY event_id")
        return [Answer(r["event_id"], r["modification_number"], r["opt_type"], r["reason"]) for r in rows]

    def told(self, event_id: str) -> None:
        """The VTN has the answer."""
        self._connection.execute("UPDATE event SET told = 1 WHERE event_id = ? AND told = 0", (event_id,))

    def opted_out(self) -> list[Answer]:
        """The events that have not ended and that the site does not take part in."""
        rows = self._connection.execute(
            "SELECT * FROM event WHERE opt_type = 'optOut' AND end > ? ORDER BY start", (int(self._clock()),)
        )
        return [Answer(r["event_id"], r["modification_number"], r["opt_type"], r["reason"]) for r in rows]

    def announced(self) -> dict[str, tuple[int, int]]:
        """The opt schedules that the VTN has: opt id -> start and end in seconds since 1970; without ended ones."""
        self._connection.execute("DELETE FROM announced WHERE end < ?", (int(self._clock()),))
        rows = self._connection.execute("SELECT * FROM announced")
        return {row["opt_id"]: (row["start"], row["end"]) for row in rows}

    def announce(self, opt_id: str, window: tuple[int, int]) -> None:
        """The VTN has an opt schedule."""
        self._connection.execute("INSERT OR REPLACE INTO announced VALUES (?, ?, ?)", (opt_id, *window))

    def unannounce(self, opt_id: str) -> None:
        """The VTN has an opt schedule no longer."""
        self._connection.execute("DELETE FROM announced WHERE opt_id = ?", (opt_id,))

    def _row(self, event_id: str) -> Any:
        return self._connection.execute("SELECT * FROM event WHERE event_id = ?", (event_id,)).fetchone()

    def _hold(
        self, event: ReceivedEvent, content: str, destinations: Mapping[str, Destination], refusal: str | None
    ) -> None:
        previous = self._row(event.event_id)
        windows: dict[str, list[tuple[int, int]]] = {}
        if previous is not None and previous["stretches"] != "[]":
            windows.setdefault(previous["signal_name"], []).append((previous["start"], previous["end"]))
        if event.stretches and not refusal:
            windows.setdefault(event.signal_name, []).append((event.start, event.end))
        self._connection.execute(
            "INSERT OR REPLACE INTO event (event_id, modification_number, signal_name, start, end, stretches, content,"
            " opt_type, offered, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                event.event_id,
                event.modification_number,
                event.signal_name,
                event.start,
                event.end,
                "[]" if refusal else event.stretches_json(),
                content,
                "optOut" if refusal else "optIn",
                event.stretches_json(),
                refusal,
            ),
        )
        for signal_name, touched in windows.items():
            if destination := destinations.get(signal_name):
                self._queue(event, signal_name, destination, touched)

    def _queue(
        self, event: ReceivedEvent, signal_name: str, destination: Destination, touched: Sequence[tuple[int, int]]
    ) -> None:
        """Queue the cells of some times, computed from all events of the signal: two events may share a cell.

        A cell that no event says anything of gets the neutral value; where there is none, what is there is taken back.
        """
        cell, now = destination.resolution, self._clock()
        belief = self._next_belief(destination.sensor, int(now))
        for first, last in joined((start // cell * cell, -(-end // cell) * cell) for start, end in touched):
            rows = self._connection.execute(
                "SELECT stretches FROM event WHERE signal_name = ? AND start < ? AND end > ?",
                (signal_name, last, first),
            )
            stretches = [Stretch(*stretch) for row in rows for stretch in json.loads(row["stretches"])]
            found = runs(stretches, (first, last), cell, destination.neutral)
            for start, cells in gaps(found, (first, last), cell):
                taken_back = (start, (None,) * cells)
                self._insert(event.event_id, event.modification_number, destination, taken_back, belief, now)
            for run in found:
                values = (run.start, run.values)
                self._insert(event.event_id, event.modification_number, destination, values, belief, now)

    def _insert(
        self,
        origin: str,
        modification_number: int,
        destination: Destination,
        cells: tuple[int, Sequence[float | None]],
        belief: int,
        now: float,
    ) -> None:
        start, values = cells
        self._connection.execute(
            'INSERT INTO post (event_id, modification_number, sensor, unit, start, resolution, "values", belief,'
            " created, due, source) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                origin,
                modification_number,
                destination.sensor,
                destination.unit,
                start,
                destination.resolution,
                json.dumps(values),
                belief,
                now,
                now,
                destination.source,
            ),
        )

    def _next_belief(self, sensor: int, now: int) -> int:
        """A belief time that this sensor has not had.

        FlexMeasures keeps belief times to the second and refuses (403) a second value for the same event and belief
        time. It also makes sending idempotent: the same value with the same belief time is dropped there.
        """
        row = self._connection.execute("SELECT last FROM belief WHERE sensor = ?", (sensor,)).fetchone()
        belief = max(now, row["last"] + 1) if row else now
        self._connection.execute("INSERT OR REPLACE INTO belief VALUES (?, ?)", (sensor, belief))
        return belief

    def version(self) -> int:
        """A number that changes whenever another process has written."""
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def asked(self, signal_name: str, since: float) -> list[Asked]:
        """What the events of a signal that were answered optIn say from a time on; where they overlap, so does this."""
        rows = self._connection.execute(
            "SELECT event_id, stretches FROM event WHERE signal_name = ? AND end > ? AND opt_type = 'optIn'"
            " ORDER BY event_id",
            (signal_name, since),
        )
        return [
            Asked(start, end, value, row["event_id"])
            for row in rows
            for start, end, value in json.loads(row["stretches"])
        ]

    def queue(
        self, origin: str, destination: Destination, start: int, values: tuple[float, ...], believed: int | None = None
    ) -> None:
        """Queue values that come from no event; times in seconds since 1970, `origin` is for the log.

        Args:
            believed: when they were known, or `AT_ITS_END`, for values of others; else now.

        Raises:
            OutboxError: nothing was stored.
        """
        try:
            with self._transaction():
                now = self._clock()
                belief = self._next_belief(destination.sensor, int(now)) if believed is None else believed
                self._insert(origin, 0, destination, (start, values), belief, now)
        except sqlite3.Error as error:
            raise OutboxError(f"values could not be stored: {error}") from error

    def report_states(self, states: Mapping[str, DeviceState]) -> None:
        """Keep the present states of devices, for the VEN's reports; all of them or none.

        Told when one changes and every 30 s at least: an old state counts as not known (`reports.STALE_SECONDS`).

        Not synchronised to the disk: a state that a power cut takes is an old one.

        Raises:
            OutboxError: nothing was stored.
        """
        rows = [(name, one.power_kw, one.stored_kwh, int(one.connected), one.at) for name, one in states.items()]
        try:
            self._connection.execute("PRAGMA synchronous = NORMAL")
            try:
                with self._transaction():
                    self._connection.executemany("INSERT OR REPLACE INTO telemetry VALUES (?, ?, ?, ?, ?)", rows)
            finally:
                self._connection.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error as error:
            raise OutboxError(f"the states of {', '.join(states)} could not be stored: {error}") from error

    def states(self) -> dict[str, DeviceState]:
        """The last state of each device that the CEM has told."""
        rows = self._connection.execute("SELECT * FROM telemetry ORDER BY device")
        return {
            row["device"]: DeviceState(row["power_kw"], row["stored_kwh"], bool(row["connected"]), row["at"])
            for row in rows
        }

    def report_flexibility(self, devices: Mapping[str, Flexibility | None], at: float) -> None:
        """Keep what devices can do; None: not known now. `at` in seconds since 1970.

        Raises:
            OutboxError: nothing was stored.
        """
        known = [
            (name, json.dumps(asdict(one) | {"targets": [astuple(target) for target in one.targets]}), at)
            for name, one in devices.items()
            if one
        ]
        try:
            self._connection.execute("PRAGMA synchronous = NORMAL")
            try:
                with self._transaction():
                    self._connection.executemany("DELETE FROM flexibility WHERE device = ?", [(d,) for d in devices])
                    self._connection.executemany("INSERT INTO flexibility VALUES (?, ?, ?)", known)
            finally:
                self._connection.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error as error:
            raise OutboxError(f"what devices can do could not be stored: {error}") from error

    def flexibilities(self, since: float) -> dict[str, Flexibility]:
        """What each device can do of which the CEM has told since a time."""
        rows = self._connection.execute("SELECT * FROM flexibility WHERE at >= ? ORDER BY device", (since,))
        found = {}
        for row in rows:
            content = json.loads(row["content"])
            targets = tuple(Stretch(*target) for target in content.pop("targets"))
            found[row["device"]] = Flexibility(**content, targets=targets)
        return found

    def waiting(self, sensors: Collection[int]) -> int:
        """How many posts to some sensors wait, those that FlexMeasures refuses apart."""
        marks = ", ".join("?" * len(sensors))
        query = f"SELECT count(*) FROM post WHERE aside = 0 AND sensor IN ({marks})"  # noqa: S608  only marks
        return int(self._connection.execute(query, tuple(sensors)).fetchone()[0])

    def next(self) -> Post | None:
        """What to send now: the oldest value waiting if it is due, else one set aside that is due again."""
        for aside in (0, 1):
            order = "due" if aside else "seq"
            row = self._connection.execute(
                f"SELECT * FROM post WHERE aside = ? ORDER BY {order} LIMIT 1",  # noqa: S608  one of two words
                (aside,),
            ).fetchone()
            if row is not None and row["due"] <= self._clock():
                return _post(row)
        return None

    def seconds_to_next(self) -> float | None:
        """Seconds until `next` has something, or None when the outbox is empty."""
        row = self._connection.execute(
            "SELECT min(due) AS due FROM (SELECT due FROM (SELECT due FROM post WHERE aside = 0 ORDER BY seq LIMIT 1)"
            " UNION ALL SELECT min(due) FROM post WHERE aside = 1)"
        ).fetchone()
        return None if row["due"] is None else max(0.0, row["due"] - self._clock())

    def delivered(self, post: Post) -> None:
        """FlexMeasures has done what the post says.

        Older values that it refused would come back after they were taken back; a later post has what holds of them.
        """
        with self._transaction():
            self._connection.execute("DELETE FROM post WHERE seq = ?", (post.seq,))
            if post.withdraws:
                end = post.start + post.resolution * len(post.values)
                self._connection.execute(
                    "DELETE FROM post WHERE sensor = ? AND aside = 1 AND belief < ? AND start < ?"
                    ' AND start + resolution * json_array_length("values") > ?',
                    (post.sensor, post.belief, end, post.start),
                )

    def again(self, post: Post, after: float, problem: str, *, aside: bool = False, counts: bool = True) -> None:
        """Try again after `after` seconds; `aside`: let others go first."""
        self._connection.execute(
            "UPDATE post SET due = ?, problem = ?, aside = max(aside, ?), attempts = attempts + ? WHERE seq = ?",
            (self._clock() + after, problem[:500], int(aside), int(counts), post.seq),
        )

    def new_belief(self, post: Post) -> None:
        """Give a value another belief time, because another value has its own."""
        with self._transaction():
            belief = self._next_belief(post.sensor, int(self._clock()))
            self._connection.execute("UPDATE post SET belief = ? WHERE seq = ?", (belief, post.seq))

    def state(self) -> State:
        """Counts and ages for health and metrics."""
        row = self._connection.execute("SELECT count(*) AS n, min(created) AS oldest FROM post").fetchone()
        aside = self._connection.execute("SELECT * FROM post WHERE aside = 1 ORDER BY seq").fetchall()
        problems = [f"event {r['event_id']}, sensor {r['sensor']}: {r['problem']}" for r in aside[:10]]
        age = 0.0 if row["oldest"] is None else max(0.0, self._clock() - row["oldest"])
        return State(waiting=row["n"], oldest_seconds=age, aside=len(aside), problems=problems)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # SQLite has rolled back by itself when the disk is full
                self._connection.execute("ROLLBACK")
            raise


def _post(row: sqlite3.Row) -> Post:
    return Post(
        seq=row["seq"],
        event_id=row["event_id"],
        modification_number=row["modification_number"],
        sensor=row["sensor"],
        unit=row["unit"],
        start=row["start"],
        resolution=row["resolution"],
        values=tuple(json.loads(row["values"])),
        belief=row["belief"],
        attempts=row["attempts"],
        aside=bool(row["aside"]),
        source=row["source"],
    )


def _event(row: sqlite3.Row) -> ReceivedEvent:
    stretches = tuple(Stretch(*stretch) for stretch in json.loads(row["offered"]))
    return ReceivedEvent(
        row["event_id"], row["modification_number"], row["signal_name"], row["start"], row["end"], stretches
    )
