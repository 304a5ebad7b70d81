"""A FlexMeasures of its own: server, worker, PostgreSQL and Redis in containers with random names, removed afterwards.

Images come from CARIFLEX_TEST_FLEXMEASURES_IMAGE, CARIFLEX_TEST_POSTGRES_IMAGE and CARIFLEX_TEST_REDIS_IMAGE.
"""

import contextlib
import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

ROOT = Path(__file__).parents[3]
IMAGES = {name: f"CARIFLEX_TEST_{name.upper()}_IMAGE" for name in ("flexmeasures", "postgres", "redis")}
USER = "10002:10002"
HOME = "/var/lib/flexmeasures"
GUNICORN = (
    *("gunicorn", "--bind=0.0.0.0:5000", "--worker-tmp-dir=/dev/shm", "--workers=2", "--threads=1"),
    "flexmeasures.app:create()",
)
WORKER = ("flexmeasures", "jobs", "run-worker", "--name=worker", "--queue=forecasting|scheduling")
GATE = ("python", "-m", "cariflex.fm_plugin.migrate")
SETTINGS = """
from pathlib import Path
from urllib.parse import quote


def _secret(name):
    return Path("/run/secrets", name).read_text().strip()


FLEXMEASURES_ENV = "production"
LOGGING_LEVEL = "INFO"
SECRET_KEY = _secret("flexmeasures_secret_key")
SECURITY_PASSWORD_SALT = _secret("flexmeasures_password_salt")
SECURITY_TWO_FACTOR = False
SECURITY_PASSWORD_CHECK_BREACHED = None
SQLALCHEMY_DATABASE_URI = (
    "postgresql://flexmeasures:" + quote(_secret("flexmeasures_db_password"), safe="") + "@database/flexmeasures"
)
FLEXMEASURES_REDIS_URL = "redis"
FLEXMEASURES_REDIS_PASSWORD = _secret("flexmeasures_redis_password")
TRUSTED_HOSTS = ["127.0.0.1", "server", ".flexmeasures.test"]
FLEXMEASURES_TIMEZONE = "America/Martinique"
FLEXMEASURES_CREATE_TEMPLATE_ASSETS_ON_STARTUP = False
FLEXMEASURES_PLUGINS = ["cariflex.fm_plugin"]
CARIFLEX_OBSERVERS = ["ven@cariflex.internal"]
"""
# ":/@ %" would break an address that is not quoted; rq-dashboard does not quote that of Redis.
SECRETS = {
    "flexmeasures_secret_key": "k" + secrets.token_urlsafe(32),
    "flexmeasures_password_salt": "s" + secrets.token_urlsafe(32),
    "flexmeasures_db_password": "d:/@ %" + secrets.token_urlsafe(16),
    "flexmeasures_redis_password": "r" + secrets.token_urlsafe(16),
    "flexmeasures_topology_token": "t" + secrets.token_urlsafe(32),
}


