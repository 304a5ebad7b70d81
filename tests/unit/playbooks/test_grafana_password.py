"""What the role grafana does when the administrator has another password than the vault says.

Grafana itself cannot be had where these tests run: who answers at its port and what `docker` is told are stand-ins.
"""

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ADDRESS = "127.77.0.3"  # of this machine, as all of 127.0.0.0/8
PASSWORD = "a-password-of-this-test"
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: grafana, tasks_from: password}
"""
# What the command `docker` of this test does: say where Grafana is, and write down what else it was told.
DOCKER = """#!/bin/sh
if [ "$2" = inspect ]; then echo '%s '; else printf '%%s\\n' "$@" >>%s; fi
"""


@dataclass
class Grafana:
    """Whoever answers in its place."""

    password: str
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def grafana() -> Iterator[Grafana]:
    state = Grafana(PASSWORD)

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            expected = base64.b64encode(f"admin:{state.password}".encode()).decode()
            self.send_response(200 if self.headers["Authorization"] == f"Basic {expected}" else 401)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer((ADDRESS, 3000), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield state
    server.shutdown()
    server.server_close()


def told(folder: Path, *options: str) -> tuple[str, str]:
    """What docker is told by the role, and what Ansible prints."""
    (folder / "bin").mkdir()
    (folder / "bin/docker").write_text(DOCKER % (ADDRESS, folder / "told"))
    (folder / "bin/docker").chmod(0o755)
    (folder / "play.yml").write_text(PLAY)
    given = f"{{grafana_secrets: {{grafana_admin_password: {PASSWORD}}}, stack_written: {{changed: false}}}}"
    (folder / "given.yml").write_text(given)
    done = subprocess.run(
        [str(ROOT / ".venv/bin/ansible-playbook"), str(folder / "play.yml"), "-e", f"@{folder}/given.yml", *options],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{folder}/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return (folder / "told").read_text() if (folder / "told").exists() else "", done.stdout


def test_a_password_that_works_is_left(grafana: Grafana, tmp_path: Path) -> None:
    commands, printed = told(tmp_path)
    assert grafana.asked == ["/api/user"]
    assert commands == ""
    assert "changed=0" in printed


def test_another_one_is_set_by_grafanas_own_command_and_shown_to_nobody(grafana: Grafana, tmp_path: Path) -> None:
    grafana.password = "the one before"
    commands, printed = told(tmp_path)
    assert commands.splitlines()[:2] == ["exec", "smart-city-grafana"]
    assert (
        "grafana cli admin reset-admin-password --password-from-stdin </run/secrets/grafana_admin_password" in commands
    )
    assert "changed=1" in printed
    assert PASSWORD not in commands + printed


def test_a_preview_sets_nothing(grafana: Grafana, tmp_path: Path) -> None:
    grafana.password = "the one before"
    commands, _ = told(tmp_path, "--check")
    assert commands == ""
