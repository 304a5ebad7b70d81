"""`cariflex-backup`: the verbs, their arguments and what they print. Verbs with --json print one document."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cariflex_backup import bases, offsite, rewind, wal
from cariflex_backup import settings as settings_file
from cariflex_backup.anonymize.anonymizing import Order as Anonymizing
from cariflex_backup.anonymize.anonymizing import anonymize as anonymize_archive
from cariflex_backup.archive import Archive, archive_at, archives, check_sum, read_manifest, unpacked
from cariflex_backup.drill import drill as drill_folder
from cariflex_backup.errors import BackupError, StoppedError
from cariflex_backup.making import Follower, clean, locked, make, terminable
from cariflex_backup.pruning import planned, prune
from cariflex_backup.restore import Order, parts_named
from cariflex_backup.restore import restore as restore_archive
from cariflex_backup.retention import Policy
from cariflex_backup.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; 1 after an error, which is printed."""
    given = _parser().parse_args(arguments)
    try:
        settings = settings_file.read(given.settings)
    except BackupError as error:
        print(f"cariflex-backup: {error}", file=sys.stderr)
        return 1
    try:
        told: Any = given.verb(settings, given)
    except (BackupError, StoppedError) as error:
        print(f"cariflex-backup: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"cariflex-backup: {error.filename or settings.root}: {error.strerror}. Run it as root.", file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps(told, default=str))
    else:
        print("\n".join(_lines(told)))
    return 0


def run(settings: Settings, _given: argparse.Namespace) -> dict[str, Any]:
    """Make an archive, then remove what need not be kept any longer."""
    began = time.monotonic()
    made, manifest = make(settings, _elsewhere(settings))
    seconds = round(time.monotonic() - began, 1)
    removed = prune(settings.root, _policy(settings))
    return {
        "archive": made.path,
        "bytes": made.path.stat().st_size,
        "seconds": seconds,
        "rows": sum(table["rows"] for one in manifest["databases"].values() for table in one["tables"].values()),
        "missing": manifest["missing"],
        "removed": [one.path.name for one in removed],
    }


def list_(settings: Settings, _given: argparse.Namespace) -> list[dict[str, Any]]:
    """The archives, the newest first, with the reasons to keep each."""
    return [
        {"archive": one.path.name, "bytes": one.path.stat().st_size, "kept": ", ".join(reasons) or "no longer"}
        for one, reasons in planned(settings.root, _policy(settings))
    ]


def verify(settings: Settings, given: argparse.Namespace) -> dict[str, Any]:
    """Compare an archive with its checksum and, where it can be read, everything in it."""
    archive = chosen(settings, given.archive)
    check_sum(archive)
    identity = _identity(given)
    if archive.encrypted and not identity:
        return {"archive": archive.path, "checksum": "good", "contents": "not read: encrypted"}
    with locked(settings.root), unpacked(archive, settings.root, identity):
        return {"archive": archive.path, "checksum": "good", "contents": "good"}


def prune_(settings: Settings, given: argparse.Namespace) -> dict[str, Any]:
    """Show what need not be kept any longer; with --apply, remove it."""
    if given.apply:
        with locked(settings.root):
            return {"removed": [one.path.name for one in prune(settings.root, _policy(settings))]}
    return {"would remove": [one.path.name for one, why in planned(settings.root, _policy(settings)) if not why]}


def restore(settings: Settings, given: argparse.Namespace) -> dict[str, Any]:
    """Restore an archive over what this host has; with --moment, its databases as they were then."""
    if given.moment:
        return rewind.rewind(settings, rewind.Moment(given.moment, _identity(given), given.confirm))
    archive = chosen(settings, given.archive)
    order = Order(archive, _identity(given), given.confirm, parts_named(given.parts), given.other_keys)
    return restore_archive(settings, order)


def drill(settings: Settings, given: argparse.Namespace) -> dict[str, Any]:
    """Restore an archive into throwaway containers; without one, a backup that is made for it."""
    told: dict[str, Any] = {}
    if given.archive or given.identity_on_stdin:
        archive = chosen(settings, given.archive)
        with terminable("Nothing of the EMS was touched."), locked(settings.root):
            clean(settings.root)
            if archive.sum_path.is_file():
                check_sum(archive)
            with unpacked(archive, settings.root, _identity(given)) as folder:
                return drill_folder(settings, folder, read_manifest(folder / "manifest.json"))
    # the host cannot read its archives: what it tries is the folder that it has just made one of
    trying: Follower = lambda folder, manifest: told.update(drill_folder(settings, folder, manifest))  # noqa: E731
    make(settings, (*_elsewhere(settings), trying))
    prune(settings.root, _policy(settings))
    return told


def anonymize(settings: Settings, given: argparse.Namespace) -> dict[str, Any]:
    """Make an archive of test data from an archive of production: of the same shape, without people in it."""
    folder = given.to or settings.root / "anonymized"
    order = Anonymizing(chosen(settings, given.archive), _identity(given), given.target, folder)
    return anonymize_archive(settings, order)


def moments(settings: Settings, _given: argparse.Namespace) -> dict[str, Any]:
    """To which moments the databases can be restored, and how old the newest of them is."""
    return rewind.moments(settings)


def base(settings: Settings, given: argparse.Namespace) -> dict[str, Any]:
    """Make a base for moments: of what has changed since the last one or, when that is due, of everything."""
    with terminable("Nothing was kept of this base."):
        return bases.base(settings, full=given.full)


def archive_wal(settings: Settings, given: argparse.Namespace) -> dict[str, Any]:
    """Receive the database's log until told to stop."""
    if given.forget:
        wal.forget(settings)
        return {"archive": "forgotten"}
    wal.archive(settings)
    return {}


def offsite_list(settings: Settings, _given: argparse.Namespace) -> list[dict[str, Any]]:
    """The copies elsewhere, the newest first."""
    return offsite.copies(settings)


def offsite_check(settings: Settings, _given: argparse.Namespace) -> dict[str, Any]:
    """Look whether the copies elsewhere are whole, and read a part of them."""
    offsite.check(settings, int(time.time() // (7 * 86400)))
    return {"copies": "good"}


def offsite_fetch(settings: Settings, given: argparse.Namespace) -> dict[str, Any]:
    """Bring a copy back as an archive, which can be restored."""
    with locked(settings.root):
        return {"archive": offsite.fetch(settings, given.copy).path}


def _elsewhere(settings: Settings) -> tuple[Follower, ...]:
    """What keeps a backup elsewhere too, where that is wanted."""
    if settings.offsite is None:
        return ()
    return (lambda folder, manifest: offsite.push(settings, folder, manifest),)


def _identity(given: argparse.Namespace) -> str:
    return sys.stdin.read() if given.identity_on_stdin else ""


def chosen(settings: Settings, name: str) -> Archive:
    """The archive that was named, or the newest good one.

    Raises:
        BackupError: there is none.
    """
    if name:
        return archive_at(Path(name) if "/" in name else settings.root / name)
    for archive in archives(settings.root):
        try:
            check_sum(archive)
        except BackupError as error:
            print(f"passed over: {error}", file=sys.stderr)
            continue
        return archive
    raise BackupError(f"{settings.root} holds no good archive. Make one: playbooks/backup.yml")


def _policy(settings: Settings) -> Policy:
    return Policy(settings.days, settings.weeks, settings.months)


def _lines(told: Any) -> list[str]:
    if isinstance(told, list):
        return ["  ".join(str(value) for value in one.values()) for one in told] or ["none"]
    return [f"{name}: {_text(value)}" for name, value in told.items()]


def _text(value: Any) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cariflex-backup", description="Backups of an EMS on its host.")
    parser.add_argument("--settings", type=Path, default=settings_file.PATH, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, does: Any) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=does.__doc__.splitlines()[0])
        made.set_defaults(verb=does)
        return made

    def of_archive(made: argparse.ArgumentParser) -> None:
        made.add_argument("archive", nargs="?", default="", help="its name or path; else the newest good one")
        made.add_argument("--identity-on-stdin", action="store_true", help="age's secret key comes on standard input")

    verb("run", run)
    verb("list", list_)
    of_archive(verb("verify", verify))
    restoring = verb("restore", restore)
    of_archive(restoring)
    restoring.add_argument("--confirm", default="", metavar="ENVIRONMENT", help="overwrite the data of this host")
    restoring.add_argument("--parts", default="", help="restore these alone, with commas between them")
    restoring.add_argument("--other-keys", action="store_true", help="also where keys differ from the archive's")
    restoring.add_argument("--moment", default="", help="as 2026-11-27T05:00:00-04:00: the databases as they were then")
    of_archive(verb("drill", drill))
    anonymizing = verb("anonymize", anonymize)
    of_archive(anonymizing)
    anonymizing.add_argument("--for", dest="target", required=True, metavar="ENVIRONMENT", help="whose data it becomes")
    anonymizing.add_argument("--to", type=Path, metavar="FOLDER", help="where to; else anonymized, beside the archives")
    verb("moments", moments)
    verb("base", base).add_argument("--full", action="store_true", help="of everything")
    verb("archive-wal", archive_wal).add_argument("--forget", action="store_true", help="it was switched off")
    verb("offsite-list", offsite_list)
    verb("offsite-check", offsite_check)
    verb("offsite-fetch", offsite_fetch).add_argument("copy", nargs="?", default="", help="its stamp; else the newest")
    verb("prune", prune_).add_argument("--apply", action="store_true", help="remove it")
    return parser


def entry() -> None:
    """What /usr/local/sbin/cariflex-backup calls."""
    os.umask(0o077)
    sys.exit(main())
