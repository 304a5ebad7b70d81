"""Dumps back into a server: its roles, and each database under another name until it is known to be whole."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cariflex_backup.commands import run
from cariflex_backup.database import LOGGED_IN, Server, password_line
from cariflex_backup.errors import BackupError

RESTORED = "__restored"  # a database on its way in
BEFORE = "__before"  # one on its way out
# by this label what a killed run left is found
LABEL = "cariflex.restore"
_DUMPED_TO_DISK = 20  # bytes on the server's disk for each of a dump, where the manifest does not say it
_JOBS = max(2, min(4, os.cpu_count() or 2))
# indexes take most of the time; the swap's commit flushes what was written before it
_OPTIONS = "-c maintenance_work_mem=256MB -c synchronous_commit=off"
# what a dump says about the database itself; --create makes it list that too
_SHOW = """
pg_restore --create --list "$1" |
  grep -E '^[0-9]+; [0-9]+ [0-9]+ (DATABASE|DATABASE PROPERTIES|(ACL|COMMENT) - DATABASE) ' >/tmp/list &&
  exec pg_restore --create --file=- --use-list=/tmp/list "$1"
"""
_SWAP_TRIES = 10
# the superuser's password as the server itself was given it
_ASK = 'cat "${POSTGRES_PASSWORD_FILE:-/dev/null}"'
_AS_SUPERUSER = f'{LOGGED_IN} && exec "$@"'


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """How a database differs from its part of the manifest: tables, rows, hashes and migration heads."""
    problems = []
    of_then, of_now = expected["tables"], found["tables"]
    for table in sorted(of_then.keys() | of_now.keys()):
        if table not in of_now:
            problems.append(f"{table} is missing")
        elif table not in of_then:
            problems.append(f"{table} was not there")
        elif of_now[table]["rows"] != of_then[table]["rows"]:
            problems.append(f"{table} has {of_now[table]['rows']} rows and had {of_then[table]['rows']}")
        elif of_now[table]["hash"] != of_then[table]["hash"]:
            problems.append(f"{table} has as many rows, and others")
    heads = expected.get("migration_heads", {})
    for table in sorted(heads):
        if found.get("migration_heads", {}).get(table) != heads[table]:
            problems.append(f"the migrations in {table} are not at {heads[table]}")
    return problems


def disk_needed(databases: Mapping[str, Any]) -> int:
    """Bytes on a server's disk that restored databases take."""
    return sum(one.get("size") or one["bytes"] * _DUMPED_TO_DISK for one in databases.values())


def load_roles(server: Server, dump: Path) -> None:
    """Make the roles that are not there; those that are keep their passwords."""
    server.change("postgres", roles_script(dump.read_text(encoding="utf-8")), what="restoring the roles")


def roles_script(dump: str) -> str:
    """What pg_dumpall says about roles, for a server that may have some of them."""

    def unless_there(match: re.Match[str]) -> str:
        name = match[1][1:-1].replace('""', '"') if match[1].startswith('"') else match[1]
        literal = name.replace("'", "''")
        return (  # without gexec: pg_dumpall forbids psql's own commands in what it writes
            f"DO {tag} BEGIN IF to_regrole(quote_ident('{literal}')) IS NULL THEN CREATE ROLE {match[1]}; END IF; "
            f"END {tag};"
        )

    tag = f"$s{secrets.token_hex(8)}$"
    return re.sub(r'^CREATE ROLE ("(?:[^"]|"")+"|\S+);$', unless_there, dump, flags=re.MULTILINE)


def load(server: Server, dumps: Path, databases: Mapping[str, Any]) -> dict[str, list[str]]:
    """Restore databases under their names with RESTORED behind, beside those that are there.

    Args:
        dumps: the archive's folder `postgres`.
        databases: those of the manifest.

    Returns:
        Database -> how what was restored differs from the manifest.
    """
    found = {}
    for name, expected in databases.items():
        new = name + RESTORED
        drop(server, new)
        server.change("postgres", _definition(server, dumps, name, new), what=f"making the database {new}")
        options = [f"--jobs={_JOBS}", "--exit-on-error", "--host=127.0.0.1", "--username=postgres", f"--dbname={new}"]
        _in_client(server, dumps, ["pg_restore", *options, f"/dumps/{name}.dump"], f"restoring the database {name}")
        server.change(new, "ANALYZE;", what=f"analyzing the database {name}")  # a dump has no statistics
        found[name] = differences(expected, Server(server.container).fingerprint(new))
    return found


