"""Plans and events reach devices in time, also when the CEM or the device is away at that moment."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cariflex.s2.device import Device
from cariflex.s2.simulator.manager import Manager
from cariflex.ven.grid import Stretch
from tests.unit.services.openadr_support import eventually
from tests.unit.services.s2_support import NIGHT, TOKENS, RunningCem, machine_of, running_cem, simulated


@asynccontextmanager
async def at_its_device(running: RunningCem, manager: Manager) -> AsyncIterator[None]:
    """A device that outlives its CEM connects to this one."""
    task = asyncio.create_task(manager.run(running.url, TOKENS[manager.name]))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def plan(running: RunningCem, device: str, kw: float, start: float, seconds: float) -> None:
    first = int(time.time() + start)
    running.plans.replace(device, [Stretch(first, first + int(seconds), kw)])


async def test_a_plan_is_followed_under_a_limit_and_its_end_gives_the_device_back(tmp_path: Path) -> None:
    async with running_cem(tmp_path) as running, simulated(running.url, "battery_01") as (battery,):
        await eventually(lambda: running.cem.devices["battery_01"].power_kw == 0)
        plan(running, "battery_01", 40, -1, 600)
        await eventually(lambda: battery.machine.storage.power_kw == 40)
        running.event("cap", 50)
        await eventually(lambda: battery.machine.storage.power_kw == 25)
        running.event("cap", 0, number=1, cancelled=True)
        await eventually(lambda: battery.machine.storage.power_kw == 40)
        running.plans.replace("battery_01", [])
        await eventually(lambda: battery.machine.storage.power_kw == 0)


async def test_a_dispatch_is_shared_and_shared_anew_when_a_device_goes(tmp_path: Path) -> None:
    async with running_cem(tmp_path) as running, simulated(running.url, "battery_01") as (battery,):
        async with simulated(running.url, "ev_01") as (ev,):
            await eventually(lambda: all(device.known() for device in running.cem.devices.values()))
            running.event("dispatch", -36, signal="LOAD_DISPATCH")
            await eventually(lambda: abs(battery.machine.storage.power_kw + 25) < 1e-6)
            await eventually(lambda: abs(ev.machine.storage.power_kw + 11) < 1e-6)
        await eventually(lambda: abs(battery.machine.storage.power_kw + 36) < 1e-6)


async def test_a_device_is_told_ahead_and_follows_while_the_cem_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The safe state: what was told ahead goes on to its end, which is the device's own will."""
    async with running_cem(tmp_path) as running, simulated(running.url, "ev_01") as (ev,):
        await eventually(lambda: running.cem.devices["ev_01"].power_kw == 22)
        earliest = int(time.time() + 4)
        running.event("cap", 50, start=4, seconds=2)
        latest = int(time.time() + 4)
        await eventually(lambda: [o.status for o in running.cem.devices["ev_01"].ahead] == ["ACCEPTED", "ACCEPTED"])
        begins = running.cem.devices["ev_01"].ahead[0].at
        assert earliest <= begins <= latest
        monkeypatch.setattr(Device, "decide", lambda _device, _aim: None)  # nobody decides any more
        assert ev.machine.storage.power_kw == 22
        await eventually(lambda: ev.machine.storage.power_kw == 11)
        assert 0 <= time.time() - begins < 0.5  # not too early, nor late
        await eventually(lambda: ev.machine.storage.power_kw == 22)
        assert 0 <= time.time() - begins - 2 < 0.5


async def test_what_no_longer_comes_is_taken_back(tmp_path: Path) -> None:
    async with running_cem(tmp_path) as running, simulated(running.url, "ev_01") as (ev,):
        device = running.cem.devices["ev_01"]
        await eventually(lambda: device.power_kw == 22)
        begins = int(time.time()) + 600.5  # the same second in both versions
        running.event("cap", 50, start=begins - time.time(), seconds=60)
        await eventually(lambda: len(ev._waiting) == 2)
        first = [order.id for order in device.ahead]
        running.event("cap", 25, start=begins - time.time(), seconds=60, number=1)
        await eventually(lambda: [o.power_kw for o in device.ahead] == [5.5, 22] and len(ev._waiting) == 2)
        assert device.ahead[1].id == first[1]  # its end is as it was
        running.event("cap", 0, number=2, cancelled=True)
        await eventually(lambda: not ev._waiting and not device.ahead)
        assert device._orders[first[0]].status == "REVOKED"
        assert ev.machine.storage.power_kw == 22


async def test_what_is_due_is_not_taken_back(tmp_path: Path) -> None:
    """Its device begins it, or has begun; taken for its own will, that would stay after its end."""
    moved = [0.0]  # how far the CEM's clock is ahead of the device's
    async with (
        running_cem(tmp_path, lambda: time.time() + moved[0]) as running,
        simulated(running.url, "ev_01") as (ev,),
    ):
        device = running.cem.devices["ev_01"]
        await eventually(lambda: device.power_kw == 22)
        running.event("cap", 50, start=1000, seconds=600)
        await eventually(lambda: [order.status for order in device.ahead] == ["ACCEPTED", "ACCEPTED"])
        due, later = device.ahead
        moved[0] = 1001.0
        await device.prepare([])
        await eventually(lambda: later.status == "REVOKED")
        assert due.id in map(str, ev._waiting)
        assert device._own_kw == 22


