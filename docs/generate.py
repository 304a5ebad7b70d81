#!/usr/bin/env python3
"""Write the tables of variables in the roles' README files from their argument specs, and a page for each module.

``python docs/generate.py`` writes them, ``--check`` only says which are stale and fails. A README is written by hand
around the table, which stands between two markers; a role that has none yet gets one to write on. The pages of the
modules are what ansible-doc tells, whole.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
ROLES = ROOT / "roles"
PAGES = ROOT / "docs/modules"
BEGIN = "<!-- variables: written by `make docs` from meta/argument_specs.yml -->"
END = "<!-- end of variables -->"


def main() -> int:
    """Write or check every role's README; the exit code says whether any was stale in a check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="change nothing, fail when a table is stale")
    check = parser.parse_args().check
    stale = [role.name for role in sorted(ROLES.iterdir()) if role.is_dir() and _update(role, write=not check)]
    stale += _update_pages(module_pages(), write=not check)
    for name in stale:
        print(f"{name}: {'stale, type: make docs' if check else 'written'}")
    return 1 if check and stale else 0


def _update_pages(wanted: dict[str, str], *, write: bool) -> list[str]:
    """Write the pages that differ, and remove those of modules that are gone; the names of both."""
    current = {path.stem: path.read_text(encoding="utf-8") for path in PAGES.glob("*.md")}
    stale = [name for name in sorted({*wanted, *current}) if wanted.get(name) != current.get(name)]
    for name in stale if write else ():
        path = PAGES / f"{name}.md"
        path.parent.mkdir(exist_ok=True)
        if name in wanted:
            path.write_text(wanted[name], encoding="utf-8")
        else:
            path.unlink()
    return stale


def module_pages() -> dict[str, str]:
    """The page of each module of ours, by its name, from what ansible-doc tells."""
    names = sorted(path.stem for path in (ROOT / "library").glob("*.py"))
    program = Path(sys.executable).with_name("ansible-doc")
    command = [str(program), "--module-path", str(ROOT / "library"), "--type", "module", "--json", *names]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)  # noqa: S603 - our own names
    return {name: _page(name, told) for name, told in json.loads(done.stdout).items()}


def _page(name: str, told: dict[str, Any]) -> str:
    doc = told["doc"]
    behaviour = [
        f"| {title} | {doc['attributes'][key]['support']} | {_text(doc['attributes'][key])} |"
        for key, title in (("check_mode", "check mode"), ("diff_mode", "diff"), ("idempotent", "idempotent"))
    ]
    parts = [
        f"# {name}",
        "<!-- written by `make docs` from library/ -->",
        f"{doc['short_description']}.",
        "## What it does",
        "\n".join(f"- {_text({'description': line})}" for line in _lines(doc["description"])),
        "## Options",
        _options(doc.get("options") or {}),
        "## How it behaves",
        "\n".join(["| | Support | |", "|---|---|---|", *behaviour]),
        "## Examples",
        f"```yaml\n{told['examples'].strip()}\n```",
        "## What it returns",
        _returns(told.get("return") or {}),
    ]
    return "\n\n".join(parts) + "\n"


def _lines(text: str | list[str]) -> list[str]:
    return [text] if isinstance(text, str) else text


def _options(options: dict[str, dict[str, Any]]) -> str:
    if not options:
        return "None."
    rows = [
        f"| `{name}` | {_type(option)} | {_default(option)} | {_text(option)} |"
        for name, option in _nested(options, "suboptions")
    ]
    return "\n".join(["| Option | Type | Default | What it is |", "|---|---|---|---|", *rows])


def _returns(returned: dict[str, dict[str, Any]]) -> str:
    if not returned:
        return "Nothing of its own."
    rows = [
        f"| `{name}` | {_type(value)} | {value.get('returned', '')} | {_text(value)} |"
        for name, value in _nested(returned, "contains")
    ]
    return "\n".join(["| Value | Type | When | What it is |", "|---|---|---|---|", *rows])


def _nested(entries: dict[str, dict[str, Any]], below: str, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Entries with those below them, by dotted name, in the order of their names; what is required goes first."""
    for name, entry in sorted(entries.items(), key=lambda pair: (not pair[1].get("required"), pair[0])):
        yield path + name, entry
        yield from _nested(entry.get(below) or {}, below, f"{path}{name}{'[]' if 'elements' in entry else ''}.")


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
    if option.get("default") is None:
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
    # Ansible's markup for code, options, values, returned values and variables of the environment; and for italics
    text = re.sub(r"\b(?:[COVE]|RV)\(([^)]*)\)", r"`\1`", text)
    return re.sub(r"\bI\(([^)]*)\)", r"*\1*", text).replace("|", "\\|").replace("\n", " ").strip()


if __name__ == "__main__":
    sys.exit(main())
