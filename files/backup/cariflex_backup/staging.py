"""What goes into an archive: seven parts, and phpIPAM where it is deployed, each into its own folder.

Files of the host keep their path: `/etc/ufw/user.rules` becomes `network/etc/ufw/user.rules`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cariflex_backup.archive import PARTS, PHPIPAM
from cariflex_backup.commands import run
from cariflex_backup.database import Server
from cariflex_backup.errors import BackupError
from cariflex_backup.mariadb import MariaDb
from cariflex_backup.settings import Settings

_SQLITE = b"SQLite format 3\x00"
_SECRET = re.compile(r"PASS|SECRET|TOKEN|KEY|AUTH|CREDENTIAL", re.IGNORECASE)
_URL_SECRET = re.compile(r"://[^/@\s]*:[^/@\s]+@")
_REDIS_SECONDS = 120
_REDIS = 'export REDISCLI_AUTH="$(cat /run/secrets/redis_backup_password)" && exec redis-cli --user backup "$@"'


@dataclass(frozen=True)
class Staged:
    """What was found while staging; goes into the manifest."""

    databases: dict[str, Any]
    images: dict[str, str]
    versions: dict[str, str]
    parts: dict[str, dict[str, float]]
    missing: list[str]
    phpipam: dict[str, Any]


def stage(settings: Settings, server: Server, folder: Path) -> Staged:
    """Fill a folder with the parts.

    Raises:
        BackupError: a part could not be had; what the host does not have is no error but stands in `missing`.
    """
    images: dict[str, str] = {}
    versions = {"postgres": server.version()}
    missing: list[str] = []
    databases: dict[str, Any] = {}
    phpipam: dict[str, Any] = {}
    parts: dict[str, dict[str, float]] = {}

    def postgres(target: Path) -> None:
        (target / "globals.sql").write_bytes(server.globals())
        for name in settings.databases:
            databases[name] = server.dump(name, target / f"{name}.dump")

    def redis(target: Path) -> None:
        versions["redis"] = redis_dump(settings.redis_container, target / "dump.rdb")

    def containers(target: Path) -> None:
        found = inspected(settings.containers)
        images.update({one["Name"].lstrip("/"): one["Image"] for one in found})
        missing.extend(f"container {name}" for name in settings.containers if name not in images)
        (target / "containers.json").write_text(json.dumps(found, indent=1), encoding="utf-8")

    def network(target: Path) -> None:
        names = run(["docker", "network", "ls", "--quiet", "--no-trunc"], what="listing networks").split()
        found = run(["docker", "network", "inspect", *(name.decode() for name in names)], what="reading networks")
        (target / "docker-networks.json").write_bytes(found)

    def address_book(target: Path) -> None:
        if settings.phpipam:
            mariadb = MariaDb(settings.phpipam.container, settings.phpipam.database)
            versions["mariadb"] = mariadb.version()
            phpipam.update(mariadb.dump(target / "phpipam.sql"))

    # Redis first: a job that is in its dump and was done before PostgreSQL's is done again, which does no harm
    makers: dict[str, Callable[[Path], None]] = {
        "redis": redis,
        "postgres": postgres,
        "containers": containers,
        "network": network,
        **({PHPIPAM: address_book} if settings.phpipam else {}),
    }
    for part in (*makers, *(name for name in PARTS if name not in makers)):
        began = time.monotonic()
        target = folder / part
        target.mkdir(mode=0o700)
        if part in makers:
            makers[part](target)
        for path in settings.folders.get(part, ()):
            if not copied(Path(path), target):
                missing.append(path)
        for volume in settings.volumes.get(part, ()):
            if not volume_copied(volume, target):
                missing.append(f"volume {volume}")
        size = sum(path.lstat().st_size for path in target.rglob("*") if not path.is_dir())
        parts[part] = {"bytes": size, "seconds": round(time.monotonic() - began, 2)}
    return Staged(databases, images, versions, parts, missing, phpipam)


def inspected(names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The states of those containers that exist, without values of their environment that may be secret."""
    lines = run(["docker", "ps", "--all", "--format", "{{.Names}}"], what="listing containers").decode().split()
    there = [name for name in names if name in lines]
    found: list[dict[str, Any]] = json.loads(
        run(["docker", "inspect", "--type", "container", *there], what="reading containers") if there else "[]"
    )
    for one in found:
        one["Config"]["Env"] = [_without_secret(text) for text in one["Config"].get("Env") or ()]
    return found