async def test_a_cem_that_comes_back_takes_back_what_the_one_before_told_ahead(tmp_path: Path) -> None:
    ev = Manager("ev_01", machine_of("ev_01"), lambda: NIGHT, step_seconds=0.02)
    async with running_cem(tmp_path) as running, at_its_device(running, ev):
        await eventually(lambda: running.cem.devices["ev_01"].power_kw == 22)
        running.event("cap", 50, start=600, seconds=60)
        await eventually(lambda: [o.status for o in running.cem.devices["ev_01"].ahead] == ["ACCEPTED", "ACCEPTED"])
        before = set(ev._waiting)
        await asyncio.sleep(0.1)
    async with running_cem(tmp_path) as running:
        running.event("cap", 0, number=1, cancelled=True)
        async with at_its_device(running, ev):
            await eventually(lambda: not ev._waiting)
            assert len(before) == 2


async def test_a_cem_restarted_during_a_cap_and_a_device_gone_meanwhile(tmp_path: Path) -> None:
    ev = Manager("ev_01", machine_of("ev_01"), lambda: NIGHT, step_seconds=0.02)
    async with running_cem(tmp_path) as running, at_its_device(running, ev):
        await eventually(lambda: running.cem.devices["ev_01"].power_kw == 22)
        running.event("cap", 50, seconds=60)
        await eventually(lambda: running.cem.devices["ev_01"].power_kw == 11)
    ev.machine.storage.set_power(22)  # away from everybody it does as it likes
    async with running_cem(tmp_path) as running, at_its_device(running, ev):
        await eventually(lambda: ev.machine.storage.power_kw == 11)
        await eventually(lambda: running.cem.devices["ev_01"].power_kw == 11)
        running.event("cap", 0, number=1, cancelled=True)
        await eventually(lambda: ev.machine.storage.power_kw == 22)


async def test_a_device_whose_clock_is_ahead_does_not_begin_a_cap_too_early(tmp_path: Path) -> None:
    """It is told to go on, is not taken to do so by its own will, and is capped when the time has come."""
    moved = [0.0]  # how far the CEM's clock is ahead of ours
    async with (
        running_cem(tmp_path, lambda: time.time() + moved[0]) as running,
        simulated(running.url, "ev_01") as (ev,),
    ):
        device = running.cem.devices["ev_01"]
        await eventually(lambda: device.power_kw == 22)
        running.event("cap", 50, start=1000, seconds=600)
        await eventually(lambda: [order.status for order in device.ahead] == ["ACCEPTED", "ACCEPTED"])
        begins = device.ahead[0].at
        moved[0] = 994.0
        ev.machine.storage.set_power(11)  # 6 s too early, and without a word about the instruction
        await ev._say(ev._actuator_status())
        back = await eventually(lambda: device.order if device.order and device.order.power_kw == 22 else None)
        assert (back.at < begins, back.limit_kw) == (True, None)
        moved[0] = 1001.0
        capped = await eventually(lambda: device.order if device.order and device.order.power_kw == 11 else None)
        assert (capped.at >= begins, capped.limit_kw) == (True, 11)
        running.event("cap", 0, number=1, cancelled=True)
        await eventually(lambda: device.order and (device.order.power_kw, device.order.reason) == (22, "own"))


async def test_what_a_device_does_long_before_a_cap_is_its_own_will(tmp_path: Path) -> None:
    async with running_cem(tmp_path) as running, simulated(running.url, "ev_01") as (ev,):
        device = running.cem.devices["ev_01"]
        await eventually(lambda: device.power_kw == 22)
        running.event("cap", 50, start=600, seconds=60)
        await eventually(lambda: len(device.ahead) == 2)
        ev.machine.storage.set_power(11)  # what the cap will allow, by chance
        await ev._say(ev._actuator_status())
        await eventually(lambda: device.power_kw == 11)
        running.event("cap", 0, number=1, cancelled=True)
        await eventually(lambda: not ev._waiting)
        assert ev.machine.storage.power_kw == device.power_kw == 11


async def test_an_ev_that_has_left_refuses_and_is_capped_when_it_comes_back(tmp_path: Path) -> None:
    now = [NIGHT]
    async with running_cem(tmp_path) as running, simulated(running.url, "ev_01", clock=lambda: now[0]) as (ev,):
        device = running.cem.devices["ev_01"]
        await eventually(lambda: device.power_kw == 22)
        now[0] = NIGHT.replace(hour=12)
        await eventually(lambda: not ev.machine.is_there and device.power_kw == 0)
        running.event("cap", 50)
        await asyncio.sleep(0.3)
        assert ev.machine.storage.power_kw == 0
        now[0] = NIGHT.replace(hour=18)
        await eventually(lambda: ev.machine.is_there and ev.machine.storage.power_kw == 11)
