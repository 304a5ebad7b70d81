"""One deployed host for all tests of this folder, in the stages that an operator goes through.

Each stage is a fixture, made when the first test asks for it: bare, previewed, deployed, drifted, repeated, checked,
rebooted, rotated, stopped, purged.
The tests are in that order, and a later stage contains the earlier ones.
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import host as test_host
from tests.support.host import Host, eventually
from tests.support.images import references
from tests.support.playbook import ROOT, Run, inventory_like, play
from tests.support.services import say

# What `make dev` runs.
DEPLOY = ("playbooks/site.yml", "playbooks/self_check.yml")
BUNDLE = ROOT / ".cache/bundle"
# other tests run at the same time; theirs begin with these, and with 64 digits what was given no name
OF_TESTS = rf"{test_host.PREFIX}|cariflex-ems-|cariflex-molecule-|fmtest-|[0-9a-f]{{64}}$"
FLEXMEASURES = "https://cariflex.localhost"
CA = "/opt/cariflex/traefik/certificates/ca.crt"
KEEP = "CARIFLEX_TEST_KEEP"  # leaves the host running, for somebody who looks for the cause of a failure


@pytest.fixture(scope="session")
def progress() -> Callable[[str], None]:
    """Says a line at once: a stage takes minutes."""
    return lambda text: say(f"[{text}]")


@dataclass(frozen=True)
class Below:
    """What the machine's own engine has: name -> what tells whether it is still the same."""

    containers: dict[str, str]
    networks: dict[str, str]
    volumes: dict[str, str]


def below() -> Below:
    """Look at the machine's own engine, without what tests make there, and volumes that were given no name."""

    def listed(*command: str) -> dict[str, str]:
        rows = (row.split("\t", 1) for row in test_host.docker(*command).splitlines())
        return {name: rest for name, rest in rows if not re.match(OF_TESTS, name)}

    containers = listed("ps", "--all", "--no-trunc", "--format", "{{.Names}}\t{{.ID}}")
    started = "{{.State.StartedAt}} {{.RestartCount}}"
    return Below(
        {name: f"{id_} {test_host.docker('inspect', '--format', started, id_)}" for name, id_ in containers.items()},
        listed("network", "ls", "--no-trunc", "--format", "{{.Name}}\t{{.ID}}"),
        listed("volume", "ls", "--format", "{{.Name}}\t{{.Mountpoint}}"),
    )


@pytest.fixture(scope="session")
def below_before() -> Below:
    """The machine's own engine before the first stage."""
    return below()


@dataclass(frozen=True)
class Site:
    """A test host and the inventory that deploys to it.

    Attributes:
        host: the host.
        inventory: a copy of inventories/dev; only the host, how it is reached and where images come from differ.
        images: name -> reference of every image in the archive.
    """

    host: Host
    inventory: Path
    images: dict[str, str]

    def play(self, *arguments: str) -> Run:
        """Run what `make dev` runs."""
        return play("-i", self.inventory, *arguments)

    def secrets(self) -> dict[str, str]:
        """The secrets that the deployment made."""
        secrets: dict[str, str] = yaml.safe_load((self.inventory / "group_vars/all/vault.yml").read_text())
        return secrets

    def login(self) -> dict[str, str]:
        """The header that opens FlexMeasures' API for the administrator."""
        body = {"email": "admin@digitribe.fr", "password": self.secrets()["vault_flexmeasures_admin_password"]}
        answer = self.host.get(f"{FLEXMEASURES}/api/requestAuthToken", method="POST", body=body, options={"cacert": CA})
        assert answer.status == 200, answer
        return {"Authorization": answer.json()["auth_token"]}


