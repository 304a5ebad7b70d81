"""Runs of backups and drills in the schema ems, where Grafana's alerts look for them."""

from __future__ import annotations

import json
import secrets
import sys
import uuid
from datetime import UTC, datetime
from typing import Any

from cariflex_backup.database import Server
from cariflex_backup.errors import BackupError

_DATABASE = "flexmeasures"
_TYPES = {
    "id": "uuid",
    "started_at": "timestamptz",
    "finished_at": "timestamptz",
    "status": "text",
    "archive": "text",
    "bytes": "bigint",
    "seconds": "float8",
    "kind": "text",
    "differences": "int",
    "error": "text",
}


class Run:
    """One run: a row that says `running` until it has ended.

    What keeps a row from being stored is told and does not end the run: a backup is worth more than its row.
    """

    def __init__(self, server: Server, table: str, archive: str, **values: Any) -> None:
        """Begin one.

        Args:
            table: backup_run or drill_run.
        """
        self._server = server
        self._table = table
        self._row = {"id": str(uuid.uuid4()), "started_at": _now(), "status": "running", "archive": archive, **values}
        self._stored()

    def ended(self, **values: Any) -> None:
        """It has ended well."""
        self._row |= {"status": "ok", "finished_at": _now(), **values}
        self._stored()

    def failed(self, error: str, **values: Any) -> None:
        """It has failed."""
        self._row |= {"status": "failed", "finished_at": _now(), "error": error[:1000], **values}
        self._stored()

    def _stored(self) -> None:
        try:
            self._store()
        except BackupError as error:
            print(f"cariflex-backup: {error}", file=sys.stderr)

    def _store(self) -> None:
        tag = f"$s{secrets.token_hex(8)}$"
        names = ", ".join(self._row)
        columns = ", ".join(f"{name} {_TYPES[name]}" for name in self._row)
        updates = ", ".join(f"{name} = excluded.{name}" for name in self._row if name != "id")
        self._server.change(
            _DATABASE,
            "SET ROLE flexmeasures;\n"  # noqa: S608 - texts of others are within the tag, which nobody can guess
            f"INSERT INTO ems.{self._table} ({names}) SELECT {names}"
            f" FROM jsonb_to_record({tag}{json.dumps(self._row)}{tag}::jsonb) AS row ({columns})"
            f" ON CONFLICT (id) DO UPDATE SET {updates};",
            "storing the run in ems",
        )


def end_killed(server: Server, table: str, kind: str = "") -> None:
    """Say of runs that never ended that they failed. Called by who holds the lock: so none of them can be alive.

    Args:
        table: backup_run or drill_run.
        kind: of a backup.
    """
    of_kind = " AND kind = '" + kind + "'" if kind else ""
    try:
        server.change(
            _DATABASE,
            f"SET ROLE flexmeasures; UPDATE ems.{table} SET status = 'failed', finished_at = now(),"  # noqa: S608 - ours
            f" error = 'it was killed, or the host went down' WHERE status = 'running'{of_kind};",
            "looking for runs that never ended",
        )
    except BackupError as error:
        print(f"cariflex-backup: {error}", file=sys.stderr)


def end_restored(server: Server, stamp: str, archive: str, size: int, seconds: float) -> None:
    """Say of the backup that was restored that it went well: its own row was dumped while it was under way."""
    try:
        server.change(
            _DATABASE,
            f"SET ROLE flexmeasures; UPDATE ems.backup_run SET status = 'ok', archive = '{archive}', bytes = {size},"  # noqa: S608 - ours
            f" seconds = {seconds}, finished_at = started_at + {seconds} * interval '1 s'"
            f" WHERE status = 'running' AND kind = 'full' AND archive = '{stamp}';",
            "ending the row of the backup that was restored",
        )
    except BackupError as error:
        print(f"cariflex-backup: {error}", file=sys.stderr)


def _now() -> str:
    return datetime.now(UTC).isoformat()
