"""What holds every role together: its specs, its defaults and its README say the same, and it keeps to itself."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import jinja2.nodes
import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[3]
ROLES = sorted(path for path in (PROJECT / "roles").iterdir() if path.is_dir())
IDS = [role.name for role in ROLES]
JINJA = jinja2.Environment(extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"], autoescape=True)  # parses only
# keys of tasks whose text is an expression without braces
EXPRESSIONS = frozenset({"when", "that", "until", "changed_when", "failed_when", "var"})


class Loader(yaml.SafeLoader):
    """YAML as Ansible writes it: its own tags count for nothing here."""


Loader.add_multi_constructor("!", lambda loader, _suffix, node: loader.construct_scalar(node))


def content(path: Path) -> Any:
    """The content of a YAML file; an empty mapping where there is none."""
    return (yaml.load(path.read_text(encoding="utf-8"), Loader) if path.exists() else None) or {}  # noqa: S506 - safe, see above


def options_of(role: Path) -> dict[str, dict[str, Any]]:
    """Variable -> spec over all entry points."""
    entry_points = content(role / "meta/argument_specs.yml").get("argument_specs", {}).values()
    return {name: spec for entry_point in entry_points for name, spec in (entry_point.get("options") or {}).items()}


OPTIONS = {role.name: options_of(role) for role in ROLES}


def texts_of(value: Any, expression: bool = False) -> Iterator[str]:
    """Every Jinja text within the content of a YAML file, expressions in braces."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from texts_of(key)
            yield from texts_of(entry, key in EXPRESSIONS)
    elif isinstance(value, list):
        for entry in value:
            yield from texts_of(entry, expression)
    elif isinstance(value, str):
        yield f"{{{{ {value} }}}}" if expression and "{{" not in value else value


def names_in(text: str) -> set[str]:
    """The variables that a Jinja text reads."""
    return {node.name for node in JINJA.parse(text).find_all(jinja2.nodes.Name) if node.ctx == "load"}


def names_read_by(role: Path) -> dict[str, set[str]]:
    """File of the role -> variables it reads."""
    read: dict[str, set[str]] = {}
    for folder in ("tasks", "handlers", "defaults", "vars"):
        for path in (role / folder).rglob("*.yml"):
            read[str(path.relative_to(role))] = {name for text in texts_of(content(path)) for name in names_in(text)}
    for path in (role / "templates").rglob("*"):
        if path.is_file():
            read[str(path.relative_to(role))] = names_in(path.read_text(encoding="utf-8"))
    return read