def docker(*arguments: str, check: bool = True, text: str | None = None) -> str:
    """Run a docker command; returns what it prints."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, input=text, timeout=120)
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait until the condition holds; returns its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)


@dataclass
class Stack:
    """The running containers and how to talk to them."""

    prefix: str
    folder: Path

    def run(self, name: str, image: str, *arguments: str) -> None:
        """Start a container that the others reach as `name`."""
        docker(
            *("run", "--detach", "--name", f"{self.prefix}-{name}", "--network", self.prefix, "--network-alias", name),
            *arguments[: arguments.index("--") if "--" in arguments else len(arguments)],
            os.environ[IMAGES[image]],
            *(arguments[arguments.index("--") + 1 :] if "--" in arguments else ()),
        )

    def run_flexmeasures(self, name: str, *command: str) -> None:
        """Start FlexMeasures as the role does: unprivileged, read-only but for its volume, secrets as files."""
        self.run(
            *(name, "flexmeasures", "--user", USER, "--read-only", "--tmpfs", "/tmp", "--workdir", HOME),
            *("--env", f"HOME={HOME}", "--env", "PYTHONPATH=/opt/cariflex", "--env", "PYTHONUNBUFFERED=1"),
            *("--tmpfs", f"{HOME}:uid=10002,gid=10002", "--cap-drop", "ALL"),
            *("--volume", f"{self.folder}/flexmeasures.cfg:{HOME}/.flexmeasures.cfg:ro"),
            *("--volume", f"{self.folder}/secrets:/run/secrets:ro"),
            *("--volume", f"{ROOT}/files/services/src/cariflex:/opt/cariflex/cariflex:ro"),
            *("--", *command),
        )

    def container(self, name: str) -> str:
        """The full name of a container."""
        return f"{self.prefix}-{name}"

    def logs(self, name: str) -> str:
        """Everything a container has printed."""
        done = subprocess.run(["docker", "logs", self.container(name)], capture_output=True, text=True, timeout=60)
        return done.stdout + done.stderr

    @cached_property
    def url(self) -> str:
        """Where the server answers."""
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return f"http://{docker('inspect', '--format', form, self.container('server'))}:5000"

    def sql(self, statement: str, database: str = "flexmeasures") -> list[list[str]]:
        """Ask the database; returns rows of texts."""
        printed = docker(
            *("exec", "--interactive", self.container("database"), "psql", "--username=postgres", "--tuples-only"),
            *("--no-align", "--field-separator=\t", "--set=ON_ERROR_STOP=1", "--quiet", database),
            text=statement,
        )
        return [line.split("\t") for line in printed.splitlines()]

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Ask the server, under a host name it trusts."""
        headers = {"Host": "server", **options.pop("headers", {})}
        return requests.request(method, self.url + path, headers=headers, timeout=60, **options)

    def declare(self, topology: dict[str, Any], *, token: str | None = None, **options: Any) -> requests.Response:
        """Call the topology endpoint."""
        headers = {"Authorization": f"Bearer {token or SECRETS['flexmeasures_topology_token']}"}
        return self.request("POST", "/cariflex/v1/topology", json={"topology": topology, **options}, headers=headers)

    def health(self, checks: str = "", seconds: float = 60) -> dict[str, Any]:
        """What /health says, with its status."""
        answer = requests.get(
            f"{self.url}/health",
            params={"checks": checks} if checks else None,
            headers={"Host": "server"},
            timeout=seconds,
        )
        return {"code": answer.status_code, **answer.json()}


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """FlexMeasures, empty but for its schema; two servers and the worker race for the first start."""
    missing = [variable for variable in IMAGES.values() if not os.environ.get(variable)]
    if missing:
        pytest.skip(f"no image to test: set {', '.join(missing)}")
    with running(tmp_path_factory.mktemp("flexmeasures")) as made:
        yield made


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Stack]:
    """A FlexMeasures with its files in a folder; removed afterwards."""
    made = Stack(f"fmtest-{secrets.token_hex(4)}", folder)
    made.folder.joinpath("secrets").mkdir()
    for name, value in SECRETS.items():
        made.folder.joinpath("secrets", name).write_text(value + "\n")
    made.folder.joinpath("flexmeasures.cfg").write_text(SETTINGS)
    made.folder.joinpath("redis.conf").write_text(f"requirepass {SECRETS['flexmeasures_redis_password']}\n")
    names = ("server", "second", "worker", "database", "redis")
    try:
        docker("network", "create", made.prefix)
        # FlexMeasures comes first: its gate has to wait for the database.
        made.run_flexmeasures("server", *GATE, "--", *GUNICORN)
        made.run_flexmeasures("second", *GATE, "--", "sleep", "infinity")
        made.run_flexmeasures("worker", *GATE, "--wait", "--", *WORKER)
        made.run(
            "redis",
            "redis",
            "--volume",
            f"{made.folder}/redis.conf:/redis.conf:ro",
            "--",
            "redis-server",
            "/redis.conf",
        )
        made.run(
            *("database", "postgres", "--env", "POSTGRES_PASSWORD_FILE=/secrets/flexmeasures_db_password"),
            *("--volume", f"{made.folder}/secrets:/secrets:ro", "--tmpfs", "/var/lib/postgresql/data"),
            *("--", "postgres", "-c", "autovacuum=off", "-c", "fsync=off"),
        )
        _prepare_database(made)
        until(lambda: _answers(made), 180, "the server answers")
        until(lambda: made.health("workers")["code"] == 200, 60, "the worker works")
        yield made
    finally:
        for name in names:
            docker("rm", "--force", "--volumes", made.container(name), check=False)
        docker("network", "rm", made.prefix, check=False)


def _prepare_database(stack: Stack) -> None:
    ready = ("exec", stack.container("database"), "pg_isready", "--host=127.0.0.1", "--quiet")
    until(lambda: subprocess.run(["docker", *ready], timeout=60).returncode == 0, 60, "PostgreSQL is ready")
    password = SECRETS["flexmeasures_db_password"]
    stack.sql(f"CREATE ROLE flexmeasures LOGIN PASSWORD '{password}'", "postgres")
    stack.sql("CREATE DATABASE flexmeasures OWNER flexmeasures", "postgres")
    stack.sql("CREATE EXTENSION cube; CREATE EXTENSION earthdistance")


def _answers(stack: Stack) -> bool:
    try:
        return bool(stack.health("database,redis", 5)["code"] == 200)
    except requests.RequestException:
        state = docker("inspect", "--format", "{{.State.Status}}", stack.container("server"))
        assert state == "running", stack.logs("server")
        return False


@pytest.fixture(scope="session")
def declared() -> dict[str, Any]:
    """The project's topology, in the form the endpoint takes."""
    topology = yaml.safe_load((ROOT / "playbooks/vars/topology.yml").read_text())["topology_declared"]
    sections = ("account", "users", "asset_types", "assets", "sensors")
    return {"timezone": topology["site"]["timezone"], **{name: topology[name] for name in sections}}


@pytest.fixture(scope="session")
def passwords(declared: dict[str, Any]) -> dict[str, str]:
    """A password for every declared user."""
    return {email: f"password of {email}" for email in declared["users"]}


@pytest.fixture
def topology(stack: Stack, declared: dict[str, Any], passwords: dict[str, str]) -> dict[str, Any]:
    """A copy of the topology, after it has been declared."""
    answer = stack.declare(declared, passwords=passwords)
    assert answer.status_code == 200, answer.text
    copy: dict[str, Any] = json.loads(json.dumps(declared))
    return copy
