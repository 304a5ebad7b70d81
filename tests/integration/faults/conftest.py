"""A whole system of its own for the tests here, and the table at the end of the run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.support.ems import IMAGES, Ems, images, running


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
