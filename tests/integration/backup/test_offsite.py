"""Copies elsewhere, with restic itself: kept, found again, removed by the same rules, refused when damaged."""

import json
import shutil
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.backup.conftest import Program

pytestmark = pytest.mark.skipif(not shutil.which("restic"), reason="restic is not installed here")


@pytest.fixture
def elsewhere(program: Program, tmp_path: Path) -> Program:
    """The program with an off-site repository that does not exist yet."""
    (tmp_path / "password").write_text("a-password-of-restic\n")
    (tmp_path / "environment").write_text("SOME_KEY=for-the-target\n")
    return program.with_(
        offsite={
            "repository": str(tmp_path / "elsewhere"),
            "password_file": str(tmp_path / "password"),
            "environment_file": str(tmp_path / "environment"),
            "prune": True,
        }
    )


def runs(superuser: psycopg.Connection[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return superuser.execute(
        "SELECT status, coalesce(error, '') FROM ems.backup_run WHERE kind = 'offsite' ORDER BY started_at"
    ).fetchall()


def test_a_backup_is_kept_elsewhere_and_comes_back_as_an_archive(
    elsewhere: Program, superuser: psycopg.Connection[tuple[Any, ...]], tmp_path: Path
) -> None:
    made = elsewhere.run("run")
    assert made.status == 0, made.error
    assert runs(superuser) == [("ok", "")]
    stamp = Path(made.told["archive"]).name.partition(".")[0]
    (copy,) = elsewhere.run("offsite-list").told
    assert copy["stamp"] == stamp
    assert elsewhere.run("offsite-check").told == {"copies": "good"}

    for path in elsewhere.root.glob("2*"):
        path.unlink()  # the host's own archives are lost
    fetched = elsewhere.run("offsite-fetch")
    assert fetched.status == 0, fetched.error
    assert Path(fetched.told["archive"]).name.startswith(stamp)
    options = ("--identity-on-stdin",) if elsewhere.identity else ()
    verified = elsewhere.run("verify", *options, stdin=elsewhere.identity)
    assert verified.told["contents"] == "good"
    assert elsewhere.run("offsite-fetch", "20200101_000000").error.startswith(
        "cariflex-backup: There is no copy 20200101_000000"
    )
    # nothing of it can be read there
    kept = b"".join(path.read_bytes() for path in (tmp_path / "elsewhere").rglob("*") if path.is_file())
    assert b"of the host" not in kept
    assert b"manifest" not in kept


def test_a_day_costs_what_has_changed(elsewhere: Program, tmp_path: Path) -> None:
    def size() -> int:
        return sum(path.stat().st_size for path in (tmp_path / "elsewhere").rglob("*") if path.is_file())

    assert elsewhere.run("run").status == 0
    first = size()
    assert elsewhere.run("run").status == 0
    assert size() - first < first / 2


def test_a_wrong_password_and_a_target_that_is_gone_are_told_and_cost_no_archive(
    elsewhere: Program, superuser: psycopg.Connection[tuple[Any, ...]], tmp_path: Path
) -> None:
    assert elsewhere.run("run").status == 0
    (tmp_path / "password").write_text("another\n")
    failed = elsewhere.run("run")
    assert failed.status == 1
    assert "was made" in failed.error
    assert "wrong password" in failed.error
    assert "another" not in failed.error
    assert runs(superuser)[-1][0] == "failed"
    assert len([name for name in elsewhere.archives() if not name.endswith(".sha256")]) == 2
    gone = {**elsewhere.settings["offsite"], "repository": "rest:http://user:hidden@127.0.0.1:9/cariflex"}
    refused = elsewhere.with_(offsite=gone).run("offsite-list")
    assert refused.status == 1
    assert "rest:http://…@127.0.0.1:9/cariflex" in refused.error
    assert "hidden" not in refused.error


def test_a_copy_that_the_target_has_lost_is_found(
    elsewhere: Program, superuser: psycopg.Connection[tuple[Any, ...]], tmp_path: Path
) -> None:
    assert elsewhere.run("run").status == 0
    for path in (tmp_path / "elsewhere/data").rglob("*"):
        if path.is_file():
            path.unlink()
    assert elsewhere.run("offsite-check").status == 1
    assert runs(superuser)[-1][0] == "failed"


def test_where_nothing_is_kept_elsewhere_the_verbs_say_what_to_set(program: Program) -> None:
    assert "set backup_offsite_repository" in program.run("offsite-list").error
    assert json.loads(program.path.read_text()).get("offsite") is None


def test_old_copies_are_removed_by_the_rules_of_archives(elsewhere: Program) -> None:
    kept = elsewhere.with_(days=1, weeks=1, months=1)
    for _ in range(2):
        assert kept.run("run").status == 0
    assert len(kept.run("offsite-list").told) == 1
    append_only = {**elsewhere.settings["offsite"], "prune": False}
    assert kept.with_(offsite=append_only).run("run").status == 0
    assert len(kept.run("offsite-list").told) == 2
