"""Filters for playbooks/drift.yml."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ansible.module_utils

# Ansible offers the project's module_utils to modules, which it packs, but not to plugins in its own process.
_MODULE_UTILS = str(Path(__file__).resolve().parents[1] / "module_utils")
if _MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_MODULE_UTILS)

from ansible.module_utils import drift_rules  # noqa: E402 - see above


class FilterModule:
    """The filters of this file, in the form in which Ansible asks for them."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> filter."""
        names = ("docker_drift", "topology_drift", "ipam_drift", "firewall_drift", "drift_lines")
        return {name: getattr(drift_rules, name) for name in names}
