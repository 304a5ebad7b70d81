"""What is read of a host: from files as the kernel writes them, and from an engine that answers on a socket."""

from __future__ import annotations

import email.utils
import json
import os
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.host_facts import (
    Engine,
    Listener,
    Network,
    Route,
    SshConnection,
    read_addresses,
    read_engine,
    read_host,
    read_listeners,
    read_memory,
    read_reference,
    read_routes,
    read_sets_clock,
    read_ssh,
    read_system,
)

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the examples of /proc/net/route are little-endian")

ROUTES = """Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	0100A8C0	0003	0	0	0	00000000	0	0	0
eth0	0000A8C0	00000000	0001	0	0	0	0000FFFF	0	0	0
wg0	00001DAC	00000000	0000	0	0	0	0000FFFF	0	0	0
"""
FIB_TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 198.51.100.0/24 2 0 2
        |-- 198.51.100.0
           /24 link UNICAST
        |-- 198.51.100.4
           /32 host LOCAL
        |-- 198.51.100.255
           /32 link BROADCAST
     |-- 127.0.0.1
        /32 host LOCAL
Local:
  +-- 0.0.0.0/0 3 0 5
     |-- 198.51.100.4
        /32 host LOCAL
"""
IF_INET6 = """00000000000000000000000000000001 01 80 10 80       lo
20010db8000000000000000000000004 02 40 00 80     eth0
fe80000000000000021a2bfffe3c4d5e 02 40 20 80     eth0
"""
HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
TCP = (
    HEADER
    + "   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0\n"
    + "   1: 0100007F:1F90 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 4243 1 0\n"
)
TCP6 = (
    HEADER + "   0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A"
    " 00000000:00000000 00:00000000 00000000     0        0 4244 1 0\n"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root folder of a made-up host."""
    files = {
        "etc/os-release": 'NAME="Ubuntu"\nVERSION_ID="24.04"\nID=ubuntu\nID_LIKE=debian\n',
        "proc/meminfo": "MemTotal:        6071234 kB\nMemFree:          100000 kB\n",
        "proc/net/route": ROUTES,
        "proc/net/tcp": TCP,
        "proc/net/tcp6": TCP6,
        "proc/net/fib_trie": FIB_TRIE,
        "proc/net/if_inet6": IF_INET6,
        "proc/77/comm": "nginx\n",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    (tmp_path / "proc/77/fd").mkdir()
    (tmp_path / "proc/77/fd/5").symlink_to("socket:[4242]")
    return tmp_path


def test_system_and_memory(root: Path) -> None:
    assert read_system(root) == "ubuntu 24.04"
    assert read_memory(root) == 6071234 * 1024


def test_routes_without_the_default_and_those_that_are_down(root: Path) -> None:
    assert list(read_routes(root)) == [Route("192.168.0.0/16", "eth0")]


def test_listeners_with_their_process(root: Path) -> None:
    assert list(read_listeners(root)) == [Listener(80, "nginx"), Listener(443, "")]


def test_addresses_that_others_can_reach(root: Path) -> None:
    assert list(read_addresses(root)) == ["198.51.100.4", "2001:db8::4"]


class Dated(BaseHTTPRequestHandler):
    """A server with a clock of its own."""

    date: str | None = None
    status = 200

    def do_GET(self) -> None:
        self.send_response_only(self.status)
        if self.date is not None:
            self.send_header("Date", self.date)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.mark.parametrize(("status", "theirs"), [(200, 0), (200, -60), (503, 60)])
def test_clock_is_compared_with_that_of_a_server(status: int, theirs: int) -> None:
    date = email.utils.formatdate(time.time() + theirs, usegmt=True)
    handler = type("Handler", (Dated,), {"date": date, "status": status})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        compared = read_reference(f"http://127.0.0.1:{server.server_port}/")
    assert not compared.error
    assert compared.ahead_seconds == pytest.approx(-theirs, abs=1.5)


def test_clock_cannot_be_compared(tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), Dated) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        assert read_reference(url).error == "answers without a date"
    assert "refused" in read_reference(url).error


def test_empty_host_is_no_error(tmp_path: Path) -> None:
    assert read_system(tmp_path) == "unknown"
    assert read_memory(tmp_path) == 0
    assert list(read_routes(tmp_path)) == list(read_listeners(tmp_path)) == list(read_addresses(tmp_path)) == []


# --- Docker --------------------------------------------------------------------------------------------------------

ANSWERS: dict[str, Any] = {
    "/version": {"Version": "26.1.5+dfsg1"},
    "/info": {"DockerRootDir": "/data/docker"},
    "/networks": [
        {"Name": "none", "Id": "n" * 64, "IPAM": {"Config": None}, "Options": {}, "Labels": {}},
        {
            "Name": "bridge",
            "Id": "b" * 64,
            "IPAM": {"Config": [{"Subnet": "172.17.0.0/16"}]},
            "Options": {"com.docker.network.bridge.name": "docker0"},
            "Labels": None,
        },
        {
            "Name": "openadr-internal",
            "Id": "0123456789abcdef",
            "IPAM": {"Config": [{"Subnet": "192.168.240.0/24"}]},
            "Options": None,
            "Labels": {"a": "b"},
        },
    ],
    "/containers/json?all=1": [
        {
            "Id": "1",
            "Names": ["/traefik"],
            "Ports": [{"PrivatePort": 80, "PublicPort": 80, "Type": "tcp"}, {"PrivatePort": 8080, "Type": "tcp"}],
        },
        {"Id": "2", "Names": ["/stopped"], "Ports": []},
        {"Id": "3", "Names": [], "Ports": [{"PrivatePort": 1, "PublicPort": 1, "Type": "tcp"}]},
    ],
    "/images/json": [{"Size": 1000, "RepoTags": ["postgres:17.12-trixie"]}, {"Size": 234, "RepoTags": None}],
}


