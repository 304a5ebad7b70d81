"""A drill: an archive restored into throwaway containers and compared with its manifest, to know that it could be.

Nothing of the EMS is touched but the row in ems.drill_run. The containers have no network.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cariflex_backup import loading, throwaway
from cariflex_backup.archive import check_folder
from cariflex_backup.commands import run
from cariflex_backup.errors import BackupError
from cariflex_backup.loading import check_free, eventually, image_of
from cariflex_backup.making import reader
from cariflex_backup.runs import Run, end_killed
from cariflex_backup.settings import Settings

_RESERVE_BYTES = 512 << 20
_START_SECONDS = 120


def drill(settings: Settings, folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Try an archive's folder. The caller holds the lock.

    Returns:
        `archive`, `seconds`, `rows` and `differences`, which is 0.

    Raises:
        BackupError: it could not be restored, or differs; the row in ems.drill_run says so.
    """
    began = time.monotonic()
    server = reader(settings)
    end_killed(server, "drill_run")
    run_ = Run(server, "drill_run", folder.name)

    def seconds() -> float:
        return round(time.monotonic() - began, 1)

    found: list[str] = []
    try:
        found += _tried(settings, folder, manifest)
        if found:
            raise BackupError(
                f"The drill with {folder.name} found {len(found)} differences from its manifest: {'; '.join(found[:5])}"
            )
    except BaseException as error:
        run_.failed(str(error) or type(error).__name__, seconds=seconds(), differences=len(found))
        raise
    run_.ended(seconds=seconds(), differences=0)
    databases = [*manifest["databases"].values(), manifest.get("phpipam") or {"tables": {}}]
    tables = [table for one in databases for table in one["tables"].values()]
    return {
        "archive": folder.name,
        "tables": len(tables),
        "rows": sum(table["rows"] for table in tables),
        "differences": 0,
        "seconds": seconds(),
    }


def _tried(settings: Settings, folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    check_folder(folder)
    loading.remove_leftovers()
    disk = Path(run(["docker", "info", "--format", "{{.DockerRootDir}}"], what="asking Docker").decode().strip())
    check_free(disk, loading.disk_needed(manifest["databases"]) + _RESERVE_BYTES, "a drill")
    _try_redis(image_of(settings.redis_container), folder / "redis")
    found = {}
    if settings.phpipam and manifest.get("phpipam"):
        image = image_of(settings.phpipam.container)
        with throwaway.mariadb(image, settings.phpipam.database, "drill") as mariadb:
            found["phpipam"] = mariadb.load(folder / "phpipam/phpipam.sql", manifest["phpipam"])
    with throwaway.postgres(image_of(settings.database_container), "drill") as server:
        loading.load_roles(server, folder / "postgres/globals.sql")
        found |= loading.load(server, folder / "postgres", manifest["databases"])
    return [f"{database}: {problem}" for database, problems in found.items() for problem in problems]


def _try_redis(image: str, folder: Path) -> None:
    """Have a Redis read the dump; it ends when it cannot."""
    command = ["--dir", "/dumps", "--dbfilename", "dump.rdb", "--save", "", "--unixsocket", "/tmp/redis"]  # noqa: S108 - in the container
    options = ["--user", "0:0", "--read-only", "--tmpfs", "/tmp", "--volume", f"{folder}:/dumps:ro"]  # noqa: S108 - in the container
    with throwaway.container([*options, "--entrypoint", "redis-server", image, *command], "drill") as name:

        def loaded() -> bool:
            if run(["docker", "inspect", "--format", "{{.State.Running}}", name]).strip() != b"true":
                raise BackupError(f"The drill's Redis could not read its dump: {throwaway.log_of(name)}")
            try:
                return run(["docker", "exec", name, "redis-cli", "ping"]).strip() == b"PONG"
            except BackupError:
                return False

        eventually(loaded, _START_SECONDS, lambda: f"The drill's Redis did not start: {throwaway.log_of(name)}")
