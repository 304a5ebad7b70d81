"""How long a restore takes beside plain pg_restore -j2, with 10 million beliefs.

    .venv/bin/python bench/restore.py
    .venv/bin/python bench/restore.py --millions 1

A PostgreSQL of its own, with the settings of a deployment and FlexMeasures' tables, is filled as bench/panels.py does.
An archive is made of it, encrypted where age is installed. Then the same dump is restored twice: by pg_restore -j2 into
an empty database beside the one that is there, and by cariflex-backup, which decrypts and checks the archive first, and
compares every table with the manifest before it swaps. The images are those of the tests:
CARIFLEX_TEST_POSTGRES_IMAGE and CARIFLEX_TEST_FLEXMEASURES_IMAGE.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "files/backup"))

from bench.panels import fill
from cariflex_backup import archive, loading
from cariflex_backup.database import Server as Reader
from cariflex_backup.making import reader
from cariflex_backup.restore import Order, restore
from cariflex_backup.settings import Settings
from tests.integration.grafana.conftest import IMAGES, Server, provisioned

DATABASES = ("flexmeasures", "openadr")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=int, default=10, help="of beliefs (default 10)")
    options = parser.parse_args()
    if missing := [name for name in IMAGES if not os.environ.get(name)]:
        sys.exit(f"Missing images: set {', '.join(missing)}")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with provisioned(Path(folder), "--volume", "/var/lib/postgresql/data", "--shm-size", "256m") as server:
            fill(server, options.millions)
            root = Path(folder, "root")
            root.mkdir()
            _measure(server, root)


def _measure(server: Server, root: Path) -> None:
    identity, recipients = "", tuple[str, ...]()
    if shutil.which("age"):
        identity = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
        recipients = tuple(re.findall(r"public key: (\S+)", identity))
    settings = _settings(server, root, recipients)
    made = _made(settings)
    _said("archive", f"{made.path.stat().st_size / 1e6:.0f} MB")
    with archive.unpacked(made, root, identity) as folder:
        plain = _plain(server, folder / "postgres")
    order = Order(made, identity, "bench", ("postgres",))
    began = time.monotonic()
    told = restore(settings, order)
    ours = time.monotonic() - began
    _said("pg_restore -j2", f"{plain:.1f} s")
    _said("cariflex-backup restore", f"{ours:.1f} s, {ours / plain:.2f} times as long; {told['rows']:,} rows compared")
    _said("of which without service", f"{told['seconds_without_service']} s")
    _said("load average", f"{os.getloadavg()[0]:.1f}")


def _made(settings: Settings) -> archive.Archive:
    """An archive of the databases alone."""
    server = reader(settings)
    folder = settings.root / archive.stamp_of(datetime.now(UTC))
    (folder / "postgres").mkdir(parents=True)
    (folder / "postgres/globals.sql").write_bytes(server.globals())
    began = time.monotonic()
    databases = {name: server.dump(name, folder / f"postgres/{name}.dump") for name in DATABASES}
    manifest = {
        "format": archive.FORMAT,
        "made_at": archive.time_of(folder.name).isoformat(),
        "host": "bench",
        "environment": "bench",
        "versions": {"postgres": server.version()},
        "databases": databases,
        "seconds": round(time.monotonic() - began, 1),
    }
    archive.seal(folder, manifest)
    made = archive.pack(folder, settings.root, settings.recipients)
    _said("made in", f"{time.monotonic() - began:.1f} s")
    shutil.rmtree(folder)
    return made


def _plain(server: Server, dumps: Path) -> float:
    """Seconds of pg_restore with two jobs and its own settings, into a database that is dropped again."""
    reader_ = Reader(server.container)
    loading.drop(reader_, "plain")
    reader_.change("postgres", "CREATE DATABASE plain TEMPLATE template0;", what="making a database")
    begin = ["docker", "run", "--rm", "--network", f"container:{server.container}", "--user", "0:0"]
    volume = ["--volume", f"{dumps}:/dumps:ro", "--entrypoint", "pg_restore", os.environ[IMAGES[0]]]
    options = ["--jobs=2", "--exit-on-error", "--host=127.0.0.1", "--username=postgres", "--dbname=plain"]
    began = time.monotonic()
    subprocess.run([*begin, *volume, *options, "/dumps/flexmeasures.dump"], check=True)
    seconds = time.monotonic() - began
    loading.drop(reader_, "plain")
    return seconds


def _settings(server: Server, root: Path, recipients: tuple[str, ...]) -> Settings:
    return Settings(
        environment="bench",
        project_version="bench",
        root=root,
        database_container=server.container,
        database_role="cariflex_backup",
        database_password_file=server.secrets / "cariflex_backup_password",
        databases=DATABASES,
        redis_container="",
        folders={},
        volumes={},
        containers=(),
        recipients=recipients,
        days=30,
        weeks=12,
        months=0,
    )


def _said(what: str, value: str) -> None:
    print(f"{what}: {value}", flush=True)


if __name__ == "__main__":
    main()
