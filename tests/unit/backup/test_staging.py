"""What is copied of a host into an archive."""

import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cariflex_backup import staging


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A folder of a host, with all that may lie in one."""
    folder = tmp_path / "host/etc/some"
    folder.mkdir(parents=True)
    (folder / "secret").write_text("key")
    (folder / "secret").chmod(0o400)
    (folder / "link").symlink_to("secret")
    (folder / "empty").mkdir(mode=0o710)
    return folder


def test_a_folder_keeps_its_path_modes_and_links(host: Path, tmp_path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(host / "socket"))  # nothing that could be kept
        assert staging.copied(host, tmp_path / "part")
    copy = tmp_path / "part" / host.relative_to("/")
    assert sorted(path.name for path in copy.iterdir()) == ["empty", "link", "secret"]
    assert (copy / "secret").read_text() == "key"
    assert (copy / "secret").stat().st_mode & 0o777 == 0o400
    assert (copy / "empty").stat().st_mode & 0o777 == 0o710
    assert (copy / "link").readlink() == Path("secret")


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away takes root")
def test_a_file_keeps_its_owner(host: Path, tmp_path: Path) -> None:
    os.chown(host / "secret", 10001, 10002)
    staging.copied(host / "secret", tmp_path / "part")
    copy = (tmp_path / "part" / host.relative_to("/") / "secret").stat()
    assert (copy.st_uid, copy.st_gid) == (10001, 10002)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    assert not staging.copied(tmp_path / "nothing", tmp_path / "part")


def test_a_database_in_use_is_copied_as_one_state(host: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(host / "outbox.db", isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE waiting (value INT)")
        writer.execute("INSERT INTO waiting VALUES (1)")
        writer.execute("BEGIN")
        writer.execute("INSERT INTO waiting VALUES (2)")  # in the log only, and not committed
        staging.copied(host, tmp_path / "part")
        writer.execute("COMMIT")
    copy = tmp_path / "part" / host.relative_to("/")
    assert sorted(path.name for path in copy.glob("outbox*")) == ["outbox.db"]
    with closing(sqlite3.connect(copy / "outbox.db")) as reader:
        assert reader.execute("SELECT value FROM waiting").fetchall() == [(1,)]
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize(
    ("variable", "kept"),
    [
        ("PGDATA=/var/lib/postgresql/data", "PGDATA=/var/lib/postgresql/data"),
        ("POSTGRES_PASSWORD_FILE=/run/secrets/x", "POSTGRES_PASSWORD_FILE=/run/secrets/x"),
        ("POSTGRES_PASSWORD=hunter2", "POSTGRES_PASSWORD=(left out)"),
        ("api_token=abc", "api_token=(left out)"),
        ("DATABASE_URL=postgresql://user:hunter2@db/x", "DATABASE_URL=(left out)"),
        ("URL=http://db:5432/x", "URL=http://db:5432/x"),
        ("EMPTY=", "EMPTY="),
    ],
)
def test_an_environment_is_kept_without_its_secrets(variable: str, kept: str) -> None:
    assert staging._without_secret(variable) == kept