def swap(server: Server, databases: Mapping[str, Any]) -> None:
    """Put the restored databases in the place of those that are there, all of them or none."""
    there = names(server)
    statements = []
    for name in databases:
        if name in there:
            drop(server, name + BEFORE)  # of a run that was killed after its swap
            statements.append(f'ALTER DATABASE "{name}" RENAME TO "{name}{BEFORE}";')
        statements.append(f'ALTER DATABASE "{name}{RESTORED}" RENAME TO "{name}";')
    listed = ", ".join(f"'{name}{suffix}'" for name in databases for suffix in ("", RESTORED))
    # whoever is in a database keeps it from being renamed
    script = (
        "BEGIN; SELECT count(pg_terminate_backend(pid, 2000)) FROM pg_stat_activity"  # noqa: S608 - names of ours
        f" WHERE datname IN ({listed}) AND pid <> pg_backend_pid();\n{' '.join(statements)}\nCOMMIT;"
    )
    for left in reversed(range(_SWAP_TRIES)):
        try:
            server.change("postgres", script, what="putting the restored databases in place")
        except BackupError:
            if not left:
                raise
            time.sleep(0.5)
        else:
            return


def drop(server: Server, name: str) -> None:
    """Delete a database, whoever is in it."""
    server.change("postgres", f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE);', what=f"dropping the database {name}")


def names(server: Server) -> set[str]:
    """The databases that a server has."""
    return set(server.change("postgres", "SELECT datname FROM pg_database;", what="listing databases").splitlines())


def remove_leftovers() -> None:
    """End what a killed run left in the engine. Only with the lock held."""
    left = run(["docker", "ps", "--all", "--quiet", "--filter", f"label={LABEL}"], what="listing containers").split()
    if left:
        run(["docker", "rm", "--force", "--volumes", *(one.decode() for one in left)], what="removing containers")


def image_of(container: str) -> str:
    """The image of a container."""
    return (
        run(["docker", "inspect", "--format", "{{.Image}}", container], what=f"looking at {container}").decode().strip()
    )


def eventually(check: Callable[[], bool], seconds: float, problem: Callable[[], str]) -> None:
    """Wait until something holds.

    Raises:
        BackupError: it does not in time; with the problem.
    """
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise BackupError(problem())
        time.sleep(0.5)


def ready(server: Server) -> bool:
    """Whether a server takes connections over TCP: while it is being made it does so by its socket alone."""
    try:
        run(["docker", "exec", server.container, "pg_isready", "--quiet", "--host=127.0.0.1"])
    except BackupError:
        return False
    return True


def check_free(path: Path, need: int, what: str) -> None:
    """Refuse to begin what will not fit.

    Raises:
        BackupError: the disk has too little room.
    """
    free = shutil.disk_usage(path).free
    if free < need:
        raise BackupError(f"{path} has {free >> 20} MB free, and {what} takes {need >> 20} MB. Free some first.")


def _definition(server: Server, dumps: Path, name: str, new: str) -> str:
    """Statements that make a dump's database with its owner, locale, rights and settings, under another name."""
    said = _in_client(server, dumps, ["sh", "-c", _SHOW, "sh", f"/dumps/{name}.dump"], f"reading {name}.dump").decode()
    statements = renamed(said, name, new)
    if not statements.startswith("CREATE DATABASE"):
        raise BackupError(f"{name}.dump does not say how its database is made. Take another archive.")
    return statements


def renamed(script: str, name: str, new: str) -> str:
    """The statements about a database in a script, with another name of it; its owner may be called like it."""
    pattern = re.compile(rf'^(?!--|\\)(.*?\bDATABASE )("?){re.escape(name)}\2(?=[\s;])', re.MULTILINE)
    return "".join(pattern.sub(rf'\1"{new}"', line) + "\n" for line in script.splitlines() if pattern.match(line))


def _in_client(server: Server, dumps: Path, arguments: list[str], what: str) -> bytes:
    """Run one of PostgreSQL's programs beside the server, where it can read the dumps as files.

    Only from a file does pg_restore take several jobs, and the server's own container is not to be written to.
    """
    name = f"cariflex-restore-{secrets.token_hex(4)}"
    # only inside its own container the superuser needs none
    password = run(["docker", "exec", server.container, "sh", "-c", _ASK], what=f"asking {server.container}")
    return run(
        [
            *("docker", "run", "--rm", "--interactive", "--name", name, "--label", LABEL),
            *("--network", f"container:{server.container}", "--user", "0:0", "--read-only", "--tmpfs", "/tmp"),  # noqa: S108 - in the container
            *("--cap-drop", "ALL", "--security-opt", "no-new-privileges:true", "--volume", f"{dumps}:/dumps:ro"),
            *("--env", f"PGOPTIONS={_OPTIONS}", "--entrypoint", "sh"),
            *(image_of(server.container), "-c", _AS_SUPERUSER, "sh", *arguments),
        ],
        password_line(password.decode().strip()),
        what=what,
    )
