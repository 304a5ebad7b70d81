"""Restoring an archive, to a host that was just deployed or over one that is broken.

Everything is verified, then prepared beside what is there: databases under other names, files next to their places.
Only then are the services stopped and everything is swapped, in seconds. A run that is killed has lost nothing before
that, and during it nothing that the next run does not find again.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cariflex_backup import loading
from cariflex_backup.archive import PHPIPAM, Archive, check_sum, read_manifest, unpacked
from cariflex_backup.commands import run
from cariflex_backup.database import Server
from cariflex_backup.errors import BackupError
from cariflex_backup.loading import BEFORE, RESTORED, check_free, eventually
from cariflex_backup.making import clean, locked, terminable
from cariflex_backup.mariadb import MariaDb
from cariflex_backup.runs import end_restored
from cariflex_backup.settings import Settings
from cariflex_backup.staging import copy_tree

# What playbooks/site.yml does not make: the data that containers keep in folders, and keys that were made on the host.
# Everything else in an archive is configuration, which comes from the inventory.
FOLDERS: Mapping[str, tuple[str, ...]] = {
    "flexmeasures": ("/opt/cariflex/flexmeasures/data",),
    "network": ("/opt/cariflex/traefik/acme", "/opt/cariflex/traefik/certificates", "/etc/wireguard"),
}
PARTS = ("postgres", "redis", "flexmeasures", "openadr", "grafana", "network", PHPIPAM)
# Secrets that the data of a part cannot be used without; site.yml writes them from the inventory.
_KEYS: Mapping[str, tuple[str, ...]] = {
    "postgres": (
        "flexmeasures/opt/cariflex/flexmeasures/secrets/flexmeasures_secret_key",
        "flexmeasures/opt/cariflex/flexmeasures/secrets/flexmeasures_password_salt",
    ),
    "grafana": ("grafana/opt/cariflex/grafana/secrets/grafana_secret_key",),
}
_RESERVE_BYTES = 256 << 20
_START_SECONDS = 60
_HEALTHY_SECONDS = 300


@dataclass(frozen=True)
class Order:
    """What an operator wants.

    Attributes:
        archive: what is restored.
        identity: age's secret key, for an encrypted archive.
        confirmed: the environment whose data may be overwritten, as the operator typed it.
        parts: those that are restored.
        other_keys: also where the host's keys are others than the archive's.
    """

    archive: Archive
    identity: str
    confirmed: str
    parts: tuple[str, ...]
    other_keys: bool = False


@dataclass(frozen=True)
class Place:
    """A folder of the host that is replaced.

    Attributes:
        part: of the archive.
        source: the folder in the archive.
        path: where it goes.
    """

    part: str
    source: Path
    path: Path

    @property
    def new(self) -> Path:
        """Where it is prepared: on the same disk, so that it can be renamed."""
        return self.path.with_name(self.path.name + RESTORED)

    @property
    def old(self) -> Path:
        """Where what was there waits until all is well."""
        return self.path.with_name(self.path.name + BEFORE)


def parts_named(text: str) -> tuple[str, ...]:
    """The parts of a list with commas; all of them when it is empty.

    Raises:
        BackupError: one is none.
    """
    given = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in given if name not in PARTS]:
        raise BackupError(f"There is no part {' or '.join(unknown)} to restore, only {', '.join(PARTS)}.")
    return tuple(part for part in PARTS if part in given or not given)


def restore(settings: Settings, order: Order) -> dict[str, Any]:
    """Restore an archive.

    Returns:
        What was restored, and the seconds that it took.

    Raises:
        BackupError: it was refused, and nothing was touched; or it failed, and the text says what is as it was.
    """
    began = time.monotonic()
    settings.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with terminable("Run it again: it begins anew.", nice=False), locked(settings.root):
        clean(settings.root)
        loading.remove_leftovers()
        if order.archive.sum_path.is_file():
            check_sum(order.archive)
        check_free(settings.root, order.archive.path.stat().st_size + _RESERVE_BYTES, "unpacking the archive")
        with unpacked(order.archive, settings.root, order.identity) as folder:
            manifest = read_manifest(folder / "manifest.json")
            order = replace(order, parts=_parts_there(settings, order, manifest))
            _check(settings, order, folder, manifest)
            try:
                seconds = _restored(settings, order, folder, manifest)
            except OSError as error:
                raise BackupError(f"{error.filename}: {error.strerror}. Run it again: it begins anew.") from None
    databases = [*manifest["databases"].values()] if "postgres" in order.parts else []
    databases += [manifest["phpipam"]] if PHPIPAM in order.parts else []
    return {
        "archive": order.archive.path,
        "made_at": manifest["made_at"],
        "parts": list(order.parts),
        "tables": sum(len(one["tables"]) for one in databases),
        "rows": sum(table["rows"] for one in databases for table in one["tables"].values()),
        "differences": 0,
        "seconds": round(time.monotonic() - began, 1),
        "seconds_without_service": round(seconds, 1),
    }


# --- before anything is touched ---


def _parts_there(settings: Settings, order: Order, manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """The parts that were asked for and can be had: test data have one, and phpIPAM is not in every archive.

    Raises:
        BackupError: none of them.
    """
    absent = {part for part in PARTS if part not in manifest["parts"]} if manifest.get("anonymized") else set()
    if not (settings.phpipam and manifest.get("phpipam")):
        absent.add(PHPIPAM)
    parts = tuple(part for part in order.parts if part not in absent)
    if not parts:
        raise BackupError(
            f"{order.archive.path.name} has no part {' or '.join(order.parts)} for this host. Restore others of it, or "
            "deploy what they are of first: playbooks/site.yml."
        )
    return parts


def _check(settings: Settings, order: Order, folder: Path, manifest: Mapping[str, Any]) -> None:
    of_archive = manifest["environment"]
    if of_archive != settings.environment:
        raise BackupError(
            f"{order.archive.path.name} is of {of_archive}, and this host is of {settings.environment}. Data of people "
            "leave their environment anonymized only."
        )
    server = Server(settings.database_container)
    _await_server(server)
    _check_versions(server, manifest)
    if not order.other_keys:
        _check_keys(order, folder)
    if "postgres" in order.parts:
        _check_server_space(server, loading.disk_needed(manifest["databases"]))
    if order.confirmed != settings.environment:
        raise BackupError(
            f"{order.archive.path.name}, made {manifest['made_at']} on {manifest['host']}, is good. Restoring it "
            f"overwrites {', '.join(order.parts)} of {settings.environment} on this host. Nothing was changed yet; to "
            f"go on, say so: --confirm {settings.environment} (playbook: -e restore_confirm={settings.environment})."
        )


def _await_server(server: Server) -> None:
    if not inspected([server.container]):
        raise BackupError(f"There is no container {server.container}. Deploy the host first: playbooks/site.yml.")
    run(["docker", "start", server.container], what=f"starting {server.container}")
    eventually(
        lambda: loading.ready(server),
        _START_SECONDS,
        lambda: (
            f"{server.container} does not answer; see docker logs {server.container}. "
            "If its data are beyond repair: docker volume rm, then playbooks/site.yml."
        ),
    )


def _check_versions(server: Server, manifest: Mapping[str, Any]) -> None:
    of_then, of_now = manifest["versions"].get("postgres", "0"), server.version()
    if int(of_then.split(".")[0]) > int(of_now.split(".")[0]):
        raise BackupError(f"The archive is of PostgreSQL {of_then}, and {server.container} is an older {of_now}.")


def _check_keys(order: Order, folder: Path) -> None:
    for part, files in _KEYS.items():
        for name in files:
            kept, ours = folder / name, Path("/", *Path(name).parts[1:])
            if part in order.parts and kept.is_file() and ours.is_file() and kept.read_bytes() != ours.read_bytes():
                raise BackupError(
                    f"{ours} is another secret than when the archive was made, so that passwords or stored secrets in "
                    "it would be useless. Put the vault file of that time into the inventory and deploy, or accept "
                    "that: --other-keys (playbook: -e restore_other_keys=true)."
                )


def _check_server_space(server: Server, need: int) -> None:
    script = 'df --block-size=1 --output=avail "$PGDATA" | tail -n 1'
    free = int(run(["docker", "exec", server.container, "sh", "-c", script], what="looking at the database's disk"))
    if free < need + _RESERVE_BYTES:
        raise BackupError(
            f"The disk of {server.container} has {free >> 20} MB free, and the restored databases, beside those that "
            f"are there, take {(need + _RESERVE_BYTES) >> 20} MB. Free some first."
        )


# --- the restore ---


def _restored(settings: Settings, order: Order, folder: Path, manifest: Mapping[str, Any]) -> float:
    """Prepare, swap, start; the seconds without service."""
    server = Server(settings.database_container)
    databases = manifest["databases"] if "postgres" in order.parts else {}
    places = _places(settings, order.parts, folder)
    redis = settings.redis_container if "redis" in order.parts else ""
    phpipam = settings.phpipam if PHPIPAM in order.parts else None
    mariadb = MariaDb(phpipam.container, phpipam.database) if phpipam else None
    try:
        if databases:
            loading.load_roles(server, folder / "postgres/globals.sql")
            _refuse_differing(loading.load(server, folder / "postgres", databases))
        if mariadb:
            found = mariadb.load(folder / PHPIPAM / "phpipam.sql", manifest["phpipam"])
            _refuse_differing({mariadb.database: found})
        for place in places:
            _prepare(place)
        swap_redis = _redis_prepared(redis, folder / "redis/dump.rdb") if redis else None
    except BaseException:
        _forget(server, databases, places, mariadb)
        raise
    users = users_of(settings, order.parts, places)
    began = time.monotonic()
    with stopped(users):
        if databases:
            loading.swap(server, databases)
            made = order.archive
            end_restored(server, made.stamp, made.path.name, made.path.stat().st_size, manifest["seconds"])
        if swap_redis:
            swap_redis()
        if mariadb:
            mariadb.swap()
        for place in places:
            swap(place)
        if any(place.path == Path("/etc/wireguard") for place in places):
            _restart_wireguard()
    await_health(users)
    without = time.monotonic() - began
    for name in databases:
        loading.drop(server, name + BEFORE)
    if mariadb:
        mariadb.forget()
    for place in places:
        shutil.rmtree(place.old, ignore_errors=True)
    return without


def _refuse_differing(found: Mapping[str, list[str]]) -> None:
    problems = [f"{database}: {problem}" for database, all_ in found.items() for problem in all_]
    if problems:
        raise BackupError(
            f"What was restored differs from the manifest in {len(problems)} places: {'; '.join(problems[:5])}. "
            "The host's own data are as they were."
        )


def _places(settings: Settings, parts: Sequence[str], folder: Path) -> list[Place]:
    """The folders that come back: those that are in the archive."""
    found = []
    for part in parts:
        for path in FOLDERS.get(part, ()):
            found.append(Place(part, folder / part / path.lstrip("/"), Path(path)))
        for volume in settings.volumes.get(part, ()):
            source = folder / part / "volumes" / volume
            if source.is_dir():
                found.append(Place(part, source, mountpoint(volume)))
    return [place for place in found if place.source.is_dir()]


def mountpoint(volume: str) -> Path:
    """Where a volume's files are, on the host."""
    run(["docker", "volume", "create", volume], what=f"making the volume {volume}")  # does nothing to one that is there
    said = run(["docker", "volume", "inspect", "--format", "{{.Mountpoint}}", volume], what=f"looking at {volume}")
    return Path(said.decode().strip())