@pytest.fixture(scope="session")
def bare(
    below_before: Below, tmp_path_factory: pytest.TempPathFactory, progress: Callable[[str], None]
) -> Iterator[Site]:
    """A fresh host with nothing of ours on it."""
    images = references()
    manifest = BUNDLE / "manifest.json"
    archived = json.loads(manifest.read_text()) if manifest.is_file() else {}
    assert images, "no images on this machine: run `make test`, or playbooks/test_images.yml"
    assert archived == images, "the archive of images is not up to date: run `make test`, or playbooks/test_images.yml"
    with test_host.running("cariflex-testhost-trixie:current", BUNDLE, progress, KEEP in os.environ) as host:
        connection = {
            "ansible_connection": "community.docker.docker",
            "ansible_host": host.name,
            "ansible_python_interpreter": "/usr/bin/python3",
            "images_from": "archive",
            "images_archive_path": test_host.ARCHIVE,
        }
        inventory = inventory_like("dev", tmp_path_factory.mktemp("site"), {host.name: connection})
        yield Site(host, inventory, images)


@dataclass(frozen=True)
class Stage(Site):
    """A host after one more run.

    Attributes:
        run: what was run.
        before: `docker inspect` of the host's containers before it.
    """

    run: Run
    before: dict[str, dict[str, Any]]


def stage(site: Site, *arguments: str, before: dict[str, dict[str, Any]] | None = None) -> Stage:
    """Run a playbook; it has to succeed."""
    run = site.play(*arguments)
    if run.status != 0:
        pytest.fail(f"ansible-playbook {' '.join(arguments)} ended with {run.status}:\n{run.output}", pytrace=False)
    return Stage(site.host, site.inventory, site.images, run, before or {})


@pytest.fixture(scope="session")
def previewed(bare: Site, progress: Callable[[str], None]) -> Stage:
    """`make check` on the bare host."""
    progress("preview on the bare host: half a minute")
    return stage(bare, DEPLOY[0], "--check", "--diff")


@pytest.fixture(scope="session")
def deployed(previewed: Stage, progress: Callable[[str], None]) -> Stage:
    """`make dev` on the bare host."""
    progress("deployment: Docker, images and the whole system, about four minutes")
    return stage(previewed, *DEPLOY)


@dataclass(frozen=True)
class Drifted(Stage):
    """A host that was worked on by hand, was looked at, and is again as it was deployed.

    Attributes:
        report: what the run wrote as JSON.
        as_found: what there was before the run and after it.
        undone: what was run when everything was undone.
    """

    report: dict[str, Any]
    as_found: tuple[dict[str, Any], dict[str, Any]]
    undone: Run


@contextlib.contextmanager
def worked_on_by_hand(site: Site) -> Iterator[None]:
    """A host on which somebody stopped, joined, disconnected, started and renamed; undone afterwards."""
    host = site.host

    def rename(name: str) -> None:
        answer = host.get(
            f"{FLEXMEASURES}/api/v3_0/sensors/41",
            method="PATCH",
            headers=site.login(),
            body={"name": name},
            options={"cacert": CA},
        )
        assert answer.status == 200, answer

    with contextlib.ExitStack() as undo:

        def by_hand(do: str, back: str) -> None:
            undo.callback(host.run, "docker", *back.split())
            host.run("docker", *do.split())

        vtn, redis = "flexmeasures-internal openadr-vtn", "openadr-internal flexmeasures-redis"
        by_hand(f"network disconnect {vtn}", f"network connect --alias=openadr-vtn {vtn}")
        by_hand(f"network connect {redis}", f"network disconnect {redis}")
        by_hand("stop openadr-ven", "start openadr-ven")
        sleeping = f"--network=traefik-public --entrypoint=sleep {site.images['redis']} 600"
        by_hand(f"run --detach --name=stranger {sleeping}", "rm --force stranger")
        undo.callback(rename, "pv_01_power")
        rename("PV power")
        yield


# of users only who they are: FlexMeasures writes down when it last saw the feeds'
FLEXMEASURES_CONTENT = (
    "id, name FROM account",
    "id, email, username, account_id FROM fm_user",
    "* FROM generic_asset",
    "* FROM sensor",
)


