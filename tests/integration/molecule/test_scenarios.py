"""Every molecule scenario but the longest: syntax, check mode on a bare host, converge, idempotence and verify."""

import contextlib
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.host import alone
from tests.support.services import say

pytestmark = pytest.mark.docker
ROOT = Path(__file__).parents[3]
# two deployments one after the other, a quarter of an hour: by hand, before a release (docs/tasks/test.md)
BY_HAND = {"backup"}
SCENARIOS = sorted({path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")} - BY_HAND)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario: str) -> None:
    command = [str(ROOT / ".venv/bin/molecule"), "test", "--scenario-name", scenario]
    # molecule looks for Ansible's commands on the path
    path = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "200"}
    # this one shares a volume with the test host of other tests
    with alone(say) if scenario == "production" else contextlib.nullcontext():
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    for line in re.findall(r"^.*?proof: (.*)$", done.stdout, re.MULTILINE):
        say(f"{scenario}: {line}")
