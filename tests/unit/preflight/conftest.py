"""What the tests of the checks share: a topology to spoil, and our module_utils where Ansible has its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[3]
ansible.module_utils.__path__.append(str(PROJECT / "module_utils"))


@pytest.fixture
def topology() -> dict[str, Any]:
    """The declared topology, a copy of its own for each test."""
    content = yaml.safe_load((PROJECT / "playbooks/vars/topology.yml").read_text(encoding="utf-8"))
    declared: dict[str, Any] = content["topology_declared"]
    return declared
