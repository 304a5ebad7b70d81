"""Every stack of an inventory as its role renders it, with real wiring; only roles/stack is replaced by one that keeps
what it is given (tests/templates/roles)."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SECRETS = {
    name: f"{name.removeprefix('vault_').replace('_', '-')}-0123456789-0123456789-0123456789"
    for name in yaml.safe_load((ROOT / "playbooks/vars/secrets.yml").read_text())["secrets_declared"]
}


@dataclass(frozen=True)
class Stack:
    """What a role hands over to be deployed.

    Attributes:
        files: path below the stack's folder -> content.
        secrets: name -> content.
        folders: path -> owner's uid.
    """

    files: dict[str, str]
    secrets: dict[str, str]
    folders: dict[str, int]

    @property
    def compose(self) -> dict[str, Any]:
        """The stack's compose.yml."""
        return dict(yaml.safe_load(self.files["compose.yml"]))

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        """Its services."""
        return dict(self.compose["services"])


def render(environment: str, folder: Path, **variables: Any) -> dict[str, Stack]:
    """Render stacks of `inventories/<environment>`; `variables` win over all others.

    Raises:
        AssertionError: a template failed; with what Ansible says.
    """
    given = {
        **SECRETS,
        "rendered_path": str(folder),
        "rendered_roles": ["postgres", "redis", "flexmeasures", "openadr", "feeds", "grafana", "traefik"],
        # what needs a host or an engine is left out
        "postgres_docker_available": False,
        "flexmeasures_docker_available": False,
        "grafana_docker_available": False,
        "_traefik_certificate_is_due": False,
        # nothing of this machine, nor of the inventory
        "openadr_stack_path": str(folder / "opt"),
        "openadr_ca_file": str(folder / "openadr_vault.yml"),
        "openadr_ca_encrypted": False,
        "openadr_vault_password_file": "",
        "grafana_dashboards_path": str(ROOT / "files/grafana/dashboards"),
        "_flexmeasures_plugin_path": str(ROOT / "files/services/src/cariflex"),
        **variables,
    }
    (folder / "given.json").write_text(json.dumps(given))
    done = subprocess.run(
        [
            str(ROOT / ".venv/bin/ansible-playbook"),
            *("-i", f"inventories/{environment}", "-e", f"@{folder}/given.json", "tests/templates/render.yml"),
        ],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_ROLES_PATH": f"{ROOT}/tests/templates/roles:{ROOT}/roles"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return {path.stem: Stack(**json.loads(path.read_text())) for path in folder.glob("*.json") if path.stem != "given"}
