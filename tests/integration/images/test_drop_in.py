"""Images that are built here can stand in for the official ones: same variables, paths, users and start commands."""

import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.docker
Start = Callable[..., str]


def docker(*arguments: str, check: bool = True) -> str:
    """What a docker command prints, on both its outputs."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return (done.stdout + done.stderr).strip()


def image(name: str) -> str:
    """The reference of an image, which `make test` obtains."""
    variable = f"CARIFLEX_TEST_{name.upper()}_IMAGE"
    if variable not in os.environ:
        pytest.skip(f"{variable} is not set: run `make test`, which makes the images")
    return os.environ[variable]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a container that is removed, with its volumes, after the test; returns its name."""
    names: list[str] = []

    def run(name: str, *options: str, command: tuple[str, ...] = ()) -> str:
        names.append(f"cariflex-test-{name}-{uuid.uuid4().hex[:8]}")
        docker("run", "--detach", "--name", names[-1], *options, image(name), *command)
        return names[-1]

    yield run
    for name in names:
        docker("rm", "--force", "--volumes", name)


def eventually(look: Callable[[], str], expected: str) -> None:
    """Wait until a look shows what is expected."""
    seen = ""
    for _ in range(120):
        seen = look()
        if expected in seen:
            return
        time.sleep(0.25)
    raise AssertionError(f"{expected!r} did not come; last seen: {seen}")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("a-password-of-this-test")
    path.chmod(0o444)
    return path


def test_postgres_takes_the_documented_variables_and_scripts(start: Start, secret: Path, tmp_path: Path) -> None:
    script = tmp_path / "one.sql"
    script.write_text("CREATE TABLE made_at_start (id int);\n")
    script.chmod(0o644)
    name = start(
        "postgres",
        *("--env", "POSTGRES_USER=ems", "--env", "POSTGRES_DB=grid"),
        *("--env", "POSTGRES_PASSWORD_FILE=/run/secrets/password", "--volume", f"{secret}:/run/secrets/password:ro"),
        *("--volume", f"{script}:/docker-entrypoint-initdb.d/one.sql:ro"),
    )
    uri = "postgresql://ems:a-password-of-this-test@localhost/grid"
    eventually(
        lambda: docker("exec", name, "psql", uri, "-Atc", "SHOW data_directory", check=False), "/postgresql/data"
    )
    assert docker("exec", name, "psql", uri, "-Atc", "SELECT count(*) FROM made_at_start") == "0"
    assert docker("exec", name, "psql", uri, "-Atc", "SHOW server_version_num").startswith("17")
    assert docker("exec", name, "psql", uri, "-Atc", "SELECT datcollate FROM pg_database LIMIT 1") == "en_US.utf8"
    assert docker("exec", name, "stat", "-c", "%u:%g", "/var/lib/postgresql/data/PG_VERSION") == "999:999"


def test_postgres_keeps_its_data_and_needs_no_password_again(start: Start, secret: Path) -> None:
    volume = f"cariflex-test-{uuid.uuid4().hex[:8]}"
    mounts = ("--volume", f"{volume}:/var/lib/postgresql/data", "--volume", f"{secret}:/run/secrets/password:ro")
    try:
        first = start("postgres", *mounts, "--env", "POSTGRES_PASSWORD_FILE=/run/secrets/password")
        eventually(lambda: docker("exec", first, "pg_isready", "-h", "127.0.0.1", check=False), "accepting")
        docker("exec", "-u", "postgres", first, "psql", "-c", "CREATE TABLE kept (id int)")
        docker("rm", "--force", first)
        second = start("postgres", "--user", "999:999", *mounts)
        eventually(lambda: docker("exec", second, "pg_isready", "-h", "127.0.0.1", check=False), "accepting")
        assert docker("exec", second, "psql", "-U", "postgres", "-Atc", "SELECT count(*) FROM kept") == "0"
        docker("rm", "--force", second)
    finally:
        docker("volume", "rm", "--force", volume)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "set POSTGRES_PASSWORD_FILE"),
        (("POSTGRES_PASSWORD=x", "POSTGRES_PASSWORD_FILE=/run/x"), "are both set"),
        (("POSTGRES_PASSWORD_FILE=/run/secrets/nowhere",), "cannot be read"),
    ],
)
def test_postgres_says_what_is_missing(start: Start, options: tuple[str, ...], message: str) -> None:
    name = start("postgres", *(word for option in options for word in ("--env", option)))
    eventually(lambda: docker("logs", name), message)
    assert docker("wait", name) != "0"


def test_redis_steps_down_and_takes_options(start: Start) -> None:
    name = start("redis", command=("--requirepass", "a-password-of-this-test"))
    ask = ("exec", "--env", "REDISCLI_AUTH=a-password-of-this-test", name, "redis-cli")
    eventually(lambda: docker(*ask, "ping", check=False), "PONG")
    assert docker(*ask, "config", "get", "dir").splitlines()[1] == "/data"
    assert docker(*ask, "info", "server").splitlines()[1].startswith("redis_version:7.")
    assert docker("exec", name, "stat", "-c", "%u", "/proc/1") == "999"
    assert "NOAUTH" in docker("exec", name, "redis-cli", "ping", check=False)


def test_traefik_takes_options_alone() -> None:
    assert "Version:      3.7" in docker("run", "--rm", image("traefik"), "version")
    assert "traefik error" in docker("run", "--rm", image("traefik"), "--nonsense", check=False)


def test_flexmeasures_runs_its_command_as_any_user() -> None:
    command = ("run", "--rm", "--user", "10002:10002", "--read-only", image("flexmeasures"))
    code = "import importlib.metadata as m; print(m.version('flexmeasures'))"
    assert docker(*command, "python", "-c", code) == "1.0.1"
