"""Tests of our services in the one test run, although they need other packages than Ansible does.

They run in a Python environment of their own (tests/services.requirements.txt), made on first use. Each of them is a
test of this run, with its own result: a second pytest runs them there and hands over its reports.
"""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

ROOT = Path(__file__).parents[2]
SUITES = [
    ROOT / "tests" / folder
    for folder in ("unit/services", "unit/fm_plugin", "contract/openadr", "integration/services")
]
REQUIREMENTS = ROOT / "tests/services.requirements.txt"
ENVIRONMENT = ROOT / ".cache/services-venv"
RELAY = "tests.support.relay"


def is_ours(path: Path) -> bool:
    """Whether a test file belongs to the services."""
    return any(path.is_relative_to(suite) for suite in SUITES)


def python() -> Path:
    """The interpreter of the services' environment, which is made or brought up to date when it has to be."""
    folder = ROOT / "files/services"
    sources = (REQUIREMENTS, *sorted(folder.glob("*constraints.txt")), folder / "pyproject.toml")
    made_from = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    stamp, interpreter = ENVIRONMENT / "made-from", ENVIRONMENT / "bin/python"
    ENVIRONMENT.parent.mkdir(exist_ok=True)
    with (ENVIRONMENT.parent / "services-venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of the same test run makes it too
        if stamp.is_file() and stamp.read_text() == made_from:
            return interpreter
        say(f"Making {ENVIRONMENT.relative_to(ROOT)} (half a minute)")
        subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
        pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--requirement", str(REQUIREMENTS)], check=True)
        stamp.write_text(made_from)
    return interpreter


def say(text: str) -> None:
    """A line for whoever waits, past pytest's capturing."""
    print(f"\n{text}", file=sys.__stderr__, flush=True)


class Child:
    """A pytest in the services' environment.

    Attributes:
        messages: (kind, content) of every line that it sends, as it comes.
    """

    def __init__(self, *arguments: str) -> None:
        reading, writing = os.pipe()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [python(), "-m", "pytest", "-p", RELAY, "-p", "no:cacheprovider", *arguments],
            cwd=ROOT,
            env=os.environ | {"CARIFLEX_RELAY": str(writing), "PYTHONPATH": str(ROOT)},
            pass_fds=[writing],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        os.close(writing)
        stream = os.fdopen(reading, encoding="utf-8")
        self.messages: Iterator[tuple[str, Any]] = (
            (message["kind"], message["content"]) for message in map(json.loads, stream)
        )

    def output(self) -> str:
        """What it printed until now."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def end(self) -> None:
        """Stop it if it still runs."""
        self._process.terminate()
        self._process.wait(timeout=30)


class Services:
    """Plugin: puts relayed tests in the place of the services' own, and runs those in one child."""

    def __init__(self) -> None:
        self._collected: dict[Path, list[tuple[str, list[str]]]] | None = None
        self._broken: dict[Path, str] = {}
        self._unusable = ""
        self._child: Child | None = None
        self._reports: dict[str, list[pytest.TestReport]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        # the folders' conftest.py leaves them out where their packages are missing, as in this process
        return False if collection_path.suffix == ".py" and is_ours(collection_path) else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makemodule(self, module_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        return RelayedFile.from_parent(parent, path=module_path, services=self) if is_ours(module_path) else None

    def tests_in(self, path: Path) -> list[tuple[str, list[str]]]:
        """Node id and markers of each test in a file.

        Raises:
            CollectError: the file, or all of them, cannot be read.
        """
        if self._collected is None:
            self._collected = {}
            self._collect(self._collected)
        if self._unusable:
            raise pytest.Collector.CollectError(self._unusable)
        if path in self._broken:
            raise pytest.Collector.CollectError(self._broken[path])
        return self._collected.get(path, [])

    def _collect(self, into: dict[Path, list[tuple[str, list[str]]]]) -> None:
        """Ask a child which tests there are, once for all files."""
        try:
            child = Child("--collect-only", "--quiet", *(str(suite) for suite in SUITES if suite.is_dir()))
        except (OSError, subprocess.CalledProcessError) as error:
            self._unusable = f"{ENVIRONMENT} cannot be made from {REQUIREMENTS}: {error}"
            return
        for kind, content in child.messages:
            file = ROOT / content[0].split("::")[0]
            if kind == "collected":
                into.setdefault(file, []).append(content)
            elif kind == "broken":
                self._broken[file] = content[1]
        child.end()
        if not into and not self._broken:
            self._unusable = child.output()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        if not isinstance(item, RelayedTest):
            return None
        if self._child is None:
            self._child = Child(*(test.nodeid for test in item.session.items if isinstance(test, RelayedTest)))
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports_of(item, self._child):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _reports_of(self, item: pytest.Item, child: Child) -> list[pytest.TestReport]:
        """The reports of one test, once it is through; the child may run tests in an order of its own."""
        done = self._reports.setdefault(item.nodeid, [])
        while not any(report.when == "teardown" for report in done):
            kind, content = next(child.messages, ("ended", None))
            if kind == "ended":
                problem = f"The services' pytest ended before this test:\n{child.output()}"
                return [*done, pytest.TestReport(item.nodeid, item.location, {}, "failed", problem, "call")]
            if kind == "report":
                report = item.config.hook.pytest_report_from_serializable(config=item.config, data=content)
                if isinstance(report.longrepr, list):  # where and why a test was skipped: JSON knows no tuples
                    report.longrepr = tuple(report.longrepr)
                self._reports.setdefault(report.nodeid, []).append(report)
        return done

    def pytest_sessionfinish(self) -> None:
        if self._child is not None:
            self._child.end()


class RelayedFile(pytest.File):
    """A file whose tests run in the services' environment."""

    def __init__(self, *, services: Services, **rest: Any) -> None:
        super().__init__(**rest)
        self._services = services

    def collect(self) -> Iterator[pytest.Item]:
        for nodeid, markers in self._services.tests_in(self.path):
            test = RelayedTest.from_parent(self, name=nodeid.partition("::")[2])
            for marker in markers:
                test.add_marker(marker)
            yield test


class RelayedTest(pytest.Item):
    """A test that runs in the services' environment; its reports are what there is of it here."""

    def runtest(self) -> None:
        raise AssertionError("pytest_runtest_protocol of Services runs it")
