"""How long the queries of Grafana's 14 panels take on 10 million beliefs, with and without the extra index.

    .venv/bin/python bench/panels.py
    .venv/bin/python bench/panels.py --millions 10 30

A PostgreSQL of its own, with the settings of a deployment and FlexMeasures' tables, is filled with devices every five
minutes and plans made every quarter of an hour for a day ahead (96 beliefs for each event); its indexes are made when
all is in. Each query runs as grafana_ro with its macros expanded as Grafana does. Cold is the first time after
PostgreSQL has started (the kernel still has its files in memory), warm the median of five more. The images are those of
the tests: CARIFLEX_TEST_POSTGRES_IMAGE and CARIFLEX_TEST_FLEXMEASURES_IMAGE.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.integration.grafana.conftest import IMAGES, Server, declare, docker, expand, provisioned, wait

ROOT = Path(__file__).resolve().parent.parent
# what is shown -> how much time Grafana takes for a point on a screen of about 700
WINDOWS = {1: timedelta(minutes=5), 7: timedelta(minutes=15), 30: timedelta(hours=1)}
A_DAY = 30 * 288 + 10 * 96 * 96  # beliefs
EXTRA = """CREATE INDEX timed_belief_latest_idx ON timed_belief
  (sensor_id, event_start, belief_horizon, source_id) INCLUDE (event_value)"""
FILL = (
    """INSERT INTO timed_belief
       SELECT event, '0', 0.5, random() * 50, id, 1 FROM sensor,
         generate_series(date_trunc('day', now()) - %(days)s * interval '1 day', now(), event_resolution) event
       WHERE id BETWEEN 41 AND 87 OR name = 'site_load_power'""",
    """INSERT INTO timed_belief
       SELECT event, ahead * interval '15 minutes', 0.5, random() * 50, id, 3 FROM sensor,
         generate_series(date_trunc('day', now()) - %(days)s * interval '1 day', now(), interval '15 minutes') event,
         generate_series(0, 95) ahead
       WHERE name LIKE '%%_power_kw'""",
    """INSERT INTO ems.s2_status (resource, time, power_kw, connected)
       SELECT 'device_' || n, time, random() * 20, true FROM generate_series(1, 10) n,
         generate_series(now() - %(days)s * interval '1 day', now(), interval '1 minute') time""",
    """INSERT INTO ems.s2_instruction (instruction_id, resource, execution_time, power_kw, factor, mode, reason,
         event_ids, status, changed_at)
       SELECT gen_random_uuid(), 'device_' || n, time, 1, 0.5, 'charge', 'plan', '{}', 'SUCCEEDED', time
       FROM generate_series(1, 10) n,
         generate_series(now() - %(days)s * interval '1 day', now(), interval '15 minutes') time""",
    """INSERT INTO ems.openadr_event (ven, event_id, modification_number, signal, status, test_event, intervals,
         received_at, answered_at)
       SELECT 'ven', 'event ' || time, 0, 'ENERGY_PRICE', 'far', false, '[]', time, time
       FROM generate_series(now() - %(days)s * interval '1 day', now(), interval '1 hour') time""",
    """INSERT INTO ems.openadr_opt SELECT ven, event_id, 0, received_at, 'optIn', NULL FROM ems.openadr_event""",
    """INSERT INTO ems.schedule_run (id, started_at, trigger, status)
       SELECT gen_random_uuid(), time, 'rhythm', 'ok'
       FROM generate_series(now() - %(days)s * interval '1 day', now(), interval '15 minutes') time""",
    """INSERT INTO ems.health_sample (time, kind, name, status)
       SELECT time, kind, kind || n, 'ok' FROM (VALUES ('container'), ('queue'), ('certificate')) AS of (kind),
         generate_series(1, 5) n, generate_series(now() - interval '30 days', now(), interval '1 minute') time""",
)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=int, nargs="+", default=[10], help="of beliefs (default 10)")
    options = parser.parse_args()
    if missing := [name for name in IMAGES if not os.environ.get(name)]:
        sys.exit(f"Missing images: set {', '.join(missing)}")
    print(f"load average {os.getloadavg()[0]:.1f}")
    for millions in options.millions:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            with provisioned(Path(folder), "--volume", "/var/lib/postgresql/data", "--shm-size", "256m") as server:
                fill(server, millions)
                again = _measure(server, "FlexMeasures' indexes")
                _execute(again, EXTRA, "made the extra index")
                _measure(again, "with the extra index")


def _execute(server: Server, statement: str, told: str, **values: Any) -> None:
    began = time.monotonic()
    with server.connect("postgres") as connection:
        connection.autocommit = True
        connection.execute(statement.encode(), values or None)
    if told:
        print(f"{told} in {time.monotonic() - began:.0f} s", flush=True)


def fill(server: Server, millions: int) -> None:
    with server.connect("postgres") as connection:
        declare(connection)
        connection.commit()
    began = time.monotonic()
    with _without_indexes(server):
        for statement in FILL:
            _execute(server, statement, "", days=millions * 1_000_000 // A_DAY)
    _execute(server, "VACUUM ANALYZE", "")
    with server.connect("postgres") as connection:
        found = connection.execute(
            "SELECT count(*), pg_size_pretty(pg_total_relation_size('timed_belief')) FROM timed_belief"
        ).fetchone()
    count, size = found or (0, "")
    print(f"\n{count:,} beliefs, {size}, filled in {time.monotonic() - began:.0f} s", flush=True)


@contextmanager
def _without_indexes(server: Server) -> Iterator[None]:
    """Beliefs without FlexMeasures' indexes, which are made again when all are in: in a fifth of the time."""
    with server.connect("postgres") as connection:
        made = [
            row[0]
            for row in connection.execute(
                """SELECT format('ALTER TABLE timed_belief ADD CONSTRAINT %I %s', conname, pg_get_constraintdef(oid))
                   FROM pg_constraint WHERE conrelid = 'timed_belief'::regclass AND contype = 'p'
                   UNION ALL SELECT indexdef FROM pg_indexes
                   WHERE tablename = 'timed_belief' AND indexname <> 'timed_belief_pkey'"""
            )
        ]
        for (drop,) in connection.execute(
            """SELECT format('ALTER TABLE timed_belief DROP CONSTRAINT %I', conname)
               FROM pg_constraint WHERE conrelid = 'timed_belief'::regclass AND contype = 'p'
               UNION ALL SELECT format('DROP INDEX %I', indexname) FROM pg_indexes
               WHERE tablename = 'timed_belief' AND indexname <> 'timed_belief_pkey'"""
        ).fetchall():
            connection.execute(drop.encode())
    yield
    for statement in made:
        _execute(server, f"SET maintenance_work_mem = '512MB'; {statement}", "")


