"""The rules that each environment's firewall gets, from the real wiring; only what would set them is left out."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLAYBOOK = [
    {
        "hosts": "ems",
        "gather_facts": False,
        "vars": {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"},
        "pre_tasks": [{"ansible.builtin.include_vars": {"dir": str(ROOT / "playbooks/vars")}}],
        "roles": ["wireguard", "firewall"],
    }
]
KEEP = [
    {
        "ansible.builtin.copy": {
            "content": "{{ {'rules': _firewall_rules, 'ssh': preflight_firewall} | to_json }}",
            "dest": "{{ playbook_dir }}/kept.json",
            "mode": "0600",
        }
    }
]


def rendered(environment: str, folder: Path, **given: object) -> dict[str, object]:
    """What the roles of an environment make of its inventory."""
    for role in ("firewall", "wireguard"):
        (folder / "roles" / role / "tasks").mkdir(parents=True)
        for part in ("defaults", "vars", "templates", "meta"):
            if (ROOT / "roles" / role / part).exists():
                (folder / "roles" / role / part).symlink_to(ROOT / "roles" / role / part)
        (folder / "roles" / role / "tasks/main.yml").write_text(json.dumps(KEEP if role == "firewall" else []))
    (folder / "play.yml").write_text(json.dumps(PLAYBOOK))
    given["host_preflight"] = {"systemd": True}
    done = subprocess.run(
        [
            str(ROOT / ".venv/bin/ansible-playbook"),
            *("-i", f"inventories/{environment}", "-e", json.dumps(given), str(folder / "play.yml")),
        ],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_ROLES_PATH": str(folder / "roles")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    kept: dict[str, object] = json.loads((folder / "kept.json").read_text())
    return kept


@pytest.mark.parametrize("environment", ["test", "prod"])
def test_a_server_gets_what_is_documented_and_no_more(environment: str, tmp_path: Path) -> None:
    kept = rendered(environment, tmp_path, firewall_ssh_networks=["203.0.113.7"])
    internal = ["172.16.0.0/12", "10.0.0.0/8", "192.168.0.0/16", "192.168.240.0/24", "10.8.0.0/24"]
    assert kept["rules"] == [
        *("allow 80/tcp", "allow 443/tcp", "allow 51820/udp"),
        *(f"allow from {network}" for network in internal),
        "allow from 203.0.113.7 to any port 22 proto tcp",
        "route allow to 172.29.0.0/16 port 80,443 proto tcp",
        *(f"route allow from {network} to 192.168.240.11 port 8765 proto tcp" for network in internal),
        *(f"route allow from {network} to 192.168.240.10 port 8080 proto tcp" for network in internal),
        # administration comes by WireGuard
        "route allow from 10.8.0.0/24 to 192.168.240.10 port 8081 proto tcp",
        "route allow from 10.8.0.0/24 to 172.29.0.0/16 port 3000 proto tcp",
    ]
    assert kept["ssh"] == {"networks": [*internal, "203.0.113.7"], "port": 22}


def test_without_wireguard_its_network_is_nobody(tmp_path: Path) -> None:
    kept = rendered("prod", tmp_path, wireguard_enabled=False)
    assert [rule for rule in str(kept["rules"]).split(",") if "10.8." in rule] == []


def test_a_developers_machine_keeps_its_own(tmp_path: Path) -> None:
    assert rendered("dev", tmp_path)["ssh"] == {}
