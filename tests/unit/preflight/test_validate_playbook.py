"""Every bad input of an operator, through the real playbook: refused, named, explained, and no host is touched."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[3]
GOOD_SECRET = "k3Vq9TzW1xLr8NbM{}"
SECONDS = 5.0  # of one core: what else the machine does meanwhile must not count


class Inventory:
    """An inventory in a folder of its own, whose hosts tell when somebody connects to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.touched = folder / "touched"
        ssh = folder / "ssh"
        ssh.write_text(f"#!/bin/sh\ntouch {self.touched}\nexit 255\n", encoding="utf-8")
        ssh.chmod(0o755)
        self.variables: dict[str, Any] = {"ansible_host": "192.0.2.1", "ansible_ssh_executable": str(ssh)}
        self.hosts: dict[str, dict[str, Any]] = {"ems": {}}
        names = yaml.safe_load((PROJECT / "playbooks/vars/secrets.yml").read_text(encoding="utf-8"))["secrets_declared"]
        self.vault = {name: GOOD_SECRET.format(index) for index, name in enumerate(names)}

    def run(self, *options: str, callback: str = "default") -> subprocess.CompletedProcess[str]:
        """Write the inventory down and run playbooks/validate.yml over it."""
        variables = self.folder / "group_vars/all"
        variables.mkdir(parents=True, exist_ok=True)
        (self.folder / "hosts.yml").write_text(yaml.safe_dump({"ems": {"hosts": self.hosts}}), encoding="utf-8")
        (variables / "main.yml").write_text(
            yaml.safe_dump({"ems_environment": "prod", **self.variables}), encoding="utf-8"
        )
        (variables / "vault.yml").write_text(yaml.safe_dump(self.vault), encoding="utf-8")
        return run_playbook(self.folder / "hosts.yml", *options, callback=callback)


