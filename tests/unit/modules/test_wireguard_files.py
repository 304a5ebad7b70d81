"""Keys are made once, kept, and in no message; files of clients come and go with their declaration."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.wireguard_files import read_key

from tests.unit.modules.conftest import RunModule

# wg and qrencode as far as the module uses them: every key is another one, a public key follows from its private one
WG = """#!/bin/sh
case $1 in
  genkey | genpsk) od -An -N32 -tx1 /dev/urandom | tr -d ' \\n' ;;
  pubkey) echo "public-of-$(cut -c1-8)" ;;
esac
"""
QRENCODE = """#!/bin/sh
echo "picture of $(wc -c) characters"
"""


@pytest.fixture(autouse=True)
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, script in {"wg": WG, "qrencode": QRENCODE}.items():
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "wireguard"


def arguments(folder: Path, *peers: str, **more: Any) -> dict[str, Any]:
    return {
        "path": str(folder),
        "address": "10.8.0.1",
        "network": "10.8.0.0/24",
        "endpoint": "cariflex.digitribe.fr",
        "client_networks": ["10.8.0.0/24", "192.168.240.0/24"],
        "peers": {name: {"address": f"10.8.0.{number}"} for number, name in enumerate(peers, 2)},
        **more,
    }


def texts(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_server_and_client_know_each_other(folder: Path, run_module: RunModule) -> None:
    result = run_module("wireguard_files", arguments(folder, "alice"))
    assert result["restart"]
    files = texts(folder)
    server, client = files["wg0.conf"], files["clients/alice.conf"]
    assert f"PublicKey = public-of-{read_key(client, 'PrivateKey')[:8]}\n" in server
    assert f"PublicKey = public-of-{read_key(server, 'PrivateKey')[:8]}\n" in client
    assert read_key(client, "PresharedKey") == read_key(server, "PresharedKey") != ""
    assert "AllowedIPs = 10.8.0.2/32\n" in server
    assert "Endpoint = cariflex.digitribe.fr:51820\nAllowedIPs = 10.8.0.0/24, 192.168.240.0/24\n" in client
    assert files["clients/alice.qr"] == f"picture of {len(client)} characters\n"
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*.*")} == {0o600}


def test_a_second_run_changes_nothing(folder: Path, run_module: RunModule) -> None:
    run_module("wireguard_files", arguments(folder, "alice"))
    before = texts(folder)
    assert not run_module("wireguard_files", arguments(folder, "alice"))["changed"]
    assert texts(folder) == before


def test_a_new_client_leaves_the_others_and_the_interface_alone(folder: Path, run_module: RunModule) -> None:
    run_module("wireguard_files", arguments(folder, "alice"))
    alice = texts(folder)["clients/alice.conf"]
    result = run_module("wireguard_files", arguments(folder, "alice", "bob"))
    assert not result["restart"]
    assert result["written"] == ["wg0.conf", "clients/bob.conf", "clients/bob.qr"]
    assert texts(folder)["clients/alice.conf"] == alice


def test_a_client_that_is_gone_leaves_nothing(folder: Path, run_module: RunModule) -> None:
    run_module("wireguard_files", arguments(folder, "alice", "bob"))
    result = run_module("wireguard_files", arguments(folder, "alice"))
    assert result["removed"] == ["clients/bob.conf", "clients/bob.qr"]
    assert not result["restart"]
    assert "bob" not in texts(folder)["wg0.conf"]


def test_rotating_one_changes_that_one(folder: Path, run_module: RunModule) -> None:
    run_module("wireguard_files", arguments(folder, "alice", "bob"))
    before = texts(folder)
    result = run_module("wireguard_files", arguments(folder, "alice", "bob", rotate=["alice"]))
    after = texts(folder)
    assert not result["restart"]
    assert after["clients/bob.conf"] == before["clients/bob.conf"]
    for name in ("PrivateKey", "PresharedKey"):
        assert read_key(after["clients/alice.conf"], name) != read_key(before["clients/alice.conf"], name)


def test_rotating_the_server_reaches_every_client(folder: Path, run_module: RunModule) -> None:
    run_module("wireguard_files", arguments(folder, "alice", "bob"))
    result = run_module("wireguard_files", arguments(folder, "alice", "bob", rotate=["server"]))
    assert result["restart"]
    assert set(result["written"]) >= {"wg0.conf", "clients/alice.conf", "clients/bob.conf"}


def test_a_client_may_keep_its_own_key(folder: Path, run_module: RunModule) -> None:
    peers = {"carol": {"address": "10.8.0.9", "public_key": "the-public-key"}}
    run_module("wireguard_files", arguments(folder, peers=peers))
    files = texts(folder)
    assert "PublicKey = the-public-key\n" in files["wg0.conf"]
    assert read_key(files["clients/carol.conf"], "PrivateKey") == ""


@pytest.mark.parametrize("check", [True, False], ids=["preview", "for real"])
def test_no_key_is_shown(folder: Path, run_module: RunModule, check: bool) -> None:
    first = run_module("wireguard_files", arguments(folder, "alice"), diff=True, check=check)
    assert first["changed"]
    assert folder.exists() is not check
    second = run_module("wireguard_files", arguments(folder, "alice", rotate=["alice"]), diff=True)
    keys = [read_key(text, name) for text in texts(folder).values() for name in ("PrivateKey", "PresharedKey")]
    for key in filter(None, keys):
        assert key not in first["_printed"] + second["_printed"]
    assert "(secret)" in second["_printed"]
