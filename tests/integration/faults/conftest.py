"""A whole system of its own for the tests here, and the table at the end of the run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.integration.faults.faults import COMPONENTS, FAULTS
from tests.support.ems import IMAGES, Ems, images, running

# what a test tells the end of the run, by record_property: reports reach it from every process
RECOVERED, TRACE = "seconds until everything is right again", "line of the trace"


def night() -> str:
    """The timezone in which it is one o'clock at night: EVs are there and charge, batteries rest."""
    east = (1 - datetime.now(UTC).hour + 11) % 24 - 11  # hours east of UTC, -11 to 12
    return f"Etc/GMT{-east:+d}"


@pytest.fixture(scope="session")
def ems(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ems]:
    """The system, polled every second."""
    if missing := sorted(set(IMAGES) - images().keys()):
        pytest.skip(f"no images on this machine: {', '.join(missing)}; see docs/tasks/test.md")
    folder = tmp_path_factory.mktemp("ems")
    with running(folder, site={"timezone": night()}, openadr={"poll_seconds": 1}) as ems:
        yield ems


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the trace, and the matrix as a table of Markdown."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    told = [told for report in reports for told in getattr(report, "user_properties", [])]
    if trace := [line for name, line in told if name == TRACE]:
        terminalreporter.section("one event through all logs")
        for line in trace:
            terminalreporter.write_line(str(line))
    found = {
        (fault, component): cell for name, value in told if name == RECOVERED for fault, component, cell in [value]
    }
    if not found:
        return
    terminalreporter.section(f"fault matrix: {RECOVERED}")
    terminalreporter.write_line("| fault | " + " | ".join(COMPONENTS) + " |")
    terminalreporter.write_line("|---" * (len(COMPONENTS) + 1) + "|")
    for fault in FAULTS:
        cells = (found.get((fault, component), "-") for component in COMPONENTS)
        terminalreporter.write_line(f"| {fault} | " + " | ".join(cells) + " |")
