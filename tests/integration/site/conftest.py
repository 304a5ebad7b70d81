"""One deployed host for all tests of this folder, in the stages that an operator goes through.

Each stage is a fixture, made when the first test asks for it: bare, previewed, deployed, repeated, checked, rebooted,
rotated, stopped, purged.
The tests are in that order, and a later stage contains the earlier ones.
"""

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
from tests.support.host import Host
from tests.support.images import references
from tests.support.playbook import ROOT, Run, inventory_like, play
from tests.support.services import say

# What `make dev` runs.
DEPLOY = ("playbooks/site.yml", "playbooks/self_check.yml")
BUNDLE = ROOT / ".cache/bundle"
# other tests run at the same time; theirs begin with these, and with 64 digits what was given no name
OF_TESTS = rf"{test_host.PREFIX}|cariflex-ems-|cariflex-molecule-|fmtest-|[0-9a-f]{{64}}$"
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


@pytest.fixture(scope="session")
def repeated(deployed: Stage, progress: Callable[[str], None]) -> Stage:
    """`make dev` once more."""
    progress("the same once more: a minute")
    return stage(deployed, *DEPLOY, before=deployed.host.inspect())


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
