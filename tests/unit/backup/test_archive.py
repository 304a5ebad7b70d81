"""The archive's format: what is packed comes back, and whatever is not whole is refused with what is wrong."""

import gzip
import io
import random
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cariflex_backup import archive
from cariflex_backup.archive import Archive
from cariflex_backup.errors import BackupError

STAMP = "20260504_020000"
DUMP = b"PGDMP" + random.Random(1).randbytes(1_000_000)
CONTENT = {"postgres/flexmeasures.dump": DUMP, "redis/dump.rdb": b"REDIS0010", "network/etc/ü b/none": b""}
needs_age = pytest.mark.skipif(shutil.which("age") is None, reason="age is not installed: apt install age")


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """A sealed folder."""
    folder = tmp_path / "staging" / STAMP
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "network/etc/link").symlink_to("/etc/hosts")
    (folder / "redis/dump.rdb").chmod(0o640)
    archive.seal(folder, {"format": 1, "made_at": "2026-05-04T02:00:00+00:00"})
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of the archives."""
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def packed(sealed: Path, root: Path) -> Archive:
    """The archive of it, not encrypted."""
    return archive.pack(sealed, root, ())


def identity() -> tuple[str, str]:
    """age's secret key and its public one."""
    made = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"public key: (\S+)", made)
    assert found
    return made, found[1]


def refused(made: Archive, below: Path, message: str, key: str = "") -> None:
    """Hold that an archive is not taken for whole, and why, and that nothing of it stays."""
    with pytest.raises(BackupError, match=message), archive.unpacked(made, below, key):
        pytest.fail("it is taken for whole")
    assert not list(below.glob(".unpacked*"))


def test_what_is_packed_comes_back(packed: Archive, root: Path) -> None:
    with archive.unpacked(packed, root) as folder:
        assert {name: (folder / name).read_bytes() for name in CONTENT} == CONTENT
        assert (folder / "network/etc/link").readlink() == Path("/etc/hosts")
        assert (folder / "redis/dump.rdb").stat().st_mode & 0o777 == 0o640
        assert archive.read_manifest(folder / "manifest.json")["format"] == 1
        assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in root.iterdir()) == [packed.path.name, packed.sum_path.name]


def test_archives_and_checksums_are_for_root_alone(packed: Archive) -> None:
    assert {path.stat().st_mode & 0o777 for path in (packed.path, packed.sum_path)} == {0o600}


def test_the_usual_tools_read_it(packed: Archive, root: Path, tmp_path: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", packed.sum_path.name], cwd=root, check=True)
    subprocess.run(["tar", "--extract", "--gzip", "--file", packed.path, "--directory", tmp_path], check=True)
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / STAMP, check=True)


@needs_age
def test_an_encrypted_archive_comes_back_with_its_key_only(sealed: Path, root: Path) -> None:
    (secret, public), (other, _) = identity(), identity()
    made = archive.pack(sealed, root, [public])
    assert made.path.name == f"{STAMP}.tar.gz.age"
    assert b"manifest" not in made.path.read_bytes()
    archive.check_sum(made)
    with archive.unpacked(made, root, secret) as folder:
        assert (folder / "postgres/flexmeasures.dump").read_bytes() == DUMP
    refused(made, root, r"no identity matched", other)
    refused(made, root, r"is encrypted: give age's identity")
    assert not list(root.glob(".unpacked*"))


@needs_age
def test_any_of_several_keys_reads_it(sealed: Path, root: Path) -> None:
    keys = [identity() for _ in range(2)]
    made = archive.pack(sealed, root, [public for _, public in keys])
    for secret, _ in keys:
        with archive.unpacked(made, root, secret) as folder:
            assert (folder / "redis/dump.rdb").is_file()


@needs_age
def test_a_wrong_recipient_ends_without_an_archive(sealed: Path, root: Path) -> None:
    with pytest.raises(BackupError, match=r"malformed recipient|unknown recipient"):
        archive.pack(sealed, root, ["age1nobody"])
    assert archive.archives(root) == []


def changed(made: Archive, change: Callable[[bytes], bytes]) -> Archive:
    """The archive with other content, beside a checksum that fits: as a disk that damaged it before it was summed."""
    made.path.write_bytes(change(made.path.read_bytes()))
    return made


@pytest.mark.parametrize("kept", [0, 1, 5000, -9, -1])
def test_a_truncated_archive_is_refused(kept: int, packed: Archive, root: Path) -> None:
    refused(changed(packed, lambda content: content[:kept]), root, r"take another one|Take another one")
    assert not list(root.glob(".unpacked*"))


