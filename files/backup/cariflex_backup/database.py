"""PostgreSQL in its container: dumps, fingerprints of tables, and restoring.

Reading is done by a role that can do nothing else; its password goes through standard input. Restoring is done by the
superuser, who is let in from inside the container alone.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cariflex_backup.commands import failed, run
from cariflex_backup.errors import BackupError

# Values of these types are equal exactly when their hashes' input is; others are hashed as text.
_HASHED = (
    "bool, int2, int4, int8, float4, float8, numeric, text, varchar, bpchar, name, uuid, date, time, timestamp,"
    " timestamptz, interval, jsonb, bytea, inet, oid"
)
_TABLES = f"""
SELECT json_agg(json_build_array(n.nspname, c.relname, (
  SELECT string_agg(quote_ident(a.attname) || CASE
      WHEN t.typname = ANY (string_to_array('{_HASHED}', ', ')) THEN '' ELSE '::text' END, ', ' ORDER BY a.attnum)
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)) ORDER BY 1, 2)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
"""  # noqa: S608 - a constant
# by this name the sessions of a killed run are found
APPLICATION = "cariflex-backup"
# the password is the first line of standard input, as password_line makes it; PostgreSQL's programs find it in a file
# that has no name any more: so neither arguments nor environment show it, and a kill leaves nothing
LOGGED_IN = (
    'IFS= read -r line && file=$(mktemp -p /dev/shm) && printf "%s\\n" "$line" >"$file" && exec 3<"$file" && rm "$file"'
    " && export PGPASSFILE=/dev/fd/3"
)
_AS_READER = f'{LOGGED_IN} PGAPPNAME="$0" && exec nice -n 10 "$@"'
_PSQL = ("psql", "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1")


def password_line(password: str) -> str:
    """A line of a file of passwords as PostgreSQL's programs read it."""
    escaped = password.replace("\\", r"\\").replace(":", r"\:")
    return f"*:*:*:*:{escaped}\n"


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server in a container.

    Attributes:
        container: its name.
        role: who reads; empty for the superuser, as in a restored copy.
        password: the role's.
        application: by which its sessions are known.
    """

    container: str
    role: str = ""
    password: str = ""
    application: str = APPLICATION

    def command(self, arguments: Sequence[str]) -> tuple[list[str], str]:
        """A command in the container as the reading role, and what its standard input begins with."""
        enter = ["docker", "exec", "--interactive", self.container]
        if not self.role:
            return [*enter, *arguments, "--username=postgres"], ""
        reader = [*arguments, f"--username={self.role}", "--host=127.0.0.1", "--no-password"]
        return [*enter, "sh", "-c", _AS_READER, self.application, *reader], password_line(self.password)

    def ask(self, database: str, sql: str) -> str:
        """The result of a query of the reading role."""
        arguments, password = self.command([*_PSQL, database])
        return run(arguments, password + sql, what=f"asking the database {database}").decode().strip()

    def change(self, database: str, sql: str, what: str) -> str:
        """What the superuser is told to do."""
        arguments = ["docker", "exec", "--interactive", self.container, *_PSQL, "--username=postgres", database]
        return run(arguments, sql, what=what).decode().strip()

    def sizes(self, databases: Sequence[str]) -> dict[str, int]:
        """Bytes of each database on the server's disk.

        Raises:
            BackupError: one of them is not there.
        """
        found: dict[str, int] = json.loads(
            self.ask("postgres", "SELECT json_object_agg(datname, pg_database_size(oid)) FROM pg_database;")
        )
        if missing := [name for name in databases if name not in found]:
            raise BackupError(
                f"{self.container} has no database {' or '.join(missing)}, only {', '.join(sorted(found))}."
            )
        return {name: found[name] for name in databases}

    def end_sessions(self) -> None:
        """End what a killed run left in the server: docker exec does not take its command with it."""
        self.change(
            "postgres",
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"  # noqa: S608 - constants
            f" WHERE application_name = '{APPLICATION}' AND usename = '{self.role}';",
            "ending the sessions of an earlier run",
        )

    def version(self) -> str:
        """The server's version."""
        return self.ask("postgres", "SHOW server_version;")

    def globals(self) -> bytes:
        """SQL that makes the roles and their memberships, without passwords: those are in the secrets' files."""
        arguments, password = self.command(["pg_dumpall", "--globals-only", "--no-role-passwords"])
        return run(arguments, password, what="dumping the roles")

    def dump(self, database: str, target: Path) -> dict[str, Any]:
        """Dump one database, with the fingerprint of the very same state.

        Returns:
            `bytes` and `seconds` of the dump, `size` of the database on the disk, `lsn`, and what `fingerprint` gives.
        """
        began = time.monotonic()
        with self.session(database) as session:
            snapshot, lsn, size = session.ask(
                "SELECT pg_export_snapshot(), pg_current_wal_lsn(), pg_database_size(current_database());"
            ).split("|")
            arguments, password = self.command(
                ["pg_dump", "--format=custom", "--compress=zstd:3", f"--snapshot={snapshot}", database]
            )
            with target.open("wb") as file:
                dumping = subprocess.Popen(  # noqa: S603 - a command of this package
                    arguments, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.PIPE
                )
                try:
                    if dumping.stdin:
                        dumping.stdin.write(password.encode())
                        dumping.stdin.close()
                        dumping.stdin = None
                    found = session.fingerprint()  # on another core, while the dump is written
                    stderr = dumping.communicate()[1]
                finally:
                    dumping.kill()
                    dumping.wait()
        if dumping.returncode:
            raise failed(arguments, dumping.returncode, stderr, f"dumping the database {database}")
        seconds = round(time.monotonic() - began, 1)
        return {"bytes": target.stat().st_size, "size": int(size), "seconds": seconds, "lsn": lsn} | found

    def fingerprint(self, database: str) -> dict[str, Any]:
        """`migration_heads` and `tables`: of each its rows and a hash that does not depend on their order."""
        with self.session(database) as session:
            return session.fingerprint()

    @contextmanager
    def session(self, database: str, *, writing: bool = False) -> Iterator[Session]:
        """One transaction that sees one state; where it writes, one for each statement."""
        arguments, password = self.command([*_PSQL, database])
        process = subprocess.Popen(  # noqa: S603 - a command of this package
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
        )
        session = Session(process, database)
        try:
            session.say(password)
            session.say("SET timezone = 'UTC'; SET extra_float_digits = 1; SET bytea_output = 'hex';\n")
            session.say("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0;\n")
            if not writing:
                session.say("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\n")
            yield session
        finally:
            if process.stdin:
                process.stdin.close()
            process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream:
                    stream.close()


