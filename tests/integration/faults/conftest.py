"""The table at the end of the run."""

import pytest

from tests.integration.faults.faults import COMPONENTS, FAULTS

RECOVERIES = pytest.StashKey[dict[tuple[str, str], str]]()


@pytest.fixture(scope="session")
def recoveries(pytestconfig: pytest.Config) -> dict[tuple[str, str], str]:
    """(fault, component) -> what became of it."""
    return pytestconfig.stash.setdefault(RECOVERIES, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the matrix, as a table of Markdown."""
    found = config.stash.get(RECOVERIES, {})
    if not found:
        return
    terminalreporter.section("fault matrix: seconds until everything is right again")
    terminalreporter.write_line("| fault | " + " | ".join(COMPONENTS) + " |")
    terminalreporter.write_line("|---" * (len(COMPONENTS) + 1) + "|")
    for fault in FAULTS:
        cells = (found.get((fault, component), "-") for component in COMPONENTS)
        terminalreporter.write_line(f"| {fault} | " + " | ".join(cells) + " |")
