"""A stack's folder holds what is declared, nothing of others is lost, and no secret is shown."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.stack_files import Change, File, plan
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.modules.conftest import RunModule

SECRET = "s3cr3t-value-that-nobody-may-see"


def arguments(root: Path, **more: Any) -> dict[str, Any]:
    me = os.getuid()
    return {
        "path": str(root),
        "files": {"compose.yml": "name: x\n", "conf/app.yml": "a: 1\n"},
        "secrets": {"password": SECRET},
        "secrets_owner": me,
        **more,
    }


def test_first_run_writes_second_run_changes_nothing(tmp_path: Path, run_module: RunModule) -> None:
    first = run_module("stack_files", arguments(tmp_path))
    assert first["changed"]
    assert first["written"] == ["compose.yml", "conf/app.yml", "secrets/password"]
    assert (tmp_path / "conf/app.yml").read_text() == "a: 1\n"
    assert not run_module("stack_files", arguments(tmp_path))["changed"]


def test_secrets_can_be_read_by_their_owner_alone(tmp_path: Path, run_module: RunModule) -> None:
    run_module("stack_files", arguments(tmp_path))
    assert stat.S_IMODE((tmp_path / "secrets/password").stat().st_mode) == 0o400
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700


def test_check_mode_writes_nothing_and_tells_what_it_would(tmp_path: Path, run_module: RunModule) -> None:
    result = run_module("stack_files", arguments(tmp_path / "new"), check=True)
    assert result["changed"]
    assert not (tmp_path / "new").exists()


def test_the_diff_shows_files_and_never_a_secret(tmp_path: Path, run_module: RunModule) -> None:
    result = run_module("stack_files", arguments(tmp_path), diff=True)
    assert any("a: 1" in part["after"] for part in result["diff"])
    run_module("stack_files", arguments(tmp_path))
    changed = run_module("stack_files", arguments(tmp_path, secrets={"password": "another-secret-value"}), diff=True)
    assert changed["written"] == ["secrets/password"]
    for printed in (result["_printed"], changed["_printed"]):
        assert SECRET not in printed
        assert "another-secret-value" not in printed


def test_what_is_no_longer_declared_goes_and_what_others_put_there_stays(tmp_path: Path, run_module: RunModule) -> None:
    run_module("stack_files", arguments(tmp_path))
    (tmp_path / "compose.override.yml").write_text("services: {}\n")
    result = run_module("stack_files", arguments(tmp_path, files={"compose.yml": "name: x\n"}))
    assert result["removed"] == ["conf/app.yml"]
    assert not (tmp_path / "conf/app.yml").exists()
    assert (tmp_path / "compose.override.yml").exists()


def test_a_wrong_mode_is_put_right(tmp_path: Path, run_module: RunModule) -> None:
    run_module("stack_files", arguments(tmp_path))
    (tmp_path / "secrets/password").chmod(0o644)
    assert run_module("stack_files", arguments(tmp_path))["written"] == ["secrets/password"]
    assert stat.S_IMODE((tmp_path / "secrets/password").stat().st_mode) == 0o400


def test_folders_are_made_for_their_owner_and_kept(tmp_path: Path, run_module: RunModule) -> None:
    given_folders = {"data/server": os.getuid()}
    assert run_module("stack_files", arguments(tmp_path, folders=given_folders))["changed"]
    (tmp_path / "data/server/log").write_text("kept")
    assert not run_module("stack_files", arguments(tmp_path, folders=given_folders))["changed"]
    run_module("stack_files", arguments(tmp_path))
    assert (tmp_path / "data/server/log").read_text() == "kept"


@pytest.mark.parametrize("path", ["/etc/passwd", "../other/compose.yml", "a//b", ""])
def test_a_path_outside_the_folder_is_refused(tmp_path: Path, run_module: RunModule, path: str) -> None:
    result = run_module("stack_files", arguments(tmp_path, files={path: "x"}))
    assert result["failed"]
    assert "inside the stack's folder" in result["msg"]
    assert list(tmp_path.iterdir()) == []


FILES = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.builds(File, st.text(max_size=3), st.sampled_from([0o644, 0o400]), st.just(0), st.just(0)),
)


def applied(files: dict[str, File], changes: list[Change]) -> dict[str, File]:
    result = dict(files)
    for change in changes:
        assert result.get(change.path) == change.before
        if change.after is None:
            del result[change.path]
        else:
            result[change.path] = change.after
    return result


@given(current=FILES, desired=FILES, ours=st.sets(st.sampled_from(["a", "b", "c", "d"])))
def test_carrying_out_the_plan_gives_what_is_declared(
    current: dict[str, File], desired: dict[str, File], ours: set[str]
) -> None:
    after = applied(current, plan(current, desired, ours))
    others = {path: file for path, file in current.items() if path not in ours | desired.keys()}
    assert after == {**others, **desired}
    assert plan(after, desired, ours) == []
