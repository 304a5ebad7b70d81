"""Traefik as the role writes it for prod, in a network of its own with an ACME authority and something to serve."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.images import references
from tests.support.stacks import Stack, render

IMAGE = "cariflex-tlstest:current"
ROOT_URL = "https://pebble:15000/roots/0"
DOMAINS = ("cariflex.digitribe.fr", "grafana.digitribe.fr")
BACKENDS = {"flexmeasures-server": 5000, "smart-city-grafana": 3000}


def docker(*arguments: str, check: bool = True, timeout: float = 120) -> str:
    """What a docker command prints."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False)
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Authority:
    """The network, its authority, and the container beside Traefik that everything is asked from.

    Attributes:
        name: of the network and the container.
        ca: file with the authority that the ACME server's own address has its certificate from.
    """

    name: str
    ca: Path

    def shell(self, command: str, check: bool = True, timeout: float = 120) -> str:
        """What a shell command prints there."""
        return docker("exec", self.name, "sh", "-c", command, check=check, timeout=timeout)

    def curl(self, arguments: str, check: bool = True) -> str:
        """What curl prints; it trusts the authority's root alone."""
        return self.shell(f"curl -sS -m 10 --cacert /pki/root.crt {arguments}", check)

    def serial(self, domain: str) -> str:
        """The number of the certificate that Traefik shows for a name; empty when it shows none that holds."""
        ask = f"openssl s_client -connect {domain}:443 -servername {domain} -CAfile /pki/root.crt -verify_return_error"
        shown = self.shell(f"{ask} </dev/null 2>/dev/null | openssl x509 -noout -serial 2>/dev/null", check=False)
        return shown.strip().removeprefix("serial=")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    images = references()
    if "traefik" not in images or not docker("image", "ls", "--quiet", IMAGE, check=False):
        pytest.skip("the images are not on this machine: run `make test`, which makes them")
    name = f"cariflex-test-tls-{secrets.token_hex(3)}"
    folder = tmp_path_factory.mktemp("authority")
    serve = " & ".join(f"python3 -m http.server --directory /tmp {port}" for port in BACKENDS.values())
    aliases = [f"--network-alias={alias}" for alias in BACKENDS]
    try:
        docker("network", "create", name)
        docker("run", "--detach", f"--name={name}", f"--network={name}", "--network-alias=pebble", IMAGE)
        backend = images["flexmeasures"]
        docker("run", "--detach", f"--name={name}-backend", f"--network={name}", *aliases, backend, "sh", "-c", serve)
        # pebble's root is of its own making, at every start another
        docker("exec", name, "curl", "-sSk", "--retry-connrefused", "--retry", "20", "-o", "/pki/root.crt", ROOT_URL)
        docker("cp", f"{name}:/pki/ca.crt", str(folder))
        yield Authority(name, folder / "ca.crt")
    finally:
        docker("rm", "--force", "--volumes", name, f"{name}-backend", check=False)
        docker("network", "rm", name, check=False)


@dataclass(frozen=True)
class Proxy:
    """A running Traefik.

    Attributes:
        authority: who gives its certificates.
        folder: its stack's, as on a host.
        variables: what the inventory says beside prod's.
    """

    authority: Authority
    folder: Path
    variables: dict[str, Any]

    @property
    def name(self) -> str:
        """The container's."""
        return f"{self.authority.name}-traefik"

    def deploy(self, rendered: Path, **variables: Any) -> None:
        """Write its files as the role does and start it, or start it anew where something changed."""
        rendered.mkdir()
        (stack,) = render("prod", rendered, rendered_roles=["traefik"], **self.variables, **variables).values()
        for path, text in (stack.files | {"compose.yml": json.dumps(self._beside(stack))}).items():
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        for folder in stack.folders:
            (self.folder / folder).mkdir(exist_ok=True)
            self._shell(f"chown {stack.folders[folder]} /stack/{folder}")
        docker("compose", "--project-directory", str(self.folder), "up", "--detach", "--wait")

    def _beside(self, stack: Stack) -> dict[str, Any]:
        """Its compose file, with other names and no ports, so that it runs beside a deployed one."""
        service = stack.services["traefik"]
        del service["ports"]
        service |= {"container_name": self.name, "networks": {self.authority.name: {"aliases": list(DOMAINS)}}}
        networks = {self.authority.name: {"external": True}}
        return {"name": self.name, "services": {"traefik": service}, "networks": networks}

    def store(self) -> str:
        """Mode, owner and name of what it keeps."""
        return self._shell("stat -c '%a %u %n' /stack/acme/*")

    def _shell(self, command: str) -> str:
        """What a shell command prints that sees the stack's folder, as root."""
        return docker("run", "--rm", f"--volume={self.folder}:/stack", IMAGE, "sh", "-c", command)

    def logged(self) -> list[dict[str, Any]]:
        """The requests of its access log."""
        lines = (json.loads(line) for line in docker("logs", self.name).splitlines() if line.startswith("{"))
        return [line for line in lines if "RequestPath" in line]


@pytest.fixture(scope="module", params=["tls-alpn", "http"])
def proxy(
    request: pytest.FixtureRequest, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    """Traefik with each of the two challenges."""
    images = references() | {"grafana": "example/grafana:1"}
    variables = {
        "images_references": images,
        "traefik_acme_server": "https://pebble:14000/dir",
        "traefik_acme_server_ca": str(authority.ca),
        "traefik_acme_challenge": request.param,
        "traefik_requests_per_second": 20,
        "traefik_requests_burst": 60,
    }
    started = Proxy(authority, tmp_path_factory.mktemp("traefik"), variables)
    started.folder.chmod(0o755)
    try:
        started.deploy(started.folder.with_name(f"{started.folder.name}-rendered"))
        yield started
    finally:
        docker("rm", "--force", started.name, check=False)
