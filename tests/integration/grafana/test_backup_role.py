"""What the role cariflex_backup of a provisioned PostgreSQL may: everything that pg_dump reads, and nothing else."""

from typing import Any

import psycopg
import pytest

from tests.integration.grafana.conftest import docker

pytestmark = pytest.mark.docker

ROLE = "cariflex_backup"


@pytest.mark.parametrize("database", ["flexmeasures", "openadr"])
def test_the_role_dumps_a_whole_database(database: str, server: Any) -> None:
    dump = (
        f"PGPASSWORD=$(cat /run/secrets/{ROLE}_password) pg_dump --host=127.0.0.1 --username={ROLE} {database}"
        " | grep -c -e '^COPY' -e '^CREATE' -e '^SELECT pg_catalog.setval' || true"
    )
    statements = int(docker("exec", server.container, "sh", "-c", dump))
    assert statements > (100 if database == "flexmeasures" else -1)


def test_a_long_look_is_not_cut_off_like_a_dashboards(server: Any) -> None:
    with server.connect(ROLE) as connection:
        assert connection.execute("SHOW statement_timeout").fetchone() == ("1h",)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM timed_belief",
        "UPDATE fm_user SET password = 'x'",
        "CREATE TABLE mine (id int)",
        "CREATE ROLE mine",
        "ALTER SYSTEM SET log_connections = on",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY sensor TO PROGRAM 'id'",
    ],
)
def test_the_role_changes_nothing_and_leaves_the_database_for_nothing(statement: str, server: Any) -> None:
    with server.connect(ROLE) as connection:
        connection.autocommit = True
        connection.execute("SET default_transaction_read_only = off")  # a session may; the rights still refuse
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())


def test_the_role_has_no_more_than_reading(server: Any) -> None:
    with server.connect("postgres", "postgres") as connection:
        row = connection.execute(
            "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls FROM pg_roles WHERE rolname = %s",
            (ROLE,),
        ).fetchone()
    assert row == (False,)


def test_the_servers_files_are_copied_from_within_its_container_alone(server: Any) -> None:
    address = f"host=127.0.0.1 port={server.port} user={ROLE} password={server.passwords[ROLE]} replication=true"
    with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry for replication"):
        psycopg.connect(address)
    command = f"PGPASSWORD=$(cat /run/secrets/{ROLE}_password) psql -X -h 127.0.0.1 -U {ROLE} -At 'replication=true'"
    assert docker("exec", server.container, "sh", "-c", f"{command} -c 'SHOW wal_level'").strip() == "replica"


def test_the_role_enters_no_other_database(server: Any) -> None:
    with server.connect("postgres", "postgres") as connection:
        connection.autocommit = True
        connection.execute("CREATE DATABASE somebodys")
        connection.execute("REVOKE ALL ON DATABASE somebodys FROM PUBLIC")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        server.connect(ROLE, "somebodys")
