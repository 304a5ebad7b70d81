"""Start-up gate: ``python -m cariflex.fm_plugin.migrate [--wait] [--timeout SECONDS] [-- COMMAND …]``.

Brings the database to the schema of the installed FlexMeasures, fills in the rows FlexMeasures expects and makes our
own schema `ems` (`cariflex.ems`), once, however many containers start together; then becomes COMMAND. With ``--wait``
it only waits until that has been done.
When there is nothing to do it takes a fraction of a second, because it does not start FlexMeasures to find that out.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2

from cariflex.fm_plugin import configuration

# Any number that nothing else in this database takes ("fmschema" in ASCII).
_LOCK = 0x666D736368656D61
_PAUSE_SECONDS = 1.0
_OURS = Path(__file__).parents[1] / "ems"  # not below this package: FlexMeasures imports all that is


class Revisions(NamedTuple):
    """The schema's revisions that a FlexMeasures knows, and the newest of them: those that no other builds on."""

    known: frozenset[str]
    heads: frozenset[str]


def installed_revisions(versions: Path | None = None) -> Revisions:
    """The revisions of the installed FlexMeasures.

    Args:
        versions: folder with alembic's revision files; the installed FlexMeasures' by default.

    Raises:
        SystemExit: FlexMeasures is not installed here.
    """
    if versions is None:
        package = importlib.util.find_spec("flexmeasures")
        if package is None or package.origin is None:
            raise SystemExit("FlexMeasures is not installed in this environment.")
        versions = Path(package.origin).parent / "data" / "migrations" / "versions"
    known: set[str] = set()
    built_on: set[str] = set()
    for path in versions.glob("*.py"):
        names = _constants(ast.parse(path.read_bytes()))
        if "revision" not in names:
            continue  # the package itself
        known.add(names["revision"])
        before = names.get("down_revision") or ()
        built_on.update([before] if isinstance(before, str) else before)
    return Revisions(frozenset(known), frozenset(known - built_on))


def _constants(module: ast.Module) -> dict[str, Any]:
    """`revision` and `down_revision` of one file; executing 110 of them would take longer than everything else."""
    found = {}
    for node in module.body:
        match node:
            case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), _, ast.expr() as value):
                if name in ("revision", "down_revision"):
                    found[name] = ast.literal_eval(value)
    return found


def is_ready(connection: Any, revisions: Revisions) -> bool:
    """Whether the schema is the installed FlexMeasures' and its initial rows are there.

    Raises:
        SystemExit: the database was migrated by a newer FlexMeasures.
    """
    with connection.cursor() as cursor:
        if not _is_current(cursor, "alembic_version", revisions, "a newer FlexMeasures"):
            return False
        cursor.execute("SELECT EXISTS (SELECT FROM role WHERE name = 'admin')")
        return bool(cursor.fetchone()[0])


def is_ours_ready(connection: Any) -> bool:
    """Whether our own schema is this version's.

    Raises:
        SystemExit: the database was migrated by a newer version of ours.
    """
    with connection.cursor() as cursor:
        revisions = installed_revisions(_OURS / "versions")
        return _is_current(cursor, "ems.alembic_version", revisions, "a newer version of this system")


def _is_current(cursor: Any, table: str, revisions: Revisions, newer: str) -> bool:
    cursor.execute("SELECT to_regclass(%s)", (table,))
    if cursor.fetchone()[0] is None:
        return False
    cursor.execute(f"SELECT version_num FROM {table}")  # noqa: S608 - one of two names of ours
    recorded = frozenset(row[0] for row in cursor.fetchall())
    if unknown := recorded - revisions.known:
        raise SystemExit(
            f"The database was migrated by {newer} (revision {', '.join(sorted(unknown))}). "
            "Run that version's image, or restore a backup from before the upgrade."
        )
    return recorded == revisions.heads


