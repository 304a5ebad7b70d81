"""Making a backup, from the lock to the row that says it is done."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from cariflex_backup import archive
from cariflex_backup.archive import Archive
from cariflex_backup.commands import run as run_command
from cariflex_backup.database import Server
from cariflex_backup.errors import BackupError, StoppedError
from cariflex_backup.runs import Run, end_killed
from cariflex_backup.settings import Settings
from cariflex_backup.staging import stage

_RESERVE_BYTES = 256 << 20  # left free for everybody else
Follower = Callable[[Path, dict[str, Any]], None]


def reader(settings: Settings) -> Server:
    """The server, asked by the role that can do nothing but read.

    Raises:
        BackupError: its password cannot be read.
    """
    path = settings.database_password_file
    try:
        password = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise BackupError(
            f"{path} cannot be read ({error.strerror}). Run as root; deploy: playbooks/site.yml."
        ) from None
    return Server(settings.database_container, settings.database_role, password)


def make(settings: Settings, followers: tuple[Follower, ...] = ()) -> tuple[Archive, dict[str, Any]]:
    """Make one archive.

    Args:
        followers: called with the sealed folder and its manifest once the archive is there; a drill, a copy elsewhere.
            They record their own runs.

    Returns:
        The archive and its manifest.

    Raises:
        BackupError: it could not be made; nothing carries a final name, and the row in ems.backup_run says why. Or a
            follower failed: then the archive is there, and so are those of the other followers.
    """
    settings.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with terminable("Nothing was kept of this backup."), locked(settings.root):
        clean(settings.root)
        server = reader(settings)
        server.end_sessions()
        end_killed(server, "backup_run", "full")
        made_at = _free_stamp(settings.root)
        stamp = archive.stamp_of(made_at)
        began = time.monotonic()
        run = Run(server, "backup_run", stamp, kind="full")
        staging = settings.root / f".staging-{stamp}"
        try:
            with _cleaned(settings.root):
                try:
                    made, manifest = _made(settings, server, made_at, staging / stamp)
                except BaseException as error:
                    run.failed(str(error) or type(error).__name__)
                    raise
                size, seconds = made.path.stat().st_size, round(time.monotonic() - began, 1)
                run.ended(archive=made.path.name, bytes=size, seconds=seconds)
                _follow(followers, staging / stamp, manifest)
        except OSError as error:
            raise BackupError(f"{settings.root}: {error.strerror or error}. Nothing was kept of this backup.") from None
        return made, manifest


def _follow(followers: tuple[Follower, ...], folder: Path, manifest: dict[str, Any]) -> None:
    """Each of them, whatever becomes of the others."""
    problems = []
    for follow in followers:
        try:
            follow(folder, manifest)
        except BackupError as error:
            problems.append(str(error))
    if problems:
        raise BackupError(f"The archive {folder.name} was made. {' '.join(problems)}")


@contextmanager
def _cleaned(root: Path) -> Iterator[None]:
    """Whatever happens, only archives stay."""
    try:
        yield
    finally:
        clean(root)


def _made(settings: Settings, server: Server, made_at: datetime, folder: Path) -> tuple[Archive, dict[str, Any]]:
    began = time.monotonic()
    _check_space(settings, server)
    folder.parent.mkdir(mode=0o700)
    folder.mkdir(mode=0o700)
    found = asdict(stage(settings, server, folder))
    manifest = {
        "format": archive.FORMAT,
        "made_at": made_at.isoformat(),
        "host": platform.node(),
        "environment": settings.environment,
        "project_version": settings.project_version,
        "seconds": round(time.monotonic() - began, 1),
        **found,
    }
    archive.seal(folder, manifest)
    return archive.pack(folder, settings.root, settings.recipients), manifest


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """One at a time, whoever started it.

    Raises:
        BackupError: another one is under way.
    """
    with (root / ".lock").open("w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError(f"Another run uses {root} (fuser {root}/.lock shows which). Wait for its end.") from None
        yield


def clean(root: Path) -> None:
    """Remove what a run left that was killed. Only what has no final name, and only with the lock held."""
    for path in (*root.glob(".staging-*"), *root.glob(".unpacked-*")):
        shutil.rmtree(path, ignore_errors=True)
    for path in root.glob(".*.partial"):
        path.unlink()
    for path in root.glob("*.tar.gz*.sha256"):
        if not path.with_suffix("").exists():
            path.unlink()


def _check_space(settings: Settings, server: Server) -> None:
    """Room for the dumps and the archive, as the last one had them, or else as the databases have."""
    newest = next(iter(archive.archives(settings.root)), None)
    if newest:
        need = int(newest.path.stat().st_size * 1.5) * 2
    else:
        need = sum(server.sizes(settings.databases).values()) // 4 * 2
    need += _RESERVE_BYTES
    free = shutil.disk_usage(settings.root).free
    if free < need:
        raise BackupError(
            f"{settings.root} has {free >> 20} MB free, and a backup may need {need >> 20} MB. "
            "Free some, move backup_root to a larger disk, or keep fewer archives (backup_days)."
        )


def _free_stamp(root: Path) -> datetime:
    """A time whose name no archive has: after a clock was set back there may be one."""
    while True:
        now = datetime.now(UTC).replace(microsecond=0)
        if not list(root.glob(f"{archive.stamp_of(now)}.tar.gz*")):
            return now
        time.sleep(1)


@contextmanager
def terminable(state: str, *, nice: bool = True) -> Iterator[None]:
    """Let SIGTERM, as systemd sends it, end a run as an error does: with all cleaned up.

    Args:
        state: what is to be said of it then.
        nice: work with low priority.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.SIG_IGN)  # once is enough
        raise StoppedError(f"It was stopped ({signal.Signals(number).name}). {state}")

    before = {one: signal.signal(one, stop) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        if nice:
            os.nice(10)
            with suppress(BackupError):  # a kernel may not know such priorities
                run_command(["ionice", "--class", "3", "--pid", str(os.getpid())])
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
