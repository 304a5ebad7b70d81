"""A whole EMS of its own in this machine's engine, from the files that the roles render, removed afterwards.

Containers are called by their service (`openadr-vtn`); in the engine their names begin with a random prefix, as those
of networks and volumes do. Nothing is published on this machine and no address is taken that it uses.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
import yaml

from tests.support.host import docker
from tests.support.stacks import ROOT, SECRETS, Stack, render

IMAGES = ("postgres", "redis", "flexmeasures", "flexmeasures-openadr-vtn", "flexmeasures-openadr-ven")
STACKS = ("postgres", "redis", "flexmeasures", "openadr")
NETWORKS = ("openadr-internal", "flexmeasures-internal")
LAST_BYTE = {"openadr-vtn": 10, "openadr-ven": 11, "flexmeasures-server": 20, "openadr-simulator": 30}
VEN = "Cariflex-VEN-001"
# What the tests ask: service -> port of /health.
HEALTH = (
    ("openadr-vtn", 8081),
    ("openadr-ven", 8080),
    ("openadr-ven", 8765),
    ("openadr-simulator", 8080),
    ("flexmeasures-server", 5000),
)


def images() -> dict[str, str]:
    """Name -> reference of the images it needs; those that are missing are left out."""
    variables = {name: f"CARIFLEX_TEST_{name.upper().replace('-', '_')}_IMAGE" for name in IMAGES}
    return {name: os.environ[variable] for name, variable in variables.items() if os.environ.get(variable)}


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait until the condition holds; returns its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.3)
    return value


@dataclass(frozen=True)
class Ems:
    """The running system and how to talk to it.

    Attributes:
        prefix: of everything in the engine.
        addresses: service -> address on openadr-internal.
    """

    prefix: str
    addresses: Mapping[str, str]

    def container(self, service: str) -> str:
        """A container's name in the engine."""
        return f"{self.prefix}-{service}"

    def ask(
        self, method: str, service: str, port: int, path: str, timeout: float = 5, **options: Any
    ) -> requests.Response:
        """Call a service over HTTP.

        Raises:
            requests.RequestException: there is no answer.
        """
        url = f"http://{self.addresses[service]}:{port}{path}"
        return requests.request(method, url, timeout=timeout, **options)

    def vtn(self, method: str, path: str, body: Any = None, timeout: float = 5) -> requests.Response:
        """Call the VTN's API: `path` is below /api/v1/."""
        headers = {"Authorization": f"Bearer {SECRETS['vault_openadr_api_token']}"}
        return self.ask(method, "openadr-vtn", 8081, f"/api/v1/{path}", json=body, headers=headers, timeout=timeout)

    def health(self, service: str, port: int) -> dict[str, Any]:
        """What a service says about itself; `reasons` say why there is no answer, if there is none."""
        try:
            answer: dict[str, Any] = self.ask("GET", service, port, "/health").json()
        except requests.RequestException as error:
            return {"status": "unavailable", "reasons": [f"{service}:{port} does not answer: {type(error).__name__}"]}
        return answer

    def troubles(self) -> list[str]:
        """Why the system is not well; empty when it is."""
        found = []
        for service, port in HEALTH:
            said = self.health(service, port)
            if said.get("status") != "ok":
                found.append(f"{service}:{port}: {said.get('reasons') or said}")
        return found

    def sql(self, statement: str) -> list[list[str]]:
        """Ask FlexMeasures' database; rows of texts."""
        command = ("exec", "--interactive", self.container("flexmeasures-db"), "psql", "--username=postgres")
        options = ("--no-psqlrc", "--tuples-only", "--no-align", "--field-separator=\t", "--quiet", "flexmeasures")
        return [line.split("\t") for line in docker(*command, *options, stdin=statement).splitlines()]

    def beliefs(self) -> dict[tuple[int, datetime], list[float]]:
        """(sensor, start) -> every value that FlexMeasures was ever told, the first one first."""
        rows = self.sql(
            "SELECT sensor_id, extract(epoch FROM event_start), event_value FROM timed_belief "
            "WHERE sensor_id IN (84, 86, 87) ORDER BY sensor_id, event_start, belief_horizon DESC"
        )
        found: dict[tuple[int, datetime], list[float]] = {}
        for sensor, start, value in rows:
            found.setdefault((int(sensor), datetime.fromtimestamp(float(start), UTC)), []).append(float(value))
        return found

    def log(self, service: str) -> list[dict[str, Any]]:
        """The lines of one of our services' logs, also those of before a restart."""
        return [json.loads(line) for line in docker("logs", self.container(service)).splitlines() if line[:1] == "{"]

    def trace(self, event_id: str) -> list[dict[str, Any]]:
        """The lines of all logs that tell of an event, or of an instruction that it led to, by time."""
        services = ("openadr-vtn", "openadr-ven", "openadr-simulator")
        lines = [line for service in services for line in self.log(service)]
        found = [line for line in lines if event_id in json.dumps(line)]
        instructions = {line["instruction"] for line in found if "instruction" in line}
        found += [line for line in lines if line not in found and line.get("instruction") in instructions]
        return sorted(found, key=lambda line: str(line["time"]))


