"""How long an event at the VEN takes to become an instruction at each S2 device.

    .venv/bin/python bench/s2.py
    .venv/bin/python bench/s2.py --events 100 --devices 10 100 500

The CEM is a process of its own on the first core, as `cariflex-s2 serve` starts it; the VEN's file and the devices are
on the second. Measured is the time from the VEN's `accept`, which includes writing the event to disk, to the message
at the device; nothing waits for the network but loopback.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.support.services import python

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Measure in the services' environment, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=40, help="how often the limit changes (default 40)")
    parser.add_argument("--devices", type=int, nargs="+", default=[10, 100], help="how many (default 10 100)")
    options = parser.parse_args()
    command = [str(python()), "-m", "tests.unit.services.bench_s2", str(options.events)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "files/services/src")}
    done = subprocess.run([*command, *map(str, options.devices)], cwd=ROOT, env=environment, check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
