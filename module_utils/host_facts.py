"""What a host has: memory, disk, system, addresses, clock, Docker, networks and listening ports. Reads only, standard
library only.

Everything comes from files below a root folder and from the engine's socket, so that a test can hand in both. Where
something cannot be read, the value that means "none" stands in: rules judge, this module never fails.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import pwd
import re
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

SOCKET = "/var/run/docker.sock"
DATA_ROOT = "/var/lib/docker"
_TIMEOUT = 10  # seconds, for one question to the engine or one command
_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp
_ROUTE_UP = 0x1
_SYS_TIME = 25  # CAP_SYS_TIME


@dataclass(frozen=True)
class Network:
    """A network of Docker's."""

    name: str
    subnets: tuple[str, ...]
    labels: dict[str, str] = field(default_factory=dict)
    interface: str = ""  # the host's end of it


@dataclass(frozen=True)
class Route:
    """A destination that the host reaches through one of its interfaces, directly or through a gateway."""

    subnet: str
    interface: str


@dataclass(frozen=True)
class Listener:
    """A TCP port somebody listens on; `process` is empty where it cannot be known without root."""

    port: int
    process: str


@dataclass(frozen=True)
class SshConnection:
    """The SSH connection that this process came through.

    Attributes:
        client: the address that it comes from, as the host sees it.
        port: the host's port that it uses.
        user: who logged in.
        has_key: whether that user may come with a key.
    """

    client: str
    port: int
    user: str = ""
    has_key: bool = True


@dataclass(frozen=True)
class Reference:
    """A server on the internet, and how far this host's clock is ahead of its."""

    url: str
    ahead_seconds: float = 0
    error: str = ""  # why it could not be asked


@dataclass(frozen=True)
class Engine:
    """Docker, as far as this user may see it."""

    version: str = ""  # empty: none installed
    available: bool = False  # it answers this user
    denied: bool = False  # it runs, and does not answer this user
    compose_version: str = ""
    buildx_version: str = ""
    data_root: str = DATA_ROOT
    networks: tuple[Network, ...] = ()
    containers: tuple[str, ...] = ()  # names, stopped ones too
    published: dict[int, str] = field(default_factory=dict)  # TCP port of the host -> container
    images: tuple[str, ...] = ()  # references
    images_bytes: int = 0


@dataclass(frozen=True)
class Host:
    """Everything the rules judge."""

    system: str  # such as "debian 12"
    python: tuple[int, ...]
    memory_bytes: int
    disk_path: str
    disk_free_bytes: int
    systemd: bool
    user: str
    engine: Engine
    routes: tuple[Route, ...]
    listeners: tuple[Listener, ...]
    ssh: SshConnection | None = None  # None: Ansible did not come by SSH
    addresses: tuple[str, ...] = ()  # IPv4 and IPv6, without those that only the host or its link can reach
    reference: Reference | None = None
    container: bool = False  # the kernel belongs to the machine below
    sets_clock: bool = True  # the host may set its own clock


