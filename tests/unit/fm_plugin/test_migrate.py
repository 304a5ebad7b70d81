"""The start-up gate: which revisions are the newest, when a database is ready, and what happens around it."""

import os
import time
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from cariflex.fm_plugin import configuration, migrate


def revisions(folder: Path, **down: object) -> Path:
    for revision, before in down.items():
        (folder / f"{revision}_x.py").write_text(
            f"import something_that_does_not_exist\nrevision = {revision!r}\ndown_revision = {before!r}\n"
        )
    return folder


def test_the_newest_revisions_are_those_nothing_builds_on(tmp_path: Path) -> None:
    assert migrate.installed_revisions(revisions(tmp_path, a=None, b="a", c="b")).heads == {"c"}
    assert migrate.installed_revisions(revisions(tmp_path, d="b")).heads == {"c", "d"}
    assert migrate.installed_revisions(revisions(tmp_path, e=("c", "d"))).heads == {"e"}
    assert migrate.installed_revisions(tmp_path).known == set("abcde")


def test_annotated_revisions_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("revision: str = 'a'\ndown_revision: str | None = None\nbranch_labels: str\n")
    assert migrate.installed_revisions(tmp_path).heads == {"a"}


INSTALLED = migrate.Revisions(frozenset({"old", "new"}), frozenset({"new"}))


class Database:
    """As much of a psycopg2 connection as the gate uses."""

    def __init__(self, *, tables: bool, versions: tuple[str, ...] = (), rows: bool = False) -> None:
        self.answers: Any = iter([[("alembic_version" if tables else None,)], [(v,) for v in versions], [(rows,)]])
        self.autocommit = False
        self.statements: list[str] = []

    def cursor(self) -> "Database":
        return self

    def __enter__(self) -> "Database":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def close(self) -> None:
        self.statements.append("close")

    def execute(self, statement: str, _: object = ()) -> None:
        self.statements.append(statement)
        self.rows = [] if "advisory" in statement else next(self.answers)

    def fetchone(self) -> Any:
        return self.rows[0]

    def fetchall(self) -> Any:
        return self.rows


@pytest.mark.parametrize(
    ("database", "ready"),
    [
        (Database(tables=False), False),
        (Database(tables=True, versions=("old",)), False),
        (Database(tables=True, versions=("new",), rows=False), False),
        (Database(tables=True, versions=("new",), rows=True), True),
    ],
)
def test_a_database_is_ready_with_the_newest_schema_and_the_first_rows(database: Database, ready: bool) -> None:
    assert migrate.is_ready(database, INSTALLED) is ready


