"""/health answers in bounded time, whatever hangs, and says what is wrong, but to strangers nothing of the inside."""

import threading
import time
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from cariflex.fm_plugin import blueprint, health, probes


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The probes that /health runs; a test puts its own in their place."""
    replaced: dict[str, Any] = {"database": lambda _: {}, "redis": lambda _: {"version": "7"}}
    monkeypatch.setattr(probes, "PROBES", replaced)
    monkeypatch.setattr(probes._Run, "_stuck", {})
    monkeypatch.setattr(health, "DEADLINE_SECONDS", 0.2)
    return replaced


@pytest.fixture
def client() -> FlaskClient:
    app = Flask(__name__)
    app.register_blueprint(blueprint)
    return app.test_client()


def test_all_well(client: FlaskClient, checks: dict[str, Any]) -> None:
    answer = client.get("/health")
    assert answer.status_code == 200
    assert answer.json["status"] == "ok"
    assert answer.json["checks"]["redis"]["version"] == "7"
    assert answer.headers["Cache-Control"] == "no-store"


def test_one_failing_check_makes_it_503_with_the_reason(client: FlaskClient, checks: dict[str, Any]) -> None:
    def failing(config: object) -> dict[str, Any]:
        raise probes.ProbeError("no live worker", live={"forecasting": 0})

    checks["workers"] = failing
    answer = client.get("/health")
    assert answer.status_code == 503
    assert answer.json["checks"]["workers"] == {
        "ok": False,
        "problem": "no live worker",
        "live": {"forecasting": 0},
        "seconds": answer.json["checks"]["workers"]["seconds"],
    }
    assert answer.json["checks"]["database"]["ok"] is True


def test_a_clients_error_is_told_to_the_log_in_one_line_and_not_to_strangers(
    client: FlaskClient, checks: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(config: object) -> dict[str, Any]:
        raise OSError('connection to server at "flexmeasures-db" (192.168.241.3) failed\nIs the server running?')

    checks["database"] = broken
    answer = client.get("/health")
    assert answer.json["checks"]["database"]["problem"] == "cannot be used: the server's log says why"
    assert "flexmeasures-db" not in answer.text
    assert caplog.messages == ['/health: database: connection to server at "flexmeasures-db" (192.168.241.3) failed']


def test_only_what_is_asked_for_is_looked_at(client: FlaskClient, checks: dict[str, Any]) -> None:
    checks["redis"] = lambda _: 1 / 0
    answer = client.get("/health?checks=database")
    assert answer.status_code == 200
    assert list(answer.json["checks"]) == ["database"]


def test_an_unknown_check_is_refused_with_the_known_ones(client: FlaskClient, checks: dict[str, Any]) -> None:
    answer = client.get("/health?checks=database,rediss")
    assert answer.status_code == 400
    assert "'rediss'" in answer.json["message"]
    assert "database, redis" in answer.json["message"]


def test_a_check_that_hangs_is_given_up_and_not_started_again(client: FlaskClient, checks: dict[str, Any]) -> None:
    release = threading.Event()
    started: list[int] = []

    def hanging(config: object) -> dict[str, Any]:
        started.append(1)
        release.wait(10)
        return {}

    checks["redis"] = hanging
    for _ in range(3):
        began = time.monotonic()
        answer = client.get("/health")
        assert time.monotonic() - began < 1
        assert answer.status_code == 503
        assert "no answer within" in answer.json["checks"]["redis"]["problem"]
    assert len(started) == 1
    release.set()
    deadline = time.monotonic() + 5
    while client.get("/health").status_code != 200 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert client.get("/health").status_code == 200
