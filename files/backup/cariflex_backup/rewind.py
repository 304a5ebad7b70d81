"""Restoring the database as it was at a moment: a base, and the log up to there.

As with an archive, all of it is prepared beside what is there: the server's files in a folder next to the volume's,
where a PostgreSQL of its own goes through the log and every table is read. Then the services are stopped and the
folders swapped.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cariflex_backup import loading
from cariflex_backup.bases import MANIFEST
from cariflex_backup.commands import failed, run
from cariflex_backup.database import Server
from cariflex_backup.errors import BackupError, StoppedError
from cariflex_backup.loading import LABEL, check_free, eventually, image_of
from cariflex_backup.making import clean, locked, terminable
from cariflex_backup.moments import Base, Range, chain, chosen, log_needed, merged, moment_of
from cariflex_backup.restore import Place, await_health, inspected, mountpoint, stopped, swap, users_of
from cariflex_backup.settings import Settings
from cariflex_backup.store import Store

_DATA = "/var/lib/postgresql/data"
_OWNER = 999  # as in the image, and in the official one
_RESERVE_BYTES = 256 << 20
_START_SECONDS = 120
_REPLAY_SECONDS = 6 * 3600
_RECOVERY = (
    *("-c", "hot_standby=off", "-c", "recovery_target_action=promote", "-c", "recovery_target_timeline=current"),
    *("-c", 'restore_command=cp /wal/%f "%p"', "-c", "archive_mode=off", "-c", "autovacuum=off"),
    *("-c", "shared_buffers=256MB", "-c", "max_wal_size=4GB", "-c", "wal_sync_method=fdatasync"),
)


@dataclass(frozen=True)
class Moment:
    """What an operator wants.

    Attributes:
        moment: as typed.
        identity: age's secret key, for an encrypted archive.
        confirmed: the environment whose data may be overwritten, as the operator typed it.
    """

    moment: str
    identity: str
    confirmed: str


def moments(settings: Settings) -> dict[str, Any]:
    """What can be restored: `ranges` of moments, and the `age_seconds` of the log that the archive has."""
    there = Store(settings.root, settings.recipients).ranges()
    told: dict[str, Any] = {
        "moments": [f"{begin.isoformat()} to {end.isoformat()}" for begin, end in merged(there)],
        "age_seconds": None,
        "gaps": sorted({one.missing for one in there if one.missing}),
    }
    if there:
        newest = max(one.end for one in there)
        told["age_seconds"] = round((datetime.now(UTC) - newest).total_seconds(), 1)
    return told


def rewind(settings: Settings, order: Moment) -> dict[str, Any]:
    """Restore all databases as they were at a moment.

    Returns:
        `moment`, `base`, `segments` of the log, `tables`, `rows`, and the seconds that it took.

    Raises:
        BackupError: it was refused or failed, and the data are as they were.
    """
    began = time.monotonic()
    moment = moment_of(order.moment, datetime.now(UTC))
    settings.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with terminable("Run it again: it begins anew.", nice=False), locked(settings.root):
        clean(settings.root)
        loading.remove_leftovers()
        place = _place(settings)
        _settle(place)
        store = Store(settings.root, settings.recipients)
        one = chosen(moment, store.ranges())
        _check(settings, order, store, one, place)
        try:
            segments, counted = _prepared(settings, store, one, moment, order.identity, place)
            without = _swapped(settings, place)
        finally:
            for path in (place.new, _work(place)):
                shutil.rmtree(path, ignore_errors=True)
    return {
        "moment": moment.isoformat(),
        "base": one.base.stamp,
        "segments": segments,
        **counted,
        "seconds": round(time.monotonic() - began, 1),
        "seconds_without_service": round(without, 1),
    }


def _place(settings: Settings) -> Place:
    """Where the server has its files: a volume."""
    found = inspected([settings.database_container])
    if not found:
        raise BackupError(
            f"There is no container {settings.database_container}. Deploy the host first: playbooks/site.yml."
        )
    (mount,) = [one for one in found[0]["Mounts"] if one["Destination"] == _DATA]
    return Place("postgres", Path(), mountpoint(mount["Name"]))


def _settle(place: Place) -> None:
    """Put back what a run that was killed within its swap had put aside."""
    if place.old.exists() and not place.path.exists():
        place.old.rename(place.path)
    for path in (place.new, _work(place)):
        shutil.rmtree(path, ignore_errors=True)


def _work(place: Place) -> Path:
    return place.path.with_name("_moment__restored")


def _check(settings: Settings, order: Moment, store: Store, one: Range, place: Place) -> None:
    base = one.base
    if base.environment != settings.environment:
        raise BackupError(
            f"That moment is of {base.environment}, and this host is of {settings.environment}. Data of people leave "
            "their environment anonymized only."
        )
    image = image_of(settings.database_container)
    said = run(["docker", "run", "--rm", "--network", "none", "--entrypoint", "postgres", image, "--version"])
    now = said.decode().split()[2]
    if base.version.split(".")[0] != now.split(".")[0]:
        raise BackupError(
            f"That moment is of PostgreSQL {base.version}, and {settings.database_container} is {now}. "
            "Restore an archive."
        )
    for path in store.folder_of(base).glob("*.age"):
        with store.opened(path, order.identity) as file:  # does the key fit?
            file.read(1)
    links = chain(base, store.bases())
    check_free(place.path.parent, base.size * (1 if len(links) == 1 else 3) + _RESERVE_BYTES, "restoring a moment")
    if order.confirmed != settings.environment:
        raise BackupError(
            f"{order.moment} can be restored. That puts the databases of {settings.environment} back to it, and what "
            "came later is lost. Nothing was changed yet; to go on, say so: "
            f"--confirm {settings.environment} (playbook: -e restore_confirm={settings.environment})."
        )


# --- beside what is there ---


def _prepared(
    settings: Settings, store: Store, one: Range, moment: datetime, identity: str, place: Place
) -> tuple[int, dict[str, int]]:
    """The server's files as they were, never used but to be looked at; segments, and what was counted."""
    image = image_of(settings.database_container)
    work = _work(place)
    for path in (work, work / "wal"):
        _folder(path)
    needed = log_needed(one.base, moment, store.marks())
    check_free(work, (len(needed) << 24) + _RESERVE_BYTES, "the log")
    with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        names = [*needed, *store.histories(one.base.system)]
        list(pool.map(lambda name: store.segment_into(one.base.system, name, work / "wal", identity), names))
    for path in (work / "wal").iterdir():
        os.chown(path, _OWNER, _OWNER)
    _files(store, chain(one.base, store.bases()), image, identity, place)
    return len(needed), _replayed(settings, image, moment, place)


