"""mypy over our services and their tests, with the packages of the services' own environment.

.venv/bin/python -m tests.support.mypy_services
"""

import subprocess
import sys

from tests.support.services import ROOT, SUITES, python

if __name__ == "__main__":
    checked = [ROOT / "files/services/src", *(suite for suite in SUITES if suite.is_dir())]
    sys.exit(subprocess.call([ROOT / ".venv/bin/mypy", "--python-executable", python(), *checked], cwd=ROOT))
