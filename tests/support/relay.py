"""pytest plugin for a process whose tests are shown by another one: it tells what it collects and each test's reports.

Lines of JSON go to the file descriptor that CARIFLEX_RELAY names; tests/support/services.py reads them.
"""

import json
import os
from typing import Any

import pytest


class Relay:
    """Sends what happens, one line each."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._stream = os.fdopen(int(os.environ["CARIFLEX_RELAY"]), "w", encoding="utf-8")

    def _send(self, kind: str, content: Any) -> None:
        self._stream.write(json.dumps({"kind": kind, "content": content}) + "\n")
        self._stream.flush()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._send("broken", [report.nodeid, report.longreprtext])

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            self._send("collected", [item.nodeid, sorted({mark.name for mark in item.iter_markers()})])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._send("report", self._config.hook.pytest_report_to_serializable(config=self._config, report=report))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Relay(config))
