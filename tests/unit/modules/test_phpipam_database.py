"""What phpIPAM's database still needs, and that nothing shows a secret. tests/integration/phpipam runs the SQL."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from ansible.module_utils.phpipam_database import (
    LOADING,
    Change,
    DatabaseError,
    State,
    Wanted,
    ask_phpipam,
    ask_server,
    changing_script,
    literal,
    loading_script,
    login_hash,
    plan,
    quoted,
    read_phpipam,
    read_server,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.modules.conftest import RunModule

WANTED = Wanted("phpipam", "phpipam", "pass-of-the-user", "pass-of-admin", "cariflex", "the-code-of-the-app")
WHOLE = State(
    "whole",
    login_hash(WANTED.password),
    granted=True,
    api=True,
    admin=True,
    app={"app_permissions": "2", "app_security": "ssl_code", "app_code": "declared"},
)
SCHEMA = "CREATE TABLE `settings` (`dbversion` int);"


def whats(changes: list[Change]) -> list[str]:
    return [change.what for change in changes]


def test_an_empty_server_gets_everything_in_order() -> None:
    assert whats(plan(State("none"), WANTED)) == [
        "load the schema into phpipam",
        "make the user phpipam",
        "let phpipam use phpipam",
        "turn on the API",
        "set the password of Admin",
        "make the API app cariflex",
    ]


def test_what_is_as_declared_needs_nothing() -> None:
    assert plan(WHOLE, WANTED) == []


@pytest.mark.parametrize(
    ("difference", "what"),
    [
        ({"login": login_hash("another")}, "set the password of the user phpipam"),
        ({"granted": False}, "let phpipam use phpipam"),
        ({"api": False}, "turn on the API"),
        ({"admin": False}, "set the password of Admin"),
        ({"app": None}, "make the API app cariflex"),
        ({"app": {**(WHOLE.app or {}), "app_code": "another"}}, "correct the API app cariflex"),
        ({"app": {**(WHOLE.app or {}), "app_permissions": "1"}}, "correct the API app cariflex"),
    ],
)
def test_each_difference_is_put_right_alone(difference: dict[str, object], what: str) -> None:
    assert whats(plan(dataclasses.replace(WHOLE, **difference), WANTED)) == [what]


def test_an_administrator_who_was_removed_is_not_made_again() -> None:
    assert plan(dataclasses.replace(WHOLE, admin=None), WANTED) == []


def test_a_load_that_was_cut_short_is_made_again_with_all_that_was_in_it() -> None:
    changes = plan(dataclasses.replace(WHOLE, schema="cut"), WANTED)
    assert whats(changes) == [
        "load the schema into phpipam again: it was cut short",
        "turn on the API",
        "set the password of Admin",
        "make the API app cariflex",
    ]


def test_a_database_of_something_else_is_refused() -> None:
    with pytest.raises(DatabaseError, match="is not a whole phpIPAM"):
        plan(State("strange"), WANTED)


@pytest.mark.parametrize(
    ("told", "schema", "asks"),
    [
        ({"comment": None, "tables": 0, "known": 0}, "none", False),
        ({"comment": LOADING, "tables": 70, "known": 6}, "cut", False),
        ({"comment": "", "tables": 3, "known": 1}, "strange", False),
        ({"comment": "", "tables": 70, "known": 6}, "strange", True),
    ],
)
def test_the_servers_answer_is_read(told: dict[str, object], schema: str, asks: bool) -> None:
    state, asked = read_server(json.dumps({**told, "login": None, "granted": 0}))
    assert (state.schema, asked) == (schema, asks)


def test_phpipams_answer_is_read() -> None:
    told = {"version": 46, "api": 1, "admin": 1, "app": WHOLE.app}
    server = State("strange", WHOLE.login, granted=True)
    assert read_phpipam(server, json.dumps(told)) == WHOLE
    assert read_phpipam(server, json.dumps({**told, "version": 0})).schema == "strange"
    assert read_phpipam(server, json.dumps({**told, "admin": None})).admin is None


@given(st.text())
def test_no_value_gets_out_of_its_literal(text: str) -> None:
    found = re.fullmatch(r"_utf8mb4 X'([0-9a-f]*)'", literal(text))
    assert found
    assert bytes.fromhex(found[1]).decode() == text
    assert re.fullmatch(r"`(?:[^`]|``)*`", quoted(text), flags=re.DOTALL)


def test_no_secret_is_in_what_is_shown_or_logged() -> None:
    changes = plan(State("none"), WANTED)
    texts = [
        repr(WANTED),
        *map(repr, changes),
        changing_script(changes, WANTED),
        ask_server(WANTED),
        ask_phpipam(WANTED),
    ]
    for secret in (WANTED.password, WANTED.admin_password, WANTED.app_code):
        assert not any(secret in text for text in texts)


def test_the_hash_is_the_one_that_mariadb_makes() -> None:
    assert login_hash("password") == "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"


def test_a_load_is_marked_from_its_first_statement_to_its_last() -> None:
    script = loading_script(SCHEMA, WANTED).splitlines()
    assert LOADING in script[1]
    assert script[-1] == "ALTER DATABASE `phpipam` COMMENT '';"
    with pytest.raises(DatabaseError, match="no schema of phpIPAM"):
        loading_script("CREATE TABLE x (y int);", WANTED)


# What docker is asked for: it keeps what comes in by standard input, and answers from files.
DOCKER = """#!/bin/sh
count=$(($(cat {folder}/count) + 1)); echo "$count" >{folder}/count
echo "$*" >>{folder}/arguments
case "$1" in exec) cat >"{folder}/stdin-$count" ;; esac
cat "{folder}/answer-$count" 2>/dev/null
exit "$(cat "{folder}/status-$count" 2>/dev/null || echo 0)"
"""
OPTIONS = {
    "container": "phpipam-db",
    "schema_image": "phpipam/phpipam-www:v1",
    "password": WANTED.password,
    "admin_password": WANTED.admin_password,
    "app_code": WANTED.app_code,
}
EMPTY = json.dumps({"comment": None, "tables": 0, "known": 0, "login": None, "granted": 0})


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a docker that only pretends."""
    program = tmp_path / "docker"
    program.write_text(DOCKER.format(folder=tmp_path))
    program.chmod(0o755)
    (tmp_path / "count").write_text("0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_the_module_loads_the_schema_and_writes_by_standard_input(docker: Path, run_module: RunModule) -> None:
    (docker / "answer-1").write_text(EMPTY)
    (docker / "answer-2").write_text(SCHEMA)
    result = run_module("phpipam_database", OPTIONS, diff=True)
    assert not result["failed"], result
    assert result["changed"]
    assert len(result["changes"]) == 6
    assert SCHEMA in (docker / "stdin-3").read_text()
    assert "INSERT INTO api" in (docker / "stdin-4").read_text()
    arguments = (docker / "arguments").read_text()
    assert arguments.splitlines()[1].endswith("--entrypoint cat phpipam/phpipam-www:v1 /phpipam/db/SCHEMA.sql")
    for secret in (WANTED.password, WANTED.admin_password, WANTED.app_code):
        assert secret not in arguments
        assert secret not in result["_printed"].replace(json.dumps(OPTIONS), "")


def test_the_module_only_asks_in_check_mode(docker: Path, run_module: RunModule) -> None:
    (docker / "answer-1").write_text(EMPTY)
    assert run_module("phpipam_database", OPTIONS, check=True)["changed"]
    assert (docker / "count").read_text().strip() == "1"


def test_the_module_says_what_docker_says_and_hides_what_mariadb_quotes(docker: Path, run_module: RunModule) -> None:
    (docker / "answer-1").write_text(f"near X'{WANTED.app_code.encode().hex()}'")
    (docker / "status-1").write_text("1")
    result = run_module("phpipam_database", OPTIONS)
    assert result["failed"]
    assert result["msg"].startswith("asking the database: near X'")
    assert WANTED.app_code.encode().hex() not in result["msg"]


def test_the_module_refuses_a_long_code_and_a_strange_database(docker: Path, run_module: RunModule) -> None:
    assert "32 characters" in run_module("phpipam_database", {**OPTIONS, "app_code": "x" * 33})["msg"]
    (docker / "answer-1").write_text(json.dumps({**json.loads(EMPTY), "tables": 1, "comment": ""}))
    assert "nothing in it was touched" in run_module("phpipam_database", OPTIONS)["msg"]