def _folder(path: Path) -> None:
    path.mkdir(mode=0o700)
    os.chown(path, _OWNER, _OWNER)


def _files(store: Store, links: list[Base], image: str, identity: str, place: Place) -> None:
    """Unpack the bases, put them together and check every file."""
    work = _work(place)
    single = len(links) == 1
    folders = [place.new] if single else [work / str(number) for number in range(len(links))]
    for base, folder in zip(links, folders, strict=True):
        _folder(folder)
        for path in store.folder_of(base).glob("*.tar.zst*"):
            _unpacked(store, path, image, identity, folder)
        shutil.copyfile(store.folder_of(base) / MANIFEST, folder / MANIFEST)
        os.chown(folder / MANIFEST, _OWNER, _OWNER)
    if not single:
        _folder(place.new)
        names = [f"/bases/{folder.name}" for folder in folders]
        mounts = ["--volume", f"{work}:/bases", "--volume", f"{place.new}:{_DATA}"]
        _tool(image, mounts, ["pg_combinebackup", "--no-sync", "--output", _DATA, *names], "putting the bases together")
        for folder in folders:
            shutil.rmtree(folder)
    verify = ["pg_verifybackup", "--quiet", "--no-parse-wal", _DATA]
    _tool(image, ["--volume", f"{place.new}:{_DATA}"], verify, "checking the files of the base")


def _unpacked(store: Store, path: Path, image: str, identity: str, folder: Path) -> None:
    script = "set -o pipefail; zstd --decompress --quiet --stdout | tar --extract --directory /out"
    arguments = _run_in(image, ["--interactive", "--volume", f"{folder}:/out"], ["bash", "-c", script])
    with store.opened(path, identity) as file:
        done = subprocess.run(arguments, stdin=file, capture_output=True, check=False)  # noqa: S603 - of this package
    if done.returncode:
        raise failed(arguments, done.returncode, done.stderr, f"unpacking {path}")


