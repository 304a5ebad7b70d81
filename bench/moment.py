"""How long a restore to a moment takes beside a plain restore, with 10 million beliefs.

    .venv/bin/python bench/moment.py
    .venv/bin/python bench/moment.py --millions 1

A PostgreSQL of its own with FlexMeasures' tables is filled as bench/panels.py does. Then its log is archived, encrypted
where age is installed. A full base and, after one more tenth of the beliefs was written, an incremental one are made.
Then the database is put back to a moment between two writes. Beside it stands what a plain restore of as many beliefs
takes: pg_dump and pg_restore -j2 of the same database. It also tells how old the archived log was, looked at every
second while beliefs were written: the RPO. The images are those of the tests: CARIFLEX_TEST_POSTGRES_IMAGE and
CARIFLEX_TEST_FLEXMEASURES_IMAGE.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.panels import fill
from tests.integration.backup.conftest import Program
from tests.integration.backup.test_moment import Site, archiving, newest, until
from tests.integration.grafana.conftest import IMAGES, docker, provisioned


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
            site = Site(server, _program(Path(folder), server.container, str(server.secrets)))
            with site.connect() as connection:
                connection.autocommit = True
                connection.execute("ALTER SYSTEM SET summarize_wal = on")
                connection.execute("SELECT pg_reload_conf()")
            fill(site.server, options.millions)
            _plain(site)
            with archiving(site, often=False):
                _measure(site)
    _said("load average", f"{os.getloadavg()[0]:.1f}")


def _measure(site: Site) -> None:
    began = time.monotonic()
    until(lambda: bool(site.told()["moments"]), 1800)
    _said("archiver and full base", f"{time.monotonic() - began:.1f} s")
    with site.connect() as connection:
        connection.execute(
            "INSERT INTO timed_belief SELECT event_start - interval '50 years', belief_horizon, cumulative_probability,"
            " event_value, sensor_id, source_id FROM timed_belief TABLESAMPLE SYSTEM (10)"
        )
    ages = []
    for number in range(60):
        site.write(f"second {number}")
        ages.append(site.told()["age_seconds"])
        time.sleep(1)
    _said("age of the archived log", f"{sorted(ages)[len(ages) // 2]} s in the middle, {max(ages)} s at the most")
    began = time.monotonic()
    kind = site.base()
    _said(f"{kind} base", f"{time.monotonic() - began:.1f} s")
    moment = site.write("wanted")
    time.sleep(1)
    site.write("not wanted")
    until(lambda: any(newest(one) >= moment for one in site.told()["moments"]), 120)
    began = time.monotonic()
    done = site.restore(moment)
    seconds = time.monotonic() - began
    if done.status:
        sys.exit(done.error)
    if "not wanted" in site.notes() or "wanted" not in site.notes():
        sys.exit("It was put back to another moment.")
    _said("restore to a moment", f"{seconds:.1f} s; {done.told['rows']:,} rows read, {done.told['segments']} segments")
    _said("of which without service", f"{done.told['seconds_without_service']} s")


def _plain(site: Site) -> None:
    """Seconds of pg_dump, and of pg_restore with two jobs into an empty database, which is dropped again."""
    inside = ("exec", site.server.container)
    for what, script in (
        ("pg_dump", "pg_dump -U postgres -Fc -Z zstd:3 -f /var/lib/postgresql/data/plain.dump flexmeasures"),
        (
            "pg_restore -j2",
            "createdb -U postgres -T template0 plain && "
            "pg_restore -U postgres -j2 --exit-on-error -d plain /var/lib/postgresql/data/plain.dump",
        ),
    ):
        began = time.monotonic()
        docker(*inside, "sh", "-c", script, seconds=3600)
        _said(what, f"{time.monotonic() - began:.1f} s")
    script = "dropdb -U postgres plain && rm /var/lib/postgresql/data/plain.dump"
    docker(*inside, "sh", "-c", script)


def _program(folder: Path, container: str, secrets: str) -> Program:
    identity, recipients = "", list[str]()
    if shutil.which("age"):
        identity = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
        recipients = re.findall(r"public key: (\S+)", identity)
    (folder / "root").mkdir()
    settings = {
        "environment": "test",
        "project_version": "bench",
        "root": str(folder / "root"),
        "redis_container": "none",
        "database_container": container,
        "database_role": "cariflex_backup",
        "folders": {},
        "volumes": {},
        "database_password_file": f"{secrets}/cariflex_backup_password",
        "databases": ["flexmeasures", "openadr"],
        "containers": [container],
        "recipients": recipients,
        "days": 30,
        "weeks": 12,
        "months": 0,
        "moments": {"days": 14, "full_days": 7},
    }
    path = folder / "settings.json"
    path.write_text(json.dumps(settings))
    return Program(folder / "root", settings, path, identity)


def _said(what: str, value: str) -> None:
    print(f"{what}: {value}", flush=True)


if __name__ == "__main__":
    main()
