"""Branch coverage of module_utils, measured while its tests run; test_coverage.py judges it.

All tests of a folder run in one process (tests/support/groups.py). What a file does when it is imported counts too, so
that measuring begins with the collection of tests.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "module_utils"
JUDGE = ROOT / "tests/unit/modules/test_coverage.py"
TESTS = frozenset(
    path for folder in ("modules", "preflight", "backup") for path in (ROOT / "tests/unit" / folder).glob("test_*.py")
) - {JUDGE}


class Measured:
    """Measures, unless pytest-cov does."""

    def __init__(self, config: pytest.Config) -> None:
        # the process that only hands tests out runs none
        hands_out = bool(config.getoption("numprocesses", default=None)) and not hasattr(config, "workerinput")
        self._off = hands_out or bool(config.getoption("cov_source", default=None))
        files = str(MEASURED / "*.py")
        self._coverage = coverage.Coverage(data_file=None, config_file=False, branch=True, include=[files])
        self._run: set[Path] = set()
        self._on(start=True)
        # other tests of this process may import them first, while nothing is measured
        for path in sorted(MEASURED.glob("[!_]*.py")):
            importlib.import_module(f"module_utils.{path.stem}")

    def _on(self, *, start: bool) -> None:
        if not self._off:
            (self._coverage.start if start else self._coverage.stop)()

    def pytest_collection_finish(self) -> None:
        """Everything is imported."""
        self._on(start=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Measure one test."""
        if item.path not in TESTS:
            return (yield)
        self._run.add(item.path)
        self._on(start=True)
        try:
            return (yield)
        finally:
            self._on(start=False)

    def percent(self) -> tuple[float, str]:
        """How much was covered, lines and branches, with the report by file; skips when not everything was run."""
        if self._off or self._run != TESTS:
            pytest.skip("only part of the tests of module_utils ran in this process")
        report = io.StringIO()
        return self._coverage.report(file=report, show_missing=True), report.getvalue()
