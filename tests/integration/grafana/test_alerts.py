"""Every alert's query, as grafana_ro on a real database: rows that must fire, and rows that must not."""

from collections.abc import Callable
from typing import Any

import jinja2
import psycopg
import pytest

from tests.integration.grafana.conftest import load

pytestmark = pytest.mark.docker
Connection = psycopg.Connection[tuple[Any, ...]]

VARIABLES = load("roles/grafana/vars/main.yml")
ALERTS = {
    alert["uid"].removeprefix("cariflex-"): jinja2.Environment(autoescape=False)  # noqa: S701 - SQL, not HTML
    .from_string(alert["sql"])
    .render(VARIABLES | {"grafana_plan_every": "PT15M"})
    for alert in VARIABLES["_grafana_alerts"]
}


@pytest.fixture
def fires(superuser: Connection) -> Callable[..., set[str]]:
    """What an alert fires for, after some statements."""

    def run(alert: str, *statements: str) -> set[str]:
        for statement in statements:
            superuser.execute(statement.encode())
        superuser.execute("SET LOCAL ROLE grafana_ro")
        cursor = superuser.execute(ALERTS[alert].encode())
        assert [column.name for column in cursor.description or ()] == ["name", "value"]
        rows = cursor.fetchall()
        superuser.execute("RESET ROLE")
        assert rows != [], "no rows would mean no data"
        return {name for name, value in rows if value > 0}

    return run


Fires = Callable[..., set[str]]
LATER = "INSERT INTO ems.health_sample (time, kind, name, status, {}) VALUES (now() + interval '1 second', {})"


# production_price ends five hours ago in these rows, which are fewer than 13 intervals of an hour
@pytest.mark.parametrize("alert", ALERTS)
def test_nothing_fires_while_all_is_well(alert: str, fires: Fires) -> None:
    assert fires(alert) == set()


@pytest.mark.parametrize(
    ("alert", "statement", "names"),
    [
        (
            "stale-data",
            "DELETE FROM timed_belief WHERE sensor_id = 41 AND event_start > now() - interval '66 minutes'",
            {"pv_01_power"},
        ),
        (
            "stale-data",
            "DELETE FROM timed_belief WHERE sensor_id = 41 AND source_id = 1"
            " AND event_start > now() - interval '2 hours'",
            {"pv_01_power"},
        ),
        ("openadr-silent", LATER.format("cpu", "'container', 'openadr-ven', 'unhealthy', 0"), {"openadr-ven"}),
        (
            "openadr-silent",
            "DELETE FROM ems.health_sample WHERE name = 'openadr-vtn' AND time > now() - interval '6 minutes'",
            {"openadr-vtn"},
        ),
        (
            "worker-dead",
            LATER.format("cpu", "'container', 'flexmeasures-worker', 'exited', 0"),
            {"flexmeasures-worker"},
        ),
        (
            "worker-dead",
            "DELETE FROM ems.health_sample WHERE name = 'flexmeasures-worker'",
            {"flexmeasures-worker"},
        ),
        ("outbox-old", LATER.format("outbox_age_seconds", "'container', 'openadr-ven', 'ok', 301"), {"openadr-ven"}),
        (
            "outbox-old",
            LATER.format("outbox_age_seconds", "'container', 'cariflex-feeds', 'ok', 301"),
            {"cariflex-feeds"},
        ),
        ("disk-full", LATER.format("disk_used_fraction", "'host', 'host', 'ok', 0.91"), {"host"}),
        ("certificate-ends", LATER.format("certificate_days", "'certificate', 'vtn', 'ok', 19.9"), {"vtn"}),
        ("backup-missed", "UPDATE ems.backup_run SET started_at = now() - interval '27 hours'", {"backup_run"}),
        ("backup-missed", "UPDATE ems.backup_run SET status = 'failed'", {"backup_run"}),
        ("backup-missed", "UPDATE ems.backup_run SET kind = 'wal'", {"backup_run"}),
        ("drill-missed", "UPDATE ems.drill_run SET started_at = now() - interval '9 days'", {"drill_run"}),
        ("drill-missed", "UPDATE ems.drill_run SET differences = 1", {"drill_run"}),
        ("plan-missed", "UPDATE ems.schedule_run SET started_at = now() - interval '61 minutes'", {"schedule_run"}),
        ("plan-missed", "UPDATE ems.schedule_run SET status = 'failed'", {"schedule_run"}),
        (
            "wal-old",
            "UPDATE ems.backup_run SET kind = 'wal', archive = 'wal', finished_at = now() - interval '301 seconds'",
            {"wal archive"},
        ),
        ("backup-failed", "UPDATE ems.backup_run SET status = 'failed' WHERE kind = 'full'", {"backup"}),
        ("backup-failed", "UPDATE ems.backup_run SET status = 'failed', kind = 'wal'", {"base"}),
        ("backup-failed", "UPDATE ems.backup_run SET status = 'failed', kind = 'offsite'", {"copy elsewhere"}),
        ("backup-failed", "UPDATE ems.drill_run SET status = 'failed'", {"restore drill"}),
    ],
)
def test_what_is_wrong_fires(alert: str, statement: str, names: set[str], fires: Fires) -> None:
    assert fires(alert, statement) == names


