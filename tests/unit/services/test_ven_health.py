"""The whole VEN as its process runs it, judged by what /health says: a process that runs is not yet well."""

import asyncio
from pathlib import Path
from typing import Any

from aiohttp import ClientConnectionError, ClientSession

from cariflex.ven import session
from cariflex.ven.main import serve
from cariflex.ven.settings import VenSettings
from tests.unit.services.openadr_support import (
    PATH,
    VEN,
    FakeFlexMeasures,
    free_port,
    next_hour,
    price_body,
    running_vtn,
    vtn_settings,
)


async def health(port: int, status: int, words: str) -> dict[str, Any]:
    """Until /health answers a status with these words."""
    body: dict[str, Any] = {}
    for _ in range(400):
        try:
            async with ClientSession() as http, http.get(f"http://127.0.0.1:{port}/health") as answer:
                body = await answer.json()
                if answer.status == status and words in str(body):
                    return body
        except ClientConnectionError:
            pass
        await asyncio.sleep(0.05)
    raise AssertionError(body)


async def test_health_is_the_age_of_the_last_good_poll_and_of_the_oldest_value(
    tmp_path: Path, monkeypatch: Any
) -> None:
    """Plain openleadr's process stays alive when its scheduler has stopped for good."""
    monkeypatch.setattr(session, "FIRST_PAUSE_SECONDS", 0.1)
    vtn, fake, port = vtn_settings(), FakeFlexMeasures(), free_port()
    (tmp_path / "flexmeasures_ven_password").write_text(fake.password)
    rule = {"reason": "maintenance", "start": next_hour(5), "end": next_hour(6)}
    settings = VenSettings.model_validate(
        {
            "ven_name": VEN,
            "vtn_url": f"http://127.0.0.1:{vtn.port}{PATH}",
            "host": "127.0.0.1",
            "port": port,
            "secrets_dir": tmp_path,
            "data_dir": tmp_path,
            "outbox_age_limit_seconds": 1,
            "flexmeasures": {"url": fake.url, "email": "ven@cariflex.internal"},
            "signals": {"ENERGY_PRICE": {"sensor": 84, "unit": "EUR/MWh", "resolution": "PT1H"}},
            "opt_out": [rule],
            "resources": {"battery_01": {"min_kw": -50, "max_kw": 50}},
        }
    )
    ven = asyncio.create_task(serve(settings))
    await health(port, 503, "last good poll never: the VTN cannot be reached")
    async with running_vtn(settings=vtn) as running:
        assert (await health(port, 200, "ok"))["outbox"]["waiting"] == 0
        await running.api("PUT", "/api/v1/events/waits", price_body(next_hour(), 1.0))
        await running.api("PUT", "/api/v1/events/refused", price_body(next_hour(5), 1.0))
        body = await health(port, 503, "FlexMeasures cannot be reached")
        assert body["opted_out"][f"refused:{VEN}"].startswith("maintenance (")
        await fake.start()
        assert (await health(port, 200, "ok"))["outbox"]["waiting"] == 0
        async with ClientSession() as http, http.get(f"http://127.0.0.1:{port}/metrics") as answer:
            metrics = await answer.text()
        for name in ("seconds_since_last_poll", "outbox_rows", "outbox_oldest_seconds", "reports_dropped_total"):
            assert f"cariflex_ven_{name} " in metrics
    await health(port, 503, "s ago: the VTN cannot be reached")
    ven.cancel()
    await asyncio.gather(ven, return_exceptions=True)
    await fake.stop()
