"""The documentation: pages of one kind have the same headings, links lead somewhere, and what is named exists."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
HEADINGS = {
    "services": ["What it is", "Settings", "Check it", "Logs and metrics", "When it fails"],
    "tasks": ["When", "What to type", "What you see", "When it fails"],
    "decisions": ["Context", "Decision", "Why", "Consequences"],
    "modules": ["What it does", "Options", "How it behaves", "Examples", "What it returns"],
}
PAGES = sorted(DOCS.glob("*/*.md"))
ALL = [*PAGES, DOCS / "README.md", *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md"))]


def name(path: Path) -> str:
    """The page's name in test reports."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pages_of_one_kind_have_the_same_headings(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == HEADINGS[page.parent.name]


@pytest.mark.parametrize("page", ALL, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    files = {link.partition("#")[0] for link in links if "://" not in link} - {""}
    assert {file for file in files if not (page.parent / file).exists()} == set()


def test_every_page_is_in_the_index() -> None:
    linked = set(
        re.findall(r"\]\(((?:services|tasks|decisions|modules)/[^)]+)\)", (DOCS / "README.md").read_text("utf-8"))
    )
    assert linked == {str(page.relative_to(DOCS)) for page in PAGES}


@pytest.mark.parametrize("page", ALL, ids=name)
def test_playbooks_and_make_targets_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)`", text)) <= targets
    assert {path for path in re.findall(r"\bplaybooks/\w+\.yml", text) if not (ROOT / path).exists()} == set()


def _options() -> set[str]:
    """Every variable of every role."""
    specs = [yaml.safe_load(path.read_text("utf-8")) for path in ROOT.glob("roles/*/meta/argument_specs.yml")]
    return {
        option
        for spec in specs
        for entry in spec["argument_specs"].values()
        for option in entry.get("options") or {}
        if option.startswith(tuple(path.name for path in (ROOT / "roles").iterdir()))
    }


# those of our own services describe the keys of a file instead
@pytest.mark.parametrize("page", [page for page in PAGES if "](../../roles/" in page.read_text("utf-8")], ids=name)
def test_settings_are_variables_of_a_role(page: Path) -> None:
    _, _, settings = page.read_text(encoding="utf-8").partition("## Settings")
    rows = re.findall(r"^\| (`[^|]+) \|", settings.partition("\n## ")[0], flags=re.MULTILINE)
    named = {variable for row in rows for variable in re.findall(r"`(\w+)`", row)}
    roles = tuple(f"{path.name}_" for path in (ROOT / "roles").iterdir())
    assert {variable for variable in named if variable.startswith(roles)} <= _options()


# examples of modules for systems that are not ours name secrets that are not ours either
@pytest.mark.parametrize("page", [page for page in ALL if not page.stem.startswith("phpipam_")], ids=name)
def test_secrets_exist(page: Path) -> None:
    secrets = yaml.safe_load((ROOT / "playbooks/vars/secrets.yml").read_text("utf-8"))
    declared = {name for kind in ("declared", "phpipam", "given") for name in secrets[f"secrets_{kind}"]}
    assert set(re.findall(r"\bvault_\w+", page.read_text(encoding="utf-8"))) <= declared


def test_pages_of_modules_are_what_ansible_doc_tells() -> None:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    pages = generate.module_pages()
    assert pages.keys() == {path.stem for path in (ROOT / "library").glob("*.py")}
    for module, page in pages.items():
        assert (DOCS / f"modules/{module}.md").read_text("utf-8") == page, f"{module}: type make docs"
