"""The VTN and the VEN as processes of their own, with a real database: started in any order, killed, brought back."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientConnectionError, ClientSession

from tests.integration.services.conftest import PASSWORD, Postgres
from tests.unit.services.openadr_support import (
    ENVIRONMENT,
    TOKEN,
    VEN,
    FakeFlexMeasures,
    RunningVtn,
    eventually,
    free_port,
    next_hour,
    price_body,
    vtn_settings,
)

pytestmark = pytest.mark.docker


class Process:
    """One service; its output is kept, for the tests of the logs."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._folder = folder
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        script = f"from cariflex.{self._name}.main import cli; cli()"  # as the console script does
        command = [sys.executable, "-c", script, "serve"]
        environment = ENVIRONMENT | {"CARIFLEX_CONFIG": str(self._folder / f"{self._name}.yml")}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def stop(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(10)

    def lines(self) -> list[dict[str, Any]]:
        """Every line of the log; all are JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


class Site:
    """Settings for both processes, and a FlexMeasures that keeps what it gets."""

    def __init__(self, folder: Path, postgres: Postgres, database: str) -> None:
        settings = vtn_settings(vens={VEN: {"registration_id": f"reg-{VEN}"}})
        self.flexmeasures = FakeFlexMeasures()
        self.vtn, self.ven = Process("vtn", folder), Process("ven", folder)
        self.ven_port = free_port()
        self.endpoint = RunningVtn(settings, None, None)  # type: ignore[arg-type]  # only its addresses are used
        for name, value in (
            ("openadr_db_password", PASSWORD),
            ("openadr_api_token", TOKEN),
            ("flexmeasures_ven_password", self.flexmeasures.password),
        ):
            (folder / name).write_text(value)
        common = {"host": "127.0.0.1", "secrets_dir": str(folder)}
        vtn = common | {
            "vtn_id": "CARIFLEX_VTN",
            "port": settings.port,
            "api_port": settings.api_port,
            "poll_seconds": 1,
            "database": {"host": postgres.host, "port": postgres.port, "name": database},
            "vens": {VEN: {"registration_id": f"reg-{VEN}"}},
        }
        ven = common | {
            "ven_name": VEN,
            "vtn_url": self.endpoint.url,
            "port": self.ven_port,
            "data_dir": str(folder),
            "flexmeasures": {"url": self.flexmeasures.url, "email": "ven@cariflex.internal"},
            "signals": {"ENERGY_PRICE": {"sensor": 84, "unit": "EUR/MWh", "resolution": "PT1H"}},
        }
        (folder / "vtn.yml").write_text(json.dumps(vtn))  # JSON is YAML
        (folder / "ven.yml").write_text(json.dumps(ven))

    async def health(self, port: int) -> dict[str, Any]:
        """What a process says about itself; empty while it does not listen."""
        try:
            async with ClientSession() as http, http.get(f"http://127.0.0.1:{port}/health") as answer:
                body: dict[str, Any] = await answer.json()
                return body
        except ClientConnectionError:
            return {}

    async def well(self) -> None:
        """Until both are."""
        for port in (self.endpoint.settings.api_port, self.ven_port):
            for _ in range(300):
                if (await self.health(port)).get("status") == "ok":
                    break
                await _pause()
            else:
                raise AssertionError(f"port {port}: {await self.health(port)}")

    async def answered(self, event_id: str, number: int = 0) -> None:
        """Until the VTN has the VEN's opt to a version."""
        for _ in range(200):
            event: dict[str, Any] = (await self.endpoint.api("GET", f"/api/v1/events/{event_id}"))[1]
            opt = event["opts"][VEN]
            if opt and opt["modification_number"] == number:
                assert opt["opt_type"] == "optIn"
                return
            await _pause()
        raise AssertionError(event)


async def _pause() -> None:
    await asyncio.sleep(0.1)


@pytest.fixture
def site(tmp_path: Path, postgres: Postgres, database: str) -> Iterator[Site]:
    site = Site(tmp_path, postgres, database)
    yield site
    for process in (site.ven, site.vtn):
        if process._process is not None and process._process.poll() is None:
            process.stop(signal.SIGKILL)


@asynccontextmanager
async def running(site: Site) -> AsyncIterator[None]:
    await site.flexmeasures.start()
    try:
        yield
    finally:
        await site.flexmeasures.stop()


async def test_the_ven_may_be_first_and_the_database_last(site: Site, postgres: Postgres, database: str) -> None:
    postgres.sql(f"ALTER DATABASE {database} RENAME TO {database}_hidden")
    async with running(site):
        site.ven.start()
        site.vtn.start()
        reasons: list[str] = []
        for _ in range(100):
            reasons = (await site.health(site.endpoint.settings.api_port)).get("reasons", [])
            if reasons:
                break
            await _pause()
        postgres.sql(f"ALTER DATABASE {database}_hidden RENAME TO {database}")
        assert "store" in reasons[0]
        await site.well()
        status, _ = await site.endpoint.api("PUT", "/api/v1/events/price-1", price_body(next_hour(), 1.0, 2.0))
        assert status == 201
        await site.answered("price-1")
        await eventually(lambda: list(site.flexmeasures.values(84).values()) == [1.0, 2.0])


async def test_kill_9_of_both_loses_nothing_and_doubles_nothing(site: Site) -> None:
    """Events flow while both are killed in turn; afterwards every price is there with its last version's value."""
    async with running(site):
        site.vtn.start()
        site.ven.start()
        await site.well()
        expected = {}
        for number in range(8):
            start = next_hour(number + 1)
            for version in (0, 1):
                value = number + version / 2
                status, _ = await site.endpoint.api("PUT", f"/api/v1/events/p-{number}", price_body(start, value))
                assert status in (200, 201)
                expected[start] = value
                victim = (site.vtn, site.ven, None)[(2 * number + version) % 3]
                if victim is not None:
                    victim.stop(signal.SIGKILL)
                    victim.start()
                    await site.well()
        for number in range(8):
            await site.answered(f"p-{number}", 1)
        await eventually(lambda: site.flexmeasures.values(84) == expected)
        stored = [(start, value) for (_, start, _), value in site.flexmeasures.beliefs.items()]
        assert len(stored) == len(set(stored)), "no value was stored twice"


async def test_one_event_can_be_followed_through_all_logs_by_its_id(site: Site) -> None:
    async with running(site):
        site.vtn.start()
        site.ven.start()
        await site.well()
        await site.endpoint.api("PUT", "/api/v1/events/follow-me", price_body(next_hour(), 5.0))
        await site.answered("follow-me")
        await eventually(lambda: site.flexmeasures.posts)
        assert site.ven.stop(signal.SIGTERM) == 0
        assert site.vtn.stop(signal.SIGTERM) == 0
    lines = sorted(site.vtn.lines() + site.ven.lines(), key=lambda line: str(line["time"]))
    story = [(line["service"], line["message"]) for line in lines if "follow-me" in str(line.get("event_id"))]
    assert set(story) == {
        ("vtn", "event created"),
        ("vtn", "event sent"),
        ("ven", "event answered"),
        ("vtn", "event answered"),
        ("ven", "values stored"),
    }
    assert story[0] == ("vtn", "event created")
    everything = site.vtn.log.read_text() + site.ven.log.read_text()
    for secret in (PASSWORD, TOKEN, site.flexmeasures.password):
        assert secret not in everything
