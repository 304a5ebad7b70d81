"""Whether a host can carry the system, judged before anything on it is changed. Pure: facts in, problems out."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from .host_facts import Host
from .problem import Problem

GB = 1_000_000_000
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_DOCKERS_OWN = ("bridge", "docker_gwbridge", "ingress")  # networks that Docker makes again by itself


@dataclass(frozen=True)
class Firewall:
    """What a firewall will let through to SSH.

    Attributes:
        networks: that may use SSH, IPv4 or IPv6.
        port: that it lets them use.
    """

    networks: Collection[str]
    port: int


@dataclass(frozen=True)
class Wanted:
    """What the host shall carry.

    Attributes:
        networks: name -> subnet of the networks that will be there.
        containers: names of the containers that will be there; what they hold already is no clash.
        ports: TCP ports of the host that will be published.
        routes_accepted: subnets that a host route may share with one of the networks.
        firewall: what the firewall will let through to SSH; None where it is not managed.
        domains: public name -> what DNS says of it: addresses, and why there are none.
        public_addresses: where those names shall lead; none stands for the host's own addresses.
        ssh_keys_only: whether the SSH server will refuse passwords.
        ssh_keyless: whether Ansible itself logs in with one.
    """

    networks: Mapping[str, str]
    containers: Collection[str]
    ports: Collection[int]
    routes_accepted: Collection[str] = ()
    firewall: Firewall | None = None
    domains: Mapping[str, Collection[str]] = field(default_factory=dict)
    public_addresses: Collection[str] = ()
    ssh_keys_only: bool = False
    ssh_keyless: bool = False


@dataclass(frozen=True)
class Limits:
    """The least that a host must have. Sizes in GB of 10⁹ bytes, so that a machine sold with 6 GB passes as one."""

    systems: Collection[str]
    python: str
    engine: str
    compose: str
    memory_gb: float
    disk_gb: float
    disk_deployed_gb: float
    clock_seconds: float = 5


def version(text: str) -> tuple[int, ...]:
    """The leading numbers of a version, comparable: ``26.1.5+dfsg1`` is (26, 1, 5)."""
    return tuple(int(number) for number in re.findall(r"\d+", re.split(r"[^\d.]", text, maxsplit=1)[0]))


def host_problems(host: Host, wanted: Wanted, limits: Limits) -> list[Problem]:
    """Everything that keeps this host from carrying the system."""
    return [
        *_system_problems(host, limits),
        *_size_problems(host, wanted, limits),
        *_docker_problems(host, limits),
        *_network_problems(host, wanted),
        *_route_problems(host, wanted),
        *_port_problems(host, wanted),
        *_ssh_problems(host, wanted),
        *_key_problems(host, wanted),
        *_domain_problems(host, wanted),
        *_reference_problems(host, wanted, limits),
    ]


def _system_problems(host: Host, limits: Limits) -> Iterator[Problem]:
    if host.system not in limits.systems:
        supported = ", ".join(limits.systems)
        yield Problem(
            "operating system",
            host.system,
            "is not supported",
            f"use one of {supported}; or add it to preflight_systems if you know that it works",
        )
    if host.python < version(limits.python):
        yield Problem(
            "Python of the host",
            ".".join(map(str, host.python)),
            f"is too old, {limits.python} or newer is needed (preflight_python_min)",
            "set ansible_python_interpreter to a newer one",
        )


def _is_deployed(host: Host, wanted: Wanted) -> bool:
    return any(container in wanted.containers for container in host.engine.containers)


def _size_problems(host: Host, wanted: Wanted, limits: Limits) -> Iterator[Problem]:
    if host.memory_bytes < limits.memory_gb * GB:
        yield Problem(
            "memory",
            f"{host.memory_bytes / GB:.1f} GB",
            f"is less than {limits.memory_gb:g} GB (preflight_memory_min_gb)",
            "give the machine more memory",
        )
    # Before the first deployment the disk must have room for the images, the data and its growth; images that are there
    # already have had their room. Once deployed, data has rightly taken its part: only the room to work with counts.
    deployed = _is_deployed(host, wanted)
    least = limits.disk_deployed_gb if deployed else limits.disk_gb
    room = host.disk_free_bytes + (0 if deployed else host.engine.images_bytes)
    if room < least * GB or host.disk_free_bytes < limits.disk_deployed_gb * GB:
        name = "preflight_disk_deployed_min_gb" if deployed else "preflight_disk_min_gb"
        yield Problem(
            f"free disk at {host.disk_path}",
            f"{host.disk_free_bytes / GB:.1f} GB",
            f"is less than {least:g} GB ({name})",
            "make room (docker system df shows what Docker holds), or move Docker's data root to a larger disk",
        )


def _docker_problems(host: Host, limits: Limits) -> Iterator[Problem]:
    engine = host.engine
    if engine.denied:
        yield Problem(
            "Docker",
            f"user {host.user}",
            "has no right to talk to the engine",
            f"run the playbook with --become, or: sudo usermod -aG docker {host.user}, and log in again",
        )
    # What is missing, the docker role installs; what is there and old belongs to somebody and is not replaced unasked.
    for what, found, least, variable, package in (
        ("Docker Engine", engine.version, limits.engine, "preflight_engine_min", "docker.io or docker-ce"),
        ("Docker Compose", engine.compose_version, limits.compose, "preflight_compose_min", "docker-compose"),
    ):
        if found and version(found) < version(least):
            yield Problem(
                what,
                found,
                f"is too old, {least} or newer is needed ({variable})",
                f"upgrade or remove the package {package}",
            )


def _subnets(texts: Collection[str]) -> list[ipaddress.IPv4Network]:
    """The IPv4 ones; an IPv6 subnet clashes with none of ours."""
    return [ipaddress.IPv4Network(text) for text in texts if ":" not in text]


def _network_problems(host: Host, wanted: Wanted) -> Iterator[Problem]:
    for name, subnet in wanted.networks.items():
        ours = ipaddress.IPv4Network(subnet)
        variable, other_subnet = f"topology.networks.{name}.subnet", f"set topology_overrides.networks.{name}.subnet"
        for network in host.engine.networks:
            theirs = _subnets(network.subnets)
            if network.name == name and theirs != [ours]:
                listed = ", ".join(network.subnets) or "no subnet"
                yield Problem(
                    variable,
                    subnet,
                    f"the Docker network {name} exists with {listed}",
                    f"{other_subnet}; or stop its containers and type: docker network rm {name}",
                )
            elif network.name != name and any(other.overlaps(ours) for other in theirs):
                yield Problem(
                    variable,
                    subnet,
                    f"overlaps the Docker network {network.name}, {', '.join(network.subnets)}",
                    other_subnet + ("" if network.name in _DOCKERS_OWN else f"; or: docker network rm {network.name}"),
                )


def _route_problems(host: Host, wanted: Wanted) -> Iterator[Problem]:
    docker_interfaces = {network.interface for network in host.engine.networks}
    for name, subnet in wanted.networks.items():
        ours = ipaddress.IPv4Network(subnet)
        for route in host.routes:
            theirs = ipaddress.IPv4Network(route.subnet)
            # An engine that is stopped leaves its bridges behind: the one with exactly our subnet is our own.
            left_behind = not host.engine.available and theirs == ours and route.interface.startswith("br-")
            accepted = route.interface in docker_interfaces or route.subnet in wanted.routes_accepted or left_behind
            if theirs.overlaps(ours) and not accepted:
                yield Problem(
                    f"topology.networks.{name}.subnet",
                    subnet,
                    f"overlaps the host's route to {route.subnet} through {route.interface}",
                    f"set topology_overrides.networks.{name}.subnet; or, if nothing there is needed,"
                    f" add {route.subnet} to preflight_routes_accepted",
                )


def _port_problems(host: Host, wanted: Wanted) -> Iterator[Problem]:
    listeners = {listener.port: listener.process for listener in host.listeners}
    for port in wanted.ports:
        container = host.engine.published.get(port)
        if container in wanted.containers or (container is None and port not in listeners):
            continue
        holder = f"container {container}" if container else listeners[port] or "a process of another user"
        stop = f"docker stop {container}" if container else f"stop it (ss -ltnp 'sport = :{port}' shows it)"
        yield Problem(
            f"port {port}",
            None,
            f"is in use by {holder}",
            f"{stop}; or choose other ports in preflight_ports and Traefik's",
        )


def _ssh_problems(host: Host, wanted: Wanted) -> Iterator[Problem]:
    """A firewall that would cut the connection that turns it on."""
    if wanted.firewall is None or host.ssh is None:
        return
    client = ipaddress.ip_address(host.ssh.client)
    client = getattr(client, "ipv4_mapped", None) or client
    if not any(client in ipaddress.ip_network(network, strict=False) for network in wanted.firewall.networks):
        listed = ", ".join(wanted.firewall.networks) or "none"
        yield Problem(
            "firewall_ssh_networks",
            None,
            f"the firewall would lock you out: this connection comes from {client}, and SSH is allowed from {listed}",
            f"add {client} to firewall_ssh_networks; or connect from one of those networks, by WireGuard for example",
        )
    if host.ssh.port != wanted.firewall.port:
        yield Problem(
            "firewall_ssh_port",
            str(wanted.firewall.port),
            f"the firewall would lock you out: this connection uses port {host.ssh.port}",
            f"set firewall_ssh_port: {host.ssh.port}",
        )


def _key_problems(host: Host, wanted: Wanted) -> Iterator[Problem]:
    """An SSH server that would refuse whoever turns passwords off."""
    if not wanted.ssh_keys_only or host.ssh is None:
        return
    user = host.ssh.user or "the user"
    if wanted.ssh_keyless or not host.ssh.has_key:
        why = "has no key in ~/.ssh/authorized_keys" if not host.ssh.has_key else "logs in with a password"
        yield Problem(
            "hardening_ssh",
            None,
            f"SSH without passwords would lock you out: {user}, as whom this connection came, {why}",
            f"ssh-copy-id {user}@<the host>, and take ansible_password out of the inventory; or, where the host takes"
            " keys from elsewhere, set preflight_check_ssh_keys: false; or set hardening_ssh: false",
        )


# Both below would fail later as well: at the authority, which counts failures and then gives nothing for hours.


def _domain_problems(host: Host, wanted: Wanted) -> Iterator[Problem]:
    ours = {ipaddress.ip_address(text) for text in wanted.public_addresses or host.addresses}
    listed = ", ".join(map(str, sorted(ours, key=lambda address: (address.version, address)))) or "none"
    skip = "or, if you know better, set preflight_check_domains: false"
    for name, answers in wanted.domains.items():
        found, reasons = _addresses(answers)
        if not found:
            yield Problem(
                f"domain {name}",
                None,
                f"has no address in DNS ({', '.join(reasons) or 'no record'}), so no authority gives it a certificate",
                f"make an A record for it that leads to this host ({listed}); {skip}",
            )
        for address in found:
            if address not in ours:
                record = "A" if address.version == 4 else "AAAA"
                yield Problem(
                    f"domain {name}",
                    str(address),
                    f"DNS leads to an address that this host does not have ({listed}), so no authority gives it a"
                    " certificate",
                    f"correct the {record} record; or, if that address is handed on to this host, add it to"
                    f" preflight_public_addresses; {skip}",
                )


def _addresses(answers: Collection[str]) -> tuple[list[_Address], list[str]]:
    """What DNS answered, as addresses and as reasons for having none."""
    found: list[_Address] = []
    reasons: list[str] = []
    for text in answers:
        try:
            found.append(ipaddress.ip_address(text))
        except ValueError:
            reasons.append(text)
    return found, list(dict.fromkeys(reasons))


def _reference_problems(host: Host, wanted: Wanted, limits: Limits) -> Iterator[Problem]:
    reference = host.reference
    if reference is None:
        return
    if reference.error:
        # once there are certificates, an authority that is away for an hour is no reason not to deploy
        if not _is_deployed(host, wanted):
            yield Problem(
                "ACME server",
                reference.url,
                f"cannot be reached from this host: {reference.error}",
                "let the host out to it; or, if the proxy gets there on another way,"
                " set preflight_check_acme_server: false",
            )
    elif abs(reference.ahead_seconds) > limits.clock_seconds:
        ahead = reference.ahead_seconds
        yield Problem(
            "clock of the host",
            f"{abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}",
            f"is off by more than {limits.clock_seconds:g} s, by that of {reference.url} (preflight_clock_max_seconds)",
            "timedatectl set-ntp true, and wait until timedatectl says that it is synchronized; or set it by hand",
        )
