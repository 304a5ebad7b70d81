"""phpIPAM as the role deploys it: a real MariaDB 10.11, and a stand-in for phpIPAM that brings its schema."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.host import PREFIX, docker
from tests.support.playbook import Run, play

pytestmark = pytest.mark.docker

CONTAINERS = ("phpipam-www", "phpipam-cron", "phpipam-db")
VOLUME = "phpipam-db-data"
PLAYBOOK = "tests/integration/phpipam/server.yml"
LOADING = "cariflex: the schema is being loaded"
IMAGES = {
    "phpipam-www": "cariflex-phpipamtest",
    "phpipam-cron": "cariflex-phpipamtest",
    "phpipam-db": "cariflex-mariadbtest",
}


@dataclass
class Site:
    """A deployment of the role on this machine, with secrets of its own."""

    inventory: Path
    network: str
    vault: dict[str, str] = field(
        default_factory=lambda: {
            name: secrets.token_hex(20)
            for name in ("vault_phpipam_db_password", "vault_phpipam_admin_password", "vault_phpipam_app_code")
        }
    )

    def deployed(self, *arguments: str) -> Run:
        networks = {self.network: None}
        variables: dict[str, Any] = {
            "ems_environment": "test",
            "phpipam_deploy": True,
            "topology_overrides": {"domains": {"phpipam": "ipam.example.org"}},
            "images_references": {name: f"{image}:current" for name, image in IMAGES.items()},
            "stack_root": str(self.inventory.parent / "opt"),
            **{f"phpipam_server_{name}_networks": networks for name in ("www", "cron", "database")},
            **self.vault,
        }
        given = self.inventory.parent / "given.json"
        given.write_text(json.dumps(variables))
        run = play(PLAYBOOK, "-i", self.inventory, "-e", f"@{given}", *arguments, timeout=300)
        for secret in self.vault.values():
            assert secret not in run.output
        return run

    def good(self, *arguments: str) -> Run:
        run = self.deployed(*arguments)
        assert run.status == 0, run.output
        return run


def sql(query: str) -> str:
    """What a query answers to whoever is root in the database's container."""
    client = ("mariadb", "--batch", "--skip-column-names", "phpipam")
    return docker("exec", "--interactive", "--user", "0:0", "phpipam-db", *client, stdin=query).strip()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    there = docker("ps", "--all", "--format", "{{.Names}}").split() + docker("volume", "ls", "--quiet").split()
    if {*CONTAINERS, VOLUME} & set(there):
        pytest.skip("a phpIPAM is deployed on this machine, whose containers have the same names")
    folder = tmp_path_factory.mktemp("phpipam")
    connection = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
    (folder / "hosts.yml").write_text(yaml.safe_dump({"ems": {"hosts": {"testhost": connection}}}), encoding="utf-8")
    network = f"{PREFIX}phpipam-{secrets.token_hex(4)}"
    try:
        docker("network", "create", "--internal", network)
        yield Site(folder / "hosts.yml", network)
    finally:
        for container in CONTAINERS:
            subprocess.run(["docker", "rm", "--force", "--volumes", container], capture_output=True, timeout=60)
        subprocess.run(["docker", "volume", "rm", "--force", VOLUME], capture_output=True, timeout=60)
        subprocess.run(["docker", "network", "rm", "--force", network], capture_output=True, timeout=60)


def logs_in(password: str) -> bool:
    """Whether phpIPAM would let somebody in: it compares crypt(password, hash) with the hash."""
    hashed = sql("SELECT password FROM users WHERE username = 'Admin'")
    assert hashed.startswith("$6$rounds=3000$")
    return sql(f"SELECT encrypt('{password}', '{hashed}') = '{hashed}'") == "1"


def code() -> str:
    return sql("SELECT app_code FROM api WHERE app_id = 'cariflex'")


def test_a_preview_of_a_host_that_has_nothing_changes_nothing(site: Site) -> None:
    run = site.good("--check", "--diff")
    assert run.count("changed") > 0
    assert not {*CONTAINERS} & set(docker("ps", "--all", "--format", "{{.Names}}").split())
    assert not (site.inventory.parent / "opt").exists()


def test_the_first_run_makes_all_and_the_second_nothing(site: Site) -> None:
    site.good()
    assert sql("SELECT dbversion, api FROM settings") == "46\t1"
    assert logs_in(site.vault["vault_phpipam_admin_password"])
    assert not logs_in("ipamadmin")
    assert sql("SELECT passChange FROM users WHERE username = 'Admin'") == "No"
    assert sql("SELECT app_permissions, app_security FROM api") == "2\tssl_code"
    assert code() == site.vault["vault_phpipam_app_code"][:32]
    hashed = sql("SELECT password FROM users")
    assert site.good().count("changed") == 0
    assert sql("SELECT password FROM users") == hashed, "it was hashed again"


def test_nobody_reads_a_secret_off_the_containers(site: Site) -> None:
    seen = docker("inspect", *CONTAINERS)
    seen += "".join(docker("top", name, "-eo", "pid,args") for name in CONTAINERS)
    seen += "".join(docker("logs", name) for name in CONTAINERS)
    for name, value in site.vault.items():
        assert value not in seen, name
        assert value.encode().hex() not in seen, name
    # the web server's user reads its password, and gets in with it; MariaDB's root does only from within
    mounted = "/run/secrets/phpipam_database_password"
    assert docker("exec", "--user", "apache", "phpipam-www", "cat", mounted) == site.vault["vault_phpipam_db_password"]
    login = ("mariadb", "--host=phpipam-db", "--user=phpipam", "phpipam", "--execute=SELECT 1")
    client = ("--rm", "--network", site.network, "--entrypoint", "env", "cariflex-mariadbtest:current")
    docker("run", *client, f"MYSQL_PWD={site.vault['vault_phpipam_db_password']}", *login)
    for user in ("root", "health"):
        refused = subprocess.run(
            ["docker", "run", *client, "mariadb", "--host=phpipam-db", f"--user={user}", "--execute=SELECT 1"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert "not allowed to connect" in refused.stderr or "Access denied" in refused.stderr


def test_what_differs_is_put_right_and_what_is_phpipams_stays(site: Site) -> None:
    old = dict(site.vault)
    site.vault.update({name: secrets.token_hex(20) for name in old})
    sql("UPDATE settings SET api = '0'; INSERT INTO sections (name) VALUES ('of the office');")
    run = site.good("--check", "--diff")
    for what in ("turn on the API", "set the password of Admin", "correct the API app", "password of the user phpipam"):
        assert what in run.output
    assert code() == old["vault_phpipam_app_code"][:32], "a preview wrote"
    site.good()
    assert code() == site.vault["vault_phpipam_app_code"][:32]
    assert logs_in(site.vault["vault_phpipam_admin_password"])
    assert not logs_in(old["vault_phpipam_admin_password"])
    assert sql("SELECT name FROM sections") == "of the office"


def test_a_load_that_was_cut_short_is_made_again_and_a_strange_database_is_not_touched(site: Site) -> None:
    sql(f"DROP TABLE ipaddresses; ALTER DATABASE phpipam COMMENT '{LOADING}';")
    site.good()
    assert sql("SELECT count(*) FROM ipaddresses") == "0"
    assert logs_in(site.vault["vault_phpipam_admin_password"])
    sql("RENAME TABLE ipaddresses TO somebody_elses;")
    run = site.deployed()
    assert run.status != 0
    assert "is not a whole phpIPAM, so nothing in it was touched" in run.output
    sql("RENAME TABLE somebody_elses TO ipaddresses;")
    assert site.good().count("changed") == 0