def _tool(image: str, mounts: list[str], arguments: list[str], what: str) -> None:
    run(_run_in(image, mounts, arguments), what=what)


def _run_in(image: str, options: list[str], arguments: list[str]) -> list[str]:
    return ["docker", "run", "--rm", *_safe(), *options, "--entrypoint", arguments[0], image, *arguments[1:]]


def _safe() -> list[str]:
    return [
        *("--name", f"cariflex-moment-{secrets.token_hex(4)}", "--label", LABEL, "--network", "none"),
        *("--user", f"{_OWNER}:{_OWNER}", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"),
        *("--read-only", "--tmpfs", "/tmp", "--tmpfs", f"/run/postgresql:uid={_OWNER},gid={_OWNER},mode=3775"),  # noqa: S108 - in the container
    ]


def _replayed(settings: Settings, image: str, moment: datetime, place: Place) -> dict[str, int]:
    """Have a PostgreSQL go through the log up to the moment, read everything, and end it cleanly."""
    (place.new / "recovery.signal").touch(mode=0o600)
    os.chown(place.new / "recovery.signal", _OWNER, _OWNER)
    mounts = ["--volume", f"{place.new}:{_DATA}", "--volume", f"{_work(place)}/wal:/wal:ro", "--shm-size", "256m"]
    # the server's own settings stand elsewhere, and nobody else comes in: there is no network
    target = f"recovery_target_time={moment.isoformat(sep=' ')}"
    command = ["-D", _DATA, "-c", "listen_addresses=127.0.0.1", "-c", target, *_RECOVERY]
    with _running(_safe(), mounts, image, command) as name:
        server = Server(name)

        def done() -> bool:
            if not inspected([name])[0]["State"]["Running"]:
                raise BackupError(f"PostgreSQL could not go through the log: {_log(name)}. The data are as they were.")
            try:
                return server.ask("postgres", "SELECT pg_is_in_recovery();") == "f"
            except BackupError:
                return False

        eventually(done, _REPLAY_SECONDS, lambda: f"PostgreSQL does not come to the moment: {_log(name)}")
        tables = [table for database in settings.databases for table in server.fingerprint(database)["tables"].values()]
        run(["docker", "stop", "--time", "300", name], what="ending the restored PostgreSQL")
        code = inspected([name])[0]["State"]["ExitCode"]
        if code:
            raise BackupError(f"The restored PostgreSQL did not end well ({code}): {_log(name)}")
    return {"tables": len(tables), "rows": sum(table["rows"] for table in tables)}


@contextmanager
def _running(safe: list[str], options: list[str], image: str, command: list[str]) -> Iterator[str]:
    name = safe[safe.index("--name") + 1]
    arguments = ["docker", "run", "--detach", *safe, *options, "--entrypoint", "postgres", image, *command]
    try:
        run(arguments, what="starting a PostgreSQL for the log")
        yield name
    finally:
        run(["docker", "rm", "--force", "--volumes", name], what="removing the PostgreSQL for the log")


def _log(name: str) -> str:
    done = subprocess.run(["docker", "logs", "--tail", "4", name], capture_output=True, text=True, check=False)  # noqa: S603, S607 - a command of this package
    return " / ".join((done.stdout + done.stderr).strip().splitlines())


# --- in its place ---


def _swapped(settings: Settings, place: Place) -> float:
    """Put the prepared files in the place of those that are there; the seconds without service."""
    server = Server(settings.database_container)
    users = users_of(settings, ("postgres",), [])
    began = time.monotonic()
    with stopped(users):
        run(["docker", "stop", "--time", "120", server.container], what=f"stopping {server.container}")
        try:
            swap(place)
            _started(server)
        except (BackupError, StoppedError):
            run(["docker", "stop", "--time", "30", server.container], what=f"stopping {server.container}")
            if place.old.exists():
                place.path.rename(place.new)
                place.old.rename(place.path)
            _started(server)
            raise
    await_health([server.container, *users])
    without = time.monotonic() - began
    shutil.rmtree(place.old, ignore_errors=True)
    return without


def _started(server: Server) -> None:
    run(["docker", "start", server.container], what=f"starting {server.container}")
    eventually(
        lambda: loading.ready(server),
        _START_SECONDS,
        lambda: f"{server.container} does not start with what was restored; see docker logs {server.container}.",
    )
