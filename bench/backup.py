"""A whole backup beside pg_dump alone, what it costs those who read and write meanwhile, and what a day adds elsewhere.

    .venv/bin/python bench/backup.py
    .venv/bin/python bench/backup.py --millions 1 --rounds 5

A PostgreSQL of its own, with the settings of a deployment and FlexMeasures' tables and indexes, is filled with 10
million beliefs as by bench/panels.py. `pg_dump` writes its custom format with zstd to a file of this machine;
`cariflex-backup run` makes what a deployed host makes every night: Redis' data, the same dump, rows and hashes of
every table from the same snapshot, the archive, encrypted where age is installed, read again and summed. They take
turns. Meanwhile a session asks for a day of a sensor and writes a belief, as FlexMeasures' API does for a request,
twenty times a second. At last copies are kept by restic, in a folder of this machine, before and after each of three
more days of values. The images are those of the tests: CARIFLEX_TEST_POSTGRES_IMAGE, CARIFLEX_TEST_FLEXMEASURES_IMAGE
and CARIFLEX_TEST_REDIS_IMAGE.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from bench.panels import fill
from tests.integration.grafana.conftest import IMAGES, Server, docker, provisioned

ROOT = Path(__file__).resolve().parent.parent
REDIS_IMAGE = "CARIFLEX_TEST_REDIS_IMAGE"
START = "from cariflex_backup.cli import entry; entry()"
READ = """SELECT DISTINCT ON (event_start) event_start, event_value FROM timed_belief
  WHERE sensor_id = 41 AND event_start > now() - interval '1 day' ORDER BY event_start, belief_horizon"""
# what FILL has for a day, for one that is yet to come
ONE_MORE_DAY = (
    """INSERT INTO timed_belief
       SELECT event, '0', 0.5, random() * 50, id, 1 FROM sensor,
         generate_series(date_trunc('day', now()) + %(day)s * interval '1 day',
           date_trunc('day', now()) + (%(day)s + 1) * interval '1 day' - event_resolution, event_resolution) event
       WHERE id BETWEEN 41 AND 87 OR name = 'site_load_power'""",
    """INSERT INTO timed_belief
       SELECT event, ahead * interval '15 minutes', 0.5, random() * 50, id, 3 FROM sensor,
         generate_series(date_trunc('day', now()) + %(day)s * interval '1 day',
           date_trunc('day', now()) + (%(day)s + 1) * interval '1 day' - interval '15 minutes',
           interval '15 minutes') event,
         generate_series(0, 95) ahead
       WHERE name LIKE '%%_power_kw'""",
)
WRITE = "INSERT INTO timed_belief SELECT now(), '0', 0.5, 1, 41, 1"


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=int, default=10, help="of beliefs (default 10)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is done (default 3)")
    options = parser.parse_args()
    if missing := [name for name in (*IMAGES, REDIS_IMAGE) if not os.environ.get(name)]:
        sys.exit(f"Missing images: set {', '.join(missing)}")
    print(f"load average {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        with (
            provisioned(folder, "--volume", "/var/lib/postgresql/data", "--shm-size", "256m") as server,
            _redis(folder) as redis,
        ):
            fill(server, options.millions)
            settings = _settings(folder, server, redis)
            _measure(server, settings, folder, options.rounds)
            if shutil.which("restic"):
                _grow(server, settings, folder)


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    """A Redis with the user that backs up, whose password is of no use to anybody."""
    name = f"cariflex-bench-{secrets.token_hex(4)}"
    (folder / "redis").mkdir(mode=0o755)
    (folder / "redis/redis_backup_password").write_text("backup")
    (folder / "redis/redis_acl").write_text(
        "user default on nopass ~* +@all\nuser backup on >backup -@all +ping +info +bgsave\n"
    )
    command = ["redis-server", "--aclfile", "/run/secrets/redis_acl", "--dir", "/data", "--dbfilename", "dump.rdb"]
    try:
        docker(
            "run",
            "--detach",
            "--name",
            name,
            f"--volume={folder}/redis:/run/secrets:ro",
            os.environ[REDIS_IMAGE],
            *command,
        )
        yield name
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True, check=False)


def _settings(folder: Path, server: Server, redis: str) -> Path:
    recipients = []
    if shutil.which("age-keygen"):
        made = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
        recipients = [line.partition(": ")[2] for line in made.splitlines() if "public key" in line]
    (folder / "archives").mkdir()
    settings: dict[str, Any] = {
        "environment": "bench",
        "project_version": "",
        "root": f"{folder}/archives",
        "database_container": server.container,
        "database_role": "cariflex_backup",
        "database_password_file": f"{server.secrets}/cariflex_backup_password",
        "databases": ["flexmeasures", "openadr"],
        "redis_container": redis,
        "folders": {},
        "volumes": {},
        "containers": [server.container, redis],
        "recipients": recipients,
        "days": 30,
        "weeks": 12,
        "months": 0,
    }
    path = folder / "settings.json"
    path.write_text(json.dumps(settings))
    return path


def _run(settings: Path) -> int:
    """Make an archive. Returns its bytes."""
    command = [sys.executable, "-c", START, "--settings", str(settings), "--json", "run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "files/backup")}
    told = json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)
    return int(told["bytes"])


def _measure(server: Server, settings: Path, folder: Path, rounds: int) -> None:
    dump = ["docker", "exec", server.container, "pg_dump", "--username=postgres", "--format=custom", "--compress=zstd"]

    def plain() -> int:
        with (folder / "plain.dump").open("wb") as file:
            subprocess.run([*dump, "flexmeasures"], stdout=file, check=True)
        return (folder / "plain.dump").stat().st_size

    ways: dict[str, Callable[[], int]] = {
        "pg_dump": plain,
        "cariflex-backup run": lambda: _run(settings),
        "nothing": lambda: _wait(20),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    sizes: dict[str, int] = {}
    latencies: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            with _requests(server, latencies[name]):
                began = time.monotonic()
                sizes[name] = way()
                times[name].append(time.monotonic() - began)
    print("\n| While | Seconds (all rounds) | MB | Request p50, p99 in ms |\n|---|---|---:|---|")
    for name in ways:
        each = ", ".join(f"{value:.1f}" for value in times[name])
        cuts = statistics.quantiles(latencies[name], n=100)
        print(f"| {name} | {each} | {sizes[name] / 1e6:.1f} | {1000 * cuts[49]:.1f}, {1000 * cuts[98]:.1f} |")
    ratio = statistics.median(times["cariflex-backup run"]) / statistics.median(times["pg_dump"])
    print(f"\nwhole backup / pg_dump, medians: {ratio:.2f}", flush=True)


def _grow(server: Server, settings: Path, folder: Path) -> None:
    """What the copies elsewhere take, and how much more of it after each day."""
    (folder / "password").write_text(secrets.token_hex(20))
    elsewhere = folder / "elsewhere"
    password = str(folder / "password")
    offsite = {"repository": str(elsewhere), "password_file": password, "environment_file": "", "prune": True}
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "offsite": offsite}))
    print("\n| Days later | Beliefs | Archive MB | Copies elsewhere MB | More MB |\n|---:|---:|---:|---:|---:|")
    before = 0
    for day in range(4):
        with server.connect("flexmeasures") as connection:
            for statement in ONE_MORE_DAY if day else ():
                connection.execute(statement.encode(), {"day": day})
            (count,) = connection.execute("SELECT count(*) FROM timed_belief").fetchone() or (0,)
        archive = _run(settings)
        size = sum(path.stat().st_size for path in elsewhere.rglob("*") if path.is_file())
        told = f"{count:,} | {archive / 1e6:.1f} | {size / 1e6:.1f} | {(size - before) / 1e6:.1f}"
        print(f"| {day} | {told} |", flush=True)
        before = size


def _wait(seconds: float) -> int:
    time.sleep(seconds)
    return 0


@contextmanager
def _requests(server: Server, latencies: list[float]) -> Iterator[None]:
    """Twenty requests a second for as long as the block lasts."""
    stop = threading.Event()

    def ask() -> None:
        with server.connect("flexmeasures") as connection:
            connection.autocommit = True
            while not stop.wait(0.05):
                began = time.perf_counter()
                connection.execute(READ.encode()).fetchall()
                connection.execute((WRITE + " ON CONFLICT DO NOTHING").encode())
                latencies.append(time.perf_counter() - began)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    main()
