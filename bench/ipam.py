"""How many calls and how long the module phpipam_subnet takes, first and again, by the number of addresses.

    .venv/bin/python bench/ipam.py
    .venv/bin/python bench/ipam.py --addresses 250 4000

Against the tests' own server, which answers over HTTPS as phpIPAM 1.8.2 does and keeps everything in memory: a real
phpIPAM takes longer for each call. Ansible's own start is not in it. The baseline asks for each address by itself,
as other collections do, with the same client.
"""

from __future__ import annotations

import argparse
import ipaddress
import ssl
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

from ansible.module_utils.phpipam_book import Book, Written  # noqa: E402 - found through the path above
from ansible.module_utils.phpipam_client import PhpIpamClient  # noqa: E402

from tests.support.certificate import self_signed  # noqa: E402
from tests.support.phpipam import CODE, PhpIpam, serving  # noqa: E402
from tests.unit.modules.conftest import load  # noqa: E402

SUBNET = "172.29.0.0/16"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--addresses", type=int, nargs="+", default=[25, 250, 1000, 4000], help="how many")
    options = parser.parse_args()
    module = load(ROOT / "library/phpipam_subnet.py")
    print(f"{'addresses':>9}  {'first: calls, s':>16}  {'again: calls, s':>16}  {'one by one, again':>17}")
    with tempfile.TemporaryDirectory() as folder:
        certificate = self_signed(Path(folder))
        for count in options.addresses:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            with serving(PhpIpam("1.8.2"), context) as url:
                first, subnet = _run(module, url, certificate, count)
                again, _ = _run(module, url, certificate, count)
                single = _one_by_one(url, certificate, count, subnet)
            print(f"{count:9}  {_cell(first)}  {_cell(again)}  {_cell(single)}", flush=True)


def _client(url: str, certificate: Path) -> PhpIpamClient:
    return PhpIpamClient(url, "cariflexcode", app_code=CODE, ca_path=str(certificate))


def _run(module: ModuleType, url: str, certificate: Path, count: int) -> tuple[tuple[int, float], int]:
    first = ipaddress.ip_network(SUBNET)[1]
    addresses = [{"ip": str(first + number), "hostname": f"device-{number}", "tag": "Used"} for number in range(count)]
    spec: dict[str, Any] = module.ARGUMENT_SPEC
    given: dict[str, Any] = {name: option.get("default") for name, option in spec.items()}
    given |= {"section": "Cariflex EMS", "create_section": True, "subnet": SUBNET, "addresses": addresses}
    client, start = _client(url, certificate), time.perf_counter()
    done = module.run(client, given, check=False, written=Written())
    return (client.calls, time.perf_counter() - start), int(done["subnet_id"])


def _one_by_one(url: str, certificate: Path, count: int, subnet: int) -> tuple[int, float]:
    """Read each address by its id, which is less than a search."""
    client = _client(url, certificate)
    rows = Book(client).rows(subnet)
    calls, start = client.calls, time.perf_counter()
    for row in rows[:count]:
        client.ask(f"/addresses/{row.id}/")
    return client.calls - calls, time.perf_counter() - start


def _cell(measured: tuple[int, float]) -> str:
    return f"{measured[0]:7} {measured[1]:8.2f}"


if __name__ == "__main__":
    main()
