"""Values of the firewall and WireGuard that are refused on the controller, with what to write instead."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.guard_rules import firewall_problems, wireguard_problems

FIREWALL: dict[str, Any] = {
    "firewall_internal_networks": ["10.0.0.0/8", "fd00::/64"],
    "firewall_ssh_networks": ["203.0.113.7"],
    "firewall_public_ports": ["80/tcp", "51820/udp"],
}


def test_what_ufw_takes_is_accepted() -> None:
    assert list(firewall_problems(FIREWALL)) == []


def test_unknown_values_and_wrong_types_are_left_to_others() -> None:
    assert list(firewall_problems({"firewall_public_ports": "80/tcp", "firewall_ssh_networks": [7]})) == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("firewall_ssh_networks", "203.0.113.300", 'firewall_ssh_networks.0 = "203.0.113.300": is no network'),
        ("firewall_internal_networks", "10.0.0.0/33", "write it as 10.8.0.0/24"),
        ("firewall_public_ports", "443", "write it as 443/tcp"),
        ("firewall_public_ports", "70000/tcp", "from 1 to 65535"),
        ("firewall_public_ports", "443/icmp", "is no port"),
    ],
)
def test_what_ufw_would_not_take_is_refused(name: str, value: str, message: str) -> None:
    (found,) = firewall_problems({**FIREWALL, name: [value]})
    assert message in str(found)


KEY, OTHER = "mIGrmxKeWPfzBkuR2ypNJtnUr1jNMY7EBUGXkVXX9lo=", "yCe7ViiLWwoIVKNSDCA3iTpCQjYfGKLfgPcWEbCyE18="
WIREGUARD: dict[str, Any] = {
    "wireguard_network": "10.8.0.0/24",
    "wireguard_address": "10.8.0.1",
    "wireguard_peers": {"alice": {"address": "10.8.0.2"}, "bob": {"address": "10.8.0.3", "public_key": KEY}},
    "wireguard_rotate": ["server", "alice"],
}


def test_peers_that_differ_are_accepted() -> None:
    assert list(wireguard_problems(WIREGUARD)) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wireguard_network": "10.8.0.0/40"}, 'wireguard_network = "10.8.0.0/40": is no network'),
        ({"wireguard_address": "10.9.0.1"}, "is outside of wireguard_network, 10.8.0.0/24"),
        ({"wireguard_rotate": ["alcie"]}, "did you mean alice?"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    (found,) = wireguard_problems(WIREGUARD | changes)
    assert message in str(found)


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        ({"address": "10.8.0.2"}, 'wireguard_peers.carol.address = "10.8.0.2": is used by the client alice'),
        ({"address": "10.8.0.1"}, "is used by the server. Fix: use a free one, such as 10.8.0.4"),
        ({"address": "10.8.0.255"}, "is used by its broadcasts"),
        ({"address": "10.8.1.4"}, "is outside of wireguard_network"),
        ({"address": "10.8.0"}, "is no address. Fix: write it as 10.8.0.2"),
        ({"address": "10.8.0.4", "public_key": KEY}, "is used by bob. Fix: every client needs a key of its own"),
        ({"address": "10.8.0.4", "public_key": KEY[:-2]}, "is no key of WireGuard"),
        ({"ip": "10.8.0.4"}, "takes address and public_key"),
    ],
)
def test_a_peer_with_a_used_or_impossible_address_or_key_is_refused(peer: dict[str, Any], message: str) -> None:
    peers = {**WIREGUARD["wireguard_peers"], "carol": peer}
    (found,) = wireguard_problems({**WIREGUARD, "wireguard_peers": peers})
    assert message in str(found)
    assert list(wireguard_problems({**WIREGUARD, "wireguard_peers": peers | {"carol": {"address": "10.8.0.4"}}})) == []


@pytest.mark.parametrize("name", ["server", "../alice", "a-name-that-is-too-long"])
def test_a_name_that_cannot_be_a_file_or_an_interface_is_refused(name: str) -> None:
    (found,) = wireguard_problems(
        {**WIREGUARD, "wireguard_peers": {name: {"address": "10.8.0.4"}}, "wireguard_rotate": []}
    )
    assert "is no name for a client" in str(found)
