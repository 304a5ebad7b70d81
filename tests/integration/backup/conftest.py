"""A provisioned PostgreSQL with rows, a Redis, and the backup program pointed at both."""

import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.grafana.conftest import IMAGES, Server, _fill, docker, provisioned

ROOT = Path(__file__).parents[3]
REDIS_IMAGE = "CARIFLEX_TEST_REDIS_IMAGE"
START = "from cariflex_backup.cli import entry; entry()"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """PostgreSQL as the role makes it, with FlexMeasures' tables and a day of beliefs."""
    missing = [name for name in (*IMAGES, REDIS_IMAGE) if not os.environ.get(name)]
    if missing:
        pytest.skip(f"no image to test with: set {', '.join(missing)}")
    in_memory = "/var/lib/postgresql/data:uid=999,gid=999,mode=0700"
    with provisioned(tmp_path_factory.mktemp("postgres"), "--tmpfs", in_memory) as made:
        with made.connect("postgres") as connection:
            _fill(connection)
        yield made


@pytest.fixture(scope="session")
def redis(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a Redis with the users that the role gives it, and a job in a queue."""
    folder = tmp_path_factory.mktemp("redis")
    password = secrets.token_urlsafe(20)
    digest = hashlib.sha256(password.encode()).hexdigest()
    acl = (
        f"user default on #{digest} ~* &* +@all -@admin -@dangerous +info\n"
        f"user backup on #{digest} resetkeys resetchannels -@all +ping +info +lastsave +bgsave\n"
    )
    files = {"redis_password": password, "redis_backup_password": password, "redis_acl": acl}
    for name, text in files.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o644)  # the container's user is another one
    folder.chmod(0o755)
    name = f"cariflex-test-backup-{secrets.token_hex(4)}"
    command = ["redis-server", "--aclfile", "/run/secrets/redis_acl", "--dir", "/data", "--dbfilename", "dump.rdb"]
    try:
        docker(
            "run",
            "--detach",
            "--name",
            name,
            "--volume",
            f"{folder}:/run/secrets:ro",
            os.environ[REDIS_IMAGE],
            *command,
        )
        ask = "REDISCLI_AUTH=$(cat /run/secrets/redis_password) redis-cli lpush rq:queue:scheduling job"
        deadline = time.monotonic() + 20
        while docker("exec", name, "sh", "-c", f"{ask} || true").strip() != "1":
            assert time.monotonic() < deadline, docker("logs", name)
            time.sleep(0.2)
        yield name
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True, timeout=60)


def showing(text: str) -> list[str]:
    """Names of the processes, in containers too, that have a text in their arguments or their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if text.encode() in (path / "cmdline").read_bytes() + (path / "environ").read_bytes():
                found.append((path / "comm").read_text().strip())
    return found


@dataclass(frozen=True)
class Ended:
    """How a verb ended.

    Attributes:
        status: its exit status.
        told: its JSON document; None after an error.
        error: what it said on standard error.
    """

    status: int
    told: Any
    error: str


@dataclass(frozen=True)
class Program:
    """The program with settings of its own.

    Attributes:
        root: the folder of the archives.
        settings: its settings.
        path: their file.
        identity: age's secret key; empty where archives are not encrypted.
    """

    root: Path
    settings: dict[str, Any]
    path: Path
    identity: str = ""
    environment: dict[str, str] = field(
        default_factory=lambda: {**os.environ, "PYTHONPATH": str(ROOT / "files/backup")}
    )

    def with_(self, **settings: Any) -> "Program":
        """The same with other settings."""
        path = self.path.with_name(f"settings-{secrets.token_hex(4)}.json")
        changed = self.settings | settings
        path.write_text(json.dumps(changed))
        return Program(Path(changed["root"]), changed, path, self.identity)

    def start(self, *verb: str, code: str = START) -> subprocess.Popen[str]:
        """Begin a verb."""
        command = [sys.executable, "-c", code, "--settings", str(self.path), "--json", *verb]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self.environment, text=True, stdin=pipe, stdout=pipe, stderr=pipe)

    def run(self, *verb: str, code: str = START, stdin: str = "") -> Ended:
        """Run a verb to its end."""
        return ended(self.start(*verb, code=code), stdin)

    def archives(self) -> list[str]:
        """Names of what has an archive's final name, with or without a checksum."""
        return sorted(path.name for path in self.root.iterdir() if re.match(r"\d", path.name))


def ended(process: subprocess.Popen[str], stdin: str = "") -> Ended:
    """How a verb ends."""
    out, error = process.communicate(stdin, timeout=180)
    return Ended(process.returncode, json.loads(out) if process.returncode == 0 else None, error.strip())


@pytest.fixture
def program(server: Server, redis: str, tmp_path: Path) -> Program:
    """The program on an empty folder; it encrypts where age is installed."""
    identity, recipients = "", []
    if shutil.which("age"):
        identity = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
        recipients = re.findall(r"public key: (\S+)", identity)
    (tmp_path / "host/etc").mkdir(parents=True)
    (tmp_path / "host/etc/some.conf").write_text("of the host")
    (tmp_path / "root").mkdir()
    settings = {
        "environment": "test",
        "project_version": "v1",
        "root": str(tmp_path / "root"),
        "database_container": server.container,
        "database_role": "cariflex_backup",
        "database_password_file": str(server.secrets / "cariflex_backup_password"),
        "databases": ["flexmeasures", "openadr"],
        "redis_container": redis,
        "folders": {"network": [str(tmp_path / "host/etc"), "/not/there"]},
        "volumes": {"openadr": ["no-such-volume"]},
        "containers": [server.container, redis, "no-such-container"],
        "recipients": recipients,
        "days": 30,
        "weeks": 12,
        "months": 0,
    }
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(settings))
    return Program(tmp_path / "root", settings, path, identity)


@pytest.fixture
def superuser(server: Server) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A session of its own transactions, with no runs recorded yet."""
    with server.connect("postgres") as connection:
        connection.autocommit = True
        connection.execute("DELETE FROM ems.backup_run")
        yield connection


@pytest.fixture
def blocked(server: Server) -> Iterator[Callable[[], None]]:
    """As long as it is not called, nobody reads the beliefs: a dump stands still in its middle."""
    with server.connect("postgres") as connection:
        connection.execute("LOCK TABLE timed_belief IN ACCESS EXCLUSIVE MODE")
        yield connection.rollback