def _prepare(place: Place) -> None:
    shutil.rmtree(place.new, ignore_errors=True)
    place.new.parent.mkdir(parents=True, exist_ok=True)
    copy_tree(place.source, place.new)


def swap(place: Place) -> None:
    """Put what was prepared in its place; what was there waits beside it."""
    if place.path.exists():
        shutil.rmtree(place.old, ignore_errors=True)
        place.path.rename(place.old)
    place.new.rename(place.path)


def _redis_prepared(container: str, dump: Path) -> Callable[[], None]:
    """Put Redis' dump beside the one that is there; what puts it in its place once Redis is stopped."""
    (mount,) = [one for one in inspected([container])[0]["Mounts"] if one["Destination"] == "/data"]
    data = Path(mount["Source"])
    new = data / f"dump.rdb{RESTORED}"
    shutil.copyfile(dump, new)
    owner = data.stat()
    os.chown(new, owner.st_uid, owner.st_gid)
    new.chmod(0o600)
    return lambda: os.replace(new, data / "dump.rdb")  # noqa: PTH105 - a function of nothing


def _forget(
    server: Server, databases: Mapping[str, Any], places: Sequence[Place], mariadb: MariaDb | None = None
) -> None:
    """Remove what was prepared."""
    for place in places:
        shutil.rmtree(place.new, ignore_errors=True)
    drops: list[Callable[[], None]] = [partial(loading.drop, server, name + RESTORED) for name in databases]
    for drop in [*drops, *([mariadb.forget] if mariadb else [])]:
        try:
            drop()
        except BackupError as error:
            print(f"cariflex-backup: {error}", file=sys.stderr)