def test_a_database_of_a_newer_flexmeasures_is_left_alone() -> None:
    with pytest.raises(SystemExit, match=r"newer FlexMeasures \(revision newest\)"):
        migrate.is_ready(Database(tables=True, versions=("newest",)), INSTALLED)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The gate with a database and an upgrade of its own; what happened is kept here."""
    happened: dict[str, Any] = {"upgrades": 0, "waited": 0.0, "now": 0.0, "ours": True}

    def upgrade() -> None:
        happened["upgrades"] += 1

    def sleep(seconds: float) -> None:
        happened["now"] += seconds

    monkeypatch.setattr(migrate, "installed_revisions", lambda: INSTALLED)
    monkeypatch.setattr(migrate, "_upgrade", upgrade)
    monkeypatch.setattr(migrate, "is_ours_ready", lambda _: happened["ours"])
    monkeypatch.setattr(migrate, "_upgrade_ours", lambda _: happened.update(ours=True))
    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: happened["now"])
    monkeypatch.setattr(migrate, "is_ready", lambda *_: next(happened["ready"]))
    monkeypatch.setattr(psycopg2, "connect", lambda *_, **__: happened["connect"]())
    happened["connect"] = lambda: happened.setdefault("database", Database(tables=True))
    return happened


def test_a_ready_database_is_left_alone(gate: dict[str, Any]) -> None:
    gate["ready"] = iter([True])
    migrate.ensure("dsn", 10, wait=False)
    assert gate["upgrades"] == 0
    assert not any("lock" in statement for statement in gate["database"].statements)


def test_an_old_database_is_upgraded_once_under_the_lock(gate: dict[str, Any]) -> None:
    gate["ready"] = iter([False, False, True])
    migrate.ensure("dsn", 10, wait=False)
    assert gate["upgrades"] == 1
    assert [s for s in gate["database"].statements if "lock" in s or s == "close"] == [
        "SELECT pg_advisory_lock(%s)",
        "close",
    ]


def test_what_another_container_did_meanwhile_is_not_done_again(gate: dict[str, Any]) -> None:
    gate["ready"] = iter([False, True])
    migrate.ensure("dsn", 10, wait=False)
    assert gate["upgrades"] == 0


def test_an_upgrade_that_did_not_help_is_an_error(gate: dict[str, Any]) -> None:
    gate["ready"] = iter([False, False, False])
    with pytest.raises(SystemExit, match="not as FlexMeasures wants it"):
        migrate.ensure("dsn", 10, wait=False)


def test_our_own_schema_is_made_also_where_flexmeasures_is_ready(gate: dict[str, Any]) -> None:
    gate["ready"], gate["ours"] = iter([True, True]), False
    migrate.ensure("dsn", 10, wait=False)
    assert (gate["upgrades"], gate["ours"]) == (0, True)


def test_the_worker_waits_and_upgrades_nothing(gate: dict[str, Any]) -> None:
    gate["ready"] = iter([False, False, False, True])
    migrate.ensure("dsn", 10, wait=True)
    assert gate["upgrades"] == 0
    assert gate["now"] > 0


def test_the_worker_does_not_wait_for_ever(gate: dict[str, Any]) -> None:
    gate["ready"] = iter([False] * 100)
    with pytest.raises(SystemExit, match="not migrated in time"):
        migrate.ensure("dsn", 10, wait=True)
    assert gate["now"] < 15


def test_an_absent_database_is_waited_for_with_its_reason(
    gate: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    tries = iter([psycopg2.OperationalError("could not translate host name")] * 3)

    def connect() -> Database:
        for error in tries:
            raise error
        return Database(tables=True)

    gate["connect"] = connect
    gate["ready"] = iter([True])
    migrate.ensure("dsn", 10, wait=False)
    assert capsys.readouterr().out.count("could not translate host name") == 1, "said once, not at every try"


def test_an_absent_database_is_not_waited_for_for_ever(gate: dict[str, Any]) -> None:
    def connect() -> Database:
        raise psycopg2.OperationalError("connection refused\nIs the server running?")

    gate["connect"] = connect
    with pytest.raises(SystemExit, match=r"in time: connection refused$"):
        migrate.ensure("dsn", 10, wait=False)
    assert gate["now"] < 15


def test_afterwards_it_becomes_the_command(gate: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[object] = []
    monkeypatch.setattr(os, "execvp", lambda *arguments: became.append(arguments))
    monkeypatch.setattr(configuration, "load", lambda: {"SQLALCHEMY_DATABASE_URI": "postgresql://db"})
    gate["ready"] = iter([True, True])
    migrate.main(["--", "gunicorn", "--bind", "0.0.0.0:5000"])
    migrate.main([])
    assert became == [("gunicorn", ["gunicorn", "--bind", "0.0.0.0:5000"])]


def test_a_database_that_goes_away_is_told_in_one_line(gate: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> bool:
        raise psycopg2.OperationalError("server closed the connection unexpectedly\nThis probably means")

    monkeypatch.setattr(migrate, "is_ready", gone)
    monkeypatch.setattr(configuration, "load", lambda: {"SQLALCHEMY_DATABASE_URI": "postgresql://db"})
    with pytest.raises(SystemExit, match=r"went away: server closed the connection unexpectedly$"):
        migrate.main(["--wait"])


def test_settings_are_those_of_flexmeasures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SQLALCHEMY_DATABASE_URI", "postgresql://from-environment")
    assert configuration.load()["SQLALCHEMY_DATABASE_URI"] == "postgresql://from-environment"
    (tmp_path / ".flexmeasures.cfg").write_text("SQLALCHEMY_DATABASE_URI = 'postgresql+psycopg2://' + 'from-file'\n")
    config = configuration.load()
    assert configuration.database_dsn(config) == "postgresql://from-file"
    assert config["FLEXMEASURES_REDIS_PORT"] == 6379, "FlexMeasures' default"


def test_missing_settings_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SQLALCHEMY_DATABASE_URI", raising=False)
    with pytest.raises(SystemExit, match="SQLALCHEMY_DATABASE_URI is set neither in"):
        configuration.load()
