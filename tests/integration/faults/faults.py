"""What can happen to a component, done to its container or process."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator

from tests.support.ems import Ems
from tests.support.host import docker

FREEZE_SECONDS = 60
AWAY_SECONDS = 5  # how long something that was stopped stays so
CUT_SECONDS = 10
COMPONENTS = {
    "VTN": "openadr-vtn",
    "VEN": "openadr-ven",
    "S2 CEM": "openadr-ven",  # a process of its own in it
    "FlexMeasures": "flexmeasures-server",
    "PostgreSQL": "flexmeasures-db",
    "Redis": "flexmeasures-redis",
    "device": "openadr-simulator",
}
CEM = "cariflex-s2 serve"


class Hand:
    """Reaches from outside into containers: processes by id, cables, routes."""

    def __init__(self, ems: Ems) -> None:
        self._ems = ems

    def of(self, *command: str) -> str:
        """Run a command with the engine's processes and networks in sight."""
        return docker("exec", self._ems.container("hand"), *command)

    def pid(self, service: str) -> str:
        """Of a container's first process."""
        return docker("inspect", "--format", "{{.State.Pid}}", self._ems.container(service)).strip()

    def processes(self, service: str) -> list[str]:
        """Process ids of what a container was started for and of its children, without those of health checks."""
        lines = docker("top", self._ems.container(service), "-eo", "pid,ppid").splitlines()[1:]
        parents = dict(line.split()[:2] for line in lines)
        first = self.pid(service)
        found = [first]
        for process in found:
            found += [child for child, parent in parents.items() if parent == process]
        return found

    def cem(self) -> str:
        """Process id of the CEM."""
        lines = docker("top", self._ems.container("openadr-ven"), "-eo", "pid,args").splitlines()
        found = [line.split()[0] for line in lines if CEM in line and "together" not in line]
        assert len(found) == 1, lines
        return found[0]

    def cables(self, service: str) -> list[str]:
        """The engine's ends of a container's network interfaces."""
        inside = self.of("nsenter", "--target", self.pid(service), "--net", "ip", "-o", "link")
        peers = set(re.findall(r"eth\d+@if(\d+)", inside))
        outside = re.findall(r"^(\d+): ([^@:]+)", self.of("ip", "-o", "link"), flags=re.MULTILINE)
        return [name for index, name in outside if index in peers]

    def route(self, verb: str, service: str, address: str) -> None:
        """Add or delete a black hole for an address in a container."""
        self.of("nsenter", "--target", self.pid(service), "--net", "ip", "route", verb, "blackhole", f"{address}/32")


@contextlib.contextmanager
def hand(ems: Ems, image: str) -> Iterator[Hand]:
    """A container with the rights that faults need."""
    rights = [f"--cap-add={name}" for name in ("SYS_ADMIN", "SYS_PTRACE", "NET_ADMIN")]
    options = ("--detach", "--pid=host", "--network=host", "--security-opt=apparmor=unconfined", *rights)
    docker("run", *options, "--name", ems.container("hand"), "--entrypoint", "sleep", image, "infinity")
    yield Hand(ems)  # removed with the rest of the system


def stop(ems: Ems, hand: Hand, component: str) -> None:
    """Stop it properly; it stays away for a while. A process of a container comes back by itself."""
    if component == "S2 CEM":
        hand.of("kill", "-TERM", hand.cem())
    else:
        docker("stop", ems.container(COMPONENTS[component]))
        time.sleep(AWAY_SECONDS)
        docker("start", ems.container(COMPONENTS[component]))


def kill(_ems: Ems, hand: Hand, component: str) -> None:
    """Kill -9 its first process; the restart policy has to bring it back."""
    hand.of("kill", "-KILL", hand.cem() if component == "S2 CEM" else hand.pid(COMPONENTS[component]))


def freeze(ems: Ems, hand: Hand, component: str) -> None:
    """It neither does nor answers anything for a minute, and its connections stay open.

    By signals: the engine's own `pause` fails now and then while a health check starts, and so does its `unpause`.
    """
    processes = [hand.cem()] if component == "S2 CEM" else hand.processes(COMPONENTS[component])
    hand.of("kill", "-STOP", *processes)
    time.sleep(FREEZE_SECONDS)
    hand.of("kill", "-CONT", *processes)


def restart(ems: Ems, _hand: Hand, component: str) -> None:
    """Restart its container."""
    docker("restart", ems.container(COMPONENTS[component]))


def cut(ems: Ems, hand: Hand, component: str) -> None:
    """Pull its network cables; for the CEM lose what it sends to its devices."""
    if component == "S2 CEM":
        devices = ems.addresses["openadr-simulator"]
        hand.route("add", "openadr-ven", devices)
        time.sleep(CUT_SECONDS)
        hand.route("del", "openadr-ven", devices)
        return
    cables = hand.cables(COMPONENTS[component])
    assert cables
    for cable in cables:
        hand.of("ip", "link", "set", cable, "down")
    time.sleep(CUT_SECONDS)
    for cable in cables:
        hand.of("ip", "link", "set", cable, "up")


FAULTS: dict[str, Callable[[Ems, Hand, str], None]] = {
    "stop": stop,
    "kill -9": kill,
    "restart": restart,
    "network cut": cut,
    f"freeze {FREEZE_SECONDS} s": freeze,
}