def read_host(root: Path = Path("/"), engine_socket: str = SOCKET, reference_url: str = "") -> Host:
    """Look at the host that this process runs on.

    Args:
        root: folder below which the kernel's and the system's files are.
        engine_socket: socket of the Docker Engine.
        reference_url: HTTPS server whose clock is read; empty for none.
    """
    engine = read_engine(engine_socket, root)
    disk_path = _existing(Path(engine.data_root))
    disk = os.statvfs(disk_path)
    return Host(
        system=read_system(root),
        python=tuple(sys.version_info[:3]),
        memory_bytes=read_memory(root),
        disk_path=str(disk_path),
        disk_free_bytes=disk.f_bavail * disk.f_frsize,
        systemd=(root / "run/systemd/system").is_dir(),
        user=_user(),
        engine=engine,
        routes=tuple(read_routes(root)),
        listeners=tuple(read_listeners(root)),
        ssh=read_ssh(root, os.getpid()),
        addresses=tuple(read_addresses(root)),
        reference=read_reference(reference_url) if reference_url else None,
        container=any((root / path).exists() for path in ("run/systemd/container", ".dockerenv")),
        sets_clock=read_sets_clock(root),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists: what is made there later is on the same disk."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def read_system(root: Path) -> str:
    """ID and VERSION_ID of os-release(5), such as ``ubuntu 24.04``."""
    fields = dict(re.findall(r'^(ID|VERSION_ID)="?([^"\n]*)"?$', _text(root / "etc/os-release"), re.MULTILINE))
    return f"{fields.get('ID', 'unknown')} {fields.get('VERSION_ID', '')}".strip()


def read_memory(root: Path) -> int:
    """MemTotal in bytes: what the kernel has to give, slightly less than what is built in."""
    found = re.search(r"^MemTotal:\s+(\d+) kB$", _text(root / "proc/meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def read_sets_clock(root: Path) -> bool:
    """Whether the host's first process, and so a service, may have CAP_SYS_TIME."""
    found = re.search(r"^CapBnd:\s+([0-9a-f]+)$", _text(root / "proc/1/status"), re.MULTILINE)
    return not found or bool(int(found[1], 16) >> _SYS_TIME & 1)


def read_routes(root: Path) -> Iterator[Route]:
    """IPv4 routes that are up, without the default one. Interfaces count by the route to their own subnet."""
    for line in _text(root / "proc/net/route").splitlines()[1:]:
        columns = line.split()
        destination, flags, mask = (int(columns[index], 16) for index in (1, 3, 7))
        if mask and flags & _ROUTE_UP:
            address = ipaddress.IPv4Address(destination.to_bytes(4, sys.byteorder))
            prefix = ipaddress.IPv4Address(mask.to_bytes(4, sys.byteorder))
            yield Route(str(ipaddress.IPv4Network(f"{address}/{prefix}", strict=False)), columns[0])


def read_addresses(root: Path) -> Iterator[str]:
    """The host's own IPv4 and IPv6 addresses, without loopback and link-local ones."""
    local = re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", _text(root / "proc/net/fib_trie"))
    local += [line.split()[0] for line in _text(root / "proc/net/if_inet6").splitlines()]
    for text in dict.fromkeys(local):
        address = ipaddress.ip_address(text if "." in text else bytes.fromhex(text))
        if not address.is_loopback and not address.is_link_local:
            yield str(address)


def read_reference(url: str) -> Reference:
    """Compare the clocks by the ``Date`` that a server answers with, which is exact to a second.

    A host with a wrong clock takes every certificate for expired or not yet valid, so none is looked at: nothing but
    the time is believed.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    asked = time.time()
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT, context=context) as answer:  # noqa: S310 - the operator's address
            date = answer.headers["Date"]
    except urllib.error.HTTPError as error:  # an answer too
        date = error.headers["Date"]
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Reference(url, error=str(getattr(error, "reason", error)))
    answered = time.time()
    try:
        theirs = parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return Reference(url, error="answers without a date")
    # its clock showed something from `theirs` to a second later, at some moment from `asked` to `answered`
    least, most = asked - theirs - 1, answered - theirs
    return Reference(url, ahead_seconds=least if least > 0 else min(most, 0))


def read_listeners(root: Path) -> Iterator[Listener]:
    """TCP ports in state LISTEN, each once, with the process where this user may see it."""
    inodes: dict[int, str] = {}
    for name in ("tcp", "tcp6"):
        for line in _text(root / "proc/net" / name).splitlines()[1:]:
            columns = line.split()
            if columns[3] == _LISTEN:
                inodes.setdefault(int(columns[1].rpartition(":")[2], 16), columns[9])
    processes = _processes(root, set(inodes.values())) if inodes else {}
    for port, inode in sorted(inodes.items()):
        yield Listener(port, processes.get(inode, ""))


def _processes(root: Path, inodes: set[str]) -> dict[str, str]:
    """Socket inode -> name of the process that holds it."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, str] = {}
    for process in (root / "proc").glob("[0-9]*"):
        try:
            held = {str(descriptor.readlink()) for descriptor in (process / "fd").iterdir()}
        except OSError:  # ended meanwhile, or belongs to somebody else
            continue
        for link in held & wanted.keys():
            found.setdefault(wanted[link], _text(process / "comm").strip())
    return found


def read_ssh(root: Path, process: int) -> SshConnection | None:
    """The SSH connection that a process came through; None where there is none.

    sudo keeps the variable SSH_CONNECTION from the process, but not from those above it.
    """
    seen: set[int] = set()
    while process > 1 and process not in seen:
        seen.add(process)
        folder = root / "proc" / str(process)
        environment = dict(entry.partition("=")[::2] for entry in _text(folder / "environ").split("\0"))
        found = re.fullmatch(r"(\S+) \d+ \S+ (\d+)", environment.get("SSH_CONNECTION", ""))
        if found:
            home = root / environment.get("HOME", "").lstrip("/")
            user = environment.get("USER", "")
            return SshConnection(found[1].partition("%")[0], int(found[2]), user, _has_key(home))
        parent = re.search(r"^PPid:\s+(\d+)$", _text(folder / "status"), re.MULTILINE)
        process = int(parent[1]) if parent else 0
    return None


def _has_key(home: Path) -> bool:
    """Whether somebody with this home may come with a key."""
    lines = [
        line for name in ("authorized_keys", "authorized_keys2") for line in _text(home / ".ssh" / name).split("\n")
    ]
    return any(line.strip() and not line.lstrip().startswith("#") for line in lines)


# --- Docker --------------------------------------------------------------------------------------------------------


class _EngineConnection(http.client.HTTPConnection):
    """HTTP over the engine's socket, so that neither its client nor a Python library has to be installed."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _ask(path: str, question: str) -> Any:
    connection = _EngineConnection(path)
    try:
        connection.request("GET", question)
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise http.client.HTTPException(f"{question}: {answer.status} {answer.reason}")
        return json.load(answer)
    finally:
        connection.close()


def _command(*words: str) -> str:
    """What a command prints; empty where it is missing or fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT, check=False)  # noqa: S603 - fixed words
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _version_in(text: str) -> str:
    found = re.search(r"\d+(?:\.\d+)+", text)
    return found[0] if found else ""


def read_engine(path: str, root: Path) -> Engine:
    """The engine behind a socket, or what is installed of one that does not run."""
    compose = _version_in(_command("docker", "compose", "version", "--short"))
    buildx = _version_in(_command("docker", "buildx", "version"))
    try:
        version = _ask(path, "/version")["Version"]
        info = _ask(path, "/info")
        networks = tuple(_networks(_ask(path, "/networks")))
        containers = _ask(path, "/containers/json?all=1")
        images = _ask(path, "/images/json")
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        return Engine(
            version=_version_in(_command("dockerd", "--version")),
            denied=isinstance(error, PermissionError),
            data_root=_configured_data_root(root),
            compose_version=compose,
            buildx_version=buildx,
        )
    names = {container["Id"]: container["Names"][0].lstrip("/") for container in containers if container["Names"]}
    published = {
        port["PublicPort"]: names[container["Id"]]
        for container in containers
        if container["Id"] in names
        for port in container["Ports"]
        if port.get("PublicPort") and port["Type"] == "tcp"
    }
    return Engine(
        version=_version_in(version),
        available=True,
        data_root=info["DockerRootDir"],
        networks=networks,
        containers=tuple(sorted(names.values())),
        published=published,
        images=tuple(sorted(tag for image in images for tag in image.get("RepoTags") or ())),
        images_bytes=sum(image["Size"] for image in images),
        compose_version=compose,
        buildx_version=buildx,
    )


def _networks(listed: list[dict[str, Any]]) -> Iterator[Network]:
    for network in listed:
        options = network.get("Options") or {}
        yield Network(
            name=network["Name"],
            subnets=tuple(entry["Subnet"] for entry in network["IPAM"]["Config"] or () if "Subnet" in entry),
            labels=network.get("Labels") or {},
            interface=options.get("com.docker.network.bridge.name", f"br-{network['Id'][:12]}"),
        )


def _configured_data_root(root: Path) -> str:
    try:
        return str(json.loads(_text(root / "etc/docker/daemon.json")).get("data-root", DATA_ROOT))
    except (ValueError, AttributeError):
        return DATA_ROOT
