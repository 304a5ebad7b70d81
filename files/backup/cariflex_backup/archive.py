"""The archive: its name, its manifest and checksums, packing, reading and verifying.

`YYYYMMDD_HHMMSS.tar.gz`, with `.age` where it is encrypted, holds one folder of its name. The folder's `SHA256SUMS`
covers every file in it, and `manifest.json` says what is in it. Beside the archive stands its own checksum,
`<archive>.sha256`, written first: it makes the archive ours, and damage seen without a key.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from cariflex_backup.encryption import decrypted, encrypted
from cariflex_backup.errors import BackupError

FORMAT = 1
MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
PARTS = ("postgres", "redis", "flexmeasures", "openadr", "grafana", "containers", "network")
PHPIPAM = "phpipam"  # one more, where phpIPAM is deployed
_NAME = re.compile(r"(\d{8}_\d{6})\.tar\.gz(\.age)?")
_CHUNK = 1 << 20


@dataclass(frozen=True, order=True)
class Archive:
    """An archive that is whole, as far as its name and its checksum's file say."""

    stamp: str
    path: Path

    @property
    def encrypted(self) -> bool:
        """Whether it takes an identity to read it."""
        return self.path.suffix == ".age"

    @property
    def made_at(self) -> datetime:
        """When it was begun."""
        return time_of(self.stamp)

    @property
    def sum_path(self) -> Path:
        """The file with its checksum."""
        return self.path.with_name(f"{self.path.name}.sha256")


def stamp_of(time: datetime) -> str:
    """The name of an archive made at a time: in UTC, so that no clock change makes two of one hour."""
    return time.astimezone(UTC).strftime("%Y%m%d_%H%M%S")


def time_of(stamp: str) -> datetime:
    """The time in an archive's name."""
    return datetime.strptime(stamp, "%Y%m%d_%H%M%S").replace(tzinfo=UTC)


def archive_at(path: Path) -> Archive:
    """The archive in a file.

    Raises:
        BackupError: there is none, or its name is no archive's.
    """
    if not _is_named(path):
        raise BackupError(
            f"{path} is no archive: those are named YYYYMMDD_HHMMSS.tar.gz or YYYYMMDD_HHMMSS.tar.gz.age."
        )
    if not path.is_file():
        raise BackupError(f"There is no archive {path}. List those there are: cariflex-backup list")
    return Archive(path.name.partition(".")[0], path)


def archives(root: Path) -> list[Archive]:
    """The archives that this program made in a folder, the newest first. Whatever else lies there is not ours."""
    found = [archive_at(path) for path in root.glob("*.tar.gz*") if _is_named(path) and path.is_file()]
    return sorted((archive for archive in found if archive.sum_path.is_file()), reverse=True)


def _is_named(path: Path) -> bool:
    """Whether a file's name is an archive's; month 13 is none's."""
    found = _NAME.fullmatch(path.name)
    try:
        return found is not None and bool(time_of(found[1]))
    except ValueError:
        return False


# --- the folder ---


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest and the checksums of everything."""
    (folder / SUMS).unlink(missing_ok=True)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    lines = [f"{_digest_of(path)}  {path.relative_to(folder)}\n" for path in _files(folder)]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def check_folder(folder: Path) -> dict[str, Any]:
    """The manifest of a folder whose files are all there and unchanged.

    Raises:
        BackupError: with the file that is missing, changed or not listed; or a format that is not known.
    """
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        listed = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError):
        raise BackupError(f"{folder.name} has no {SUMS} that can be read: it is not whole. Take another one.") from None
    there = {
        str(path.relative_to(folder)): path for path in _files(folder) if path.name != SUMS or path.parent != folder
    }
    for name in sorted(listed.keys() ^ there.keys()):
        raise BackupError(
            f"{folder.name}: {name} is {'missing' if name in listed else 'not listed'}. Take another one."
        )
    for name, path in there.items():
        if _digest_of(path) != listed[name]:
            raise BackupError(f"{folder.name}: {name} differs from its checksum. Take another one.")
    return read_manifest(folder / MANIFEST)


def read_manifest(path: Path) -> dict[str, Any]:
    """A manifest of a format that this program knows.

    Raises:
        BackupError: it is another's.
    """
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        format_ = manifest["format"]
    except (OSError, ValueError, KeyError, TypeError):
        raise BackupError(f"{path} is no manifest. Take another archive.") from None
    if format_ != FORMAT:
        raise BackupError(
            f"{path.parent.name} has the format {format_!r}, and this program reads {FORMAT}. "
            "Deploy the version of the project that made it, named in the manifest as project_version."
        )
    return cast(dict[str, Any], manifest)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- the file ---


class _Sum:
    """A file that takes note of what passes through it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        return self._file.write(data)

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        return data

    def flush(self) -> None:
        self._file.flush()

    @property
    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def pack(folder: Path, root: Path, recipients: Sequence[str]) -> Archive:
    """Make the archive of a sealed folder. It gets its name when it is whole, on the disk and read again."""
    name = f"{folder.name}.tar.gz{'.age' if recipients else ''}"
    partial = root / f".{name}.partial"
    with _private(partial) as file:
        if recipients:
            with encrypted(recipients, file) as plain:
                written = _write(folder, plain)
        else:
            written = _write(folder, file)
        file.flush()
        os.fsync(file.fileno())
    with partial.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # read what the disk has, not what was written
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not recipients and digest != written:
        raise BackupError(f"{partial} differs from what was written to it: the disk of {root} is not to be trusted.")
    archive = Archive(folder.name, root / name)
    with _private(archive.sum_path) as file:
        file.write(f"{digest}  {name}\n".encode())
        file.flush()
        os.fsync(file.fileno())
    partial.rename(archive.path)
    sync_folder(root)
    return archive


