"""phpIPAM's MariaDB, where phpIPAM is deployed here: dumped in one state, loaded beside what is there, swapped.

Its root is whoever is root in its container, so no password is needed.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cariflex_backup.commands import failed, run
from cariflex_backup.errors import BackupError
from cariflex_backup.loading import BEFORE, RESTORED, differences

_STILL = b"SET lock_wait_timeout = 60;\nFLUSH TABLES WITH READ LOCK;\nSELECT 'still';\n"
_CLIENT = ("mariadb", "--batch", "--skip-column-names", "--raw", "--unbuffered", "--default-character-set=utf8mb4")
_DUMP = ("mariadb-dump", "--single-transaction", "--quick", "--hex-blob", "--default-character-set=utf8mb4")
_MADE = "CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci"
_LAST = b"-- Dump completed"


@dataclass(frozen=True)
class MariaDb:
    """A server, and the database of it that counts."""

    container: str
    database: str

    def ask(self, sql: str | bytes, what: str = "asking phpIPAM's database") -> str:
        """What a script answers; it ends at its first error."""
        return run([*self._exec(), *_CLIENT], sql, what=what).decode().strip()

    def version(self) -> str:
        """The server's version, without the packager's addition."""
        return self.ask("SELECT version();").partition("-")[0]

    def dump(self, target: Path) -> dict[str, Any]:
        """Dump the database, with the fingerprint of the very same state: for that long nobody writes.

        Raises:
            BackupError: it could not be dumped as a whole.
        """
        with self._still(), target.open("wb") as file:
            run([*self._exec(), *_DUMP, self.database], stdout=file, what="dumping phpIPAM's database")
            found = self.fingerprint(self.database)
        with target.open("rb") as file:
            file.seek(max(0, target.stat().st_size - 200))
            if _LAST not in file.read():
                raise BackupError("The dump of phpIPAM's database has no end.")
        return {"bytes": target.stat().st_size, "tables": found}

    def fingerprint(self, database: str) -> dict[str, Any]:
        """Of each table its rows and MariaDB's own checksum of them."""
        names = self._tables(database)
        if not names:
            return {}
        full = {name: f"{_quoted(database)}.{_quoted(name)}" for name in names}
        counts = " UNION ALL ".join(f"SELECT '{name}', count(*) FROM {full[name]}" for name in names)  # noqa: S608 - names of tables
        rows = dict(line.split("\t") for line in self.ask(f"{counts};").splitlines())
        lines = self.ask(f"CHECKSUM TABLE {', '.join(full.values())} EXTENDED;").splitlines()
        sums = dict(line.removeprefix(f"{database}.").split("\t") for line in lines)
        return {name: {"rows": int(rows[name]), "hash": sums[name]} for name in names}

    def load(self, dump: Path, expected: Mapping[str, Any]) -> list[str]:
        """Load a dump beside the database; how what was loaded differs from the manifest."""
        new = self.database + RESTORED
        begin = (
            f"DROP DATABASE IF EXISTS {_quoted(new)};\nCREATE DATABASE {_quoted(new)} {_MADE};\nUSE {_quoted(new)};\n"
        )
        self.ask(begin.encode() + dump.read_bytes(), "restoring phpIPAM's database")
        return differences(expected, {"tables": self.fingerprint(new)})

    def swap(self) -> None:
        """Put what was loaded in the place of what is there, which waits beside it. RENAME TABLE is all or nothing."""
        new, old = self.database + RESTORED, self.database + BEFORE
        moves = [(self.database, old, name) for name in self._tables(self.database)]
        moves += [(new, self.database, name) for name in self._tables(new)]
        renames = ", ".join(
            f"{_quoted(source)}.{_quoted(name)} TO {_quoted(target)}.{_quoted(name)}" for source, target, name in moves
        )
        self.ask(
            f"CREATE DATABASE IF NOT EXISTS {_quoted(self.database)} {_MADE};\n"
            f"DROP DATABASE IF EXISTS {_quoted(old)};\nCREATE DATABASE {_quoted(old)} {_MADE};\n"
            f"RENAME TABLE {renames};\nALTER DATABASE {_quoted(self.database)} COMMENT '';",
            "putting phpIPAM's database in place",
        )

    def forget(self) -> None:
        """Remove what lies beside the database."""
        names = (_quoted(self.database + suffix) for suffix in (RESTORED, BEFORE))
        self.ask("".join(f"DROP DATABASE IF EXISTS {name};" for name in names), "removing what was loaded")

    def _tables(self, database: str) -> list[str]:
        query = "SELECT table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE' AND table_schema = "
        return sorted(self.ask(f"{query}'{database}';").splitlines())

    def _exec(self) -> tuple[str, ...]:
        return ("docker", "exec", "--interactive", "--user", "0:0", self.container)

    @contextmanager
    def _still(self) -> Iterator[None]:
        """Nobody writes. However this ends, its client ends with it and lets them go on."""
        arguments = [*self._exec(), *_CLIENT]
        pipe = subprocess.PIPE
        with subprocess.Popen(arguments, stdin=pipe, stdout=pipe, stderr=pipe) as client:  # noqa: S603 - a command of this package
            try:
                if client.stdin and client.stdout:
                    client.stdin.write(_STILL)
                    client.stdin.flush()
                    if client.stdout.readline().strip() != b"still":
                        error = client.stderr.read() if client.stderr else b""
                        raise failed(arguments, client.wait(), error, "holding phpIPAM's database still")
                yield
            finally:
                if client.stdin:
                    client.stdin.close()


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
