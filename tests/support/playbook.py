"""Running the project's playbooks as an operator does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
ANSIBLE_PLAYBOOK = ROOT / ".venv/bin/ansible-playbook"


@dataclass(frozen=True)
class Run:
    """How a playbook ended.

    Attributes:
        status: its exit status.
        output: all that it printed.
    """

    status: int
    output: str

    def count(self, name: str) -> int:
        """Sum of a count of the recap over all hosts: `ok`, `changed`, `failed`, …"""
        _, _, recap = self.output.rpartition("PLAY RECAP")
        found = re.findall(rf"\b{name}=(\d+)", recap)
        assert found, f"no recap\n{self.output}"
        return sum(map(int, found))

    def changed_tasks(self) -> list[str]:
        """What it printed of each task that changed something, with the task's name."""
        tasks = re.split(r"^(?=TASK \[)", self.output.partition("PLAY RECAP")[0], flags=re.MULTILINE)
        return [task for task in tasks if re.search(r"^changed: ", task, re.MULTILINE)]


def play(*arguments: str | Path, timeout: float = 1800, **environment: str) -> Run:
    """Run ansible-playbook in the project's folder, with the settings that an operator has there.

    Args:
        arguments: as on the command line.
        timeout: seconds.
        environment: variables beside this process' own.
    """
    ended = subprocess.run(
        [ANSIBLE_PLAYBOOK, *arguments],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"} | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    return Run(ended.returncode, ended.stdout)


def inventory_like(name: str, folder: Path, hosts: Mapping[str, Mapping[str, Any]]) -> Path:
    """A copy of one of the project's inventories with other hosts and without its secrets.

    Args:
        name: dev, test or prod.
        folder: where the copy is made.
        hosts: name of each host of the group `ems`, and its variables.
    """
    inventory = folder / name
    group_vars = inventory / "group_vars/all"
    shutil.copytree(
        ROOT / "inventories" / name / "group_vars/all", group_vars, ignore=shutil.ignore_patterns("vault.yml")
    )
    (inventory / "hosts.yml").write_text(yaml.safe_dump({"ems": {"hosts": {k: dict(v) for k, v in hosts.items()}}}))
    return inventory
