"""How many calls and how long it takes to register sensors in FlexMeasures, first and again, by their number.

    .venv/bin/python bench/topology.py
    .venv/bin/python bench/topology.py --sensors 37 10000 --one-by-one 37

A FlexMeasures of its own, as it is deployed: two web processes, PostgreSQL and Redis in containers. What the module
flexmeasures_topology does is measured, through our plugin and, side by side with fewer sensors, one call for each
through FlexMeasures' own API, which takes 500 calls a minute of a user. Ansible's own start is not in it. One asset for
every ten sensors, below a site. The images are those of the tests.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import ansible.module_utils

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
ansible.module_utils.__path__.append(str(ROOT / "module_utils"))

from ansible.module_utils.flexmeasures_options import FlexMeasures  # noqa: E402 - found through the path above

from tests.integration.flexmeasures.conftest import IMAGES, SECRETS, Stack, running  # noqa: E402
from tests.support.images import references  # noqa: E402
from tests.unit.modules.conftest import load  # noqa: E402

EMAIL, PASSWORD = "bench@cariflex.internal", "password of the bench"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sensors", type=int, nargs="+", default=[37, 370, 1000, 3000, 10000], help="how many")
    parser.add_argument("--one-by-one", type=int, nargs="*", default=[37, 370], help="how many by its own API")
    options = parser.parse_args()
    for name, reference in references().items():
        os.environ.setdefault(f"CARIFLEX_TEST_{name.upper()}_IMAGE", reference)
    if missing := [name for name in IMAGES.values() if not os.environ.get(name)]:
        sys.exit(f"Missing images: set {', '.join(missing)}")
    module = load(ROOT / "library/flexmeasures_topology.py")
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as stack:
        print(f"load average {os.getloadavg()[0]:.1f}")
        print(f"{'sensors':>8}  {'way':<10}  {'first: calls, s':>16}  {'again: calls, s':>16}", flush=True)
        for way, counts in (("plugin", options.sensors), ("one by one", options.one_by_one)):
            for count in counts:
                declared = _topology(f"{count} by {way}", count, _free_id(stack), users=way != "plugin")
                first = _run(module, stack, declared, way)
                again = _run(module, stack, declared, way)
                print(f"{count:8}  {way:<10}  {_cell(first)}  {_cell(again)}", flush=True)
        print(f"load average {os.getloadavg()[0]:.1f}")


def _options(stack: Stack, way: str) -> dict[str, Any]:
    token = SECRETS["flexmeasures_topology_token"] if way == "plugin" else None
    names = dict.fromkeys(("ca_path", "email", "password"))
    user = {} if way == "plugin" else {"email": EMAIL, "password": PASSWORD}
    given = {"url": stack.url, "token": token, "host_header": "server", "timeout": 120, "validate_certs": True}
    return {**names, **given, **user}


def _free_id(stack: Stack) -> int:
    found = FlexMeasures(_options(stack, "plugin")).state("any").free_sensor_id
    return found or 1


def _topology(account: str, count: int, first_id: int, *, users: bool) -> dict[str, Any]:
    number = max(1, count // 10)
    below = {f"asset_{index}": {"type": "battery", "parent": "Site"} for index in range(number)}
    return {
        "account": account,
        "site": {"timezone": "America/Martinique"},
        "users": {EMAIL: {"username": "bench", "roles": ["admin"]}} if users else {},
        "assets": {"Site": {"type": "building", "latitude": 14.6, "longitude": -61.0}, **below},
        "sensors": {
            f"sensor_{index}": {
                "id": first_id + index,
                "unit": "kW",
                "resolution": "PT5M",
                "asset": f"asset_{index % number}",
            }
            for index in range(count)
        },
    }


def _run(module: ModuleType, stack: Stack, declared: dict[str, Any], way: str) -> tuple[int, float]:
    if way != "plugin":  # who may do it; sensors and assets come one by one
        user = {**declared, "account": "bench", "assets": {}, "sensors": {}}
        _declare(module, _options(stack, "plugin"), user, {EMAIL: PASSWORD})
    own = {**declared, "users": {}}
    return _declare(module, _options(stack, way), own, {})


def _declare(
    module: ModuleType, options: dict[str, Any], declared: dict[str, Any], passwords: dict[str, str]
) -> tuple[int, float]:
    chosen = {"rename": False, "purge": False, "force": False, "user_passwords": passwords, "topology": declared}
    client, start = FlexMeasures(options), time.perf_counter()
    module.run(client, chosen, check=False)
    return client.calls, time.perf_counter() - start


def _cell(measured: tuple[int, float]) -> str:
    return f"{measured[0]:7} {measured[1]:8.2f}"


if __name__ == "__main__":
    main()
