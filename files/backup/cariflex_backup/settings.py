"""What is backed up and where to: the file that the role `backup` writes. It names secrets' files, never a secret."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from cariflex_backup.errors import BackupError

PATH = Path("/opt/cariflex/backup/settings.json")


@dataclass(frozen=True)
class Offsite:
    """A restic repository elsewhere.

    Attributes:
        repository: as restic has it, such as sftp:backup@example.org:/cariflex.
        password_file: its password.
        environment_file: lines NAME=value that its target wants, or None.
        prune: whether old copies are removed from here.
    """

    repository: str
    password_file: Path
    environment_file: Path | None
    prune: bool


@dataclass(frozen=True)
class Anonymize:
    """What may stay in test data, and what must not.

    Attributes:
        names: of account, assets, sensors and types that the project itself declares for everybody to read.
        sensors: name -> id of those whose values are public: weather, tariffs, signals of the grid.
        canaries: texts that must not be found in the result.
    """

    names: tuple[str, ...] = ()
    sensors: dict[str, int] = field(default_factory=dict)
    canaries: tuple[str, ...] = ()


@dataclass(frozen=True)
class Moments:
    """Restoring to a moment.

    Attributes:
        days: how far back.
        full_days: after how many days a base is a full one again.
    """

    days: int
    full_days: int


@dataclass(frozen=True)
class PhpIpam:
    """A phpIPAM that is deployed here.

    Attributes:
        container: where its MariaDB runs.
        database: its database.
        users: the containers that use it.
    """

    container: str
    database: str
    users: tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """One host's settings.

    Attributes:
        environment: the inventory's environment, such as prod.
        project_version: what was deployed, as git describes it.
        root: the folder of the archives.
        database_container: where PostgreSQL runs.
        database_role: the role that reads everything.
        database_password_file: its password.
        databases: those that are dumped.
        redis_container: where Redis runs.
        folders: part of the archive -> folders and files of the host that are copied into it.
        volumes: part of the archive -> Docker volumes that are copied into it.
        containers: whose states are kept.
        recipients: age's public keys; without any, archives are not encrypted.
        days, weeks, months: how long the daily, weekly and monthly archives are kept; months 0 is for ever.
        offsite: where copies are kept too, or None.
        anonymize: what may stay in test data, or None: nothing.
        moments: whether and how long every moment can be restored, or None.
        phpipam: the phpIPAM that is deployed here, or None.
    """

    environment: str
    project_version: str
    root: Path
    database_container: str
    database_role: str
    database_password_file: Path
    databases: tuple[str, ...]
    redis_container: str
    folders: dict[str, tuple[str, ...]]
    volumes: dict[str, tuple[str, ...]]
    containers: tuple[str, ...]
    recipients: tuple[str, ...]
    days: int
    weeks: int
    months: int
    offsite: Offsite | None = None
    anonymize: Anonymize | None = None
    moments: Moments | None = None
    phpipam: PhpIpam | None = None


def read(path: Path = PATH) -> Settings:
    """Read the settings.

    Raises:
        BackupError: there are none, or they are another version's.
    """
    try:
        given: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackupError(f"{path} cannot be read ({error}). Deploy it: playbooks/site.yml.") from None
    known = {one.name for one in fields(Settings)}
    given = {"offsite": None, "anonymize": None, "moments": None, "phpipam": None} | given
    if set(given) != known:
        differing = ", ".join(sorted(set(given) ^ known))
        raise BackupError(
            f"{path} and this program are of two versions ({differing}). Deploy both: playbooks/site.yml."
        )
    for name in ("root", "database_password_file"):
        given[name] = Path(given[name])
    for name in ("databases", "containers", "recipients"):
        given[name] = tuple(given[name])
    for name in ("folders", "volumes"):
        given[name] = {part: tuple(paths) for part, paths in given[name].items()}
    if offsite := given["offsite"]:
        environment = offsite["environment_file"]
        given["offsite"] = Offsite(
            repository=offsite["repository"],
            password_file=Path(offsite["password_file"]),
            environment_file=Path(environment) if environment else None,
            prune=offsite["prune"],
        )
    if allowed := given["anonymize"]:
        given["anonymize"] = Anonymize(tuple(allowed["names"]), allowed["sensors"], tuple(allowed["canaries"]))
    if moments := given["moments"]:
        given["moments"] = Moments(days=moments["days"], full_days=moments["full_days"])
    if phpipam := given["phpipam"]:
        given["phpipam"] = PhpIpam(phpipam["container"], phpipam["database"], tuple(phpipam["users"]))
    return Settings(**given)