# --- containers ---


def inspected(names: Sequence[str]) -> list[dict[str, Any]]:
    """Those of some containers that exist."""
    there = run(["docker", "ps", "--all", "--format", "{{.Names}}"], what="listing containers").decode().split()
    known = [name for name in names if name in there]
    if not known:
        return []
    found: list[dict[str, Any]] = json.loads(run(["docker", "inspect", *known], what="looking at containers"))
    return found


def users_of(settings: Settings, parts: Sequence[str], places: Sequence[Place]) -> list[str]:
    """The containers that use what is replaced, but the databases; Redis first, for others wait for it."""
    everything = {"postgres", "redis"} & set(parts)
    phpipam = settings.phpipam
    stores = {settings.database_container, *([phpipam.container] if phpipam else [])}
    found = []
    for one in inspected(settings.containers):
        name = one["Name"].lstrip("/")
        sources = [Path(mount["Source"]) for mount in one["Mounts"]]
        uses = any(source.is_relative_to(place.path) for source in sources for place in places)
        if phpipam and PHPIPAM in parts:
            uses |= name in phpipam.users
        if name not in stores and (uses or everything):
            found.append(name)
    if "redis" not in parts and settings.redis_container in found:
        found.remove(settings.redis_container)
    return sorted(found, key=lambda name: name != settings.redis_container)


@contextmanager
def stopped(containers: Sequence[str]) -> Iterator[None]:
    """Stop containers and, whatever happens, start them again."""
    try:
        if containers:
            run(["docker", "stop", *reversed(containers)], what="stopping the services")
        yield
    finally:
        if containers:
            run(["docker", "start", *containers], what="starting the services")


def await_health(containers: Sequence[str]) -> None:
    """Wait until all of them run and are healthy."""

    def ill() -> list[str]:
        states = {one["Name"].lstrip("/"): one["State"] for one in inspected(containers)}
        return [
            name
            for name, state in states.items()
            if not state["Running"] or state.get("Health", {}).get("Status", "healthy") != "healthy"
        ]

    eventually(
        lambda: not ill(),
        _HEALTHY_SECONDS,
        lambda: (
            f"Everything was restored, and {', '.join(ill())} did not become healthy within {_HEALTHY_SECONDS} s; "
            "see docker logs."
        ),
    )


def _restart_wireguard() -> None:
    """With the keys that its clients know."""
    try:
        run(["systemctl", "try-restart", "wg-quick@wg0"], what="restarting WireGuard")
    except BackupError as error:
        print(f"cariflex-backup: {error}", file=sys.stderr)
