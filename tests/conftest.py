"""What every test shares: the project's import path, the services' environment, image references."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.services import Services


def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.has_plugin("tests.support.relay"):
        return  # the process that runs the services' tests: it takes over what its parent found
    config.pluginmanager.register(Services())

    from tests.support.images import references

    for name, reference in references().items():
        os.environ.setdefault(f"CARIFLEX_TEST_{name.upper().replace('-', '_')}_IMAGE", reference)
