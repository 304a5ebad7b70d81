"""Backups of a real PostgreSQL and Redis: what is in them, and what becomes of those that go wrong."""

import json
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cariflex_backup import archive
from cariflex_backup.database import Server as Reader
from tests.integration.backup.conftest import START, Program, ended, showing
from tests.integration.grafana.conftest import Server, docker
from tests.integration.grafana.test_alerts import ALERTS

pytestmark = pytest.mark.docker
Connection = psycopg.Connection[tuple[Any, ...]]
Release = Callable[[], None]


def runs(superuser: Connection) -> list[tuple[Any, ...]]:
    """The recorded runs, the oldest first."""
    query = "SELECT status, archive, error FROM ems.backup_run WHERE kind = 'full' ORDER BY started_at"
    return superuser.execute(query).fetchall()


def alert(superuser: Connection) -> float:
    """What the alert of a missed backup watches; above 0 it fires."""
    row = superuser.execute(ALERTS["backup-missed"].encode()).fetchone()
    assert row is not None
    return float(row[1])


def sessions(superuser: Connection) -> set[int]:
    """The program's sessions in the database."""
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'cariflex-backup'"
    return {pid for (pid,) in superuser.execute(query)}


def until(check: Callable[[], Any], seconds: float = 60) -> None:
    """Wait for something."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_dumping(program: Program) -> bool:
    """Whether a run has come to the dump of the database."""
    return bool(list(program.root.glob(".staging-*/*/postgres/flexmeasures.dump")))


@contextmanager
def writing(server: Server) -> Iterator[None]:
    """Beliefs are written all the time, each transaction alone."""
    stop = threading.Event()

    def write() -> None:
        with server.connect("flexmeasures") as connection:
            connection.autocommit = True
            number = 0
            while not stop.is_set():
                number += 1
                connection.execute(
                    "INSERT INTO timed_belief SELECT now() + %s * interval '1 s', '0', 0.5, 1, 41, 1", (number,)
                )

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_backup_under_load_holds_one_state_of_everything(
    program: Program, server: Server, redis: str, superuser: Connection
) -> None:
    with writing(server):
        told = program.run("run")
    assert told.status == 0, told.error
    assert alert(superuser) <= 0
    ((status, name, error),) = runs(superuser)
    assert (status, error) == ("ok", None)
    assert program.archives() == [name, f"{name}.sha256"]
    made = archive.archive_at(program.root / name)
    assert made.encrypted == bool(program.identity)
    assert program.run("verify", "--identity-on-stdin", stdin=program.identity).told["contents"] in ("good",)

    with archive.unpacked(made, program.root, program.identity) as folder:
        manifest = archive.check_folder(folder)
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert {
            "postgres/globals.sql",
            "postgres/flexmeasures.dump",
            "postgres/openadr.dump",
            "redis/dump.rdb",
            "containers/containers.json",
            "network/docker-networks.json",
        } <= files
        assert [path for path in files if path.endswith("/host/etc/some.conf")]
        assert set(manifest["missing"]) == {"/not/there", "volume no-such-volume", "container no-such-container"}
        assert manifest["images"].keys() == {server.container, redis}
        assert {one["Name"] for one in json.loads((folder / "containers/containers.json").read_text())} == {
            f"/{server.container}",
            f"/{redis}",
        }
        assert b"PASSWORD" not in (folder / "postgres/globals.sql").read_bytes()
        assert (folder / "redis/dump.rdb").read_bytes().startswith(b"REDIS")
        assert set(manifest["parts"]) == set(archive.PARTS)

        # restored, it has the rows and hashes of the manifest, although writing went on while it was dumped
        found = manifest["databases"]["flexmeasures"]
        assert found["migration_heads"].keys() == {"public.alembic_version", "ems.alembic_version"}
        superuser.execute("CREATE DATABASE restored")
        try:
            restore = ["docker", "exec", "--interactive", server.container, "pg_restore", "--username=postgres"]
            dump = (folder / "postgres/flexmeasures.dump").read_bytes()
            subprocess.run([*restore, "--exit-on-error", "--dbname=restored"], input=dump, check=True)
            again = Reader(server.container).fingerprint("restored")
        finally:
            superuser.execute("DROP DATABASE restored")
    assert again["tables"] == found["tables"]
    assert again["migration_heads"] == found["migration_heads"]
    now = Reader(server.container).fingerprint("flexmeasures")["tables"]["public.timed_belief"]
    assert now["rows"] > found["tables"]["public.timed_belief"]["rows"] > 10_000
    assert now["hash"] != found["tables"]["public.timed_belief"]["hash"]


def test_killed_in_the_middle_it_leaves_no_archive_and_the_next_run_cleans_up(
    program: Program, server: Server, superuser: Connection, blocked: Release
) -> None:
    first = program.start("run")
    until(lambda: is_dumping(program))
    until(lambda: len(sessions(superuser)) == 2)  # one that dumps and one that counts
    hanging = sessions(superuser)
    second = program.run("run")
    assert second.status == 1
    assert f"Another run uses {program.root}" in second.error
    first.kill()
    first.communicate()
    assert program.archives() == []
    assert is_dumping(program)
    assert [status for status, _, _ in runs(superuser)] == ["running"]
    assert alert(superuser) > 0

    third = program.start("run")  # while what the first one began still hangs in the database
    until(lambda: [status for status, _, _ in runs(superuser)] == ["failed", "running"])
    assert not sessions(superuser) & hanging
    blocked()
    assert ended(third).status == 0
    assert [(status, error) for status, _, error in runs(superuser)] == [
        ("failed", "it was killed, or the host went down"),
        ("ok", None),
    ]
    assert alert(superuser) <= 0
    assert len(program.archives()) == 2
    assert not list(program.root.glob(".staging*"))
    assert sessions(superuser) == set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_asked_to_end_it_cleans_up_and_says_so(
    number: signal.Signals, program: Program, superuser: Connection, blocked: Release
) -> None:
    run = program.start("run")
    until(lambda: is_dumping(program))
    run.send_signal(number)
    end = ended(run)
    assert end.status == 1
    assert f"It was stopped ({number.name}). Nothing was kept of this backup." in end.error
    assert [path.name for path in program.root.iterdir()] == [".lock"]
    ((status, _, error),) = runs(superuser)
    assert (status, error) == ("failed", f"It was stopped ({number.name}). Nothing was kept of this backup.")
    blocked()


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


def test_too_little_room_is_told_before_anything_is_written(
    program: Program, superuser: Connection, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", "9m") as small:
        end = program.with_(root=str(small)).run("run")
        assert end.status == 1
        assert f"{small} has 9 MB free, and a backup may need " in end.error
        assert [path.name for path in small.iterdir()] == [".lock"]
    assert [status for status, _, _ in runs(superuser)] == ["failed"]


def test_a_disk_that_fills_up_leaves_nothing_and_is_named(
    program: Program, superuser: Connection, tmp_path: Path
) -> None:
    hopeful = f"from cariflex_backup import making; making._check_space = lambda *_: None; {START}"
    # the first has room for no dump, the second for the dump and not for the archive
    for size in ("100k", "200k"):
        with small_disk(tmp_path / size, size) as small:
            end = program.with_(root=str(small)).run("run", code=hopeful)
            assert end.status == 1
            assert "space left" in end.error
            assert [path.name for path in small.iterdir()] == [".lock"]
    assert [status for status, _, _ in runs(superuser)] == ["failed", "failed"]
    assert alert(superuser) > 0


@pytest.mark.parametrize(
    ("settings", "message", "recorded"),
    [
        ({"redis_container": "no-such-redis"}, "asking no-such-redis failed: .*No such container", True),
        ({"database_container": "no-such-database"}, "failed: .*No such container: no-such-database", False),
        ({"databases": ["flexmeasures", "nobodys"]}, "has no database nobodys, only flexmeasures, openadr", True),
        ({"database_password_file": "/nowhere"}, r"/nowhere cannot be read \(No such file.*deploy", False),
        ({"root": "/dev/null/backups"}, r"/dev/null/backups: Not a directory", False),
        ({"nonsense": 1}, r"are of two versions \(nonsense\)\. Deploy both", False),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_is_away_is_named(
    settings: dict[str, Any], message: str, recorded: bool, program: Program, superuser: Connection
) -> None:
    end = program.with_(**settings).run("run")
    assert end.status == 1
    assert re.search(message, end.error), end.error
    assert "Traceback" not in end.error
    assert program.archives() == []
    assert [status for status, _, _ in runs(superuser)] == (["failed"] if recorded else [])


def test_no_process_shows_a_password(program: Program, server: Server, blocked: Release) -> None:
    run = program.start("run")
    until(lambda: is_dumping(program))
    time.sleep(0.3)
    assert "pg_dump" in showing("pg_dump")
    assert showing(server.passwords["cariflex_backup"]) == []
    assert server.passwords["cariflex_backup"] not in docker("inspect", server.container)
    run.terminate()
    ended(run)
    blocked()


def test_a_folder_that_vanishes_in_the_middle_is_named(
    program: Program, superuser: Connection, blocked: Release
) -> None:
    run = program.start("run")
    until(lambda: is_dumping(program))
    shutil.rmtree(program.root)
    blocked()
    end = ended(run)
    assert end.status == 1
    assert f"{program.root}: No such file or directory. Nothing was kept of this backup." in end.error
    assert [status for status, _, _ in runs(superuser)] == ["failed"]