@contextlib.contextmanager
def running(folder: Path, variables: Mapping[str, Any] | None = None, **overrides: Any) -> Iterator[Ems]:
    """Start it with dev's inventory, simulated devices and sensors registered, until all is well.

    Args:
        folder: an empty one for its files.
        variables: of roles, over those of the inventory.
        overrides: merged into `topology_overrides`, two levels deep.
    """
    prefix = f"cariflex-ems-{secrets.token_hex(3)}"
    try:
        subnet = _networks(prefix)
        ems = Ems(prefix, {service: f"{subnet}.{last}" for service, last in LAST_BYTE.items()})
        _files(ems, folder, variables or {}, overrides)
        _start(ems, folder)
        yield ems
    finally:
        _remove(prefix)


def _networks(prefix: str) -> str:
    """Make them; the first three numbers of the addresses of openadr-internal."""
    docker("network", "create", "--internal", f"{prefix}-flexmeasures-internal")
    for _ in range(20):
        subnet = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(256)}"
        with contextlib.suppress(AssertionError):  # taken
            docker("network", "create", "--subnet", f"{subnet}.0/24", f"{prefix}-openadr-internal")
            return subnet
    raise AssertionError("no free subnet in 10.200.0.0/13")


def _files(ems: Ems, folder: Path, variables: Mapping[str, Any], overrides: Mapping[str, Any]) -> None:
    containers = {service: {"networks": {"openadr-internal": ip}} for service, ip in ems.addresses.items()}
    (folder / "rendered").mkdir()
    stacks = render(
        "dev",
        folder / "rendered",
        images_references={**images(), "grafana": "", "traefik": "not-started", "cariflex-feeds": "not-started"},
        topology_overrides={"containers": containers, **overrides},
        **variables,
    )
    for name in STACKS:
        _write(folder / name, stacks[name], _own(stacks[name].compose, ems.prefix))


def _write(folder: Path, stack: Stack, compose: Mapping[str, Any]) -> None:
    secret_files = {f"secrets/{name}": value for name, value in stack.secrets.items()}
    for path, text in {**stack.files, **secret_files, "compose.yml": yaml.safe_dump(compose)}.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(0o644)
    for path in stack.folders:
        (folder / path).mkdir(parents=True)
        (folder / path).chmod(0o777)  # their owner in production is the container's user


def _own(compose: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The same stack with names of its own in the engine."""
    compose["name"] = f"{prefix}-{compose['name']}"
    for service, options in compose["services"].items():
        options["container_name"] = f"{prefix}-{service}"
        options["networks"] = {name: value for name, value in options["networks"].items() if name in NETWORKS}
    compose["networks"] = {name: {"external": True, "name": f"{prefix}-{name}"} for name in NETWORKS}
    compose["volumes"] = {name: {"name": f"{prefix}-{name}"} for name in compose.get("volumes", {})}
    return compose


def _start(ems: Ems, folder: Path) -> None:
    with ThreadPoolExecutor() as pool:  # FlexMeasures waits for its database by itself
        list(pool.map(lambda name: docker("compose", "--project-directory", str(folder / name), "up", "-d"), STACKS))
    psql = ("exec", ems.container("flexmeasures-db"), "psql", "--no-psqlrc", "--quiet", "--set=preview=0")
    until(lambda: _works("exec", ems.container("flexmeasures-db"), "pg_isready", "-h127.0.0.1"), 60, "PostgreSQL")
    docker(*psql, "--set=ON_ERROR_STOP=1", "--username=postgres", "--file=/etc/cariflex/provision.sql")
    server = ("flexmeasures-server", 5000)
    until(lambda: ems.health(*server)["status"] == "ok", 300, "FlexMeasures answers")
    declared = yaml.safe_load((ROOT / "playbooks/vars/topology.yml").read_text())["topology_declared"]
    sections = ("account", "users", "asset_types", "assets", "sensors")
    answer = ems.ask(
        *("POST", *server, "/cariflex/v1/topology"),
        json={
            "topology": {"timezone": declared["site"]["timezone"], **{name: declared[name] for name in sections}},
            "passwords": {
                "admin@digitribe.fr": SECRETS["vault_flexmeasures_admin_password"],
                "ven@cariflex.internal": SECRETS["vault_flexmeasures_ven_password"],
            },
        },
        headers={"Authorization": f"Bearer {SECRETS['vault_flexmeasures_topology_token']}"},
        timeout=60,
    )
    assert answer.ok, answer.text
    last: list[str] = []

    def well() -> bool:
        last[:] = ems.troubles()
        return not last

    try:
        until(well, 150, "all is well")
    except AssertionError as error:
        raise AssertionError(f"{error}: {last}") from None


def _works(*command: str) -> bool:
    try:
        docker(*command)
    except AssertionError:
        return False
    return True


def _remove(prefix: str) -> None:
    filters = ("--filter", f"name={prefix}", "--format")
    if containers := docker("ps", "--all", *filters, "{{.Names}}").split():
        docker("rm", "--force", "--volumes", *containers)
    if volumes := docker("volume", "ls", *filters, "{{.Name}}").split():
        docker("volume", "rm", *volumes)
    if networks := docker("network", "ls", *filters, "{{.Name}}").split():
        docker("network", "rm", *networks)
