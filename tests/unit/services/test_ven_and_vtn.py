"""Reports and maintenance windows between our VEN and our VTN, over loopback."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cariflex.ven.inbox import Inbox
from cariflex.ven.outbox import DeviceState, Outbox
from cariflex.ven.policy import Rule
from cariflex.ven.reporter import Reporter
from cariflex.ven.reports import Reports
from cariflex.ven.schedule import Schedule
from cariflex.ven.settings import ReportedResource
from tests.unit.services.openadr_support import VEN, HastySession, RunningVtn, next_hour, running_vtn, vtn_settings


async def shown(vtn: RunningVtn, path: str, number: int) -> Any:
    """Until the VTN's API shows so many entries."""
    body: Any = None
    for _ in range(200):
        body = (await vtn.api("GET", path))[1]
        entries = next(value for value in body.values() if isinstance(value, list)) if isinstance(body, dict) else body
        if len(entries) >= number:
            return entries
        await asyncio.sleep(0.05)
    raise AssertionError(body)


async def test_the_vtn_asks_for_reports_and_shows_what_the_devices_do(tmp_path: Path) -> None:
    """Power, stored energy and presence; a device that is away has a status and nothing else."""
    outbox, ahead = Outbox(tmp_path), 0.0
    resources = {name: ReportedResource(min_kw=-50, max_kw=50) for name in ("battery_01", "ev_01")}
    reports = Reports(resources, outbox.states, lambda: time.time() + ahead)
    async with running_vtn(
        settings=vtn_settings(reports={"TELEMETRY_USAGE": "PT1M", "TELEMETRY_STATUS": "PT1M"})
    ) as vtn:
        session = HastySession(VEN, vtn.url, Inbox(outbox, {}), reporter=Reporter(reports))
        task = asyncio.create_task(session.run())
        points = await shown(vtn, "/api/v1/reports", 6)
        assert {(point["resource_id"], point["unit"]) for point in points} == {
            (name, unit) for name in resources for unit in ("kW", "kWh", None)
        }
        outbox.report_states({"battery_01": DeviceState(-12.5, 48.0, True, time.time() + 60)})
        outbox.report_states({"ev_01": DeviceState(0.0, 20.0, False, time.time() + 60)})
        ahead = 60.0
        reports.sample()
        values = await shown(vtn, "/api/v1/reports/values", 4)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    found = {(value["r_id"], value["value"], value["unit"], value["online"]) for value in values}
    assert found == {
        ("battery_01:power", -12.5, "kW", None),
        ("battery_01:energy", 48.0, "kWh", None),
        ("battery_01:status", None, None, True),
        ("ev_01:status", None, None, False),
    }


async def test_maintenance_windows_are_shown_by_the_vtn_and_taken_back(tmp_path: Path) -> None:
    outbox, start = Outbox(tmp_path), next_hour(24)
    rule = Rule.model_validate({"reason": "maintenance", "start": start, "end": start + timedelta(hours=2)})
    async with running_vtn() as vtn:
        for rules in ((rule,), ()):
            session = HastySession(VEN, vtn.url, Inbox(outbox, {}), schedule=Schedule(outbox, rules, UTC))
            task = asyncio.create_task(session.run())
            (opt,) = await shown(vtn, "/api/v1/opts", 1)
            for _ in range(100):
                (opt,) = await shown(vtn, "/api/v1/opts", 1)
                if rules or opt["cancelled_at"]:
                    break
                await asyncio.sleep(0.05)
            assert bool(opt["cancelled_at"]) == (not rules)
            for _ in range(100):
                if bool(outbox.announced()) == bool(rules):
                    break
                await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert (opt["ven_id"], opt["opt_type"]) == (VEN, "optOut")
    (period,) = opt["periods"]
    assert (datetime.fromisoformat(period["start"]), period["duration"]) == (start, "PT2H")
