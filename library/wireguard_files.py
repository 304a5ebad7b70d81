#!/usr/bin/python
# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: the keys and configuration files of a WireGuard server and its clients."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wireguard_files
short_description: Keys and configuration files of a WireGuard server and its clients
description:
  - Makes the keys that are missing on the host itself, writes the server's configuration and one for each client below
    C(clients), with a QR code as text, and removes those of clients that are no longer declared.
  - The files are where the keys are kept; a key changes only when O(rotate) says so.
  - Needs C(wg) (wireguard-tools) and C(qrencode) on the host.
author: Cariflex EMS contributors
options:
  path:
    description: Folder of the configuration files.
    type: path
    default: /etc/wireguard
  interface:
    description: Name of the interface, and of the server's file.
    type: str
    default: wg0
  address:
    description: The server's address inside the tunnel.
    type: str
    required: true
  network:
    description: The tunnel's own network.
    type: str
    required: true
  port:
    description: UDP port that the server listens on.
    type: int
    default: 51820
  endpoint:
    description: Name or address under which clients find the server.
    type: str
    required: true
  client_networks:
    description: Networks that clients send through the tunnel.
    type: list
    elements: str
    required: true
  peers:
    description: Clients, name to C(address) and, where a client keeps its own key, C(public_key).
    type: dict
    default: {}
  rotate:
    description: Names of the clients whose keys are made anew; C(server) for the server's.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: Nothing is written and no key is made.
  diff_mode:
    support: full
    description: Of a key the diff tells only that it changes.
  idempotent:
    support: partial
    description: A second run changes nothing, unless O(rotate) asks for new keys.
"""

EXAMPLES = r"""
- name: Write the files of the server and of one client
  wireguard_files:
    address: 10.8.0.1
    network: 10.8.0.0/24
    endpoint: cariflex.digitribe.fr
    client_networks: [10.8.0.0/24]
    peers:
      alice: {address: 10.8.0.2}
"""

RETURN = r"""
written:
  description: Files that were written (would be, in check mode), below O(path).
  returned: success
  type: list
  elements: str
removed:
  description: Files that were removed (would be, in check mode).
  returned: success
  type: list
  elements: str
restart:
  description: Whether more than the list of clients changed, which takes a restart of the interface.
  returned: success
  type: bool
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.wireguard_files import (
    SERVER,
    Peer,
    Settings,
    client_file,
    diff,
    interface_of,
    read_key,
    server_file,
)

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "path": {"type": "path", "default": "/etc/wireguard"},
    "interface": {"type": "str", "default": "wg0"},
    "address": {"type": "str", "required": True},
    "network": {"type": "str", "required": True},
    "port": {"type": "int", "default": 51820},
    "endpoint": {"type": "str", "required": True},
    "client_networks": {"type": "list", "elements": "str", "required": True},
    "peers": {"type": "dict", "default": {}},
    "rotate": {"type": "list", "elements": "str", "default": []},
}
UNMADE = "(made on the host)"  # a key that check mode does not make


class Keys:
    """Keys, made and derived by `wg`; in check mode none is made."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module

    def _wg(self, *arguments: str, given: str | None = None) -> str:
        return str(self._module.run_command(["wg", *arguments], data=given, check_rc=True)[1]).strip()

    def made(self, kind: str) -> str:
        """A new key: genkey for a private one, genpsk for a preshared one."""
        return UNMADE if self._module.check_mode else self._wg(kind)

    def public(self, private: str) -> str:
        """The public key of a private one."""
        return UNMADE if private == UNMADE or shutil.which("wg") is None else self._wg("pubkey", given=private)


def read(path: Path) -> str:
    """The text of a file; empty where there is none."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def write(path: Path, text: str) -> None:
    """Write a file for root alone, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    Path(temporary).replace(path)


def files_of(options: dict[str, Any], before: dict[str, str], keys: Keys) -> dict[str, str]:
    """Name -> text of every configuration file, with the keys of the files that are there."""
    settings = Settings(
        options["address"], options["network"], options["port"], options["endpoint"], options["client_networks"]
    )
    own = f"{options['interface']}.conf"
    kept = {name: "" if Path(name).stem in options["rotate"] else text for name, text in before.items()}
    server_key = "" if SERVER in options["rotate"] else read_key(before.get(own, ""), "PrivateKey")
    server_key = server_key or keys.made("genkey")
    peers = []
    for name, declared in sorted(options["peers"].items()):
        text = kept.get(f"clients/{name}.conf", "")
        public = declared.get("public_key", "")
        private = "" if public else read_key(text, "PrivateKey") or keys.made("genkey")
        preshared = read_key(text, "PresharedKey") or keys.made("genpsk")
        peers.append(Peer(name, declared["address"], private, public or keys.public(private), preshared))
    server_public = keys.public(server_key)
    files = {f"clients/{peer.name}.conf": client_file(settings, server_public, peer) for peer in peers}
    return {own: server_file(settings, server_key, peers), **files}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = module.params
    root = Path(options["path"])
    own = f"{options['interface']}.conf"
    names = [own, *(f"clients/{path.name}" for path in (root / "clients").glob("*.conf"))]
    before = {name: text for name in names if (text := read(root / name))}
    after = files_of(options, before, Keys(module))

    written = [name for name, text in after.items() if before.get(name) != text]
    codes = {f"clients/{name}.qr": f"clients/{name}.conf" for name in options["peers"]}
    drawn = [code for code, name in codes.items() if name in written or not (root / code).exists()]
    removed = sorted(
        str(path.relative_to(root))
        for path in (root / "clients").glob("*")
        if path.suffix in (".conf", ".qr") and str(path.relative_to(root)) not in {*after, *codes}
    )
    if not module.check_mode:
        # the clients' first: the server's file is what says that a client is done
        for name in sorted(written, key=lambda name: name == own):
            write(root / name, after[name])
        for code in drawn:
            _, picture, _ = module.run_command(
                ["qrencode", "--type", "utf8"], data=after[codes[code]], binary_data=True, check_rc=True
            )
            write(root / code, picture)
        for name in removed:
            (root / name).unlink()
    module.exit_json(
        changed=bool(written or drawn or removed),
        written=[*written, *drawn],
        removed=removed,
        restart=interface_of(before.get(own, "")) != interface_of(after[own]),
        diff=diff(str(root), before, after),
    )


if __name__ == "__main__":
    main()
