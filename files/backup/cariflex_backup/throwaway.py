"""Containers that live for one run: without network, and removed whatever happens."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cariflex_backup import loading
from cariflex_backup.commands import run
from cariflex_backup.database import Server
from cariflex_backup.errors import BackupError
from cariflex_backup.loading import LABEL, eventually
from cariflex_backup.mariadb import MariaDb

_START_SECONDS = 120


@contextmanager
def postgres(image: str, purpose: str) -> Iterator[Server]:
    """A PostgreSQL for data of no value: neither what it does nor how it is stored need survive anything."""
    # what it would log of statements that fail could hold data
    settings = ("fsync=off", "full_page_writes=off", "autovacuum=off", "log_min_error_statement=panic")
    command = ["postgres", *(word for setting in settings for word in ("-c", setting))]
    options = ["--user", "999:999", "--env", "POSTGRES_HOST_AUTH_METHOD=trust", "--shm-size", "256m"]
    with container([*options, image, *command], purpose) as name:
        server = Server(name)
        eventually(
            lambda: loading.ready(server),
            _START_SECONDS,
            lambda: f"The {purpose}'s PostgreSQL did not start: {log_of(name)}",
        )
        yield server


@contextmanager
def mariadb(image: str, database: str, purpose: str) -> Iterator[MariaDb]:
    """A MariaDB for data of no value."""
    command = ["mariadbd", "--innodb-flush-log-at-trx-commit=0"]
    options = ["--user", "999:999", "--env", "MARIADB_ALLOW_EMPTY_ROOT_PASSWORD=1"]
    options += ["--tmpfs", "/run/mysqld:uid=999,gid=999"]

    def ready() -> bool:
        # over TCP, which it does not listen to while it is being made
        try:
            run(["docker", "exec", name, "mariadb-admin", "ping", "--silent", "--host=127.0.0.1"])
        except BackupError:
            return False
        return True

    with container([*options, image, *command], purpose) as name:
        eventually(ready, _START_SECONDS, lambda: f"The {purpose}'s MariaDB did not start: {log_of(name)}")
        yield MariaDb(name, database)


@contextmanager
def container(arguments: Sequence[str], purpose: str) -> Iterator[str]:
    """A container; its name."""
    name = f"cariflex-{purpose}-{secrets.token_hex(4)}"
    safe = ["--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true", "--label", LABEL]
    try:
        run(
            ["docker", "run", "--detach", "--name", name, *safe, *arguments], what=f"starting the {purpose}'s container"
        )
        yield name
    finally:
        run(["docker", "rm", "--force", "--volumes", name], what=f"removing the {purpose}'s container")


def log_of(name: str) -> str:
    """The last lines that a container printed."""
    done = subprocess.run(["docker", "logs", "--tail", "3", name], capture_output=True, text=True, check=False)  # noqa: S603, S607 - a command of this package
    return " / ".join((done.stdout + done.stderr).strip().splitlines())
