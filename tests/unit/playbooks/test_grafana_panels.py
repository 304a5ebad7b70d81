"""What the self-check says of Grafana's panels.

Grafana itself cannot be had where these tests run: who answers at its port, and where `docker` says it is, are
stand-ins. Their answers have the form of Grafana's documentation of /api/ds/query.
"""

import base64
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
ADDRESS = "127.77.0.4"  # of this machine, as all of 127.0.0.0/8
PASSWORD = "a-password-of-this-test"
DASHBOARD = ROOT / "files/grafana/dashboards/cariflex.json"
PANELS = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: self_check, tasks_from: grafana}
"""
REFUSED = "permission denied for table sensor"
ROWS = {"status": 200, "frames": [{"schema": {}, "data": {"values": [[1, 2], [3, 4]]}}]}
NO_ROWS = {"status": 200, "frames": [{"schema": {}, "data": {"values": []}}]}
Answer = tuple[int, Any]


def every(result: Any = ROWS, **others: Any) -> dict[str, Any]:
    """An answer to all panels; `others` by id of a panel, after an underscore."""
    results = {str(panel["id"]): result for panel in PANELS}
    return {"results": results | {name.removeprefix("_"): other for name, other in others.items()}}


@dataclass
class Grafana:
    """Whoever answers in its place."""

    answer: Answer = (200, every())
    asked: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def grafana() -> Iterator[Grafana]:
    state = Grafana()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.say(200, {"database": "ok"}) if self.path == "/api/health" else self.say(404, {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            expected = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
            if self.path != "/api/ds/query" or self.headers["Authorization"] != f"Basic {expected}":
                self.say(401, {"message": "Invalid username or password"})
                return
            state.asked.append(body)
            self.say(*state.answer)

        def say(self, status: int, body: Any) -> None:
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer((ADDRESS, 3000), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield state
    server.shutdown()
    server.server_close()


def checked(folder: Path, password: str = PASSWORD) -> tuple[int, str]:
    """Whether the check succeeds, and what it prints on one line."""
    (folder / "bin").mkdir()
    (folder / "bin/docker").write_text(f"#!/bin/sh\necho '{ADDRESS} '\n")
    (folder / "bin/docker").chmod(0o755)
    (folder / "play.yml").write_text(PLAY)
    given = {"self_check_dashboard": str(DASHBOARD), "self_check_grafana_password": password}
    (folder / "given.json").write_text(json.dumps(given))
    done = subprocess.run(
        [str(ROOT / ".venv/bin/ansible-playbook"), str(folder / "play.yml"), "-e", f"@{folder}/given.json"],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{folder}/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert PASSWORD not in done.stdout
    return done.returncode, " ".join(done.stdout.split())


def test_every_panel_is_asked_as_the_browser_asks(grafana: Grafana, tmp_path: Path) -> None:
    status, printed = checked(tmp_path)
    assert status == 0, printed
    assert "Every panel has something to show." in printed
    (asked,) = grafana.asked
    assert [query["rawSql"] for query in asked["queries"]] == [panel["targets"][0]["rawSql"] for panel in PANELS]
    assert {query["datasource"]["uid"] for query in asked["queries"]} == {"cariflex-postgresql"}
    assert min(query["intervalMs"] for query in asked["queries"]) > 0
    assert (asked["from"], asked["to"]) == ("now-24h", "now+24h")


def test_panels_without_rows_are_named_and_no_failure(grafana: Grafana, tmp_path: Path) -> None:
    grafana.answer = (200, every(_12=NO_ROWS))
    status, printed = checked(tmp_path)
    assert status == 0, printed
    assert "Nothing to show yet: Job queue and tasks" in printed


def test_a_panel_that_fails_fails_the_check_and_says_why(grafana: Grafana, tmp_path: Path) -> None:
    grafana.answer = (207, every(_11={"error": REFUSED, "status": 400, "frames": []}))
    ended, printed = checked(tmp_path)
    assert ended != 0
    assert f"S2 instruction log: {REFUSED}" in printed
    assert "PV production:" not in printed


def test_another_password_is_said(grafana: Grafana, tmp_path: Path) -> None:
    ended, printed = checked(tmp_path, "another")
    assert ended != 0
    assert "Grafana answered 401: Invalid username or password" in printed
    assert grafana.asked == []