def run_playbook(inventory: Path, *options: str, callback: str = "default") -> subprocess.CompletedProcess[str]:
    """Run playbooks/validate.yml as an operator would."""
    return subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "playbooks/validate.yml", "-i", inventory, *options],
        cwd=PROJECT,
        env={**os.environ, "ANSIBLE_STDOUT_CALLBACK": callback, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    return Inventory(tmp_path)


def test_valid_inventory_passes_without_a_connection(inventory: Inventory) -> None:
    done = inventory.run()
    assert done.returncode == 0, done.stdout
    assert not inventory.touched.exists()


@pytest.mark.parametrize("environment", ["dev", "test", "prod"])
def test_inventories_of_the_project_are_valid_once_they_have_secrets(inventory: Inventory, environment: str) -> None:
    secrets = inventory.folder / "secrets.yml"
    secrets.write_text(yaml.safe_dump(inventory.vault), encoding="utf-8")
    done = run_playbook(PROJECT / "inventories" / environment, "-e", f"@{secrets}")
    assert done.returncode == 0, done.stdout


def test_the_example_is_refused_until_it_is_filled_in(inventory: Inventory) -> None:
    secrets = inventory.folder / "secrets.yml"
    secrets.write_text(yaml.safe_dump(inventory.vault), encoding="utf-8")
    copy = inventory.folder / "mine"
    shutil.copytree(PROJECT / "inventories/example", copy)
    done = run_playbook(copy, "-e", f"@{secrets}")
    assert done.returncode != 0
    assert "is not filled in" in done.stdout
    for path in (copy / "hosts.yml", copy / "group_vars/all/main.yml"):
        path.write_text(path.read_text().replace("FILL_IN_ADDRESS", "203.0.113.7").replace("FILL_IN", "site.example"))
    done = run_playbook(copy, "-e", f"@{secrets}")
    assert done.returncode == 0, done.stdout


def sensor(**fields: Any) -> dict[str, Any]:
    return {"topology_overrides": {"sensors": {"pv_02_power": fields}}}


def network(name: str, subnet: str) -> dict[str, Any]:
    return {"topology_overrides": {"networks": {name: {"subnet": subnet}}}}


# name -> variables of the environment, and what one line of the answer must contain: variable, value, problem, fix
MISTAKES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown variable": (
        {"image_from": "build"},
        ['image_from = "build"', "is an unknown variable", "did you mean images_from?", "hosts.yml:"],
    ),
    "unknown secret": (
        {"vault_redis_pasword": "hunter2hunter2"},
        ["vault_redis_pasword: is an unknown variable", "did you mean vault_redis_password?"],
    ),
    "wrong type": ({"images_wanted": "redis"}, ['images_wanted = "redis"', "is not a list", "write it as [a, b]"]),
    "unknown images_from": (
        {"images_from": "biuld"},
        ['images_from = "biuld"', "not one of the choices", "registry, build, archive, auto"],
    ),
    "variable without effect": (
        {"versions_traefik": "3.7.1"},
        ["versions_traefik", "has no effect", "playbooks/vars/versions.yml", "give it with -e"],
    ),
    "value that cannot be evaluated": (
        {"images_archive_path": "{{ nowhere }}/x"},
        ["images_archive_path", "cannot be evaluated", "'nowhere' is undefined", "correct the expression"],
    ),
    "no CIDR": (
        network("openadr-internal", "192.168.240.0"),
        ['topology.networks.openadr-internal.subnet = "192.168.240.0"', "no subnet in CIDR form", "192.168.240.0/24"],
    ),
    "phpIPAM without a way in": (
        {"phpipam_url": "https://ipam.example.org"},
        ["vault_phpipam_app_code", "is not set, and phpipam_url is", "phpIPAM > Administration > API"],
    ),
    "phpIPAM deployed without a name": (
        {"phpipam_deploy": True},
        ["topology_overrides: declares no domains.phpipam", "{domains: {phpipam: ipam.example.org}}"],
    ),
    "phpIPAM deployed without its secrets": (
        {"phpipam_deploy": True, "topology_overrides": {"domains": {"phpipam": "ipam.example.org"}}},
        ["vault_phpipam_admin_password (phpIPAM's user Admin)", "not set", "playbooks/secrets.yml"],
    ),
    "phpIPAM deployed onto another network's subnet": (
        {
            "phpipam_deploy": True,
            "topology_overrides": {
                "domains": {"phpipam": "ipam.example.org"},
                "networks": {"flexmeasures-internal": {"subnet": "192.168.242.0/25"}},
            },
        },
        ["topology.networks.phpipam-internal.subnet", "overlaps"],
    ),
    "overlap": (
        network("flexmeasures-internal", "172.29.3.0/24"),
        [
            'topology.networks.flexmeasures-internal.subnet = "172.29.3.0/24"',
            "overlaps topology.networks.traefik-public",
        ],
    ),
    "address outside": (
        network("openadr-internal", "192.168.250.0/24"),
        ['topology.containers.openadr-vtn.networks.openadr-internal = "192.168.240.10"', "not within", "free address"],
    ),
    "duplicate IP": (
        {"topology_overrides": {"containers": {"openadr-ven": {"networks": {"openadr-internal": "192.168.240.10"}}}}},
        ['topology.containers.openadr-ven.networks.openadr-internal = "192.168.240.10"', "same IP address as"],
    ),
    "duplicate sensor id": (
        sensor(id=41),
        ["topology.sensors.pv_02_power.id = 41", "same sensor id as topology.sensors.pv_01_power.id", "such as 112"],
    ),
    "unknown unit": (
        sensor(unit="kwh"),
        ['topology.sensors.pv_02_power.unit = "kwh"', "no unit that FlexMeasures knows", "write kWh"],
    ),
    "S2 resource without its sensor": (
        {"topology_overrides": {"sensors": {"ev_05_power": None}}},
        ['topology.s2_resources.ev_05.sensor = "ev_05_power"', "names no declared sensor", "did you mean"],
    ),
    "overrides of the wrong type": (
        {"topology_overrides": "grafana"},
        ['topology_overrides = "grafana"', "is not a mapping", "playbooks/vars/topology.yml"],
    ),
    "network that UFW would not take": (
        {"firewall_ssh_networks": ["203.0.113.300"]},
        ['firewall_ssh_networks.0 = "203.0.113.300"', "is no network", "203.0.113.7"],
    ),
    "WireGuard peer with the server's address": (
        {"wireguard_peers": {"alice": {"address": "10.8.0.1"}}},
        ['wireguard_peers.alice.address = "10.8.0.1"', "is used by the server", "such as 10.8.0.2"],
    ),
    "burned password": (
        {"vault_redis_password": "Grafana"},
        ["vault_redis_password", "is burned", "ansible-playbook playbooks/secrets.yml -i "],
    ),
    "empty password": ({"vault_redis_password": ""}, ["vault_redis_password", "is empty", "playbooks/secrets.yml"]),
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Mistake -> what the playbook answers, from one run over an inventory in which every host has one mistake."""
    inventory = Inventory(tmp_path_factory.mktemp("mistakes"))
    inventory.hosts = {f"host{number}": variables for number, (variables, _) in enumerate(MISTAKES.values())}
    done = inventory.run(callback="ansible.posix.json")
    assert done.returncode != 0
    assert not inventory.touched.exists()
    (play,) = json.loads(done.stdout)["plays"]
    results = play["tasks"][-1]["hosts"]
    return {name: results[f"host{number}"].get("problems", "accepted") for number, name in enumerate(MISTAKES)}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_refused_with_variable_value_and_fix(refusals: dict[str, str], mistake: str) -> None:
    lines = refusals[mistake].splitlines()
    expected = MISTAKES[mistake][1]
    assert any(all(part in line for part in expected) for line in lines), lines


def test_no_answer_holds_a_secret(refusals: dict[str, str]) -> None:
    text = "\n".join(refusals.values())
    assert "hunter2" not in text
    assert GOOD_SECRET[:10] not in text


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ["-e", "image_from=build"],
            '- image_from = "build": is an unknown variable. Fix: did you mean images_from? (given with -e)',
        ),
        (
            ["-e", "images_from=nowhere"],
            '- images_from = "nowhere": is not one of the choices.'
            " Fix: write one of registry, build, archive, auto. (given with -e)",
        ),
        (
            ["-e", '{"topology_overrides": {"sensors": {"pv_01_power": {"unit": "kw"}}}}', "--check"],
            '- topology.sensors.pv_01_power.unit = "kw": is no unit that FlexMeasures knows.'
            " Fix: write kW. (given with -e)",
        ),
    ],
)
def test_operator_reads_the_fix_within_seconds(inventory: Inventory, options: list[str], line: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = inventory.run(*options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < SECONDS
    assert done.returncode != 0
    assert line in [printed.strip() for printed in done.stdout.splitlines()]
    assert not inventory.touched.exists()


def test_all_mistakes_of_an_inventory_in_one_answer(inventory: Inventory) -> None:
    inventory.variables |= {"image_from": "build", "images_from": "biuld", **sensor(unit="kw", id=41)}
    inventory.vault["vault_redis_password"] = "changeme"
    del inventory.vault["vault_grafana_secret_key"]
    answer = inventory.run().stdout
    assert "6 problems, nothing has been changed" in answer
    for part in ("image_from =", "images_from =", "pv_02_power.unit", "pv_02_power.id", "is burned", "not set"):
        assert part in answer
    assert "changeme" not in answer


def test_variable_made_from_facts_waits_for_the_host(inventory: Inventory) -> None:
    inventory.variables["images_archive_path"] = "/srv/{{ ansible_facts.hostname }}/bundle"
    assert inventory.run().returncode == 0
