"""A PostgreSQL in a container of its own, from the image that CARIFLEX_TEST_POSTGRES_IMAGE names."""

import importlib.util
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.unit.services.conftest import pytest_pyfunc_call

collect_ignore_glob = [] if importlib.util.find_spec("openleadr") else ["test_*.py"]
__all__ = ["pytest_pyfunc_call"]

SUPERUSER_PASSWORD = "superuser-of-a-throwaway-database"
PASSWORD = "openadr-of-a-throwaway-database"


@dataclass(frozen=True)
class Postgres:
    """A running server, reachable from this machine."""

    container: str
    host: str
    port: int

    def docker(self, *arguments: str) -> None:
        """`docker <verb> … <container>`."""
        subprocess.run(["docker", *arguments, self.container], check=True, capture_output=True)

    def sql(self, statement: str) -> None:
        """Run a statement as the superuser."""
        command = ["docker", "exec", self.container, "psql", "-qU", "postgres", "-h", "127.0.0.1", "-c", statement]
        subprocess.run(command, check=True, capture_output=True)

    def wait(self) -> None:
        """Until it takes connections."""
        for attempt in range(100):
            try:
                self.sql("SELECT 1")
                return
            except subprocess.CalledProcessError:
                if attempt == 99:
                    raise
                time.sleep(0.3)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The server, with the role `openadr`."""
    image = os.environ.get("CARIFLEX_TEST_POSTGRES_IMAGE")
    if not image:
        pytest.skip("CARIFLEX_TEST_POSTGRES_IMAGE names no image of PostgreSQL, cariflex/postgres:17-… for example")
    name = f"cariflex-test-postgres-{uuid.uuid4().hex[:8]}"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]  # fixed: a port that Docker chooses is another one after a restart
    options = [
        "--name",
        name,
        "--publish",
        f"127.0.0.1:{port}:5432",
        "--env",
        f"POSTGRES_PASSWORD={SUPERUSER_PASSWORD}",
    ]
    subprocess.run(["docker", "run", "--detach", *options, image], check=True, capture_output=True)
    try:
        server = Postgres(name, "127.0.0.1", port)
        server.wait()
        server.sql(f"CREATE ROLE openadr LOGIN PASSWORD '{PASSWORD}'")
        yield server
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], check=True, capture_output=True)


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """The name of a fresh database that the role owns."""
    name = f"openadr_{uuid.uuid4().hex[:8]}"
    postgres.sql(f"CREATE DATABASE {name} OWNER openadr")
    yield name
    postgres.sql(f"DROP DATABASE {name} WITH (FORCE)")