@contextlib.contextmanager
def _connection(dsn: str, deadline: float) -> Iterator[Any]:
    """A connection in autocommit mode; waits for the database until the deadline."""
    connection, told = None, ""
    while connection is None:
        try:
            connection = psycopg2.connect(dsn, connect_timeout=5, application_name="flexmeasures-migrate")
        except psycopg2.OperationalError as error:
            reason = str(error).strip().splitlines()[0]
            if time.monotonic() > deadline:
                raise SystemExit(f"The database did not let us in in time: {reason}") from None
            if reason != told:
                _log(f"waiting for the database: {reason}")
            told = reason
            time.sleep(_PAUSE_SECONDS)
    connection.autocommit = True
    with contextlib.closing(connection):
        yield connection


def ensure(dsn: str, deadline: float, *, wait: bool) -> None:
    """Return when the database is ready; make it ready, unless only to wait.

    Raises:
        SystemExit: it did not become ready in time, cannot become ready, or the migration was of no use.
    """
    revisions = installed_revisions()
    with _connection(dsn, deadline) as connection:
        if is_ready(connection, revisions) and is_ours_ready(connection):
            return
        if wait:
            _log("waiting until the database is migrated")
            while not (is_ready(connection, revisions) and is_ours_ready(connection)):
                if time.monotonic() > deadline:
                    raise SystemExit("The database was not migrated in time: look at the log of flexmeasures-server.")
                time.sleep(_PAUSE_SECONDS)
            return
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))  # ends with the connection
        began = time.monotonic()
        if not is_ready(connection, revisions):  # else another container has done it meanwhile
            _log(f"migrating the database to {', '.join(sorted(revisions.heads))}")
            _upgrade()
            if not is_ready(connection, revisions):
                raise SystemExit(
                    "The migration ended without an error, but the database is not as FlexMeasures wants it."
                )
            _log(f"migrated in {time.monotonic() - began:.0f} s")
        if not is_ours_ready(connection):
            _log("migrating the schema ems")
            _upgrade_ours(dsn)


def _upgrade_ours(dsn: str) -> None:
    """Make our own tables, in one transaction."""
    import sqlalchemy
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_OURS))
    engine = sqlalchemy.create_engine("postgresql+psycopg2://", creator=lambda: psycopg2.connect(dsn))
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE SCHEMA IF NOT EXISTS ems"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()


def _upgrade() -> None:
    """Run FlexMeasures' own commands for schema and initial rows, in one process: starting it takes longest."""
    from flask.cli import ScriptInfo

    # FlexMeasures looks into its arguments for what it must not do yet (look into tables, complain about the schema).
    sys.argv = ["flexmeasures", "db", "upgrade"]
    from flexmeasures.app import create
    from flexmeasures.utils.app_utils import flexmeasures_cli

    app = create()
    # Its migrations put the address into an ini file, where a percent sign (of a quoted password) has to be doubled.
    app.config["SQLALCHEMY_DATABASE_URI"] = app.config["SQLALCHEMY_DATABASE_URI"].replace("%", "%%")
    for command in (["db", "upgrade"], ["add", "initial-structure"]):
        sys.argv = ["flexmeasures", *command]
        flexmeasures_cli.main(command, standalone_mode=False, obj=ScriptInfo(create_app=lambda: app))


def _log(message: str) -> None:
    print(f"flexmeasures-migrate: {message}", flush=True)


def main(arguments: list[str]) -> None:
    """The command line; does not return when a COMMAND is given."""
    parser = argparse.ArgumentParser(prog="python -m cariflex.fm_plugin.migrate", description=__doc__.splitlines()[0])
    parser.add_argument("--wait", action="store_true", help="only wait until another container has migrated")
    parser.add_argument("--timeout", type=float, default=180, metavar="SECONDS", help="how long to wait (180)")
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="what to become afterwards")
    given = parser.parse_args(arguments)
    dsn = configuration.database_dsn(configuration.load())
    try:
        ensure(dsn, time.monotonic() + given.timeout, wait=given.wait)
    except psycopg2.OperationalError as error:
        raise SystemExit(f"The database went away: {str(error).strip().splitlines()[0]}") from None
    if given.command:
        os.execvp(given.command[0], given.command)  # noqa: S606 - the operator's own command line


if __name__ == "__main__":
    main(sys.argv[1:])
