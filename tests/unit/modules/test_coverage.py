"""How much of module_utils its tests reach. Runs after all others (tests/support/measured.py)."""

import pytest

LEAST = 95.0  # percent of lines and branches


def test_the_tests_reach_nearly_all_of_module_utils(pytestconfig: pytest.Config) -> None:
    measured = pytestconfig.pluginmanager.get_plugin("measured")
    assert measured is not None
    percent, report = measured.percent()
    assert percent >= LEAST, report
