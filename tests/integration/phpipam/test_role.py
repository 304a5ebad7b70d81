"""The role phpipam against a phpIPAM that keeps state, with real networks and containers on this machine's engine."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.host import PREFIX, docker
from tests.support.images import references
from tests.support.phpipam import CODE, PASSWORD, USER, PhpIpam, serving
from tests.support.playbook import ROOT, Run, play

pytestmark = pytest.mark.docker

DECLARED = yaml.safe_load((ROOT / "playbooks/vars/topology.yml").read_text("utf-8"))["topology_declared"]
MARKER = "cariflex"


@dataclass
class Site:
    """Two networks with a container in each, their declaration, and the address book that follows them."""

    name: str
    block: str
    inventory: Path
    phpipam: PhpIpam
    variables: dict[str, Any]

    def play(self, playbook: str, *arguments: str, **variables: Any) -> Run:
        return play(
            playbook, "-i", self.inventory, "-e", json.dumps(self.variables | variables), *arguments, timeout=300
        )

    def kept(self) -> Run:
        run = self.play("playbooks/ipam.yml")
        assert run.status == 0, run.output
        return run

    def rows(self) -> dict[str, dict[str, Any]]:
        return {row["ip"]: row for row in self.phpipam.addresses.values()}

    def writes(self) -> list[tuple[str, str]]:
        return [request for request in self.phpipam.requests if request[0] not in ("GET", "HEAD")]

    def start(self, container: str, network: str, *options: str) -> None:
        sleeping = ("--entrypoint", "sleep", references()["redis"], "600")
        docker("run", "--detach", "--name", container, "--network", network, *options, *sleeping)

    def has(self, container: str) -> tuple[str, str]:
        """Address and MAC that Docker has given it."""
        (found,) = json.loads(docker("inspect", container))[0]["NetworkSettings"]["Networks"].values()
        return found["IPAddress"], found["MacAddress"]


@pytest.fixture(params=["1.8.2", "1.7.4"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    assert references(), "no images on this machine: run `make test`, or playbooks/test_images.yml"
    name, block = f"{PREFIX}ipam-{secrets.token_hex(4)}", f"10.{200 + secrets.randbelow(40)}.{secrets.randbelow(250)}"
    overrides = {
        "networks": {
            **dict.fromkeys(DECLARED["networks"]),
            f"{name}-public": {"subnet": f"{block}.0/25", "internal": False},
            f"{name}-devices": {"subnet": f"{block}.128/25", "internal": True, "reserved": f"{block}.250-{block}.254"},
        },
        "containers": {
            # it does not run here, so that nobody is asked for its sensors
            **dict.fromkeys(DECLARED["containers"].keys() - {"flexmeasures-server"}),
            f"{name}-web": {"networks": {f"{name}-public": None}},
            f"{name}-vtn": {"networks": {f"{name}-devices": f"{block}.140"}},
        },
    }
    inventory = tmp_path / "hosts.yml"
    connection = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": sys.executable,
    }
    inventory.write_text(yaml.safe_dump({"ems": {"hosts": {"testhost": connection}}}), encoding="utf-8")
    phpipam = PhpIpam(request.param)
    with serving(phpipam) as url:
        variables = {
            "ems_environment": "test",
            "topology_overrides": overrides,
            "phpipam_url": url,
            "phpipam_app_id": "cariflexcode",
            "vault_phpipam_app_code": CODE,
            "firewall_enabled": False,
        }
        made = Site(name, block, inventory, phpipam, variables)
        try:
            docker("network", "create", "--subnet", f"{block}.0/25", f"{name}-public")
            docker("network", "create", "--subnet", f"{block}.128/25", "--internal", f"{name}-devices")
            made.start(f"{name}-web", f"{name}-public")
            made.start(f"{name}-vtn", f"{name}-devices", "--ip", f"{block}.140")
            yield made
        finally:
            for container in (f"{name}-web", f"{name}-vtn", f"{name}-other"):
                docker("rm", "--force", container)
            for network in (f"{name}-public", f"{name}-devices"):
                docker("network", "rm", "--force", network)


def test_the_address_book_follows_the_topology_and_the_containers(site: Site) -> None:
    run = site.kept()
    assert CODE not in run.output
    assert {row["name"] for row in site.phpipam.sections.values()} == {"Cariflex EMS"}
    subnets = {f"{row['subnet']}/{row['mask']}": row["description"] for row in site.phpipam.subnets.values()}
    block, name = site.block, site.name
    assert subnets == {f"{block}.0/25": f"{name}-public", f"{block}.128/25": f"{name}-devices"}
    rows = site.rows()
    web, mac = site.has(f"{name}-web")
    reserved = [f"{block}.{number}" for number in range(250, 255)]
    assert set(rows) == {f"{block}.1", f"{block}.129", f"{block}.140", web, *reserved}
    assert (rows[web]["hostname"], rows[web]["mac"]) == (f"{name}-web", mac)
    vtn, vtn_mac = site.has(f"{name}-vtn")
    assert (vtn, rows[vtn]["hostname"], rows[vtn]["mac"]) == (f"{block}.140", f"{name}-vtn", vtn_mac)
    assert [rows[ip]["is_gateway"] for ip in (f"{block}.1", f"{block}.129", web)] == [1, 1, 0]
    assert {site.phpipam.tags[rows[ip]["tag"]] for ip in reserved} == {"Reserved"}
    assert {row["owner"] for row in rows.values()} == {MARKER}

    site.phpipam.requests.clear()
    assert site.kept().count("changed") == 0
    assert site.writes() == []
    assert len(site.phpipam.requests) == 8, "more than four calls a subnet"
    if site.phpipam.version == "1.7.4":  # what follows is the same in both
        return

    # somebody's own note, a container that moves, and one of ours that is gone
    theirs = {"hostname": "printer", "owner": "office"}
    site.phpipam.addresses[900] = {**rows[web], "id": 900, "ip": f"{block}.100", **theirs}
    site.phpipam.addresses[901] = {**rows[web], "id": 901, "ip": f"{block}.101", "hostname": "gone"}
    docker("rm", "--force", f"{name}-web")
    site.start(f"{name}-other", f"{name}-public")
    site.start(f"{name}-web", f"{name}-public")
    moved, _ = site.has(f"{name}-web")
    assert moved != web

    run = site.play("playbooks/ipam.yml", "--check", "--diff")
    assert run.count("changed") == 1
    assert "printer" not in run.output
    assert site.writes() == [], "a preview wrote"

    run = site.play("playbooks/drift.yml")
    assert run.status != 0
    lines = [line.split("phpIPAM ", 1)[1] for line in run.output.splitlines() if "phpIPAM 10." in line]
    told = [line for line in lines if "declared" in line]
    assert sorted(line.split(":")[0] for line in told) == sorted([web, moved, f"{block}.101"]), run.output
    assert site.writes() == [], "looking for drift wrote"

    assert site.kept().count("changed") == 1
    rows = site.rows()
    assert rows[moved]["hostname"] == f"{name}-web"
    assert web not in rows
    assert f"{block}.101" not in rows
    assert rows[f"{block}.100"]["owner"] == "office"


def test_a_refusal_says_what_to_do_and_a_user_gets_in_too(site: Site) -> None:
    if site.phpipam.version == "1.7.4":
        pytest.skip("the same in both versions")
    run = site.play("playbooks/ipam.yml", vault_phpipam_app_code="another-code-0123456789abcdefgh")
    assert run.status != 0
    assert "check app_code" in run.output
    assert "another-code" not in run.output
    site.phpipam.requests.clear()
    way = {"phpipam_app_id": "cariflex", "phpipam_username": USER, "vault_phpipam_password": PASSWORD}
    run = site.play("playbooks/ipam.yml", **way)
    assert run.status == 0, run.output
    assert PASSWORD not in run.output
    assert len(site.phpipam.subnets) == 2
    assert "phpipam_url is not set" in site.play("playbooks/ipam.yml", phpipam_url="").output


def test_a_preview_where_phpipam_is_yet_to_be_deployed_asks_nobody(site: Site) -> None:
    overrides = {**site.variables["topology_overrides"], "domains": {"phpipam": "ipam.example.org"}}
    address = {"phpipam_url": "", "phpipam_deployed_url": "http://127.0.0.1:9"}
    deployed = {"phpipam_deploy": True, "topology_overrides": overrides, **address}
    run = site.play("playbooks/ipam.yml", "--check", **deployed)
    assert (run.status, run.count("changed")) == (0, 0), run.output
