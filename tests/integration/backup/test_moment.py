"""Restoring to a moment, with a real PostgreSQL 17: what comes back, what is refused, what a kill or a full disk costs.

The tests follow each other on one server, as a host's days do: each restore begins a line of its own.
"""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.backup.conftest import START, Ended, Program, showing
from tests.integration.grafana.conftest import IMAGES, Server, docker, provisioned, wait
from tests.integration.grafana.test_alerts import ALERTS

pytestmark = pytest.mark.docker
OFTEN = "from cariflex_backup import wal; wal._MARK_SECONDS = wal._RETRY_SECONDS = wal._ROW_SECONDS = 1; "


@dataclass
class Site:
    """A server whose log is archived, and the program."""

    server: Server
    program: Program

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """As the superuser; the port is another one after every start."""
        said = docker("port", self.server.container, "5432/tcp")
        self.server = replace(self.server, port=int(said.splitlines()[0].rpartition(":")[2]))
        wait(self.server)
        return self.server.connect("postgres")

    def write(self, text: str) -> datetime:
        """Commit a row; when that was."""
        with self.connect() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS note (text text)")
            connection.execute("INSERT INTO note VALUES (%s)", (text,))
            connection.commit()
            ((now,),) = connection.execute("SELECT clock_timestamp()").fetchall()
        assert isinstance(now, datetime)
        return now

    def notes(self) -> list[str]:
        """Every row."""
        with self.connect() as connection:
            return [text for (text,) in connection.execute("SELECT text FROM note ORDER BY text")]

    def told(self) -> Any:
        """What can be restored."""
        done = self.program.run("moments")
        assert done.status == 0, done.error
        return done.told

    def base(self) -> str:
        """Make a base, when no other one is under way; its kind."""
        deadline = time.monotonic() + 60
        while "Another run" in (done := self.program.run("base")).error and time.monotonic() < deadline:
            time.sleep(0.5)
        assert done.status == 0, done.error
        return str(done.told["kind"])

    def archived(self, moment: datetime) -> None:
        """Wait until a moment can be restored."""
        until(lambda: any(newest(one) >= moment for one in self.told()["moments"]), 90)

    def restore(
        self, moment: str | datetime, confirm: str = "test", key: str | None = None, code: str = START
    ) -> Ended:
        """Restore to a moment."""
        text = moment if isinstance(moment, str) else moment.isoformat()
        options = ("--identity-on-stdin", "--moment", text, "--confirm", confirm)
        return self.program.run("restore", *options, stdin=self.program.identity if key is None else key, code=code)


def newest(text: str) -> datetime:
    """The end of a range of moments."""
    return datetime.fromisoformat(text.split(" to ")[1])


