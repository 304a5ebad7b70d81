"""Runs of backups and drills in the schema ems, where Grafana's alerts look for them."""

from __future__ import annotations

import json
import secrets
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
    """One run: a row that says `running` until it has ended."""

    def __init__(self, server: Server, table: str, archive: str, **values: Any) -> None:
        """Begin one.

        Args:
            table: backup_run or drill_run.

        Raises:
            BackupError: the database cannot be reached.
        """
        self._server = server
        self._table = table
        self._row = {"id": str(uuid.uuid4()), "started_at": _now(), "status": "running", "archive": archive, **values}
        self._store()

    def ended(self, **values: Any) -> None:
        """It has ended well."""
        self._row |= {"status": "ok", "finished_at": _now(), **values}
        self._store()

    def failed(self, error: str, **values: Any) -> None:
        """It has failed. What keeps that from being stored is not raised: it would hide the reason."""
        self._row |= {"status": "failed", "finished_at": _now(), "error": error[:1000], **values}
        try:
            self._store()
        except BackupError:
            return

    def _store(self) -> None:
        tag = f"$s{secrets.token_hex(8)}$"
        names = ", ".join(self._row)
        columns = ", ".join(f"{name} {_TYPES[name]}" for name in self._row)
        updates = ", ".join(f"{name} = excluded.{name}" for name in self._row if name != "id")
        self._server.change(
            _DATABASE,
            "SET ROLE flexmeasures;\n"  # noqa: S608 - texts of others are within the tag, which nobody can guess
            # a run that was killed has left its row behind
            f"UPDATE ems.{self._table} SET status = 'failed', finished_at = now(), error = 'it was killed'"
            f" WHERE status = 'running' AND started_at < now() - interval '1 day';\n"
            f"INSERT INTO ems.{self._table} ({names}) SELECT {names}"
            f" FROM jsonb_to_record({tag}{json.dumps(self._row)}{tag}::jsonb) AS row ({columns})"
            f" ON CONFLICT (id) DO UPDATE SET {updates};",
            "storing the run in ems",
        )


def _now() -> str:
    return datetime.now(UTC).isoformat()
