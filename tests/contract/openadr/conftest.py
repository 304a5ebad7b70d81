"""The same frame as the unit tests of the services."""

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.unit.services.conftest import pytest_pyfunc_call

collect_ignore_glob = [] if importlib.util.find_spec("openleadr") else ["test_*.py"]
__all__ = ["pytest_pyfunc_call"]
