"""PostgreSQL 17 with FlexMeasures' own schema, provisioned by the role postgres' own scripts, with rows of every kind.

The schema is made by the FlexMeasures image, not read from a dump: a new FlexMeasures that drops or renames a column
turns these tests red on the day its version changes. Images come from CARIFLEX_TEST_POSTGRES_IMAGE and
CARIFLEX_TEST_FLEXMEASURES_IMAGE.
"""

import os
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jinja2
import psycopg
import pytest
import yaml

ROOT = Path(__file__).parents[3]
IMAGES = ("CARIFLEX_TEST_POSTGRES_IMAGE", "CARIFLEX_TEST_FLEXMEASURES_IMAGE")
SCRIPTS = ("provision.sql", "grants.sql")
TEMPLATES = ROOT / "roles/postgres/templates"
POSTGRES_USER = "999:999"  # as in the role's compose.yml, with our image and with the official one
FLEXMEASURES_USER = "10002:10002"
HOME = "/var/lib/flexmeasures"
RENDER = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), trim_blocks=True, autoescape=False)  # noqa: S701 - SQL, not HTML


def load(path: str) -> Any:
    """The content of one of the project's YAML files, its expressions unevaluated."""
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def docker(*arguments: str, seconds: float = 60) -> str:
    """Run a docker command; returns what it prints."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, f"docker {' '.join(arguments)}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@dataclass(frozen=True)
class Server:
    """A running PostgreSQL, reachable from this machine."""

    container: str
    port: int
    passwords: dict[str, str]
    secrets: Path

    def provision(self, script: str) -> str:
        """Run one of the role's scripts as the role does; returns the statements that were needed."""
        return docker(
            *("exec", self.container, "psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"),
            *("--set=ON_ERROR_STOP=1", "--set=preview=0", "--username=postgres", "--dbname=postgres"),
            f"--file=/etc/cariflex/{script}",
        ).strip()

    def connect(self, role: str, database: str = "flexmeasures") -> psycopg.Connection[tuple[Any, ...]]:
        """Log in over the network."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=role, password=self.passwords[role], dbname=database
        )


@contextmanager
def provisioned(folder: Path, *options: str, flexmeasures: bool = True) -> Iterator[Server]:
    """Roles and databases by provision.sql, tables by FlexMeasures and us, grants by grants.sql; removed afterwards.

    Args:
        folder: for settings and secrets.
        options: of PostgreSQL's container, with where its data lie.
        flexmeasures: whether FlexMeasures makes its tables too, which takes its time on a disk.
    """
    roles = load("playbooks/vars/wiring.yml")["postgres_roles"]
    passwords = {role: secrets.token_urlsafe(24) for role in ("postgres", *roles)}
    _write_files(folder, passwords)
    container = f"cariflex-test-grafana-{secrets.token_hex(4)}"
    try:
        docker(
            *("run", "--detach", "--name", container, "--publish", "127.0.0.1::5432", "--user", POSTGRES_USER),
            *("--env", "POSTGRES_PASSWORD_FILE=/run/secrets/postgres_superuser_password"),
            *("--volume", f"{folder}/conf:/etc/cariflex:ro", "--volume", f"{folder}/secrets:/run/secrets:ro"),
            *options,
            *(os.environ[IMAGES[0]], "postgres", "-c", "fsync=off", "-c", "autovacuum=off"),
        )
        port = int(docker("port", container, "5432/tcp").splitlines()[0].rpartition(":")[2])
        made = Server(container, port, passwords, folder / "secrets")
        wait(made)
        made.provision("provision.sql")
        _upgrade(made, flexmeasures=flexmeasures)
        made.provision("grants.sql")
        yield made
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", container], capture_output=True, timeout=60)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the rows of `_fill`."""
    missing = [name for name in IMAGES if not os.environ.get(name)]
    if missing:
        pytest.skip(f"no image to test with: set {', '.join(missing)}")
    in_memory = "/var/lib/postgresql/data:uid=999,gid=999,mode=0700"
    with provisioned(tmp_path_factory.mktemp("postgres"), "--tmpfs", in_memory) as made:
        with made.connect("postgres") as connection:
            _fill(connection)
        yield made


def _write_files(folder: Path, passwords: dict[str, str]) -> None:
    wiring = load("playbooks/vars/wiring.yml")
    defaults = load("roles/postgres/defaults/main.yml")
    variables = {**defaults, **{name: wiring[name] for name in wiring if name.startswith("postgres_")}}
    texts = {
        **{f"conf/{name}": RENDER.get_template(f"{name}.j2").render(variables) for name in SCRIPTS},
        **{f"secrets/{role}_password": password for role, password in passwords.items() if role != "postgres"},
        "secrets/postgres_superuser_password": passwords["postgres"],
    }
    for path, text in texts.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
        (folder / path).chmod(0o644)  # the container's user is another one
    for inner in (folder, folder / "conf", folder / "secrets"):
        inner.chmod(0o755)


