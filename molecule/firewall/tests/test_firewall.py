"""What can be reached on the guarded host: real connections from network namespaces that stand for what is around it.

`world` is a stranger on the internet, `site` a machine of an internal network. On the host are a web server in a
container (published on 80, as Traefik is), a container with a port that nobody declared (published on 8080), stand-ins
for the VTN and the VEN at their documented addresses, and a server of the host's own at port 22.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

HOST4, HOST6, SITE_HOST = "198.51.100.1", "2001:db8::1", "10.99.0.1"
WORLD4, WORLD6 = "198.51.100.2", "2001:db8::2"
VTN, VEN = "192.168.240.10", "192.168.240.11"

PLACES = {
    "HOST4": HOST4,
    "HOST6": HOST6,
    "SITE_HOST": SITE_HOST,
    "WORLD4": WORLD4,
    "WORLD6": WORLD6,
    "VTN": VTN,
    "VEN": VEN,
}
SETUP = """
set -e
apt-get update --quiet && apt-get install --yes --no-install-recommends busybox-static
ip netns add world && ip link add w0 type veth peer name w1 netns world
ip address add $HOST4/24 dev w0 && ip -6 address add $HOST6/64 dev w0 nodad && ip link set w0 up
ip netns exec world sh -c "ip link set lo up; ip address add $WORLD4/24 dev w1;
  ip -6 address add $WORLD6/64 dev w1 nodad; ip link set w1 up; ip route add default via $HOST4"
ip netns add site && ip link add s0 type veth peer name s1 netns site
ip address add $SITE_HOST/24 dev s0 && ip link set s0 up
ip netns exec site sh -c "ip link set lo up; ip address add 10.99.0.2/24 dev s1; ip link set s1 up;
  ip route add default via $SITE_HOST"

# a server that says hello on a port
cat >/usr/local/bin/hello <<'END'
import socket, sys
server = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    connection = server.accept()[0]
    connection.sendall(b"hello")
    connection.close()
END
systemd-run --unit hello-ssh python3 /usr/local/bin/hello 22
systemd-run --unit hello-world ip netns exec world python3 /usr/local/bin/hello 9000

tar --create --directory /usr/bin busybox | docker import - probe
serve() {
  name=$1; port=$2; shift 2
  docker run --detach --restart always --stop-signal KILL --name "$name" "$@" \\
    probe /busybox nc -ll -p "$port" -e /busybox echo hello
}
serve web 80 --network traefik-public --publish 80:80
serve stray 8080 --network traefik-public --publish 8080:8080
serve vtn 8080 --network openadr-internal --ip $VTN
serve ven 8765 --network openadr-internal --ip $VEN
"""

# Prints those of its arguments, host names and ports joined by a slash, that say hello within a second.
ASK = """
import socket, sys
from concurrent.futures import ThreadPoolExecutor

def answers(target):
    host, port = target.split("/")
    try:
        return socket.create_connection((host, int(port)), 1).recv(5) == b"hello"
    except OSError:
        return False

targets = sys.argv[1:]
with ThreadPoolExecutor(len(targets)) as pool:
    print(*(target for target, yes in zip(targets, pool.map(answers, targets)) if yes))