def _without_secret(variable: str) -> str:
    """NAME=value, without a value whose name or form says that it is secret."""
    name, _, value = variable.partition("=")
    is_file = name.endswith("_FILE")
    return f"{name}=(left out)" if (_SECRET.search(name) and not is_file) or _URL_SECRET.search(value) else variable


def redis_dump(container: str, target: Path) -> str:
    """Have Redis write its data, copy the file and check it; the server's version.

    Raises:
        BackupError: Redis could not write it, or not in time.
    """

    def ask(*words: str) -> str:
        said = run(["docker", "exec", container, "sh", "-c", _REDIS, "sh", *words], what=f"asking {container}")
        return said.decode().strip()

    def persistence() -> dict[str, str]:
        lines = ask("info").splitlines()
        return dict(line.strip().split(":", 1) for line in lines if ":" in line)

    before = persistence()
    if before["rdb_bgsave_in_progress"] == "0":
        before = persistence() | {"begun": ask("bgsave")}
    deadline = time.monotonic() + _REDIS_SECONDS
    # the counter of saves tells also of a second save within the same second
    while (now := persistence())["rdb_bgsave_in_progress"] != "0" or now["rdb_saves"] == before["rdb_saves"]:
        if now["rdb_last_bgsave_status"] != "ok" and now["rdb_bgsave_in_progress"] == "0":
            raise BackupError(f"{container} could not save its data; see docker logs {container}.")
        if time.monotonic() > deadline:
            raise BackupError(f"{container} has not saved its data within {_REDIS_SECONDS} s.")
        time.sleep(0.2)
    target.write_bytes(run(["docker", "exec", container, "cat", "/data/dump.rdb"], what="reading Redis' dump"))
    if not target.read_bytes()[:5] == b"REDIS":
        raise BackupError(f"{container}: /data/dump.rdb is no dump of Redis.")
    return now["redis_version"]


def copied(path: Path, target: Path) -> bool:
    """Copy a file or folder of the host with owners and modes; whether it is there."""
    if not path.exists():
        return False
    place = target / path.relative_to(path.anchor)
    place.parent.mkdir(parents=True, exist_ok=True)
    copy_tree(path, place)
    return True


def volume_copied(volume: str, target: Path) -> bool:
    """Copy a Docker volume to `volumes/<name>`; whether there is one."""
    names = run(["docker", "volume", "ls", "--format", "{{.Name}}"], what="listing volumes").decode().split()
    if volume not in names:
        return False
    mountpoint = run(["docker", "volume", "inspect", "--format", "{{.Mountpoint}}", volume]).decode().strip()
    place = target / "volumes" / volume
    place.parent.mkdir(exist_ok=True)
    copy_tree(Path(mountpoint), place)
    return True


def copy_tree(source: Path, target: Path) -> None:
    """Copy a file or folder with owners and modes."""
    if source.is_symlink() or source.is_file():
        _copy_file(source, target)
        return
    target.mkdir()
    for child in sorted(source.iterdir()):
        if child.is_symlink() or child.is_file():
            _copy_file(child, target / child.name)
        elif child.is_dir():
            copy_tree(child, target / child.name)
    _keep_owner(source, target)


def _copy_file(source: Path, target: Path) -> None:
    """A copy; of an SQLite database one of a single state, with what its log still holds."""
    if source.name.endswith(("-wal", "-shm")) and _is_sqlite(source.with_name(source.name[:-4])):
        return
    if not source.is_symlink() and _is_sqlite(source):
        with (
            closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as one,
            closing(sqlite3.connect(target)) as other,
        ):
            one.backup(other)
    else:
        try:
            shutil.copy2(source, target, follow_symlinks=False)
        except FileNotFoundError:
            return  # it was there a moment ago, and is gone: somebody's temporary file
    _keep_owner(source, target)


def _is_sqlite(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False


def _keep_owner(source: Path, target: Path) -> None:
    status = source.lstat()
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not target.is_symlink():
        target.chmod(status.st_mode & 0o7777)
