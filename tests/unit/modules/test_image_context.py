"""Images are named after what they are made from, and a host obtains exactly what it lacks."""

import os
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.image_context import ContextError, pack, plan, resolve

DECLARED: dict[str, dict[str, Any]] = {
    "base": {"registry": "debian:trixie-slim", "build": {"suite": "trixie"}},
    "db": {"registry": "postgres:17.12", "build": {"context": "db", "base": "base", "tag": "17"}},
    "own": {"build": {"context": "own", "base": "base", "exclude": ["other"], "target": "vtn"}},
    "grafana": {"registry": "grafana/grafana:12.3.0"},
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = {
        "files/images/debian/build.sh": "#!/bin/sh\n",
        "db/Dockerfile": "FROM base\n",
        "own/Dockerfile": "FROM base\n",
        "own/src/app.py": "print()\n",
        "own/other/notes.py": "1\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    pack.cache_clear()
    return tmp_path


def built(project: Path, name: str, serial: str = "") -> str:
    pack.cache_clear()
    reference: str | None = resolve(DECLARED, project, False, serial)[name].reference
    assert reference is not None
    return reference


def planned(project: Path, images_from: str, present: list[str], wanted: list[str] | None = None) -> Any:
    return plan(DECLARED, project, "", images_from, wanted or [], present)


def test_same_content_is_the_same_archive_wherever_and_whenever_it_is_made(project: Path) -> None:
    first = pack(project / "own", project / "own/Dockerfile", ())
    os.utime(project / "own/src/app.py", (1, 1))
    (project / "own/src/app.py").chmod(0o600)
    (project / "own/src/__pycache__").mkdir()
    (project / "own/src/__pycache__/app.cpython-311.pyc").write_text("junk")
    pack.cache_clear()
    assert pack(project / "own", project / "own/Dockerfile", ()) == first


def test_the_archive_holds_the_context_and_the_dockerfile(project: Path) -> None:
    packed = BytesIO(pack(project / "own", project / "db/Dockerfile", ("other",)))
    with tarfile.open(fileobj=packed) as archive:
        assert archive.getnames() == ["Dockerfile", "src/app.py"]


@pytest.mark.parametrize("changed", ["own/src/app.py", "own/Dockerfile", "files/images/debian/build.sh"])
def test_an_image_gets_a_new_name_when_anything_it_is_made_from_changes(project: Path, changed: str) -> None:
    before = built(project, "own")
    (project / changed).write_text("changed\n")
    assert built(project, "own") != before


def test_an_image_keeps_its_name_when_what_it_leaves_out_changes(project: Path) -> None:
    before = built(project, "own")
    (project / "own/other/notes.py").write_text("changed\n")
    assert built(project, "own") == before


def test_a_new_serial_makes_every_image_anew(project: Path) -> None:
    assert built(project, "db", "2026-11") != built(project, "db", "2026-12")


def test_a_rebuilt_public_image_is_not_taken_for_the_public_one(project: Path) -> None:
    assert built(project, "db").startswith("cariflex/db:17-")
    assert built(project, "own").startswith("own:")


def test_building_obtains_the_base_first_and_names_what_can_be_had_in_no_way(project: Path) -> None:
    result = planned(project, "build", [])
    assert [image["name"] for image in result.missing] == ["base", "db", "own"]
    assert result.left_out == ["grafana"]
    assert result.references["grafana"] == ""


@pytest.mark.parametrize("way", ["build", "archive"])
def test_an_image_that_cannot_be_made_may_have_been_brought(project: Path, way: str) -> None:
    reference = planned(project, "registry", []).references["grafana"]
    result = planned(project, way, [reference])
    assert result.references["grafana"] == reference
    assert "grafana" not in [image["name"] for image in result.missing] + result.left_out


def test_a_registry_gives_the_public_images_and_the_base_of_our_own(project: Path) -> None:
    result = planned(project, "registry", [])
    assert [(image["name"], image["kind"]) for image in result.missing] == [
        ("base", "registry"),
        ("db", "registry"),
        ("own", "build"),
        ("grafana", "registry"),
    ]
    assert result.missing[2]["options"]["args"]["BASE"] == "debian:trixie-slim"


def test_nothing_is_obtained_when_everything_is_there(project: Path) -> None:
    present = [image["reference"] for image in planned(project, "build", []).missing]
    assert planned(project, "build", present).missing == []
    # the base is needed for building only
    assert planned(project, "build", present[1:]).missing == []


def test_auto_asks_the_registry_on_a_new_host_only(project: Path) -> None:
    assert planned(project, "auto", []).decided is None
    assert planned(project, "auto", ["postgres:17.12"]).decided == "registry"
    assert planned(project, "auto", [built(project, "db")]).decided == "build"


def test_only_what_is_wanted_is_obtained(project: Path) -> None:
    assert list(planned(project, "build", [], ["db"]).references) == ["db"]
    with pytest.raises(ContextError, match="images_wanted: 'dbb' is not declared"):
        planned(project, "build", [], ["dbb"])


def test_an_archive_of_other_sources_is_refused(project: Path) -> None:
    own = built(project, "own")
    fitting = plan(DECLARED, project, "", "archive", ["own"], [], {"own": own})
    assert [image["reference"] for image in fitting.missing] == [own]
    with pytest.raises(ContextError, match="save the archive anew"):
        plan(DECLARED, project, "", "archive", ["own"], [], {"own": "own:0123456789ab"})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"context": "nowhere", "base": "base"}, "nowhere does not exist"),
        ({"context": "db", "base": "bse"}, "base 'bse' is not declared"),
        ({"context": "db", "base": "x"}, "form a loop"),
    ],
)
def test_a_wrong_declaration_is_explained(project: Path, entry: dict[str, str], message: str) -> None:
    with pytest.raises(ContextError, match=message):
        resolve({**DECLARED, "x": {"build": entry}}, project, False, "")
