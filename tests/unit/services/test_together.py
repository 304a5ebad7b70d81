"""Processes of one container end together, and the status says why."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PYTHON = sys.executable
SOURCE = Path(__file__).parents[3] / "files/services/src"


def started(*commands: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [PYTHON, "-c", "from cariflex.together import cli; cli()", *commands],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
    )


def sleeper(mark: Path) -> str:
    """A command that notes its process id and waits."""
    return (
        f"{PYTHON} -c \"import os, pathlib, time; pathlib.Path('{mark}').write_text(str(os.getpid())); time.sleep(60)\""
    )


def pid_in(mark: Path) -> int:
    for _ in range(500):
        if mark.is_file() and mark.read_text():
            return int(mark.read_text())
        time.sleep(0.02)
    raise AssertionError(f"{mark} was not written")


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_the_end_of_one_ends_all_and_gives_its_status(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    wait_then_fail = (
        f"{PYTHON} -c \"import pathlib, time\nwhile not pathlib.Path('{mark}').exists(): time.sleep(.02)\nexit(78)\""
    )
    together = started(sleeper(mark), wait_then_fail)
    assert together.wait(timeout=20) == 78
    assert is_gone(pid_in(mark))


def test_a_service_that_just_ends_is_a_failure() -> None:
    assert started(f"{PYTHON} -c pass").wait(timeout=20) == 1


def test_sigterm_stops_all_and_is_no_failure(tmp_path: Path) -> None:
    marks = [tmp_path / "one", tmp_path / "two"]
    together = started(*(sleeper(mark) for mark in marks))
    pids = [pid_in(mark) for mark in marks]
    together.send_signal(signal.SIGTERM)
    assert together.wait(timeout=20) == 0
    assert all(is_gone(pid) for pid in pids)
