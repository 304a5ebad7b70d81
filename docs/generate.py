#!/usr/bin/env python3
"""Write the tables of variables in the roles' README files from their argument specs.

``python docs/generate.py`` writes them, ``--check`` only says which are stale and fails. A README is written by hand
around the table, which stands between two markers; a role that has none yet gets one to write on.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parents[1] / "roles"
BEGIN = "<!-- variables: written by `make docs` from meta/argument_specs.yml -->"
END = "<!-- end of variables -->"


def main() -> int:
    """Write or check every role's README; the exit code says whether any was stale in a check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="change nothing, fail when a table is stale")
    check = parser.parse_args().check
    stale = [role for role in sorted(ROLES.iterdir()) if role.is_dir() and _update(role, write=not check)]
    for role in stale:
        print(f"{role.name}: {'stale, type: make docs' if check else 'written'}")
    return 1 if check and stale else 0


def _update(role: Path, *, write: bool) -> bool:
    readme = role / "README.md"
    current = readme.read_text(encoding="utf-8") if readme.exists() else None
    wanted = updated_readme(role, current)
    if write and wanted != current:
        readme.write_text(wanted, encoding="utf-8")
    return wanted != current


def updated_readme(role: Path, current: str | None) -> str:
    """The README of a role with its table of variables as the specs have it.

    Args:
        role: the role's folder.
        current: the README's text, or None for a role that has none.

    Raises:
        ValueError: the README has no place for the table.
    """
    content = yaml.safe_load((role / "meta/argument_specs.yml").read_text(encoding="utf-8"))
    entry_points: dict[str, dict[str, Any]] = content["argument_specs"]
    if current is None:
        current = f"# {role.name}\n\n{entry_points['main']['short_description']}.\n\n## Variables\n\n{BEGIN}\n{END}\n"
    before, begin, rest = current.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{role.name}/README.md: the table has no place, add the lines\n{BEGIN}\n{END}")
    tables = "\n".join(_table(name, spec, len(entry_points) > 1) for name, spec in entry_points.items())
    return f"{before}{BEGIN}\n\n{tables}\n{END}{after}"


def _table(entry_point: str, spec: dict[str, Any], titled: bool) -> str:
    title = f"`tasks/{entry_point}.yml`: {spec['short_description']}.\n\n" if titled else ""
    options: dict[str, dict[str, Any]] = spec.get("options") or {}
    if not options:
        return f"{title}No variables of its own.\n"
    rows = (
        f"| `{name}` | {_type(option)} | {_default(option)} | {_text(option)} |" for name, option in options.items()
    )
    return "\n".join([f"{title}| Variable | Type | Default | What it is |", "|---|---|---|---|", *rows, ""])


def _type(option: dict[str, Any]) -> str:
    kind: str = option["type"]
    return f"{kind} of {option['elements']}" if "elements" in option else kind


def _default(option: dict[str, Any]) -> str:
    if "default" not in option:
        return "required" if option.get("required") else "none"
    value = option["default"]
    bare = isinstance(value, str) and ("{{" in value or yaml.safe_load(value) == value)  # "3.11" keeps its quotes
    text = value if bare else json.dumps(value, ensure_ascii=False)
    return f"`{text}`".replace("|", "\\|").replace("\n", " ")


def _text(option: dict[str, Any]) -> str:
    description = option["description"]
    text = " ".join(description) if isinstance(description, list) else str(description)
    if "choices" in option:
        text += " One of " + ", ".join(f"`{choice}`" for choice in option["choices"]) + "."
    if option.get("no_log"):
        text += " Secret."
    # Ansible's markup for code, options and values
    return re.sub(r"\b[COV]\(([^)]*)\)", r"`\1`", text).replace("|", "\\|").replace("\n", " ").strip()


if __name__ == "__main__":
    sys.exit(main())
