# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""The configuration files of a WireGuard server and of its clients. Pure: keys and settings in, texts out."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SERVER = "server"  # stands for the server itself among those whose keys are made anew
_SECRETS = re.compile(r"^((?:PrivateKey|PresharedKey) = ).*$", re.MULTILINE)


@dataclass(frozen=True)
class Settings:
    """What all files share.

    Attributes:
        address: of the server inside the tunnel.
        network: the tunnel's own, such as 10.8.0.0/24.
        port: UDP port that the server listens on.
        endpoint: name or address under which clients find the server.
        client_networks: what clients send through the tunnel.
    """

    address: str
    network: str
    port: int
    endpoint: str
    client_networks: Sequence[str]


@dataclass(frozen=True)
class Peer:
    """A client with its keys.

    Attributes:
        name: what it is called.
        address: of the client inside the tunnel.
        private_key: empty where the client keeps its own.
        public_key: what the server knows it by.
        preshared_key: known to both, against a future that can break the rest.
    """

    name: str
    address: str
    private_key: str
    public_key: str
    preshared_key: str


def read_key(text: str, name: str) -> str:
    """The value of PrivateKey or PresharedKey in a configuration; empty where there is none."""
    found = re.search(rf"^{name} = (\S+)$", text, re.MULTILINE)
    return found[1] if found else ""


def interface_of(text: str) -> str:
    """The part of a server's configuration that takes a restart when it changes; peers come and go without."""
    return text.partition("[Peer]")[0].strip()


def server_file(settings: Settings, private_key: str, peers: Sequence[Peer]) -> str:
    """The server's configuration, as wg-quick(8) reads it."""
    length = ipaddress.ip_network(settings.network).prefixlen
    lines = [
        "# Cariflex EMS: written by the role wireguard, which finds the server's key here again",
        "[Interface]",
        f"Address = {settings.address}/{length}",
        f"ListenPort = {settings.port}",
        f"PrivateKey = {private_key}",
    ]
    for peer in peers:
        lines += ["", "[Peer]", f"# {peer.name}", f"PublicKey = {peer.public_key}"]
        lines += [f"PresharedKey = {peer.preshared_key}", f"AllowedIPs = {ipaddress.ip_network(peer.address)}"]
    return "\n".join([*lines, ""])


def client_file(settings: Settings, server_public_key: str, peer: Peer) -> str:
    """A client's configuration."""
    length = ipaddress.ip_network(settings.network).prefixlen
    own = f"PrivateKey = {peer.private_key}" if peer.private_key else f"# PrivateKey = the one of {peer.public_key}"
    endpoint = f"[{settings.endpoint}]" if ":" in settings.endpoint else settings.endpoint
    lines = [
        f"# Cariflex EMS: {peer.name}",
        "[Interface]",
        f"Address = {peer.address}/{length}",
        own,
        "",
        "[Peer]",
        f"PublicKey = {server_public_key}",
        f"PresharedKey = {peer.preshared_key}",
        f"Endpoint = {endpoint}:{settings.port}",
        f"AllowedIPs = {', '.join(settings.client_networks)}",
        "# keeps the way back open through a router",
        "PersistentKeepalive = 25",
    ]
    return "\n".join([*lines, ""])


def without_secrets(text: str) -> str:
    """A configuration as it may be shown."""
    return _SECRETS.sub(r"\1(secret)", text)


def diff(path: str, before: Mapping[str, str], after: Mapping[str, str]) -> list[dict[str, str]]:
    """Ansible's diff of files that differ, by name; of a key only that it changes."""
    shown = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name, ""), after.get(name, "")
        if old != new:
            old_shown, new_shown = without_secrets(old), without_secrets(new)
            if old_shown == new_shown:
                old_shown += "(another key)\n"
            header = f"{path}/{name}"
            shown.append({"before_header": header, "after_header": header, "before": old_shown, "after": new_shown})
    return shown
