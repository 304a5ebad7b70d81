"""Receiving the log: PostgreSQL's own pg_receivewal beside the server, and what surrounds it.

The server keeps what was not received yet by a replication slot, up to its max_slot_wal_keep_size: so whatever is
killed loses nothing, and an archive that is full does not stop the database. Every few seconds a mark is written into
the log. Once it was received, all that was committed before it can be restored.
"""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cariflex_backup.commands import failed, run
from cariflex_backup.database import LOGGED_IN, Server, password_line
from cariflex_backup.errors import BackupError
from cariflex_backup.loading import image_of
from cariflex_backup.making import locked, reader, terminable
from cariflex_backup.moments import Mark, lsn_of
from cariflex_backup.runs import Run
from cariflex_backup.settings import Settings
from cariflex_backup.store import Store

SLOT = "cariflex_moments"
LABEL = "cariflex.archiver"
_MARK_SECONDS = 10
_ROW_SECONDS = 60
_RETRY_SECONDS = 5
_BASE_SECONDS = 900  # until a base that failed is tried again
_ROW = uuid.UUID("b9d3a1f4-5f57-4c3f-9f0e-6d6f6d656e74")
_RECEIVE = f'{LOGGED_IN} && exec nice -n 5 pg_receivewal "$@"'
_STATE = """
SELECT (SELECT system_identifier FROM pg_control_system()), left(pg_walfile_name(pg_current_wal_flush_lsn()), 8),
  coalesce((SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{slot}'), 'none');
"""
# the time comes first, so that the commit of the mark is later than it; then what was received is looked at
_MARK = """
SELECT clock_timestamp();
SELECT pg_logical_emit_message(true, 'cariflex', 'mark');
SELECT left(pg_walfile_name(pg_current_wal_flush_lsn()), 8) || ' ' || pg_current_wal_flush_lsn();
SELECT pg_sleep(0.5);
SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = '{slot}';
"""


def archive(settings: Settings) -> None:
    """Receive the log until told to stop; whatever fails is tried again.

    Where there is no base that the log belongs to, one is made: on a new cluster, after a restore, after a gap.
    """
    if settings.moments is None:
        raise BackupError("No moments are kept: set backup_moments, and deploy.")
    store = Store(settings.root, settings.recipients)
    store.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(store.folder), terminable("What was received is kept.", nice=False):
        bases = _Bases(store)
        try:
            while True:
                try:
                    _session(settings, store, bases)
                except (BackupError, OSError) as error:
                    print(f"cariflex-backup: {error}", file=sys.stderr, flush=True)
                    time.sleep(_RETRY_SECONDS)
        finally:
            bases.stop()


def forget(settings: Settings) -> None:
    """Take back what tells of the archive's age, once it is switched off."""
    sql = f"DELETE FROM ems.backup_run WHERE id = '{_ROW}';"  # noqa: S608 - a constant
    reader(settings).change("flexmeasures", sql, "forgetting the age of the log")


def _session(settings: Settings, store: Store, bases: _Bases) -> None:
    """As long as the server is there."""
    server = replace(reader(settings), application=LABEL)  # or a backup that begins would end its sessions
    system, timeline, status = server.ask("postgres", _STATE.format(slot=SLOT)).split("|")
    if status == "lost":
        print("cariflex-backup: the log has a gap: the server has removed what was not received", file=sys.stderr)
        server.ask("postgres", f"SELECT pg_drop_replication_slot('{SLOT}');")
    if status in ("lost", "none"):
        server.ask("postgres", f"SELECT pg_create_physical_replication_slot('{SLOT}', true);")
        bases.seen = None
    for path in store.receiving(system).glob("*.partial"):
        if status in ("lost", "none") or not path.name.startswith(timeline):
            path.rename(path.with_suffix(""))  # nothing will be added to it
    _watch(server)
    with _receiver(server, store.receiving(system)) as receiver:
        waiting: list[Mark] = []
        marked = told = 0.0
        while receiver.poll() is None:
            store.seal(system)
            if time.monotonic() - marked >= _MARK_SECONDS:
                marked = time.monotonic()
                mark, received = _mark(server, system)
                if mark.timeline != int(timeline, 16):
                    raise BackupError("The server has begun another timeline.")
                waiting.append(mark)
                there = [one for one in waiting if one.lsn <= received]
                if there:
                    store.note(there[-1])
                    waiting = waiting[len(there) :]
                    bases.look(system, mark.timeline)
                    if time.monotonic() - told >= _ROW_SECONDS:
                        told = time.monotonic()
                        row = Run(server, "backup_run", "wal", kind="wal", id=str(_ROW))
                        row.ended(finished_at=there[-1].time.isoformat(), error=None)
            time.sleep(1)
    store.seal(system)
    raise failed(["pg_receivewal"], receiver.returncode, _said(receiver), "receiving the log")