def names_set_by(value: Any) -> Iterator[str]:
    """The variables that tasks make on the way: registered results, facts and variables of a task or block."""
    if isinstance(value, dict):
        for key, entry in value.items():
            if key == "register":
                yield entry
            elif key in ("vars", "set_fact", "ansible.builtin.set_fact") and isinstance(entry, dict):
                yield from entry
            yield from names_set_by(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from names_set_by(entry)


@pytest.mark.parametrize("role", ROLES, ids=IDS)
def test_role_is_complete(role: Path) -> None:
    for name in ("README.md", "defaults/main.yml", "meta/argument_specs.yml", "tasks/main.yml"):
        assert (role / name).is_file(), f"roles/{role.name}/{name} is missing"


@pytest.mark.parametrize("role", ROLES, ids=IDS)
def test_every_option_is_typed_and_described(role: Path) -> None:
    for name, spec in OPTIONS[role.name].items():
        assert spec.get("type"), f"{name} has no type"
        assert spec.get("description"), f"{name} has no description"
        assert spec["type"] != "list" or spec.get("elements"), f"{name} is a list of what?"
        assert ("default" in spec) != bool(spec.get("required")), f"{name} is either required or has a default"


@pytest.mark.parametrize("role", ROLES, ids=IDS)
def test_every_task_file_that_others_may_include_has_a_spec(role: Path) -> None:
    entry_points = content(role / "meta/argument_specs.yml").get("argument_specs", {})
    for name in entry_points:
        assert (role / f"tasks/{name}.yml").is_file(), f"{role.name}: the spec names tasks/{name}.yml, which is missing"


@pytest.mark.parametrize("role", ROLES, ids=IDS)
def test_specs_and_defaults_are_equal_by_value(role: Path) -> None:
    specified = {name: spec["default"] for name, spec in OPTIONS[role.name].items() if "default" in spec}
    defaults = content(role / "defaults/main.yml")
    assert sorted(specified) == sorted(defaults)
    for name, value in defaults.items():
        assert (type(value), value) == (type(specified[name]), specified[name]), name


@pytest.mark.parametrize("role", ROLES, ids=IDS)
def test_variables_carry_the_name_of_their_role(role: Path) -> None:
    public = [*OPTIONS[role.name], *content(role / "defaults/main.yml")]
    assert [name for name in public if not name.startswith(f"{role.name}_")] == []
    internal = content(role / "vars/main.yml")
    assert [name for name in internal if not name.startswith(f"_{role.name}_")] == []


@pytest.mark.parametrize("role", ROLES, ids=IDS)
def test_secrets_have_no_default(role: Path) -> None:
    known = [name for name, spec in OPTIONS[role.name].items() if spec.get("no_log") and spec.get("default")]
    assert known == []


@pytest.mark.parametrize("role", ROLES, ids=IDS)
def test_role_reads_no_other_role(role: Path) -> None:
    foreign = {name for other, options in OPTIONS.items() if other != role.name for name in options}
    prefixes = tuple(f"_{other.name}_" for other in ROLES if other != role)
    for path, names in names_read_by(role).items():
        # phpipam_server's own begin like phpipam's
        own = {name for name in names if name.startswith(f"_{role.name}_")}
        borrowed = {name for name in names if name in foreign or (name.startswith(prefixes) and name not in own)}
        assert borrowed == set(), f"roles/{role.name}/{path} reads what belongs to another role; wire it instead"


@pytest.mark.parametrize("role", ROLES, ids=IDS)
def test_role_reads_no_undeclared_variable_of_its_own(role: Path) -> None:
    made = {name for path in (role / "tasks").rglob("*.yml") for name in names_set_by(content(path))}
    for path, names in names_read_by(role).items():
        unknown = {name for name in names if name.startswith(f"{role.name}_")} - OPTIONS[role.name].keys() - made
        assert unknown == set(), f"roles/{role.name}/{path} reads what meta/argument_specs.yml does not declare"


@pytest.mark.parametrize("role", ROLES, ids=IDS)
def test_readme_is_fresh(role: Path) -> None:
    generator = _generator()
    readme = (role / "README.md").read_text(encoding="utf-8")
    assert generator.updated_readme(role, readme) == readme, "type: make docs"
    for name in OPTIONS[role.name]:
        assert f"| `{name}` |" in readme


def _generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate", PROJECT / "docs/generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = module
    spec.loader.exec_module(module)
    return module


def test_generated_table(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    options = {
        "x_from": {"type": "str", "choices": ["a", "b"], "default": "a", "description": "Where C(x) comes from."},
        "x_list": {"type": "list", "elements": "int", "default": [1, 2], "description": "A | B."},
        "x_password": {"type": "str", "required": True, "no_log": True, "description": "Word."},
    }
    spec = {"argument_specs": {"main": {"short_description": "An example", "options": options}}}
    (tmp_path / "meta/argument_specs.yml").write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    text = _generator().updated_readme(tmp_path, None)
    assert "| `x_from` | str | `a` | Where `x` comes from. One of `a`, `b`. |" in text
    assert "| `x_list` | list of int | `[1, 2]` | A \\| B. |" in text
    assert "| `x_password` | str | required | Word. Secret. |" in text
    assert _generator().updated_readme(tmp_path, text.replace("x_list", "x_gone") + "by hand\n") == text + "by hand\n"
    with pytest.raises(ValueError, match="the table has no place"):
        _generator().updated_readme(tmp_path, "# by hand\n")


# the roles that the wiring gives an image
GIVEN_IMAGES = {
    max((role for role in IDS if name.startswith(f"{role}_")), key=len, default="")
    for name, value in content(PROJECT / "playbooks/vars/wiring.yml").items()
    if "images_references" in str(value)
}


def included(play: dict[str, Any]) -> Iterator[str]:
    """The roles of a play whose main tasks run, in order; `images` also where it only looks."""
    for role in play.get("roles") or []:
        yield role["role"] if isinstance(role, dict) else role
    for task in [*(play.get("tasks") or []), *(play.get("post_tasks") or [])]:
        for how in ("ansible.builtin.include_role", "ansible.builtin.import_role"):
            if how in task and (task[how]["name"] == "images" or "tasks_from" not in task[how]):
                yield task[how]["name"]


@pytest.mark.parametrize("playbook", sorted((PROJECT / "playbooks").glob("*.yml")), ids=lambda path: path.name)
def test_a_play_knows_the_images_before_a_role_that_is_given_one(playbook: Path) -> None:
    for play in content(playbook):
        roles = list(included(play))
        using = [roles.index(role) for role in GIVEN_IMAGES if role in roles]
        assert not using or "images" in roles[: min(using)], play["name"]
