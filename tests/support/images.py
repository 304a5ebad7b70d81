"""Which images the tests use: those that the roles would use on this machine, if they are there."""

import subprocess
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Template

from module_utils.image_context import plan

ROOT = Path(__file__).parents[2]


def declared() -> dict[str, Any]:
    """`versions_images` of playbooks/vars/versions.yml."""
    text = (ROOT / "playbooks/vars/versions.yml").read_text(encoding="utf-8")
    versions = {name: value for name, value in yaml.safe_load(text).items() if name != "versions_images"}
    images: dict[str, Any] = yaml.safe_load(Template(text).render(versions))["versions_images"]
    return images


def references() -> dict[str, str]:
    """Name -> reference of every image that is on this machine and up to date; none where no engine answers."""
    listing = ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]
    try:
        present = subprocess.run(listing, capture_output=True, text=True, check=True, timeout=30).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return {}
    planned = plan(declared(), ROOT, "", "auto", [], present)
    return {name: reference for name, reference in planned.references.items() if reference in present}