def as_found(host: Host) -> dict[str, Any]:
    """What a look at the host may not change: containers, their networks, FlexMeasures' content, files."""
    containers = {
        name: (container["Id"], container["State"]["StartedAt"], container["NetworkSettings"]["Networks"])
        for name, container in host.inspect().items()
    }
    networks = host.run("docker", "network", "ls", "--no-trunc").splitlines()
    content = [host.sql(f"SELECT {rows} ORDER BY id") for rows in FLEXMEASURES_CONTENT]
    # what the services write by themselves, a log for example, goes on meanwhile
    ours = "-path '/opt/cariflex/*/data' -prune -o -type f"
    files = host.shell(f"find /opt/cariflex /etc /usr/local -xdev {ours} -printf '%p %m %T@\n' | sort")
    return {"containers": containers, "networks": networks, "content": content, "files": files.splitlines()}


@pytest.fixture(scope="session")
def drifted(deployed: Stage, tmp_path_factory: pytest.TempPathFactory, progress: Callable[[str], None]) -> Drifted:
    """`playbooks/drift.yml` on a host that was worked on by hand, and once more after all is undone."""
    progress("drift by hand, looked at and undone: a minute")
    host, report = deployed.host, tmp_path_factory.mktemp("drift") / "drift.json"
    with worked_on_by_hand(deployed):
        before = as_found(host)
        run = deployed.play("playbooks/drift.yml", "-e", f"drift_json={report}")
        after = as_found(host)
    undone = deployed.play("playbooks/drift.yml")
    state = ("docker", "inspect", "--format={{.State.Health.Status}}", "openadr-vtn", "openadr-ven")
    eventually(lambda: host.run(*state).split() == ["healthy"] * 2, 60)
    found = json.loads(report.read_text())
    return Drifted(host, deployed.inventory, deployed.images, run, {}, found, (before, after), undone)


@pytest.fixture(scope="session")
def repeated(drifted: Drifted, progress: Callable[[str], None]) -> Stage:
    """`make dev` once more."""
    progress("the same once more: a minute")
    return stage(drifted, *DEPLOY, before=drifted.host.inspect())


@pytest.fixture(scope="session")
def checked(repeated: Stage, progress: Callable[[str], None]) -> Stage:
    """`make check` on the deployed host."""
    progress("preview on the deployed host: a minute")
    return stage(repeated, DEPLOY[0], "--check", "--diff", before=repeated.host.inspect())


@pytest.fixture(scope="session")
def rebooted(checked: Stage, progress: Callable[[str], None]) -> Stage:
    """The host after a reboot; nothing was run since."""
    progress("reboot of the host: half a minute")
    before = checked.host.inspect()
    checked.host.restart()
    return Stage(checked.host, checked.inventory, checked.images, checked.run, before)


@dataclass(frozen=True)
class Rotated(Stage):
    """A host with other secrets.

    Attributes:
        old_secrets: those that it had.
    """

    old_secrets: dict[str, str]


@pytest.fixture(scope="session")
def rotated(rebooted: Stage, progress: Callable[[str], None]) -> Rotated:
    """Every secret of the host replaced."""
    progress("other secrets: a minute")
    old = rebooted.secrets()
    names = ",".join(name.removeprefix("vault_") for name in old)
    after = stage(rebooted, "playbooks/secrets.yml", "--tags", "rotate", "-e", f"secret={names}")
    return Rotated(after.host, after.inventory, after.images, after.run, {}, old)


@pytest.fixture(scope="session")
def stopped(rotated: Rotated, progress: Callable[[str], None]) -> Stage:
    """`make down`."""
    progress("the system stopped: half a minute")
    return stage(rotated, "playbooks/down.yml")


@pytest.fixture(scope="session")
def purged(stopped: Stage, progress: Callable[[str], None]) -> Stage:
    """`make purge`, but for the images, which later runs of the tests need."""
    progress("everything deleted")
    return stage(stopped, "playbooks/purge.yml", "-e", "purge_confirmed=true", "-e", "purge_images=false")