def _watch(server: Server) -> None:
    """From now on its age is alarmed, also when nothing is ever received."""
    columns, values = "id, started_at, status, archive, kind", f"'{_ROW}', now(), 'running', 'wal', 'wal'"
    sql = f"INSERT INTO ems.backup_run ({columns}) VALUES ({values}) ON CONFLICT DO NOTHING;"  # noqa: S608 - constants
    try:
        server.change("flexmeasures", sql, "having the age of the log watched")
    except BackupError as error:
        print(f"cariflex-backup: {error}", file=sys.stderr)


def _mark(server: Server, system: str) -> tuple[Mark, int]:
    """A mark, and up to where the log was received."""
    lines = [line for line in server.ask("postgres", _MARK.format(slot=SLOT)).splitlines() if line.strip()]
    at, (timeline, place), received = datetime.fromisoformat(lines[0]), lines[2].split(" "), lines[-1]
    return Mark(at.astimezone(UTC), system, int(timeline, 16), lsn_of(place)), lsn_of(received)


@contextmanager
def _receiver(server: Server, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """pg_receivewal in a container that shares the server's network; none survives its end."""
    remove(server, LABEL)
    options = ["--directory=/wal", f"--slot={SLOT}", "--synchronous", "--no-loop", "--no-password"]
    arguments = client(server, folder, "/wal", ["sh", "-c", _RECEIVE, "sh", *options, *as_reader(server)], LABEL)
    process = subprocess.Popen(  # noqa: S603 - of this package
        arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        if process.stdin:
            process.stdin.write(password_line(server.password).encode())
            process.stdin.close()
        yield process
    finally:
        remove(server, LABEL)
        while process.poll() is None:  # it had no container yet
            time.sleep(0.5)
            remove(server, LABEL)


def _said(process: subprocess.Popen[bytes]) -> bytes:
    return process.stderr.read() if process.stderr else b""


def as_reader(server: Server) -> list[str]:
    """How one of PostgreSQL's programs logs in."""
    return [f"--username={server.role}", "--host=127.0.0.1"]


def client(server: Server, folder: Path, place: str, arguments: list[str], label: str) -> list[str]:
    """The command of one of PostgreSQL's programs beside the server, with a folder that it writes to."""
    name = f"{label.replace('.', '-')}-{uuid.uuid4().hex[:8]}"
    return [
        *("docker", "run", "--rm", "--interactive", "--name", name, "--label", f"{label}={server.container}"),
        *("--network", f"container:{server.container}", "--user", "0:0", "--read-only", "--tmpfs", "/tmp"),  # noqa: S108 - in the container
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges:true", "--memory", "256m"),
        *("--volume", f"{folder}:{place}", "--entrypoint", arguments[0], image_of(server.container), *arguments[1:]),
    ]


def remove(server: Server, label: str) -> None:
    """End the containers of a label that are beside a server, as a killed run leaves them."""
    wanted = f"label={label}={server.container}"
    left = run(["docker", "ps", "--all", "--quiet", "--filter", wanted], what="listing containers").split()
    if left:
        run(["docker", "rm", "--force", "--volumes", *(one.decode() for one in left)], what="removing containers")


class _Bases:
    """Sees to it that the log has a base to stand on."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._making: subprocess.Popen[bytes] | None = None
        self._tried = -float(_BASE_SECONDS)
        self.seen: tuple[str, int] | None = None

    def look(self, system: str, timeline: int) -> None:
        """Have a base made where there is none that the log belongs to without a gap, beside receiving."""
        line = (system, timeline)
        if self.seen == line or (self._making and self._making.poll() is None):
            return
        whole = [one for one in self._store.ranges() if not one.missing]
        if any((one.base.system, one.base.timeline) == line for one in whole):
            self.seen, self._tried = line, -float(_BASE_SECONDS)
        elif time.monotonic() - self._tried >= _BASE_SECONDS:
            self._tried = time.monotonic()
            # the program that runs, with another verb
            command = [*sys.orig_argv[:-1], "base"]
            self._making = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # noqa: S603 - ourselves

    def stop(self) -> None:
        """End what is being made."""
        if self._making and self._making.poll() is None:
            self._making.terminate()
            self._making.wait()
