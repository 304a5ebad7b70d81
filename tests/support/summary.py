"""What tests tell for the end of the run. Not in their own conftest.py: the process that prints reads none of those."""

import pytest

# what a test tells the end of the run, by record_property: reports reach it from every process
RECOVERED, TRACE = "seconds until everything is right again", "line of the trace"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the trace, and the matrix as a table of Markdown."""
    from tests.integration.faults.faults import COMPONENTS, FAULTS

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