class Session:
    """A psql that is asked one thing after the other."""

    def __init__(self, process: subprocess.Popen[str], database: str) -> None:
        self._process = process
        self._database = database

    def say(self, text: str) -> None:
        """Send it something."""
        try:
            if self._process.stdin:
                self._process.stdin.write(text)
                self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def ask(self, sql: str) -> str:
        """The result of a query."""
        mark = f"mark-{secrets.token_hex(8)}"
        self.say(f"{sql}\n\\echo {mark}\n")
        lines: list[str] = []
        for line in self._process.stdout or ():
            if line.strip() == mark:
                return "\n".join(lines)
            lines.append(line.rstrip("\n"))
        raise self._ended()

    def fingerprint(self) -> dict[str, Any]:
        """See Server.fingerprint."""
        tables: dict[str, dict[str, Any]] = {}
        heads: dict[str, str] = {}
        for schema, table, columns in json.loads(self.ask(_TABLES + ";") or "null") or []:
            name = f"{_quoted(schema)}.{_quoted(table)}"
            row = f"hash_record_extended(ROW({columns or ''}), 0)"
            # a sum, in which two rows alike do not cancel each other out
            counted = self.ask(f"SELECT count(*), coalesce(sum({row}), 0) FROM {name};")  # noqa: S608 - quoted
            rows, digest = counted.split("|")
            tables[f"{schema}.{table}"] = {"rows": int(rows), "hash": digest}
            if table.startswith("alembic_version"):
                head = self.ask(f"SELECT string_agg(version_num, ' ' ORDER BY 1) FROM {name};")  # noqa: S608 - quoted
                heads[f"{schema}.{table}"] = head
        return {"migration_heads": heads, "tables": tables}

    def _ended(self) -> BackupError:
        self._process.wait()
        stderr = self._process.stderr.read() if self._process.stderr else ""
        return failed(["psql"], self._process.returncode, stderr.encode(), f"reading the database {self._database}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