def until(holds: Callable[[], bool], seconds: float) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with a volume, as the role sets it up, and an archive on a small disk of its own."""
    if missing := [name for name in IMAGES if not os.environ.get(name)]:
        pytest.skip(f"no image to test with: set {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("moment")
    root = folder / "root"
    root.mkdir()
    identity, recipients = "", []
    if shutil.which("age"):
        identity = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
        recipients = re.findall(r"public key: (\S+)", identity)
    (folder / "postgres").mkdir()
    with provisioned(folder / "postgres", "--volume", "/var/lib/postgresql/data", flexmeasures=False) as server:
        with server.connect("postgres") as connection:
            connection.autocommit = True
            connection.execute("ALTER SYSTEM SET summarize_wal = on")
            connection.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '64MB'")
            connection.execute("SELECT pg_reload_conf()")
        settings = {
            "environment": "test",
            "project_version": "v1",
            "root": str(root),
            "redis_container": "none",
            "database_container": server.container,
            "database_role": "cariflex_backup",
            "database_password_file": str(server.secrets / "cariflex_backup_password"),
            "databases": ["flexmeasures", "openadr"],
            "folders": {},
            "volumes": {},
            "containers": [server.container],
            "recipients": recipients,
            "days": 30,
            "weeks": 12,
            "months": 0,
            "moments": {"days": 14, "full_days": 7},
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        yield Site(server, Program(root, settings, folder / "settings.json", identity))


@pytest.fixture
def archiver(site: Site) -> Iterator[subprocess.Popen[str]]:
    """What archives the log, running."""
    with archiving(site) as process:
        yield process


@contextmanager
def archiving(site: Site, *, often: bool = True) -> Iterator[subprocess.Popen[str]]:
    """As long as the service runs; with marks more often than it makes them by itself."""
    process = site.program.start("archive-wal", code=OFTEN * often + START)
    try:
        yield process
    finally:
        process.terminate()
        assert "It was stopped (SIGTERM)" in process.communicate(timeout=60)[1] or process.returncode == -9
        assert docker("ps", "--quiet", "--filter", f"label=cariflex.archiver={site.server.container}") == ""


def test_to_a_second_between_two_writes(site: Site, archiver: object) -> None:
    """From a full base and one of what has changed, both made by themselves or by hand."""
    until(lambda: bool(site.told()["moments"]), 90)
    site.write("in the base")
    assert site.base() == "incremental"
    between = site.write("before")
    time.sleep(1)
    site.archived(site.write("after"))
    told = site.told()
    assert told["age_seconds"] < 60
    done = site.restore(between)
    assert done.status == 0, done.error
    assert site.notes() == ["before", "in the base"]
    assert done.told["rows"] > 0
    assert done.told["seconds_without_service"] < 60


def test_a_backup_that_begins_ends_none_of_the_archivers_sessions(site: Site, archiver: object) -> None:
    """It ends those of killed backups, by their name."""
    query = (
        b"SELECT application_name FROM pg_stat_activity WHERE usename = 'cariflex_backup' AND query LIKE '%pg_sleep%'"
    )
    with site.connect() as connection:
        connection.autocommit = True
        until(lambda: connection.execute(query).fetchall() == [("cariflex.archiver",)], 60)
    site.archived(datetime.now(UTC))


def test_no_process_shows_a_password(site: Site, archiver: object) -> None:
    until(lambda: "pg_receivewal" in showing("pg_receivewal"), 30)
    seen, shown, began = set[str](), set[str](), time.monotonic()
    while time.monotonic() < began + 3:  # also while a mark is written
        seen |= set(showing("psql"))
        shown |= set(showing(site.server.passwords["cariflex_backup"]))
    assert "psql" in seen
    assert shown == set()


def test_the_line_that_was_left_can_be_gone_back_to(site: Site, archiver: object) -> None:
    """After a restore a base is made for the new line, and the moments of the old one stay."""
    site.archived(datetime.now(UTC))
    assert len(site.told()["moments"]) == 2
    site.write("on the new line")
    old = newest(site.told()["moments"][-2])
    assert site.restore(old).status == 0
    assert site.notes() == ["after", "before", "in the base"]
    site.archived(datetime.now(UTC))


def test_what_is_refused(site: Site, archiver: object) -> None:
    notes, moment = site.notes(), site.write("kept")
    site.archived(moment)
    for given, words in (
        ("2026-11-27T05:00:00", "does not say in which zone. Type 2026-11-27T05:00:00-04:00"),
        ("yesterday", "is no moment. Type it as 2026-11-27T05:00:00-04:00"),
        (datetime.now(UTC) + timedelta(hours=1), "lies ahead"),
        ("2020-01-01T00:00:00+00:00", "cannot be restored. What can be: 20"),
    ):
        done = site.restore(given)
        assert (done.status, words in done.error) == (1, True), done.error
    assert "say so: --confirm test" in site.restore(moment, confirm="").error
    other = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
    assert "no identity matched" in site.restore(moment, key=other).error
    assert site.notes() == [*notes, "kept"]


def test_a_kill_of_the_database_or_of_the_archiver_loses_nothing(site: Site) -> None:
    with archiving(site) as first:
        site.archived(site.write("kill 1"))
        first.kill()  # its receiver goes on, and the next archiver takes its place
        first.wait()
        site.write("kill 2")
        docker("kill", "--signal", "KILL", site.server.container)
        docker("start", site.server.container)
        site.write("kill 3")
        with archiving(site):
            moment = site.write("kill 4")
            site.archived(moment)
            site.write("not wanted")
            done = site.restore(moment)
            assert done.status == 0, done.error
    assert [note for note in site.notes() if note.startswith(("kill", "not"))] == [f"kill {n}" for n in (1, 2, 3, 4)]


KILLED = {
    "while the log is gone through": "r.eventually = lambda *_: kill()",
    "within the swap": "r.swap = lambda place: (place.path.rename(place.old), kill())",
    "after the swap": "swap = r.swap; r.swap = lambda place: (swap(place), kill())",
}


def test_a_killed_restore_has_lost_nothing_and_can_be_run_again(site: Site, archiver: object) -> None:
    site.archived(datetime.now(UTC))  # the restore before has begun another line
    moment = site.write("wanted")
    site.archived(moment)
    site.write("of later")
    for when, where in KILLED.items():
        code = f"import os, cariflex_backup.rewind as r; kill = lambda: os.kill(os.getpid(), 9); {where}; {START}"
        assert site.restore(moment, code=code).status == -9, when
        if when != "after the swap":
            assert "say so: --confirm test" in site.restore(moment, confirm="").error
            docker("start", site.server.container)
            assert {"wanted", "of later"} <= set(site.notes()), when
    done = site.restore(moment)
    assert done.status == 0, done.error
    assert "wanted" in site.notes()
    assert "of later" not in site.notes()
    mounts = json.loads(docker("inspect", "--format", "{{json .Mounts}}", site.server.container))
    (volume,) = [Path(mount["Source"]) for mount in mounts if mount["Type"] == "volume"]
    assert [path.name for path in volume.parent.iterdir()] == ["_data"]
    assert docker("ps", "--all", "--quiet", "--filter", "label=cariflex.restore") == ""


def test_a_gap_is_told(site: Site, archiver: object) -> None:
    """A segment that is lost ends what its base can restore; then a new base begins."""
    site.archived(site.write("before the gap"))
    with site.connect() as connection:
        connection.execute("SELECT pg_switch_wal()")
    site.archived(site.write("in the gap"))
    with site.connect() as connection:
        connection.execute("SELECT pg_switch_wal()")
    moment = site.write("after the gap")
    site.archived(moment)
    lost = sorted(site.program.root.glob("moments/*/wal/0*"))[-1]
    lost.unlink()
    done = site.restore(moment)
    assert f"The archive has a gap: {lost.name.split('.')[0]} of the log is missing. What can be:" in done.error
    assert site.base() == "full"
    site.archived(site.write("well again"))


def test_a_full_archive_does_not_stop_the_database(site: Site, tmp_path: Path) -> None:
    """The database goes on, the alert fires, and once there is room nothing is lost."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(small)], check=True)
    try:
        process = site.program.with_(root=str(small)).start("archive-wal", code=OFTEN + START)
        time.sleep(5)
        site.write("with a full disk")
        process.terminate()
        said = process.communicate(timeout=60)[1]
        assert "no space left on device" in said.lower()
    finally:
        subprocess.run(["umount", str(small)], check=True)
    with site.connect() as connection:
        sql = ALERTS["wal-old"].encode()
        assert connection.execute(sql).fetchall() == [("wal archive", 0)]
        connection.execute("UPDATE ems.backup_run SET finished_at = now() - interval '6 minutes' WHERE archive = 'wal'")
        assert connection.execute(sql).fetchall() == [("wal archive", 1)]
        connection.rollback()
    with archiving(site):
        site.archived(site.write("with room again"))
    assert "with a full disk" in site.notes()
