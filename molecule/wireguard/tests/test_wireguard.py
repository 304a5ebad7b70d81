"""A client on the other side of a network gets in with the file it was given, and with nothing else."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CLIENTS = "/etc/wireguard/clients"
ALICE = "10.8.0.2"
CONVERGE = Path(__file__).parents[1] / "converge.yml"

# `peer` is a machine elsewhere; the host listens on a port that can be reached through the tunnel alone.
SETUP = """
set -e
ip netns add peer && ip link add p0 type veth peer name p1 netns peer
ip address add 198.51.100.1/24 dev p0 && ip link set p0 up
ip netns exec peer sh -c 'ip link set lo up; ip address add 198.51.100.2/24 dev p1; ip link set p1 up'
systemd-run --unit hello python3 -m http.server --bind 10.8.0.1 8000
"""
GET = "ip netns exec peer curl --silent --max-time {seconds} --output /dev/null http://10.8.0.1:8000/"


class Client:
    """alice's machine."""

    def __init__(self, host: Any) -> None:
        self.host = host

    def connects_with(self, configuration: str) -> bool:
        """Whether the server answers through a tunnel made from a configuration."""
        self.host.check_output("printf '%%s' %s | install -m 600 /dev/stdin /root/alice.conf", configuration)
        self.host.check_output("ip netns exec peer wg-quick up /root/alice.conf")
        try:
            return bool(self.host.run(GET.format(seconds=8)).succeeded)
        finally:
            self.host.check_output("ip netns exec peer wg-quick down /root/alice.conf")


@pytest.fixture(scope="module")
def client(host: Any) -> Iterator[Client]:
    host.check_output(SETUP)
    yield Client(host)
    host.check_output("systemctl stop hello; ip netns delete peer")


def configuration(host: Any, name: str) -> str:
    return str(host.check_output(f"cat {CLIENTS}/{name}.conf"))


def converge(**variables: Any) -> None:
    """Run the role once more, as the operator does."""
    command = ["ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"], CONVERGE, "-e", json.dumps(variables)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_without_the_tunnel_nothing_answers(client: Client) -> None:
    assert not client.host.run(GET.format(seconds=2)).succeeded


def test_a_client_gets_in_with_the_file_it_was_given(client: Client, host: Any) -> None:
    assert client.connects_with(configuration(host, "alice"))


def test_keys_can_be_read_by_root_alone(host: Any) -> None:
    assert host.check_output("find /etc/wireguard -type f ! -perm 600").strip() == ""
    assert host.check_output("find /etc/wireguard -mindepth 1 -type d ! -perm 700").strip() == ""
    assert "PrivateKey" not in host.check_output("systemctl show wg-quick@wg0; ps -ef")


def test_the_code_is_a_picture_of_the_file(host: Any) -> None:
    assert "█" in host.check_output(f"cat {CLIENTS}/alice.qr")


def test_it_comes_back_after_a_reboot(host: Any) -> None:
    assert host.service("wg-quick@wg0").is_enabled
    assert host.service("wg-quick@wg0").is_running


def test_new_keys_for_one_client_shut_out_the_old_ones_and_nobody_else(client: Client, host: Any) -> None:
    old, others = configuration(host, "alice"), configuration(host, "bob")
    converge(wireguard_rotate=["alice"])
    new = configuration(host, "alice")
    assert new != old
    assert configuration(host, "bob") == others
    assert client.connects_with(new)
    assert not client.connects_with(old)


def test_a_client_that_is_no_longer_declared_is_shut_out(client: Client, host: Any) -> None:
    old = configuration(host, "alice")
    converge(molecule_peers={"bob": {"address": "10.8.0.3"}})
    try:
        assert not host.file(f"{CLIENTS}/alice.conf").exists
        assert not host.file(f"{CLIENTS}/alice.qr").exists
        assert ALICE not in host.check_output("wg show wg0 allowed-ips")
        assert not client.connects_with(old)
    finally:
        converge()
    assert configuration(host, "alice") != old
