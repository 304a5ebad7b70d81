"""Every module documents the options it takes, by name, type, default and obligation, and says how it behaves."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from .conftest import ROOT, load

MODULES = sorted((ROOT / "library").glob("*.py"))
# What an option's specification may say, and what is meant where it does not say it.
DEFAULTS = {"type": "str", "required": False, "default": None, "choices": None, "elements": None, "aliases": []}


def specification(path: Path) -> Any:
    """The options a module takes; one that works on the controller has them in its action plugin."""
    module = load(path)
    if hasattr(module, "ARGUMENT_SPEC"):
        return module.ARGUMENT_SPEC
    (plugin,) = ROOT.glob(f"roles/*/action_plugins/{path.name}")
    return load(plugin).ARGUMENT_SPEC


def compared(options: dict[str, Any]) -> dict[str, Any]:
    """Options reduced to what must be the same in documentation and specification."""
    return {
        name: {
            **{key: option.get(key, default) for key, default in DEFAULTS.items()},
            "options": compared(option.get("suboptions") or option.get("options") or {}),
        }
        for name, option in options.items()
    }


def documentation(module: ModuleType) -> dict[str, Any]:
    """A module's documentation, with the options that it shares with others."""
    told: dict[str, Any] = yaml.safe_load(module.DOCUMENTATION)
    options = dict(told.get("options") or {})
    fragments = told.get("extends_documentation_fragment") or []
    for name in [fragments] if isinstance(fragments, str) else fragments:
        shared = yaml.safe_load(load(ROOT / f"doc_fragments/{name}.py").ModuleDocFragment.DOCUMENTATION)["options"]
        assert not shared.keys() & options.keys()
        options |= shared
    return {**told, "options": options}


@pytest.fixture(params=MODULES, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    """One module of library/."""
    found: Path = request.param
    return found


@pytest.fixture
def module(path: Path) -> ModuleType:
    return load(path)


def test_its_documentation_equals_its_argument_spec(module: ModuleType, path: Path) -> None:
    documented = documentation(module)
    assert documented["module"] == path.stem
    assert compared(documented.get("options") or {}) == compared(specification(path))


def test_every_option_is_described(module: ModuleType) -> None:
    for name, option in documentation(module)["options"].items():
        assert option.get("description"), name


def test_it_says_how_it_behaves(module: ModuleType) -> None:
    attributes = yaml.safe_load(module.DOCUMENTATION)["attributes"]
    for name in ("check_mode", "diff_mode", "idempotent"):
        assert attributes[name]["support"] in ("full", "partial", "none")
        assert attributes[name]["description"]


def test_its_examples_and_returns_are_yaml_and_use_the_module(module: ModuleType, path: Path) -> None:
    options = documentation(module)["options"]
    own = [task[path.stem] for task in yaml.safe_load(module.EXAMPLES) if path.stem in task]
    assert own
    for arguments in own:
        assert (arguments or {}).keys() <= options.keys()
    for name, returned in (yaml.safe_load(module.RETURN) or {}).items():
        assert returned["description"], name
        assert returned["type"], name


def test_its_first_line_is_one_that_ansible_takes(path: Path) -> None:
    assert path.read_text().startswith("#!/usr/bin/python\n")


def test_passwords_and_tokens_are_kept_out_of_every_log() -> None:
    for path in MODULES:
        for name, option in specification(path).items():
            if "password" in name or "token" in name:
                assert option.get("no_log") is True, f"{path.stem}.{name}"
