"""What FlexMeasures needs, looked at one by one, each over a connection of its own."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import psycopg2
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Queue, Worker
from rq.command import PUBSUB_CHANNEL_TEMPLATE
from rq.job import Job

from cariflex.fm_plugin.configuration import database_dsn

QUEUES = ("forecasting", "scheduling")
DEFAULT_MAX_QUEUE_SECONDS = 600
_TIMEOUT_SECONDS = 2

_log = logging.getLogger(__name__)

Result = dict[str, Any]
Config = Mapping[str, Any]


class ProbeError(Exception):
    """A probe found something that is not well; the message says what, `facts` go into the answer beside it."""

    def __init__(self, problem: str, **facts: Any) -> None:
        super().__init__(problem)
        self.facts = facts


def database(config: Config) -> Result:
    """Whether PostgreSQL answers a query."""
    options = f"-c statement_timeout={_TIMEOUT_SECONDS}s"
    connection = psycopg2.connect(database_dsn(config), connect_timeout=_TIMEOUT_SECONDS, options=options)
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return {}


def redis(config: Config) -> Result:
    """Whether Redis answers."""
    with connected(config) as connection:
        connection.ping()
    return {}


def workers(config: Config) -> Result:
    """Whether every queue has a worker.

    RQ lists a worker that was killed for up to 8 minutes. A live one holds a subscription to its command channel, and
    Redis sees at once when that connection ends.
    """
    with connected(config) as connection:
        queues = [set(worker.queue_names()) for worker in live_workers(connection)]
    live = {queue: sum(queue in names for names in queues) for queue in QUEUES}
    unserved = [queue for queue, count in live.items() if not count]
    if unserved:
        raise ProbeError(f"no live worker for {' and '.join(unserved)}: start flexmeasures-worker", live=live)
    return {"live": live}


def queue(config: Config) -> Result:
    """Whether jobs are taken from the queues in time."""
    limit = config.get("CARIFLEX_HEALTH_MAX_QUEUE_SECONDS", DEFAULT_MAX_QUEUE_SECONDS)
    with connected(config) as connection:
        queues = {name: Queue(name, connection=connection) for name in QUEUES}
        queued = {name: each.count for name, each in queues.items()}
        since = [_first_queued_at(each) for each in queues.values()]
    age = max(((datetime.now(UTC) - at).total_seconds() for at in since if at is not None), default=None)
    facts: Result = {"queued": queued, "oldest_seconds": None if age is None else round(age, 1)}
    if age is not None and age > limit:
        raise ProbeError(f"the oldest job has been waiting for {age:.0f} s: look at the worker's log", **facts)
    return facts


PROBES: Mapping[str, Callable[[Config], Result]] = {
    "database": database,
    "redis": redis,
    "workers": workers,
    "queue": queue,
}


@contextlib.contextmanager
def connected(config: Config) -> Iterator[Any]:
    """A connection to FlexMeasures' Redis that gives up soon and does not retry."""
    connection = Redis(
        host=config["FLEXMEASURES_REDIS_URL"],
        port=config["FLEXMEASURES_REDIS_PORT"],
        db=config["FLEXMEASURES_REDIS_DB_NR"],
        password=config["FLEXMEASURES_REDIS_PASSWORD"],
        socket_timeout=_TIMEOUT_SECONDS,
        socket_connect_timeout=_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    with contextlib.closing(connection):
        yield connection


def live_workers(connection: Any) -> list[Any]:
    """The RQ workers that are listed and listening."""
    listed = Worker.all(connection=connection)
    if not listed:
        return []
    listening = connection.pubsub_numsub(*(PUBSUB_CHANNEL_TEMPLATE % worker.name for worker in listed))
    return [worker for worker, (_, subscribers) in zip(listed, listening, strict=True) if subscribers]


def _first_queued_at(queue_: Any) -> datetime | None:
    ids = queue_.get_job_ids(0, 1)
    jobs = Job.fetch_many(ids, connection=queue_.connection)
    at: datetime | None = jobs[0].enqueued_at if jobs and jobs[0] else None
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at


def run(config: Config, names: list[str], deadline_seconds: float) -> dict[str, Result]:
    """Run probes side by side; one that has not answered by the deadline fails.

    Every timeout of a client leaves something out (looking up a name has none at all), so the deadline is kept here.
    A probe that is still stuck from an earlier call is not started again.
    """
    deadline = time.monotonic() + deadline_seconds
    started = {name: _Run.of(name, config) for name in names}
    return {name: run_.result(deadline) for name, run_ in started.items()}


class _Run:
    """One run of one probe in a thread of its own."""

    _stuck: dict[str, _Run] = {}  # noqa: RUF012 - shared on purpose: what one request left behind, the next must see

    def __init__(self, name: str, config: Config) -> None:
        self._began = time.monotonic()
        self._outcome: Result | None = None
        self._thread = threading.Thread(target=self._work, args=(PROBES[name], config), name=name, daemon=True)
        self._thread.start()

    @classmethod
    def of(cls, name: str, config: Config) -> _Run:
        stuck = cls._stuck.get(name)
        if stuck is None or not stuck._thread.is_alive():
            cls._stuck[name] = cls(name, config)
        return cls._stuck[name]

    def _work(self, probe: Callable[[Config], Result], config: Config) -> None:
        try:
            outcome = {"ok": True, **probe(config)}
        except ProbeError as error:
            outcome = {"ok": False, "problem": str(error), **error.facts}
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the service is the answer
            # strangers read the answer; clients' errors name hosts, addresses, users and databases
            _log.warning("/health: %s: %s", self._thread.name, _first_line(error))
            outcome = {"ok": False, "problem": "cannot be used: the server's log says why"}
        outcome["seconds"] = round(time.monotonic() - self._began, 3)
        self._outcome = outcome

    def result(self, deadline: float) -> Result:
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._outcome is not None:
            return self._outcome
        waited = time.monotonic() - self._began
        return {"ok": False, "problem": f"no answer within {waited:.1f} s", "seconds": round(waited, 3)}


def _first_line(error: Exception) -> str:
    """An error in one line. Neither psycopg2 nor redis puts a password into its messages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
