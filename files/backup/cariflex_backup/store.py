"""The archive of bases and log that moments are restored from, in a folder beside the archives.

moments/<system>/base/<stamp>/     base.json, backup_manifest, *.tar.zst[.age]
moments/<system>/wal/<segment>.gz[.age]
moments/<system>/receiving/        the segment that is being received, as PostgreSQL has it
moments/<system>/marks             every mark that has reached the archive: time, timeline, place
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import IO

from cariflex_backup.archive import sync_folder
from cariflex_backup.encryption import decrypted, encrypted
from cariflex_backup.errors import BackupError
from cariflex_backup.moments import SEGMENT, Base, Mark, Range, ranges

_CHUNK = 1 << 20
_NEEDED = re.compile(r"[0-9A-F]{24}|[0-9A-F]{8}\.history")


class Store:
    """The archive of a host. Files get their names when they are whole and on the disk."""

    def __init__(self, root: Path, recipients: tuple[str, ...]) -> None:
        """Below the folder of the archives, encrypted to these keys."""
        self.folder = root / "moments"
        self._recipients = recipients
        self._suffix = ".age" if recipients else ""

    # --- the log ---

    def receiving(self, system: str) -> Path:
        """Where the log of a cluster comes in."""
        path = self.folder / system / "receiving"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def seal(self, system: str) -> None:
        """Put away, compressed and encrypted, what has been received to its end."""
        target = self.folder / system / "wal"
        target.mkdir(mode=0o700, exist_ok=True)
        for path in sorted(self.receiving(system).iterdir()):
            if _NEEDED.fullmatch(path.name):
                packer = zlib.compressobj(level=1, wbits=31)  # of gzip's form
                packed = packer.compress(path.read_bytes()) + packer.flush()
                with self._private(target / f"{path.name}.gz") as file:
                    file.write(packed)
                path.unlink()

    def note(self, mark: Mark) -> None:
        """Keep a mark that has reached the archive."""
        with (self.folder / mark.system / "marks").open("a", encoding="ascii") as file:
            file.write(f"{mark.time.isoformat()} {mark.timeline} {mark.lsn}\n")

    def marks(self) -> list[Mark]:
        """Every mark."""
        return [mark for system in self._systems() for mark in self._marks_of(system)]

    def _marks_of(self, system: str) -> Iterator[Mark]:
        path = self.folder / system / "marks"
        lines = path.read_text(encoding="ascii").splitlines() if path.is_file() else []
        for line in lines:
            try:
                time, timeline, lsn = line.split(" ")
                yield Mark(datetime.fromisoformat(time), system, int(timeline), int(lsn))
            except ValueError:
                continue  # the host went down while it was written

    def segments(self) -> set[tuple[str, str]]:
        """System and name of the segments that are there, that which is being received included."""
        found = set()
        for system in self._systems():
            for path in (*(self.folder / system).glob("wal/*"), *(self.folder / system).glob("receiving/*")):
                name = path.name.split(".")[0]
                if SEGMENT.fullmatch(name) and not path.name.startswith("."):
                    found.add((system, name))
        return found

    def segment_into(self, system: str, name: str, folder: Path, identity: str) -> None:
        """Bring a segment, or a history of timelines, to where PostgreSQL can take it.

        Raises:
            BackupError: it is not there, damaged, or the key does not fit.
        """
        target = folder / name
        for _ in range(2):  # it may be put away just now
            for suffix in (".gz.age", ".gz"):
                path = self.folder / system / "wal" / f"{name}{suffix}"
                if path.is_file():
                    with self.opened(path, identity) as file, target.open("wb") as out:
                        try:
                            out.write(zlib.decompress(file.read(), wbits=31))
                        except zlib.error as error:
                            raise BackupError(f"{path} is damaged ({error}). Choose an earlier moment.") from None
                    return
            for suffix in ("", ".partial"):
                path = self.folder / system / "receiving" / f"{name}{suffix}"
                try:
                    shutil.copyfile(path, target)
                except FileNotFoundError:
                    continue
                return
        raise BackupError(f"The segment {name} of the log is missing in {self.folder / system}.")

    def histories(self, system: str) -> list[str]:
        """Names of the histories of timelines."""
        return sorted({".".join(path.name.split(".")[:2]) for path in (self.folder / system).glob("wal/*.history.gz*")})

    # --- bases ---

    def bases(self) -> list[Base]:
        """Those that are whole, the oldest first."""
        found = []
        for path in self.folder.glob("*/base/*/base.json"):
            if not path.parent.name.startswith("."):
                given = json.loads(path.read_text(encoding="utf-8"))
                found.append(Base(**{**given, "ready": datetime.fromisoformat(given["ready"])}))
        return sorted(found, key=lambda base: base.ready)

    def folder_of(self, base: Base) -> Path:
        """Where a base lies."""
        return self.folder / base.system / "base" / base.stamp

    def keep(self, base: Base, staging: Path) -> None:
        """Put a base away that was made in a folder of the same disk."""
        for path in staging.glob("*.tar.zst") if self._recipients else ():
            with self._private(path) as target, path.open("rb") as plain:
                shutil.copyfileobj(plain, target, _CHUNK)
            path.unlink()
        text = json.dumps(asdict(base), default=lambda time: time.isoformat())
        (staging / "base.json").write_text(text + "\n", encoding="utf-8")
        os.sync()
        self.folder_of(base).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        staging.rename(self.folder_of(base))
        sync_folder(self.folder_of(base).parent)

    def ranges(self) -> list[Range]:
        """What can be restored."""
        return ranges(self.bases(), self.marks(), self.segments())

    def remove(self, bases: Collection[Base], segments: Collection[tuple[str, str]]) -> None:
        """Remove bases, and segments of the log; marks that are older than every base go as well."""
        for base in bases:
            gone = self.folder_of(base).with_name(f".gone-{base.stamp}")
            self.folder_of(base).rename(gone)
            shutil.rmtree(gone)
        for system, name in segments:
            for path in (self.folder / system / "wal").glob(f"{name}.gz*"):
                path.unlink()
        left = self.bases()
        for system in self._systems():
            times = [base.ready for base in left if base.system == system]
            kept = [mark for mark in self._marks_of(system) if times and mark.time >= min(times)]
            path = self.folder / system / "marks"
            if times and path.is_file():
                lines = "".join(f"{mark.time.isoformat()} {mark.timeline} {mark.lsn}\n" for mark in kept)
                path.with_suffix(".new").write_text(lines, encoding="ascii")
                path.with_suffix(".new").rename(path)

    @contextmanager
    def opened(self, path: Path, identity: str) -> Iterator[IO[bytes]]:
        """A file of the archive, decrypted."""
        if path.suffix != ".age":
            with path.open("rb") as file:
                yield file
            return
        if not identity:
            raise BackupError(f"{path} is encrypted: give age's identity (backup_identity_file).")
        with decrypted(path, identity) as plain:
            yield plain

    def _systems(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*") if path.name.isdigit())

    @contextmanager
    def _private(self, path: Path) -> Iterator[IO[bytes]]:
        """A file to write, under its name and `.age` where there is a key, once it is whole and on the disk."""
        final = path.with_name(path.name + self._suffix)
        partial = path.with_name(f".{path.name}.partial")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            if self._recipients:
                with encrypted(self._recipients, file) as plain:
                    yield plain
            else:
                yield file
            file.flush()
            os.fsync(file.fileno())
        partial.rename(final)
        sync_folder(path.parent)
