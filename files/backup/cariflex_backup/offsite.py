"""Copies elsewhere: restic takes the plain folder of a backup, so that a day costs what has changed in it.

restic encrypts with a password that the host has to know. Whoever takes over the host could delete its copies, unless
the target refuses that (append-only): then `prune` is false here, and the target removes old copies itself.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from cariflex_backup.archive import Archive, check_folder, pack
from cariflex_backup.commands import failed
from cariflex_backup.errors import BackupError, StoppedError
from cariflex_backup.making import reader
from cariflex_backup.runs import Run
from cariflex_backup.settings import Offsite, Settings

_TAG = "cariflex"
_CACHE = Path("/var/cache/cariflex-restic")
_NONE_YET = "Is there a repository at the following location?"
_FOR_EVER = 100_000  # months
_CHECKED_PART = "1/13"  # of the data, each week another: all of it is read within a quarter of a year


class Repository:
    """One restic repository.

    Raises:
        BackupError: from every method, with what restic says, when it cannot be reached, opened or trusted.
    """

    def __init__(self, offsite: Offsite) -> None:
        self._offsite = offsite
        self._environment = {
            **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")},
            "TZ": "UTC",
            "RESTIC_REPOSITORY": offsite.repository,
            "RESTIC_PASSWORD_FILE": str(offsite.password_file),
            "RESTIC_CACHE_DIR": str(_CACHE),
            **_variables(offsite.environment_file),
        }

    def add(self, folder: Path, host: str, made_at: datetime) -> None:
        """Keep a folder; the repository is made when there is none."""
        self._make()
        self._run("unlock")  # only locks of processes that have died
        when = made_at.strftime("%Y-%m-%d %H:%M:%S")
        self._run("backup", "--quiet", "--host", host, "--tag", _TAG, "--time", when, str(folder))

    def forget(self, days: int, weeks: int, months: int) -> None:
        """Remove copies that need not be kept any longer, counted as archives are."""
        self._run(
            *("forget", "--quiet", "--prune", "--tag", _TAG, "--group-by", "host"),
            *("--keep-daily", str(days), "--keep-weekly", str(weeks), "--keep-monthly", str(months or _FOR_EVER)),
        )

    def check(self, week: int) -> None:
        """Whether the repository is whole; of its data a part is read, each week another one."""
        whole = int(_CHECKED_PART.split("/")[1])
        self._run("check", "--quiet", f"--read-data-subset={week % whole + 1}/{whole}")

    def copies(self) -> list[dict[str, Any]]:
        """What is kept, the newest first: `stamp`, `id` and `host`."""
        found = json.loads(self._run("snapshots", "--json", "--tag", _TAG) or "null") or []
        copies = [
            {"stamp": Path(one["paths"][0]).name, "id": one["short_id"], "host": one["hostname"]} for one in found
        ]
        return sorted(copies, key=lambda copy: copy["stamp"], reverse=True)

    def fetch(self, copy: str, target: Path) -> Path:
        """Bring a copy's folder below another folder."""
        self._run("restore", "--quiet", "--target", str(target), copy)
        found = [path.parent for path in target.rglob("manifest.json") if path.parent.name[:1].isdigit()]
        if len(found) != 1:
            raise BackupError(f"The copy {copy} in {self._where} holds no backup.")
        return found[0]

    @property
    def _where(self) -> str:
        """The repository, without a password in its address."""
        return re.sub(r"//[^/@]*:[^/@]*@", "//…@", self._offsite.repository)

    def _make(self) -> None:
        try:
            self._run("cat", "config")
        except BackupError as error:
            if _NONE_YET not in str(error):
                raise
            self._run("init")

    def _run(self, *arguments: str) -> str:
        try:
            command = ["restic", *arguments]
            done = subprocess.run(  # noqa: S603 - a command of this package
                command, env=self._environment, capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise BackupError(f"restic cannot be run ({error.strerror}). Install it: apt install restic.") from None
        if done.returncode:
            said = (done.stderr or done.stdout).replace(self._offsite.repository, self._where)
            raise failed(arguments, done.returncode, said.encode(), f"restic {arguments[0]} at {self._where}")
        return done.stdout


def push(settings: Settings, folder: Path, manifest: dict[str, Any]) -> None:
    """Keep the folder of a backup that was just made elsewhere too, and record it in ems.backup_run."""
    offsite = _configured(settings)
    run = Run(reader(settings), "backup_run", folder.name, kind="offsite")
    try:
        repository = Repository(offsite)
        repository.add(folder, manifest["host"], datetime.fromisoformat(manifest["made_at"]))
        if offsite.prune:
            repository.forget(settings.days, settings.weeks, settings.months)
    except (BackupError, StoppedError) as error:
        run.failed(str(error))
        raise
    run.ended()


def check(settings: Settings, week: int) -> None:
    """Look whether the copies elsewhere are whole; what is not is recorded, so that it is alarmed."""
    try:
        Repository(_configured(settings)).check(week)
    except BackupError as error:
        Run(reader(settings), "backup_run", "check", kind="offsite").failed(str(error))
        raise


def fetch(settings: Settings, name: str) -> Archive:
    """Make an archive of a copy, so that it can be restored as any other.

    Args:
        name: the stamp of the copy; empty for the newest.

    Raises:
        BackupError: there is none, or it is damaged.
    """
    repository = Repository(_configured(settings))
    copies = [copy for copy in repository.copies() if name in ("", copy["stamp"], copy["id"])]
    if not copies:
        raise BackupError(f"There is no copy {name}. List those there are: cariflex-backup offsite-list")
    with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=settings.root) as target:
        folder = repository.fetch(copies[0]["id"], Path(target))
        check_folder(folder)
        return pack(folder, settings.root, settings.recipients)


def copies(settings: Settings) -> list[dict[str, Any]]:
    """The copies elsewhere, the newest first."""
    return Repository(_configured(settings)).copies()


def _configured(settings: Settings) -> Offsite:
    if settings.offsite is None:
        raise BackupError("Nothing is kept elsewhere: set backup_offsite_repository, and deploy.")
    return settings.offsite


def _variables(path: Path | None) -> dict[str, str]:
    """What a target wants in the environment, such as the keys of an object store: lines NAME=value."""
    if path is None:
        return {}
    try:
        lines: Sequence[str] = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BackupError(f"{path} cannot be read ({error.strerror}). Deploy it: playbooks/site.yml.") from None
    return dict(line.split("=", 1) for line in lines if "=" in line)
