"""Making a base: a copy of the server's files, in full or of what has changed since the one before."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cariflex_backup.archive import stamp_of
from cariflex_backup.commands import run
from cariflex_backup.database import LOGGED_IN, Server, password_line
from cariflex_backup.errors import BackupError
from cariflex_backup.loading import check_free
from cariflex_backup.making import locked, reader
from cariflex_backup.moments import Base, bases_kept, chain, lsn_of, segments_kept
from cariflex_backup.runs import Run
from cariflex_backup.settings import Settings
from cariflex_backup.store import Store
from cariflex_backup.wal import as_reader, client, remove

LABEL = "cariflex.base"
MANIFEST = "backup_manifest"
_BASE = f'{LOGGED_IN} PGAPPNAME=cariflex-base && exec nice -n 10 pg_basebackup "$@"'
_OPTIONS = ("--pgdata=/base/out", "--format=tar", "--wal-method=none", "--checkpoint=fast", "--compress=client-zstd:3")
_RESERVE_BYTES = 256 << 20
_MARK_SECONDS = 120


def base(settings: Settings, *, full: bool = False) -> dict[str, Any]:
    """Make a base, then remove what no moment needs any longer.

    Args:
        full: of everything, also where what has changed would do.

    Raises:
        BackupError: it could not be made, and nothing was removed; the row in ems.backup_run says why.
    """
    if settings.moments is None:
        raise BackupError("No moments are kept: set backup_moments, and deploy.")
    began = time.monotonic()
    store = Store(settings.root, settings.recipients)
    making = store.folder / ".making"
    making.mkdir(mode=0o700, parents=True, exist_ok=True)
    server = reader(settings)
    with locked(making), _cleaned(server, making):
        stamp = stamp_of(datetime.now(UTC))
        run_ = Run(server, "backup_run", f"base {stamp}", kind="wal")
        try:
            made = _made(settings, server, store, making / stamp, full)
            removed = _pruned(store, settings.moments.days)
        except BaseException as error:
            run_.failed(str(error) or type(error).__name__)
            raise
        folder = store.folder_of(made)
        size = sum(path.stat().st_size for path in folder.iterdir())
        seconds = round(time.monotonic() - began, 1)
        kind = "incremental" if made.parent else "full"
        run_.ended(archive=f"{kind} base {stamp}", bytes=size, seconds=seconds)
    return {"base": folder, "kind": kind, "bytes": size, "seconds": seconds, "removed": removed}


@contextmanager
def _cleaned(server: Server, making: Path) -> Iterator[None]:
    """Nothing half-made stays, neither of this run nor of one that was killed."""
    _clean(server, making)
    try:
        yield
    finally:
        _clean(server, making)


def _clean(server: Server, making: Path) -> None:
    remove(server, LABEL)
    for path in making.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def _made(settings: Settings, server: Server, store: Store, staging: Path, full: bool) -> Base:
    system, timeline, size = server.ask(
        "postgres",
        "SELECT system_identifier, left(pg_walfile_name(pg_current_wal_flush_lsn()), 8),"
        " (SELECT sum(pg_database_size(oid)) FROM pg_database) FROM pg_control_system();",
    ).split("|")
    line = (system, int(timeline, 16))
    if not any((mark.system, mark.timeline) == line for mark in store.marks()):
        raise BackupError("The log is not received yet, and without it a base is worth nothing: see cariflex-archiver.")
    parent = None if full else _parent(settings, store, line)
    check_free(store.folder, (int(size) // (20 if parent else 3)) + _RESERVE_BYTES, "a base")
    staging.mkdir(mode=0o700)
    try:
        _copied(server, store, staging, parent)
    except BackupError:
        if parent is None:
            raise
        parent = None  # the server no longer knows what has changed since
        shutil.rmtree(staging)
        staging.mkdir(mode=0o700)
        _copied(server, store, staging, None)
    ready, version = server.ask("postgres", "SELECT clock_timestamp(), current_setting('server_version');").split("|")
    manifest = json.loads((staging / "out" / MANIFEST).read_text(encoding="utf-8"))
    wal = manifest["WAL-Ranges"]
    if len(wal) != 1:
        raise BackupError("The server began another timeline while the base was made. Run it again.")
    made = Base(
        stamp=staging.name,
        system=system,
        timeline=wal[0]["Timeline"],
        start=lsn_of(wal[0]["Start-LSN"]),
        end=lsn_of(wal[0]["End-LSN"]),
        ready=datetime.fromisoformat(ready).astimezone(UTC),
        parent=parent.stamp if parent else "",
        environment=settings.environment,
        version=version,
        size=sum(file["Size"] for file in manifest["Files"]),
    )
    store.keep(made, staging / "out")
    _await_log(store, made)
    return made


def _parent(settings: Settings, store: Store, line: tuple[str, int]) -> Base | None:
    """The base that what has changed is told from: none when a full one is due, or the log has a gap."""
    days = settings.moments.full_days if settings.moments else 0
    there = [one for one in store.ranges() if (one.base.system, one.base.timeline) == line and not one.missing]
    if not there:
        return None
    newest = max((one.base for one in there), key=lambda one: one.ready)
    full = chain(newest, store.bases())[0]
    due = full.ready + timedelta(days=days) - timedelta(hours=6)
    return newest if datetime.now(UTC) < due else None


def _copied(server: Server, store: Store, staging: Path, parent: Base | None) -> None:
    options = list(_OPTIONS)
    if parent:
        shutil.copyfile(store.folder_of(parent) / MANIFEST, staging / "parent")
        options.append("--incremental=/base/parent")
    arguments = ["sh", "-c", _BASE, "sh", *options, *as_reader(server), "--no-password"]
    run(client(server, staging, "/base", arguments, LABEL), password_line(server.password), what="making a base")


def _await_log(store: Store, made: Base) -> None:
    deadline = time.monotonic() + _MARK_SECONDS
    while not any(one.base == made for one in store.ranges()):
        if time.monotonic() > deadline:
            raise BackupError(
                f"The base {made.stamp} was made, but the log that belongs to it has not come within "
                f"{_MARK_SECONDS} s: see cariflex-archiver."
            )
        time.sleep(1)


def _pruned(store: Store, days: int) -> list[str]:
    there = store.bases()
    kept = bases_kept(there, days, datetime.now(UTC))
    segments = store.segments()
    going = [one for one in there if one not in kept]
    store.remove(going, segments - segments_kept(segments, kept))
    return [one.stamp for one in going]