def wait(server: Server) -> None:
    """Until the server takes connections over the network, which it does only after its initial scripts."""
    deadline = time.monotonic() + 60
    while True:
        try:
            server.connect("postgres", "postgres").close()
            return
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, docker("logs", server.container)
            time.sleep(0.2)


def _upgrade(server: Server, *, flexmeasures: bool) -> None:
    """FlexMeasures' own migrations, by its own command."""
    address = f"postgresql://flexmeasures:{server.passwords['flexmeasures']}@127.0.0.1:5432/flexmeasures"
    if flexmeasures:
        docker(
            *("run", "--rm", "--network", f"container:{server.container}", "--user", FLEXMEASURES_USER),
            *("--workdir", HOME, "--tmpfs", f"{HOME}:uid=10002,gid=10002", "--env", f"HOME={HOME}"),
            *("--env", f"SQLALCHEMY_DATABASE_URI={address}", "--env", "SECRET_KEY=none"),
            *("--env", "FLEXMEASURES_ENV=production", os.environ[IMAGES[1]], "flexmeasures", "db", "upgrade"),
            seconds=180,
        )
    ours = f"from cariflex.fm_plugin.migrate import _upgrade_ours; _upgrade_ours({address!r})"
    docker(
        *("run", "--rm", "--network", f"container:{server.container}", "--user", FLEXMEASURES_USER),
        *("--volume", f"{ROOT}/files/services/src:/plugin:ro", "--env", "PYTHONPATH=/plugin"),
        *(os.environ[IMAGES[1]], "python", "-c", ours),
    )


