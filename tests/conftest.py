"""What every test shares: the project's import path, the services' environment, image references."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support import summary
from tests.support.groups import group_of, rank
from tests.support.services import Services

# How long an example takes depends on what else the machine does.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.has_plugin("tests.support.relay"):
        return  # the process that runs the services' tests: it takes over what its parent found

    from tests.support.measured import Measured  # coverage is in this process' environment only

    config.pluginmanager.register(Measured(config), "measured")
    config.pluginmanager.register(Services())
    config.pluginmanager.register(summary)

    from tests.support.images import references

    for name, reference in references().items():
        os.environ.setdefault(f"CARIFLEX_TEST_{name.upper().replace('-', '_')}_IMAGE", reference)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the groups of tests that `make test` runs side by side into their order."""
    items.sort(key=lambda item: (rank(group_of(item.nodeid)), item.path.stem == "test_coverage"))


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each process takes the next group as a whole."""
    from tests.support.scheduler import Groups

    return Groups(config, log)
