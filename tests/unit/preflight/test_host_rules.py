"""Which hosts are refused, with what to type, and which are not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible.module_utils.host_facts import Engine, Host, Listener, Network, Reference, Route, SshConnection
from ansible.module_utils.host_rules import GB, Firewall, Limits, Wanted, host_problems, version

NETWORKS = {"traefik-public": "172.29.0.0/16", "openadr-internal": "192.168.240.0/24"}
WANTED = Wanted(networks=NETWORKS, containers=["traefik", "openadr-vtn"], ports=[80, 443])
LIMITS = Limits(
    systems=["debian 12", "debian 13", "ubuntu 24.04"],
    python="3.11",
    engine="20.10",
    compose="2.20",
    memory_gb=6,
    disk_gb=15,
    disk_deployed_gb=3,
)
OURS = tuple(Network(name, (subnet,), {}, f"br-{name[:12]}") for name, subnet in NETWORKS.items())
BARE = Host(
    system="debian 13",
    python=(3, 13, 5),
    memory_bytes=8 * GB,
    disk_path="/var/lib",
    disk_free_bytes=40 * GB,
    systemd=True,
    user="operator",
    engine=Engine(),
    routes=(Route("192.168.1.0/24", "eth0"),),
    listeners=(Listener(22, "sshd"),),
)
RUNNING = replace(
    BARE,
    engine=Engine(
        version="26.1.5+dfsg1",
        available=True,
        compose_version="2.26.1",
        buildx_version="0.13.1",
        networks=(Network("bridge", ("172.17.0.0/16",), {}, "docker0"), *OURS),
        containers=("openadr-vtn", "traefik"),
        published={80: "traefik", 443: "traefik"},
    ),
    routes=(
        Route("192.168.1.0/24", "eth0"),
        Route("172.17.0.0/16", "docker0"),
        *(Route(network.subnets[0], network.interface) for network in OURS),
    ),
    listeners=(Listener(22, "sshd"), Listener(80, "docker-proxy"), Listener(443, "docker-proxy")),
)


def engine(host: Host = RUNNING, **changes: Any) -> Host:
    return replace(host, engine=replace(host.engine, **changes))


ACCEPTED = {
    "bare host, Docker missing": BARE,
    "running system": RUNNING,
    "machine sold with 6 GB": replace(BARE, memory_bytes=5_826_000 * 1024 + GB // 10),
    "Debian 12's own engine": engine(version="20.10.24+dfsg1"),
    "deployed, and the data has taken its part": replace(RUNNING, disk_free_bytes=4 * GB),
    "first run broke off after building images": replace(
        engine(BARE, available=True, version="26.1", images_bytes=6 * GB), disk_free_bytes=10 * GB
    ),
    "engine stopped, its bridge left behind": replace(
        BARE, engine=Engine(version="26.1.5"), routes=(Route("192.168.240.0/24", "br-0123456789ab"),)
    ),
    "IPv6 network": engine(networks=(Network("six", ("fd00::/64",), {}, "br-six"), *OURS)),
}


@pytest.mark.parametrize("host", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_host_is_accepted(host: Host) -> None:
    assert host_problems(host, WANTED, LIMITS) == []


OTHER = Network("shop_default", ("172.29.16.0/20",), {}, "br-shop")
REFUSED = {
    "system": (replace(BARE, system="debian 11"), "operating system = debian 11: is not supported", "debian 12"),
    "python": (
        replace(BARE, python=(3, 9, 2)),
        "Python of the host = 3.9.2: is too old, 3.11",
        "ansible_python_interp",
    ),
    "memory": (replace(BARE, memory_bytes=4 * GB), "memory = 4.0 GB: is less than 6 GB", "more memory"),
    "disk": (replace(BARE, disk_free_bytes=14 * GB), "/var/lib = 14.0 GB: is less than 15 GB", "docker system df"),
    "disk, deployed": (replace(RUNNING, disk_free_bytes=2 * GB), "= 2.0 GB: is less than 3 GB", "make room"),
    "disk full of images": (
        replace(engine(BARE, available=True, images_bytes=90 * GB), disk_free_bytes=GB),
        "= 1.0 GB: is less than",
        "make room",
    ),
    "engine": (engine(version="19.03.8"), "Docker Engine = 19.03.8: is too old, 20.10", "docker.io"),
    "engine, stopped": (engine(BARE, version="18.9.1"), "Docker Engine = 18.9.1: is too old", "docker.io"),
    "compose": (engine(compose_version="2.5.0"), "Docker Compose = 2.5.0: is too old, 2.20", "docker-compose"),
    "no right": (
        engine(BARE, denied=True),
        "Docker = user operator: has no right to talk to the engine",
        "sudo usermod -aG docker operator",
    ),
    "network overlaps": (
        engine(networks=(*OURS, OTHER)),
        "topology.networks.traefik-public.subnet = 172.29.0.0/16: overlaps the Docker network shop_default",
        "topology_overrides.networks.traefik-public.subnet; or: docker network rm shop_default",
    ),
    "network of our name": (
        engine(networks=(OURS[0], replace(OURS[1], subnets=("10.9.0.0/24",)))),
        "the Docker network openadr-internal exists with 10.9.0.0/24",
        "docker network rm openadr-internal",
    ),
    "route": (
        replace(BARE, routes=(Route("192.168.0.0/16", "wg0"),)),
        "topology.networks.openadr-internal.subnet = 192.168.240.0/24: overlaps the host's route to 192.168.0.0/16",
        "add 192.168.0.0/16 to preflight_routes_accepted",
    ),
    "port, process": (
        replace(BARE, listeners=(Listener(443, "nginx"),)),
        "port 443: is in use by nginx",
        "ss -ltnp 'sport = :443'",
    ),
    "port, unseen process": (replace(BARE, listeners=(Listener(80, ""),)), "a process of another user", "ss -ltnp"),
    "port, container": (
        replace(engine(published={80: "shop", 443: "traefik"})),
        "port 80: is in use by container shop",
        "docker stop shop",
    ),
}


@pytest.mark.parametrize(("host", "message", "fix"), REFUSED.values(), ids=REFUSED.keys())
def test_host_is_refused(host: Host, message: str, fix: str) -> None:
    (found,) = host_problems(host, WANTED, LIMITS)
    assert message in str(found)
    assert fix in found.fix


NAME = "ems.example.org"
AT = "https://acme.example/directory"
ADDRESSED = replace(BARE, addresses=("10.0.0.4", "198.51.100.4", "2001:db8::4"))


def named(*answers: str, **changes: Any) -> Wanted:
    return replace(WANTED, domains={NAME: answers}, **changes)


@pytest.mark.parametrize(
    "wanted",
    [
        named("198.51.100.4"),
        named("198.51.100.4", "2001:db8:0::4"),
        named("198.51.100.4", "NXDOMAIN"),  # of AAAA records
        named("203.0.113.9", public_addresses=["203.0.113.9"]),
    ],
)
def test_domain_that_leads_here(wanted: Wanted) -> None:
    assert host_problems(ADDRESSED, wanted, LIMITS) == []


@pytest.mark.parametrize(
    ("wanted", "message", "fix"),
    [
        (
            named("203.0.113.9"),
            "domain ems.example.org = 203.0.113.9: DNS leads to an address that this host does not have"
            " (10.0.0.4, 198.51.100.4, 2001:db8::4)",
            "correct the A record; or, if that address is handed on to this host, add it to preflight_public_addresses",
        ),
        # an authority prefers IPv6
        (named("198.51.100.4", "2001:db8::9"), "= 2001:db8::9: DNS leads to an address", "correct the AAAA record"),
        (named(), "has no address in DNS (no record)", "make an A record for it that leads to this host (10.0.0.4"),
        (named("NXDOMAIN", "NXDOMAIN"), "has no address in DNS (NXDOMAIN)", "preflight_check_domains: false"),
        # the router's address is given, so that of the inside will not do
        (named("10.0.0.4", public_addresses=["203.0.113.9"]), "does not have (203.0.113.9)", "correct the A record"),
    ],
)
def test_domain_that_does_not_lead_here(wanted: Wanted, message: str, fix: str) -> None:
    (found,) = host_problems(ADDRESSED, wanted, LIMITS)
    assert message in str(found)
    assert fix in found.fix


@pytest.mark.parametrize("ahead", [0, 4.9, -5])
def test_clock_that_is_right(ahead: float) -> None:
    assert host_problems(replace(BARE, reference=Reference(AT, ahead)), WANTED, LIMITS) == []


@pytest.mark.parametrize(("ahead", "shown"), [(7.3, "7 s ahead"), (-3600, "3600 s behind")])
def test_clock_that_is_off(ahead: float, shown: str) -> None:
    (found,) = host_problems(replace(BARE, reference=Reference(AT, ahead)), WANTED, LIMITS)
    assert f"clock of the host = {shown}: is off by more than 5 s, by that of {AT}" in str(found)
    assert "timedatectl set-ntp true" in found.fix


def test_unreachable_authority_is_refused_before_the_first_deployment_only() -> None:
    silent = Reference(AT, error="timed out")
    (found,) = host_problems(replace(BARE, reference=silent), WANTED, LIMITS)
    assert f"ACME server = {AT}: cannot be reached from this host: timed out" in str(found)
    assert host_problems(replace(RUNNING, reference=silent), WANTED, LIMITS) == []


def test_accepted_route() -> None:
    host = replace(BARE, routes=(Route("192.168.0.0/16", "wg0"),))
    assert host_problems(host, replace(WANTED, routes_accepted=["192.168.0.0/16"]), LIMITS) == []


FIREWALL = replace(WANTED, firewall=Firewall(["10.0.0.0/8", "2001:db8:1::/48", "203.0.113.7"], 22))


@pytest.mark.parametrize("client", ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8:1::5", "203.0.113.7"])
def test_a_firewall_that_leaves_ansibles_way_in_open_is_accepted(client: str) -> None:
    assert host_problems(replace(BARE, ssh=SshConnection(client, 22)), FIREWALL, LIMITS) == []


@pytest.mark.parametrize("client", ["203.0.113.8", "2001:db8:2::5"])
def test_a_firewall_that_would_lock_the_operator_out_is_refused(client: str) -> None:
    host = replace(BARE, ssh=SshConnection(client, 22))
    (found,) = host_problems(host, FIREWALL, LIMITS)
    assert f"would lock you out: this connection comes from {client}" in str(found)
    assert f"add {client} to firewall_ssh_networks" in found.fix
    assert host_problems(host, WANTED, LIMITS) == []


def test_a_firewall_that_opens_another_port_than_ssh_uses_is_refused() -> None:
    (found,) = host_problems(replace(BARE, ssh=SshConnection("10.1.2.3", 2222)), FIREWALL, LIMITS)
    assert str(found).startswith(
        "firewall_ssh_port = 22: the firewall would lock you out: this connection uses port 2222"
    )
    assert found.fix == "set firewall_ssh_port: 2222"


KEYS_ONLY = replace(WANTED, ssh_keys_only=True)


def test_ssh_without_passwords_is_refused_to_who_has_no_key() -> None:
    host = replace(BARE, ssh=SshConnection("10.1.2.3", 22, "deploy", has_key=False))
    (found,) = host_problems(host, KEYS_ONLY, LIMITS)
    assert str(found).startswith(
        "hardening_ssh: SSH without passwords would lock you out: deploy, as whom this connection came, has no key"
    )
    assert "ssh-copy-id deploy@" in found.fix
    assert host_problems(host, WANTED, LIMITS) == []


def test_ssh_without_passwords_is_refused_to_who_comes_with_one() -> None:
    host = replace(BARE, ssh=SshConnection("10.1.2.3", 22, "deploy", has_key=True))
    assert host_problems(host, KEYS_ONLY, LIMITS) == []
    (found,) = host_problems(host, replace(KEYS_ONLY, ssh_keyless=True), LIMITS)
    assert "logs in with a password" in str(found)


def test_without_ssh_nobody_is_locked_out() -> None:
    assert host_problems(BARE, FIREWALL, LIMITS) == []


def test_all_problems_come_at_once() -> None:
    host = replace(BARE, system="fedora 43", memory_bytes=GB, disk_free_bytes=GB, listeners=(Listener(80, "httpd"),))
    assert len(host_problems(host, WANTED, LIMITS)) == 4


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("26.1.5+dfsg1", (26, 1, 5)), ("v2", ()), ("2.26.1-4", (2, 26, 1)), ("20.10", (20, 10)), ("", ())],
)
def test_version(text: str, numbers: tuple[int, ...]) -> None:
    assert version(text) == numbers