def _write(folder: Path, target: IO[bytes]) -> str:
    summed = _Sum(target)
    # stored, not compressed: nearly all of it is the dump, which is compressed already
    with (
        gzip.GzipFile(filename="", fileobj=cast(IO[bytes], summed), mode="wb", compresslevel=0, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_CHUNK) as tar,
    ):
        tar.add(folder, arcname=folder.name)
    return summed.hexdigest


def check_sum(archive: Archive) -> None:
    """Compare an archive with its checksum; takes no key.

    Raises:
        BackupError: they differ, or there is no checksum.
    """
    try:
        expected = archive.sum_path.read_text(encoding="utf-8").split()[0]
    except (OSError, IndexError):
        raise BackupError(f"{archive.path} has no checksum beside it ({archive.sum_path.name}).") from None
    if _digest_of(archive.path) != expected:
        raise BackupError(
            f"{archive.path} differs from its checksum: it was damaged after it was made. Take another one."
        )


@contextmanager
def unpacked(archive: Archive, below: Path, identity: str = "") -> Iterator[Path]:
    """The archive's folder, verified, below another folder that is private; removed afterwards.

    Raises:
        BackupError: it is damaged, the identity is missing or does not fit.
    """
    if archive.encrypted and not identity:
        raise BackupError(f"{archive.path} is encrypted: give age's identity (backup_identity_file).")
    target = below / f".unpacked-{archive.stamp}-{os.getpid()}"
    target.mkdir(mode=0o700, parents=True)
    try:
        if archive.encrypted:
            with decrypted(archive.path, identity) as plain:
                _extract(archive, plain, target)
        else:
            with archive.path.open("rb") as file:
                _extract(archive, file, target)
        folder = target / archive.stamp
        check_folder(folder)
        yield folder
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _extract(archive: Archive, source: IO[bytes], target: Path) -> None:
    try:
        with (
            gzip.GzipFile(fileobj=source, mode="rb") as unzipped,
            tarfile.open(fileobj=unzipped, mode="r|", bufsize=_CHUNK) as tar,
        ):
            tar.extraction_filter = _as_packed  # later Pythons want one; ours has looked before
            for member in tar:
                _check_member(archive, member, target)
                tar.extract(member, target, numeric_owner=True)
            while unzipped.read(_CHUNK):  # to the checksum at its end
                pass
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, ValueError) as error:
        raise BackupError(f"{archive.path} cannot be unpacked: {error}. It is not whole; take another one.") from None
    except OSError as error:
        raise BackupError(f"{archive.path} cannot be unpacked in {target.parent}: {error.strerror or error}.") from None


def _check_member(archive: Archive, member: tarfile.TarInfo, target: Path) -> None:
    """Refuse what would be written elsewhere, also by way of a link."""
    path = PurePosixPath(member.name)
    inside = path.parts[:1] == (archive.stamp,) and ".." not in path.parts
    if not inside or not (target / path.parent).resolve().is_relative_to(target.resolve()):
        raise BackupError(f"{archive.path} holds {member.name}, which is not below {archive.stamp}.")
    if not (member.isfile() or member.isdir() or member.issym()):
        raise BackupError(f"{archive.path} holds {member.name}, which is neither file, folder nor link.")


def _as_packed(member: tarfile.TarInfo, _path: str) -> tarfile.TarInfo:
    """Owners and modes as they were."""
    return member


def _private(path: Path) -> IO[bytes]:
    """A new file that only its owner reads."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def sync_folder(folder: Path) -> None:
    """Let what was named in a folder outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