def _fill(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """The declared assets and sensors, and a day of beliefs up to now.

    A sensor's measured value is its own id; a signal's is the number of the quarter of an hour (0 to 3). On every event
    lie three beliefs that no panel may show: an older one (+1000), and newer ones by a forecaster (+2000) and a
    scheduler (+3000). The production price ends five hours ago.
    """
    declare(connection)
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO timed_belief
               SELECT event, kind.horizon, 0.5, kind.extra + CASE WHEN sensor.name LIKE '%signal'
                 THEN extract(minute FROM event)::int / 15 ELSE sensor.id END, sensor.id, kind.source
               FROM sensor
               CROSS JOIN LATERAL generate_series(
                 date_trunc('hour', now()) - interval '24 hours',
                 now() - CASE WHEN name = 'production_price' THEN interval '5 hours' ELSE '0' END,
                 event_resolution) event
               CROSS JOIN (VALUES (interval '0', 0, 1), ('1 hour', 1000, 1), ('-1 hour', 2000, 2), ('-1 hour', 3000, 3))
                 AS kind (horizon, extra, source)"""
        )
        for statement in OBSERVED:
            cursor.execute(statement.encode())
    connection.commit()


def declare(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """The declared assets and sensors, and a data source of each kind."""
    topology = load("playbooks/vars/topology.yml")["topology_declared"]
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO generic_asset_type (id, name) VALUES (1, 'any')")
        for number, asset in enumerate(topology["assets"], 1):
            cursor.execute(
                "INSERT INTO generic_asset (id, name, generic_asset_type_id, attributes) VALUES (%s, %s, 1, '{}')",
                (number, asset),
            )
        for name, sensor in topology["sensors"].items():
            cursor.execute(
                """INSERT INTO sensor (id, name, unit, timezone, event_resolution, generic_asset_id, attributes,
                     knowledge_horizon_fnc, knowledge_horizon_par)
                   SELECT %s, %s, %s, %s, %s, id, '{}', 'ex_post', '{}' FROM generic_asset WHERE name = %s""",
                (
                    *(sensor["id"], name, sensor["unit"], topology["site"]["timezone"]),
                    *(sensor["resolution"], sensor["asset"]),
                ),
            )
        cursor.execute(
            """INSERT INTO data_source (id, name, type) VALUES
                 (1, 'feed', 'user'), (2, 'forecaster', 'forecaster'), (3, 'scheduler', 'scheduler')"""
        )


# What our own services write. Two devices take 10 and 20 kW; everything else is well, and there is some of everything.
OBSERVED = (
    """INSERT INTO ems.s2_status (resource, time, power_kw, connected)
       SELECT name, time, kw, true FROM (VALUES ('battery_01', 10), ('ev_01', 20)) AS device (name, kw),
         generate_series(date_trunc('hour', now()) - interval '24 hours', now(), interval '1 minute') time""",
    """INSERT INTO ems.s2_instruction (instruction_id, resource, execution_time, power_kw, limit_kw, factor, mode,
         reason, event_ids, status, changed_at, sent_at, accepted_at)
       SELECT gen_random_uuid(), 'ev_01', time, 11, 22, 0.5, 'charge', 'plan', '{cap-1,cap-2}', 'SUCCEEDED', time,
         time - interval '3 seconds', time - interval '1 second'
       FROM generate_series(now() - interval '23 hours', now(), interval '1 hour') time""",
    """INSERT INTO ems.openadr_event (ven, event_id, modification_number, signal, status, test_event, starts_at,
         ends_at, intervals, received_at, answered_at)
       VALUES ('ven', 'cap-1', 0, 'LOAD_CONTROL', 'far', false, now(), now() + interval '1 hour', '[[3600, 50]]',
         now() - interval '2 hours', now() - interval '2 hours')""",
    """INSERT INTO ems.openadr_opt (ven, event_id, modification_number, time, opt_type, reason)
       VALUES ('ven', 'cap-1', 0, now() - interval '2 hours', 'optIn', NULL),
         ('ven', 'cap-1', 0, now() - interval '1 hour', 'optOut', 'maintenance')""",
    """INSERT INTO ems.schedule_run (id, started_at, finished_at, trigger, status, cost_eur, baseline_cost_eur,
         energy_kwh, baseline_energy_kwh, peak_kw, baseline_peak_kw)
       VALUES (gen_random_uuid(), now() - interval '10 minutes', now(), 'rhythm', 'ok', 8, 10, 95, 90, 40, 100)""",
    """INSERT INTO ems.health_sample (time, kind, name, status, cpu, memory_bytes, memory_limit_bytes, restarts,
         disk_used_fraction, certificate_days, outbox_age_seconds, waiting, failed)
       SELECT now() - minutes * interval '1 minute', kind, name, 'ok', 0.1, 1000, 4000, 0, disk, days, outbox, 0, 0
       FROM generate_series(0, 20000, 10) minutes, (VALUES
         ('container', 'openadr-vtn', NULL, NULL, NULL), ('container', 'openadr-ven', NULL, NULL, 0),
         ('container', 'flexmeasures-worker', NULL, NULL, NULL), ('host', 'host', 0.5, NULL, NULL),
         ('queue', 'scheduling', NULL, NULL, NULL), ('certificate', 'openadr-vtn', NULL, 90, NULL))
         AS sample (kind, name, disk, days, outbox)""",
    """INSERT INTO ems.backup_run (id, started_at, finished_at, status, archive, kind)
       VALUES (gen_random_uuid(), now() - interval '20 hours', now() - interval '20 hours', 'ok', 'a.tar', 'full')""",
    """INSERT INTO ems.drill_run (id, started_at, finished_at, status, archive, differences)
       VALUES (gen_random_uuid(), now() - interval '7 days', now() - interval '7 days', 'ok', 'a.tar', 0)""",
)


@pytest.fixture
def superuser(server: Server) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A transaction that is rolled back in the end."""
    with server.connect("postgres") as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def grafana_ro(server: Server) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection as Grafana makes it."""
    with server.connect("grafana_ro") as connection:
        yield connection
        connection.rollback()


# How Grafana's PostgreSQL datasource finds a macro, and what it makes of those that our queries use.
_MACRO = re.compile(r"\$([_a-zA-Z0-9]+)\(([^)]*)\)")


def expand(sql: str, start: datetime, end: datetime, interval: timedelta) -> str:
    """A query as Grafana sends it to the database.

    Args:
        sql: text with macros.
        start: begin of the time range.
        end: its end; inclusive, as Grafana has it.
        interval: what Grafana took for one point on the screen.

    Raises:
        ValueError: a macro that is not known here.
    """
    seconds = int(interval.total_seconds())

    def one(match: re.Match[str]) -> str:
        name, arguments = match[1], [argument.strip() for argument in match[2].split(",")]
        bounds = (f"'{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}'" for moment in (start, end))
        first, last = bounds
        if name == "__timeFilter":
            return f"{arguments[0]} BETWEEN {first} AND {last}"
        if name in ("__timeFrom", "__timeTo") and arguments == [""]:
            return first if name == "__timeFrom" else last
        if name == "__timeGroupAlias" and arguments[1] == f"{seconds}s":
            return f'floor(extract(epoch from {arguments[0]})/{seconds})*{seconds} AS "time"'
        raise ValueError(f"unknown macro: {match[0]}")

    numbered = sql.replace("$__interval_ms", str(1000 * seconds)).replace("$__interval", f"{seconds}s")
    expanded = _MACRO.sub(one, numbered)
    if "$__" in expanded:
        raise ValueError(f"a macro is left over: {expanded}")
    return expanded


@dataclass(frozen=True)
class Answer:
    """What the database answered to a panel: the names of the columns, and the rows."""

    columns: list[str]
    rows: list[tuple[Any, ...]]


Ask = Callable[..., Answer]


@pytest.fixture
def ask() -> Ask:
    """Run a panel's query on a connection, over the last 24 hours unless told otherwise."""

    def run(
        connection: psycopg.Connection[tuple[Any, ...]],
        panel: dict[str, Any],
        *,
        hours: float = 24,
        interval: timedelta | None = None,
    ) -> Answer:
        (target,) = panel["targets"]
        end = datetime.now(UTC)
        shortest = timedelta(minutes=int(panel.get("interval", "1m").removesuffix("m")))
        sql = expand(target["rawSql"], end - timedelta(hours=hours), end, interval or shortest)
        cursor = connection.execute(sql.encode())
        return Answer([column.name for column in cursor.description or ()], cursor.fetchall())

    return run