@pytest.mark.parametrize("where", [0.0001, 0.02, 0.3, 0.7, 0.999999])
def test_a_flipped_bit_is_refused(where: float, packed: Archive, root: Path) -> None:
    def flip(content: bytes) -> bytes:
        flipped = bytearray(content)
        flipped[int(where * len(content))] ^= 0b100
        return bytes(flipped)

    refused(changed(packed, flip), root, r"take another one|Take another one|is not below|neither file")
    with pytest.raises(BackupError, match=r"differs from its checksum"):
        archive.check_sum(packed)


@needs_age
@pytest.mark.parametrize("where", [100, 300, 500_000, -1])
def test_a_flipped_bit_in_an_encrypted_archive_is_refused(where: int, sealed: Path, root: Path) -> None:
    secret, public = identity()
    made = archive.pack(sealed, root, [public])
    content = bytearray(made.path.read_bytes())
    content[where] ^= 1
    made.path.write_bytes(content)
    refused(made, root, r"decrypting .* failed", secret)


def tarred(path: Path, files: dict[str, bytes | str]) -> Archive:
    """An archive of any files; a text is a link's target."""
    with gzip.open(path, "wb") as zipped, tarfile.open(fileobj=zipped, mode="w|") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                tar.addfile(entry)
            else:
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return archive.archive_at(path)


TOP = f"{STAMP}/"
MANIFEST = {f"{TOP}manifest.json": b'{"format": 1}'}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({f"{TOP}x": b"", "../../etc/x": b""}, r"holds \.\./\.\./etc/x, which is not below"),
        ({f"{TOP}x": b"", "other/y": b""}, "which is not below"),
        ({"/etc/x": b""}, "which is not below"),
        ({f"{TOP}../../x": b""}, "which is not below"),
        ({f"{TOP}out": "/tmp", f"{TOP}out/x": b""}, "out/x, which is not below"),
        ({f"{TOP}x": b""}, "no SHA256SUMS that can be read"),
        (MANIFEST, "no SHA256SUMS that can be read"),
        ({**MANIFEST, f"{TOP}SHA256SUMS": b"nonsense\n"}, "no SHA256SUMS that can be read"),
        ({**MANIFEST, f"{TOP}SHA256SUMS": b""}, r"manifest\.json is not listed"),
        ({f"{TOP}SHA256SUMS": b"0" * 64 + b"  redis/dump.rdb\n"}, r"redis/dump\.rdb is missing"),
        ({**MANIFEST, f"{TOP}SHA256SUMS": b"0" * 64 + b"  manifest.json\n"}, "manifest.json differs"),
    ],
)
def test_what_is_no_archive_of_ours_is_refused(files: dict[str, bytes | str], message: str, root: Path) -> None:
    with pytest.raises(BackupError, match=message), archive.unpacked(tarred(root / f"{STAMP}.tar.gz", files), root):
        pytest.fail("it is taken for ours")
    assert [path.name for path in root.iterdir()] == [f"{STAMP}.tar.gz"]


def test_a_later_format_is_refused_with_what_reads_it(sealed: Path, root: Path) -> None:
    archive.seal(sealed, {"format": 2})
    made = archive.pack(sealed, root, ())
    refused(made, root, r"has the format 2, and this program reads 1. Deploy the version")


@pytest.mark.parametrize(
    "name",
    [
        "20260504_020000.tar.gz.partial",
        ".20260504_020000.tar.gz",
        "20261304_020000.tar.gz",
        "20260504_020000.tar.gz.AGE",
        "backup.tar.gz",
    ],
)
def test_which_names_are_no_archives(name: str, root: Path) -> None:
    (root / name).touch()
    (root / f"{name}.sha256").touch()
    assert archive.archives(root) == []
    with pytest.raises(BackupError, match=r"is no archive: those are named"):
        archive.archive_at(root / name)


def test_archives_are_listed_by_age_and_only_ours(packed: Archive, root: Path) -> None:
    (root / "20250504_020000.tar.gz.age").touch()
    (root / "20250504_020000.tar.gz.age.sha256").touch()
    (root / "20240504_020000.tar.gz").touch()  # somebody else's: no checksum
    (root / "20230504_020000.tar.gz").mkdir()
    found = archive.archives(root)
    assert [one.path.name for one in found] == [packed.path.name, "20250504_020000.tar.gz.age"]
    assert found[0].made_at == datetime(2026, 5, 4, 2, tzinfo=UTC)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system in memory."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a small disk takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_leaves_no_archive(sealed: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "512k") as small:
        with pytest.raises(OSError, match=r"No space left"):
            archive.pack(sealed, small, ())
        assert archive.archives(small) == []
        assert list(small.glob("[0-9]*")) == []


def test_a_full_disk_is_told_apart_from_a_damaged_archive(packed: Archive, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "512k") as small:
        refused(packed, small, r"cannot be unpacked in .*small: No space left")
        assert list(small.iterdir()) == []
