"""The images of the VTN and the VEN with a real FlexMeasures: what an operator orders is what the sensors hold."""

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from tests.integration.flexmeasures.conftest import Stack, declared, docker, passwords, stack, topology, until
from tests.unit.services.openadr_support import PATH, TOKEN, VEN, next_hour, price_body

__all__ = ["declared", "passwords", "stack", "topology"]  # fixtures

pytestmark = pytest.mark.docker

VTN_IMAGE, VEN_IMAGE = (os.environ.get(f"CARIFLEX_TEST_FLEXMEASURES_OPENADR_{name}_IMAGE") for name in ("VTN", "VEN"))
HARDENED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
DATABASE_PASSWORD = "openadr-of-a-throwaway-database"
EMAIL = "ven@cariflex.internal"


class Pair:
    """A VTN and a VEN in the network of a FlexMeasures."""

    def __init__(self, stack: Stack, password: str) -> None:
        self.stack = stack
        folder = stack.folder / "openadr"
        (folder / "secrets").mkdir(parents=True)
        for name, value in (
            ("openadr_db_password", DATABASE_PASSWORD),
            ("openadr_api_token", TOKEN),
            ("flexmeasures_ven_password", password),
        ):
            (folder / "secrets" / name).write_text(value)
        vtn = {
            "vtn_id": "CARIFLEX_VTN",
            "poll_seconds": 1,
            "database": {"host": "database"},
            "vens": {VEN: {"registration_id": f"reg-{VEN}"}},
        }
        ven = {
            "ven_name": VEN,
            "vtn_url": f"http://vtn:8080{PATH}",
            "flexmeasures": {"url": "http://server:5000", "email": EMAIL},
            "signals": {
                "ENERGY_PRICE": {"sensor": 84, "unit": "EUR/MWh", "resolution": "PT1H"},
                "LOAD_CONTROL": {"sensor": 86, "unit": "%", "resolution": "PT15M"},
                "SIMPLE": {"sensor": 87, "unit": "dimensionless", "resolution": "PT15M"},
            },
        }
        for name, image, settings in (("vtn", VTN_IMAGE, vtn), ("ven", VEN_IMAGE, ven)):
            (folder / f"{name}.yml").write_text(json.dumps(settings))  # JSON is YAML
            docker(
                *(
                    "run",
                    "--detach",
                    "--name",
                    stack.container(name),
                    "--network",
                    stack.prefix,
                    "--network-alias",
                    name,
                ),
                *HARDENED,
                *("--volume", f"{folder}/{name}.yml:/etc/cariflex/{name}.yml:ro"),
                *("--volume", f"{folder}/secrets:/run/secrets:ro"),
                str(image),
            )
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        self.address = docker("inspect", "--format", form, stack.container("vtn"))

    def order(self, method: str, event_id: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call the VTN's API."""
        url = f"http://{self.address}:8081/api/v1/events/{event_id}"
        answer = requests.request(method, url, json=body, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10)
        assert answer.ok, answer.text
        content: dict[str, Any] = answer.json()
        return content

    def opt(self, event_id: str) -> str | None:
        """The VEN's answer to the current version."""
        opt = self.order("GET", event_id)["opts"][VEN]
        return opt["opt_type"] if opt else None

    def beliefs(self, sensor: int) -> dict[datetime, list[float]]:
        """Every value that FlexMeasures has of each event of a sensor, the first belief first."""
        rows = self.stack.sql(
            "SELECT sensor_id, extract(epoch FROM event_start), event_value FROM timed_belief "
            "ORDER BY event_start, belief_horizon DESC"
        )
        found: dict[datetime, list[float]] = {}
        for of, start, value in rows:
            if int(of) == sensor:
                found.setdefault(datetime.fromtimestamp(float(start), UTC), []).append(float(value))
        return found

    def healthy(self, name: str) -> bool:
        """What Docker says."""
        form = "{{.State.Health.Status}}"
        return docker("inspect", "--format", form, self.stack.container(name)) == "healthy"


@pytest.fixture(scope="module")
def pair(stack: Stack, declared: dict[str, Any], passwords: dict[str, str]) -> Iterator[Pair]:
    if not (VTN_IMAGE and VEN_IMAGE):
        pytest.skip("CARIFLEX_TEST_FLEXMEASURES_OPENADR_VTN_IMAGE and …_VEN_IMAGE name no images")
    assert stack.declare(declared, passwords=passwords).ok
    stack.sql(f"CREATE ROLE openadr LOGIN PASSWORD '{DATABASE_PASSWORD}'", "postgres")
    stack.sql("CREATE DATABASE openadr OWNER openadr", "postgres")
    try:
        pair = Pair(stack, passwords[EMAIL])
        until(lambda: pair.healthy("vtn") and pair.healthy("ven"), 60, "both are healthy")
        yield pair
    finally:
        for name in ("vtn", "ven"):
            docker("rm", "--force", "--volumes", stack.container(name), check=False)


def limit(start: datetime, **different: Any) -> dict[str, Any]:
    hours = [{"duration": "PT2H", "value": 70.0}, {"duration": "PT2H", "value": 33.3}]
    return price_body(start, signal_name="LOAD_CONTROL", unit="%", intervals=hours) | different


def test_a_day_of_prices_and_a_limit_of_four_hours_arrive_once(pair: Pair) -> None:
    start = next_hour()
    prices = [round(80 + 3.71 * hour, 2) for hour in range(24)]
    pair.order("PUT", "day", price_body(start, *prices))
    pair.order("PUT", "limit", limit(start))
    until(lambda: pair.opt("day") == pair.opt("limit") == "optIn", 15, "both are answered optIn")
    hours = {start + timedelta(hours=n): [price] for n, price in enumerate(prices)}
    quarters = {start + timedelta(minutes=15 * n): [70.0 if n < 8 else 33.3] for n in range(16)}
    until(lambda: pair.beliefs(84) == hours, 15, "24 prices")
    until(lambda: pair.beliefs(86) == quarters, 15, "16 quarters")


def test_a_modification_corrects_what_it_changes_and_leaves_the_rest(pair: Pair) -> None:
    start = next_hour(48)
    pair.order("PUT", "change", price_body(start, 1.0, 2.0, 3.0))
    until(lambda: pair.beliefs(84).get(start) == [1.0], 15, "the first version")
    pair.order("PUT", "change", price_body(start, 1.0, 9.0, 3.0))
    middle = start + timedelta(hours=1)
    until(lambda: pair.beliefs(84)[middle] == [2.0, 9.0], 15, "the second version")
    found = pair.beliefs(84)
    assert (found[start], found[start + timedelta(hours=2)]) == ([1.0], [3.0])


def test_a_cancelled_limit_is_lifted(pair: Pair) -> None:
    start = next_hour(72)
    pair.order("PUT", "lift", limit(start))
    until(lambda: pair.beliefs(86).get(start) == [70.0], 15, "the limit")
    pair.order("DELETE", "lift")
    until(lambda: pair.beliefs(86)[start] == [70.0, 100.0], 15, "its end")


def test_many_changes_within_one_second_end_with_the_last(pair: Pair) -> None:
    """FlexMeasures refuses a second value with the same belief time, which it keeps to the second."""
    start = next_hour(96)
    for value in range(6):
        pair.order("PUT", "quick", price_body(start, float(value)))
        time.sleep(0.5)
    until(lambda: pair.beliefs(84).get(start, [0.0])[-1] == 5.0, 20, "the last value")
    until(lambda: pair.opt("quick") == "optIn", 15, "the last version is answered")
    until(lambda: pair.healthy("ven"), 30, "no value was set aside")


def test_values_wait_for_a_flexmeasures_that_is_away(pair: Pair) -> None:
    start = next_hour(120)
    docker("stop", "--time", "2", pair.stack.container("server"))
    for number in range(3):
        pair.order("PUT", f"away-{number}", price_body(start + timedelta(hours=number), float(number)))
    until(lambda: all(pair.opt(f"away-{n}") == "optIn" for n in range(3)), 15, "all are answered meanwhile")
    docker("restart", pair.stack.container("ven"))
    docker("start", pair.stack.container("server"))
    expected = {start + timedelta(hours=n): [float(n)] for n in range(3)}
    until(lambda: {k: v for k, v in pair.beliefs(84).items() if k >= start} == expected, 120, "all values, once")


def test_no_secret_is_in_the_logs_or_the_environment(pair: Pair, passwords: dict[str, str]) -> None:
    for name in ("vtn", "ven"):
        seen = pair.stack.logs(name) + docker("inspect", pair.stack.container(name))
        for secret in (DATABASE_PASSWORD, TOKEN, passwords[EMAIL]):
            assert secret not in seen