"""

DISTURBANCES = {
    "as deployed": "true",
    "UFW reloaded": "ufw reload && systemctl restart ufw",
    "Docker restarted": "systemctl restart docker",
    "UFW off and on while Docker is down": "systemctl stop docker.socket docker && ufw disable && ufw --force enable"
    " && systemctl start docker",
    "Docker started with UFW down": "systemctl stop ufw && systemctl restart docker && systemctl start ufw",
}


@dataclass(frozen=True)
class Around:
    """The host, and what stands around it."""

    host: Any

    def reached(self, place: str, *targets: str) -> set[str]:
        """Which of the targets (address/port) answer somebody at `place`: host, world or site."""
        inside = "" if place == "host" else f"ip netns exec {place} "
        answering: str = self.host.check_output(f"{inside}python3 -c '{ASK}' {' '.join(targets)}")
        return set(answering.split())

    def container_reaches(self, container: str, address: str, port: int) -> bool:
        """Whether a container gets an answer."""
        command = f"docker exec {container} /busybox timeout 2 /busybox nc {address} {port} </dev/null"
        return str(self.host.run(command).stdout).strip() == "hello"

    def wait_for_docker(self) -> None:
        """Until the containers run again."""
        for _ in range(20):
            if self.reached("host", f"{VTN}/8080", f"{VEN}/8765") >= {f"{VTN}/8080", f"{VEN}/8765"}:
                return
            time.sleep(1)
        pytest.fail(self.host.run("docker ps --all; journalctl --unit docker --lines 20").stdout)


@pytest.fixture(scope="module")
def around(host: Any) -> Iterator[Around]:
    host.check_output("".join(f"{name}={address}\n" for name, address in PLACES.items()) + SETUP)
    yield Around(host)
    host.check_output("docker rm --force web stray vtn ven; docker rmi probe; systemctl stop hello-ssh hello-world")
    host.check_output("ip netns delete world; ip netns delete site")


@pytest.fixture(scope="module", params=DISTURBANCES.values(), ids=DISTURBANCES.keys())
def disturbed(request: pytest.FixtureRequest, around: Around) -> Around:
    around.host.check_output("systemctl reset-failed docker")  # systemd counts the starts of a minute
    around.host.check_output(request.param)
    around.wait_for_docker()
    return around


def test_strangers_reach_the_web_alone(disturbed: Around) -> None:
    web = {f"{HOST4}/80", f"{HOST6}/80"}
    closed = {f"{address}/{port}" for address in (HOST4, HOST6) for port in (22, 8080)} | {f"{VTN}/8080", f"{VEN}/8765"}
    assert disturbed.reached("world", *web, *closed) == web


def test_the_site_reaches_ssh_and_the_devices_ports_alone(disturbed: Around) -> None:
    open_ = {f"{SITE_HOST}/80", f"{SITE_HOST}/22", f"{VTN}/8080", f"{VEN}/8765"}
    # neither a container's undeclared port nor anything beyond the host
    assert disturbed.reached("site", *open_, f"{SITE_HOST}/8080", f"{WORLD4}/9000") == open_


def test_containers_reach_each_other_and_the_world(disturbed: Around) -> None:
    assert disturbed.container_reaches("ven", VTN, 8080)
    assert disturbed.container_reaches("vtn", WORLD4, 9000)
    assert disturbed.reached("host", f"{WORLD4}/9000")


def test_dockers_own_chains_are_whole(disturbed: Around) -> None:
    rules = disturbed.host.check_output("iptables -S FORWARD").splitlines()[1:]
    # with live-restore, an engine that finds containers running puts its isolation first; that lets nothing in
    assert rules[: rules.index("-A FORWARD -j DOCKER-USER")] in ([], ["-A FORWARD -j DOCKER-ISOLATION-STAGE-1"])
    isolation = "\n".join(disturbed.host.check_output(f"iptables -S DOCKER-ISOLATION-STAGE-{n}") for n in (1, 2))
    assert set(re.findall(r"-j (\S+)", isolation)) == {"DOCKER-ISOLATION-STAGE-2", "DROP", "RETURN"}
    assert "--to-destination" in disturbed.host.check_output("iptables -t nat -S DOCKER")


def test_ufw_off_gives_docker_its_ports_back(around: Around) -> None:
    around.host.check_output("ufw disable")
    assert around.reached("world", f"{HOST4}/8080")
    around.host.check_output("ufw --force enable")
    assert not around.reached("world", f"{HOST4}/8080")


def test_it_comes_back_after_a_reboot(host: Any) -> None:
    assert host.service("ufw").is_enabled
    assert "ENABLED=yes" in host.file("/etc/ufw/ufw.conf").content_string


def test_what_was_declared_stands_in_ufw_status(host: Any) -> None:
    added = host.check_output("ufw show added")
    for rule in (
        "allow 443/tcp",
        "allow 51820/udp",
        "allow from 10.0.0.0/8",
        "route allow to 172.29.0.0/16 port 80,443",
    ):
        assert f"\nufw {rule}" in added
    assert "deny (incoming), allow (outgoing), deny (routed)" in host.check_output("ufw status verbose")