def _measure(server: Server, what: str) -> Server:
    """The server as it is reached afterwards: each start gives it another port."""
    dashboard = json.loads((ROOT / "files/grafana/dashboards/cariflex.json").read_text(encoding="utf-8"))
    print(f"\n{what}: milliseconds cold / warm")
    print("| Panel | " + " | ".join(f"{days} d" for days in WINDOWS) + " |\n|---|" + "---|" * len(WINDOWS))
    cells: dict[str, list[tuple[float, float]]] = {}
    for days, interval in WINDOWS.items():
        docker("restart", server.container)
        server = Server(server.container, _port(server), server.passwords, server.secrets)
        wait(server)
        with server.connect("grafana_ro") as connection:
            for panel in dashboard["panels"]:
                cells.setdefault(panel["title"], []).append(_time(connection, panel, days, interval))
    for title, times in cells.items():
        print(f"| {title} | " + " | ".join(f"{cold:.1f} / {warm:.1f}" for cold, warm in times) + " |")
    sums = [
        (sum(cold for cold, _ in column), sum(warm for _, warm in column))
        for column in zip(*cells.values(), strict=True)
    ]
    print("| all | " + " | ".join(f"{cold:.0f} / {warm:.0f}" for cold, warm in sums) + " |", flush=True)
    return server


def _port(server: Server) -> int:
    return int(docker("port", server.container, "5432/tcp").splitlines()[0].rpartition(":")[2])


def _time(
    connection: psycopg.Connection[Any], panel: dict[str, Any], days: int, interval: timedelta
) -> tuple[float, float]:
    shortest = timedelta(minutes=int(panel.get("interval", "1m").removesuffix("m")))
    end = datetime.now(UTC)
    sql = expand(panel["targets"][0]["rawSql"], end - timedelta(days=days), end, max(interval, shortest)).encode()
    times = []
    for _ in range(6):
        began = time.perf_counter()
        connection.execute(sql).fetchall()
        times.append(1000 * (time.perf_counter() - began))
    return times[0], statistics.median(times[1:])


if __name__ == "__main__":
    main()