class UnixServer(socketserver.ThreadingUnixStreamServer):
    """A socket that answers like the engine."""

    daemon_threads = True
    answers: dict[str, Any]


class Handler(BaseHTTPRequestHandler):
    """One question, one answer."""

    server: UnixServer

    def do_GET(self) -> None:
        answer = self.server.answers.get(self.path)
        body = json.dumps(answer).encode()
        self.send_response(200 if answer is not None else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def address_string(self) -> str:
        return "socket"


@pytest.fixture
def engine_socket(tmp_path: Path) -> Iterator[UnixServer]:
    with UnixServer(str(tmp_path / "docker.sock"), Handler) as server:
        server.answers = dict(ANSWERS)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def no_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A PATH with nothing in it; returns the folder to put commands in."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def command(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def test_engine_that_answers(engine_socket: UnixServer, no_commands: Path, tmp_path: Path) -> None:
    command(no_commands, "docker", 'case "$1" in compose) echo v2.26.1-4;; buildx) echo buildx 0.13.1+ds1 g;; esac')
    assert read_engine(str(engine_socket.server_address), tmp_path) == Engine(
        version="26.1.5",
        available=True,
        compose_version="2.26.1",
        buildx_version="0.13.1",
        data_root="/data/docker",
        networks=(
            Network("none", (), {}, "br-nnnnnnnnnnnn"),
            Network("bridge", ("172.17.0.0/16",), {}, "docker0"),
            Network("openadr-internal", ("192.168.240.0/24",), {"a": "b"}, "br-0123456789ab"),
        ),
        containers=("stopped", "traefik"),
        published={80: "traefik"},
        images=("postgres:17.12-trixie",),
        images_bytes=1234,
    )


def test_engine_that_is_ill_is_not_available(engine_socket: UnixServer, no_commands: Path, tmp_path: Path) -> None:
    del engine_socket.answers["/networks"]
    assert read_engine(str(engine_socket.server_address), tmp_path) == Engine()


def test_engine_that_is_installed_and_stopped(no_commands: Path, tmp_path: Path) -> None:
    command(no_commands, "dockerd", 'echo "Docker version 20.10.24+dfsg1, build 297e128"')
    (tmp_path / "etc/docker").mkdir(parents=True)
    (tmp_path / "etc/docker/daemon.json").write_text('{"data-root": "/srv/docker"}', encoding="utf-8")
    expected = Engine(version="20.10.24", data_root="/srv/docker")
    assert read_engine(str(tmp_path / "docker.sock"), tmp_path) == expected


def test_no_engine_at_all(no_commands: Path, tmp_path: Path) -> None:
    assert read_engine(str(tmp_path / "docker.sock"), tmp_path) == Engine()


def test_socket_of_an_engine_that_died(no_commands: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "docker.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    engine = read_engine(path, tmp_path)
    assert not engine.available
    assert not engine.denied


def test_engine_that_refuses_this_user(no_commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)  # root may connect to any socket
    assert read_engine(str(tmp_path / "docker.sock"), tmp_path).denied


def test_whole_host(root: Path, no_commands: Path) -> None:
    (root / "etc/docker").mkdir(parents=True)
    (root / "etc/docker/daemon.json").write_text(json.dumps({"data-root": f"{root}/not/there/yet"}), encoding="utf-8")
    host = read_host(root, str(root / "docker.sock"))
    assert (host.system, host.systemd, host.python) == ("ubuntu 24.04", False, tuple(sys.version_info[:3]))
    assert host.disk_path == str(root)
    assert host.disk_free_bytes == pytest.approx(os.statvfs(root).f_bavail * os.statvfs(root).f_frsize, rel=0.1)


@pytest.mark.parametrize(("bounding_set", "expected"), [("000001ffffffffff", True), ("00000000a80c25fb", False)])
def test_whether_the_host_may_set_its_clock(bounding_set: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/status").write_text(f"Name:\tsystemd\nCapBnd:\t{bounding_set}\nCapAmb:\t0\n")
    assert read_sets_clock(tmp_path) is expected


def test_the_ssh_connection_is_found_above_sudo(tmp_path: Path) -> None:
    processes = {
        900: (700, "PATH=/usr/bin\0SUDO_USER=operator\0"),
        700: (600, "HOME=/home/operator\0"),
        600: (
            1,
            "SHELL=/bin/sh\0SSH_CONNECTION=fe80::7%eth0 50222 fe80::1%eth0 2222\0HOME=/home/deploy\0USER=deploy\0",
        ),
    }
    for process, (parent, environment) in processes.items():
        folder = tmp_path / "proc" / str(process)
        folder.mkdir(parents=True)
        (folder / "status").write_text(f"Name:\tsh\nPPid:\t{parent}\nTracerPid:\t0\n")
        (folder / "environ").write_text(environment)
    assert read_ssh(tmp_path, 900) == SshConnection("fe80::7", 2222, "deploy", has_key=False)
    keys = tmp_path / "home/deploy/.ssh/authorized_keys"
    keys.parent.mkdir(parents=True)
    keys.write_text("# nobody yet\n\n")
    assert read_ssh(tmp_path, 900) == SshConnection("fe80::7", 2222, "deploy", has_key=False)
    keys.write_text("# somebody\nssh-ed25519 AAAA somebody\n")
    assert read_ssh(tmp_path, 900) == SshConnection("fe80::7", 2222, "deploy", has_key=True)
    (tmp_path / "proc/600/environ").write_text("OLD_SSH_CONNECTION=10.0.0.1 1 10.0.0.2 22\0")
    assert read_ssh(tmp_path, 900) is None
