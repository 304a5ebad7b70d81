"""The program that samples health: on real containers and a real database, and what it makes of Docker's answers."""

import json
import runpy
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[3] / "roles/health/files/sample.py"
SAMPLE = runpy.run_path(str(PROGRAM))
NOW = datetime(2026, 5, 4, tzinfo=UTC)

pytestmark = pytest.mark.docker


def sampled(server: Any, folder: Path, **different: Any) -> "subprocess.CompletedProcess[str]":
    """Run the program as the timer does."""
    settings = {
        "containers": [server.container, "nobody"],
        "database_container": server.container,
        "database": "flexmeasures",
        "redis": "nobody",
        "queues": ["nobodys"],
        "proxy_metrics_port": 8083,
        "paths": ["/", "/not/there"],
        "kept_days": 30,
        **different,
    }
    path = folder / "settings.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-I", PROGRAM, path], capture_output=True, text=True, timeout=60, check=False
    )


def test_samples_reach_the_database_and_old_ones_are_forgotten(server: Any, tmp_path: Path) -> None:
    with server.connect("postgres") as connection:
        connection.autocommit = True
        connection.execute(
            "INSERT INTO ems.health_sample (time, kind, name, status)"
            " VALUES (now() - interval '31 days', 'host', 'x', 'ok')"
        )
        try:
            done = sampled(server, tmp_path)
            assert (done.returncode, done.stderr) == (0, "")
            rows = connection.execute(
                "SELECT name, status, cpu >= 0, memory_bytes > 1000000, restarts, disk_used_fraction > 0, detail <> ''"
                " FROM ems.health_sample WHERE time > now() - interval '1 minute' AND name IN (%s, %s, %s, %s)"
                " AND (kind, name) <> ('queue', 'scheduling')",
                (server.container, "nobody", "nobodys", "host"),
            ).fetchall()
            assert (server.container, "ok", True, True, 0, None, None) in rows
            assert ("nobody", "missing", None, None, None, None, None) in rows
            assert ("nobodys", "unknown", None, None, None, None, True) in rows
            assert ("host", "ok", True, True, None, True, None) in rows
            assert connection.execute("SELECT count(*) FROM ems.health_sample WHERE name = 'x'").fetchone() == (0,)
        finally:
            connection.execute(
                "DELETE FROM ems.health_sample WHERE name IN (%s, 'nobody', 'nobodys', 'x')", (server.container,)
            )


def test_a_database_that_is_away_is_said(server: Any, tmp_path: Path) -> None:
    done = sampled(server, tmp_path, database_container="nobody")
    assert done.returncode == 1
    assert "not stored" in done.stderr


def inspected(health: str, output: str, status: str = "running") -> dict[str, Any]:
    return {
        "State": {"Status": status, "Health": {"Status": health, "Log": [{"Output": output}]}},
        "RestartCount": 2,
        "HostConfig": {"Memory": 1024},
    }


SAID = {"status": "ok", "reasons": [], "outbox": {"waiting": 3, "oldest_seconds": 7.5, "aside": 1}}


def test_the_ven_says_how_old_its_outbox_is() -> None:
    cem = json.dumps({"status": "ok", "reasons": []})
    sample = SAMPLE["container"]("openadr-ven", inspected("healthy", json.dumps(SAID) + "\n" + cem), None)
    assert (sample["status"], sample["outbox_age_seconds"], sample["waiting"], sample["failed"]) == ("ok", 7.5, 3, 1)


@pytest.mark.parametrize("output", ["", "x" * 5000, json.dumps(SAID)[:50], "[1]", "7"])
def test_whatever_a_health_check_prints_makes_a_sample(output: str) -> None:
    sample = SAMPLE["container"]("openadr-ven", inspected("unhealthy", output), None)
    assert sample["status"] == "unhealthy"
    assert len(sample["detail"] or "") <= 500


def test_a_container_that_ended_is_not_well() -> None:
    assert SAMPLE["container"]("x", inspected("healthy", "", "exited"), None)["status"] == "exited"


def test_certificates_are_told_by_services_and_by_the_proxy() -> None:
    output = json.dumps({"status": "ok", "certificate": {"expires": "2026-05-14T00:00:00+00:00"}})
    (own,) = SAMPLE["own_certificates"]({"openadr-vtn": inspected("healthy", output)}, NOW)
    assert (own["name"], own["status"], own["certificate_days"]) == ("openadr-vtn", "ok", 10)
    metrics = (
        f'traefik_tls_certs_not_after{{cn="a",sans="a.example,b.example",serial="1"}} {NOW.timestamp() + 86400}\n'
        f'traefik_tls_certs_not_after{{cn="a",sans="a.example",serial="2"}} {NOW.timestamp() - 86400}\n'
        f'traefik_tls_certs_not_after{{cn="c",sans="c.example",serial="3"}} {NOW.timestamp() - 86400:e}\n'
    )
    served = {
        one["name"]: (one["status"], round(one["certificate_days"]))
        for one in SAMPLE["served_certificates"](metrics, NOW)
    }
    assert served == {"a.example": ("ok", 1), "b.example": ("ok", 1), "c.example": ("expired", -1)}


@pytest.mark.parametrize(
    ("text", "size"), [("12.5MiB", 13107200), ("1GiB ", 2**30), ("0B", 0), ("3kB", 3000), ("--", None)]
)
def test_sizes_are_read_as_docker_writes_them(text: str, size: int | None) -> None:
    assert SAMPLE["size"](text) == size
