"""What every test shares: the project's import path, the services' environment, image references."""

import os
import sys
from pathlib import Path, PurePosixPath

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.groups import group_of, rank
from tests.support.services import Services

TESTS = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.has_plugin("tests.support.relay"):
        return  # the process that runs the services' tests: it takes over what its parent found
    config.pluginmanager.register(Services())

    from tests.support.images import references

    for name, reference in references().items():
        os.environ.setdefault(f"CARIFLEX_TEST_{name.upper().replace('-', '_')}_IMAGE", reference)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put tests into the groups that `make test` runs side by side, in their order."""
    if not config.pluginmanager.has_plugin("xdist"):
        return  # the process that runs the services' tests, one of the groups
    groups = {item: group_of(PurePosixPath(item.path.relative_to(TESTS))) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: rank(groups[item]))
