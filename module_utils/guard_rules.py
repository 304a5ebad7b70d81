# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""What the firewall's and WireGuard's variables may say, beyond their types. Pure: values in, problems out."""

from __future__ import annotations

import binascii
import ipaddress
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from typing import Any

from .problem import Problem, one_of, shown

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# also the name of the interface on the client
_NAME = re.compile(r"[A-Za-z0-9_-]{1,15}")
_PORT = re.compile(r"([1-9]\d{0,4})/(?:tcp|udp)")


def firewall_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Networks and ports that UFW would not take.

    Args:
        values: name -> value of the variables, as far as they are known. Wrong types are reported elsewhere.
    """
    for name in ("firewall_internal_networks", "firewall_ssh_networks"):
        for index, network in enumerate(_texts(values.get(name))):
            if _network(network) is None:
                yield Problem(
                    f"{name}.{index}",
                    shown(network),
                    "is no network",
                    "write it as 10.8.0.0/24, 203.0.113.7 or fd00::/64",
                )
    for index, port in enumerate(_texts(values.get("firewall_public_ports"))):
        found = _PORT.fullmatch(port)
        if not found or int(found[1]) > 65535:
            yield Problem(
                f"firewall_public_ports.{index}", shown(port), "is no port", "write it as 443/tcp, from 1 to 65535"
            )


def wireguard_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Addresses outside the tunnel's network or used twice, and keys that are none or used twice.

    Args:
        values: name -> value of the variables, as far as they are known. Wrong types are reported elsewhere.
    """
    network = _network(str(values.get("wireguard_network", "")))
    if network is None:
        if "wireguard_network" in values:
            yield Problem(
                "wireguard_network", shown(values["wireguard_network"]), "is no network", "write it as 10.8.0.0/24"
            )
        return
    used = {network[0]: "the network itself", network[-1]: "its broadcasts"}
    server = values.get("wireguard_address")
    yield from _address_problems("wireguard_address", server, network, used)
    used |= _known(server, "the server")
    peers = values.get("wireguard_peers")
    keys: dict[str, str] = {}
    for name, peer in peers.items() if isinstance(peers, dict) else ():
        path = f"wireguard_peers.{name}"
        if not _NAME.fullmatch(str(name)) or name == "server":
            yield Problem(
                path, None, "is no name for a client", "use letters, digits, - and _, at most 15, and not server"
            )
        if not isinstance(peer, dict) or "address" not in peer or peer.keys() - {"address", "public_key"}:
            yield Problem(path, None, "takes address and public_key", f"write {{address: {network[2]}}}")
            continue
        yield from _address_problems(f"{path}.address", peer["address"], network, used)
        used = _known(peer["address"], f"the client {name}") | used
        key = peer.get("public_key")
        if key is None:
            continue
        if not _is_key(key):
            yield Problem(
                f"{path}.public_key",
                shown(key),
                "is no key of WireGuard",
                "write what `wg pubkey` prints on the client",
            )
        elif key in keys:
            yield Problem(
                f"{path}.public_key", shown(key), f"is used by {keys[key]}", "every client needs a key of its own"
            )
        keys.setdefault(str(key), str(name))
    for name in _texts(values.get("wireguard_rotate")):
        if name != "server" and name not in (peers or {}):
            yield Problem("wireguard_rotate", shown(name), "is no client", one_of(name, [*(peers or {}), "server"]))


def _address_problems(path: str, value: Any, network: Network, used: Mapping[Address, str]) -> Iterator[Problem]:
    address = _address(value)
    if address is None:
        yield Problem(path, shown(value), "is no address", f"write it as {network[2]}")
    elif address not in network:
        yield Problem(path, shown(value), f"is outside of wireguard_network, {network}", f"write it as {network[2]}")
    elif address in used:
        free = next((host for host in network.hosts() if host not in used), None)
        yield Problem(path, shown(value), f"is used by {used[address]}", f"use a free one, such as {free}")


def _known(value: Any, user: str) -> dict[Address, str]:
    address = _address(value)
    return {} if address is None else {address: user}


def _address(value: Any) -> Address | None:
    try:
        return ipaddress.ip_address(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _is_key(value: Any) -> bool:
    try:
        return isinstance(value, str) and len(b64decode(value, validate=True)) == 32
    except binascii.Error:
        return False


def _texts(value: Any) -> list[str]:
    return [entry for entry in value if isinstance(entry, str)] if isinstance(value, list) else []


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