@pytest.mark.parametrize(
    ("alert", "statement"),
    [
        ("stale-data", "DELETE FROM timed_belief WHERE sensor_id = 41 AND event_start > now() - interval '50 minutes'"),
        ("stale-data", "DELETE FROM timed_belief WHERE sensor_id = 41 AND source_id = 1"),  # never had any
        ("openadr-silent", LATER.format("cpu", "'container', 'openadr-vtn', 'starting', 0")),
        ("outbox-old", LATER.format("outbox_age_seconds", "'container', 'openadr-ven', 'ok', 299")),
        ("disk-full", LATER.format("disk_used_fraction", "'host', 'host', 'ok', 0.89")),
        ("certificate-ends", LATER.format("certificate_days", "'certificate', 'vtn', 'ok', 20.1")),
        ("backup-missed", "UPDATE ems.backup_run SET started_at = now() - interval '25 hours'"),
        ("drill-missed", "UPDATE ems.drill_run SET started_at = now() - interval '191 hours'"),
        ("plan-missed", "UPDATE ems.schedule_run SET started_at = now() - interval '59 minutes'"),
        (
            "wal-old",
            "UPDATE ems.backup_run SET kind = 'wal', archive = 'wal', finished_at = now() - interval '299 seconds'",
        ),
        ("backup-failed", "UPDATE ems.backup_run SET status = 'running'"),
    ],
)
def test_what_is_near_the_limit_does_not_fire(alert: str, statement: str, fires: Fires) -> None:
    assert fires(alert, statement) == set()


@pytest.mark.parametrize(
    ("alert", "table", "age"),
    [
        ("backup-missed", "backup_run", "1 day"),
        ("drill-missed", "drill_run", "1 day"),
        ("plan-missed", "schedule_run", "50 minutes"),
    ],
)
def test_a_young_host_has_missed_nothing_yet(alert: str, table: str, age: str, fires: Fires) -> None:
    nothing = f"DELETE FROM ems.{table}"  # noqa: S608 - one of three names
    assert fires(alert, nothing) == {table}
    young = f"DELETE FROM ems.health_sample WHERE time < now() - interval '{age}'"  # noqa: S608 - of the list
    assert fires(alert, young) == set()


def broken(superuser: Connection, error: type[psycopg.Error]) -> set[str]:
    """The alerts whose queries fail with this error for grafana_ro."""
    superuser.execute("SET LOCAL ROLE grafana_ro")
    found = set()
    for alert, sql in ALERTS.items():
        try:
            with superuser.transaction():
                superuser.execute(sql.encode())
        except error:
            found.add(alert)
    return found


SAMPLED = {"openadr-silent", "worker-dead", "outbox-old"}
MISSED = {"backup-missed", "drill-missed", "plan-missed"}


@pytest.mark.parametrize(
    ("table", "column", "alerts"),
    [
        ("timed_belief", "event_start", {"stale-data"}),
        ("timed_belief", "source_id", {"stale-data"}),
        ("data_source", "type", {"stale-data"}),
        ("sensor", "event_resolution", {"stale-data"}),
        ("ems.health_sample", "time", SAMPLED | MISSED | {"disk-full", "certificate-ends"}),
        ("ems.health_sample", "status", {"openadr-silent", "worker-dead"}),
        ("ems.health_sample", "outbox_age_seconds", {"outbox-old"}),
        ("ems.health_sample", "disk_used_fraction", {"disk-full"}),
        ("ems.health_sample", "certificate_days", {"certificate-ends"}),
        ("ems.backup_run", "kind", {"backup-missed", "backup-failed", "wal-old"}),
        ("ems.drill_run", "differences", {"drill-missed"}),
        ("ems.drill_run", "status", {"drill-missed", "backup-failed"}),
        ("ems.schedule_run", "started_at", {"plan-missed"}),
    ],
)
def test_a_column_that_is_dropped_is_noticed(table: str, column: str, alerts: set[str], superuser: Connection) -> None:
    superuser.execute(f"ALTER TABLE {table} DROP COLUMN {column} CASCADE".encode())
    assert broken(superuser, psycopg.errors.UndefinedColumn) == alerts


@pytest.mark.parametrize(
    ("table", "alerts"),
    [
        ("ems.health_sample", SAMPLED | MISSED | {"disk-full", "certificate-ends"}),
        ("ems.backup_run", {"backup-missed", "backup-failed", "wal-old"}),
        ("ems.drill_run", {"drill-missed", "backup-failed"}),
        ("ems.schedule_run", {"plan-missed"}),
    ],
)
def test_a_grant_that_is_missing_is_noticed(table: str, alerts: set[str], superuser: Connection) -> None:
    superuser.execute(f"REVOKE SELECT ON {table} FROM grafana_ro".encode())  # noqa: S608  of the list
    assert broken(superuser, psycopg.errors.InsufficientPrivilege) == alerts
