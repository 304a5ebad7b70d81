"""The CEM and simulated devices over websockets: events become instructions, and every message gets its answer."""

import asyncio
import json
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cariflex.s2.mapping import Range
from cariflex.s2.program import limits_at
from cariflex.s2.wire import RefusedError, read
from cariflex.ven.grid import Stretch
from tests.unit.services.openadr_support import eventually
from tests.unit.services.s2_support import TOKENS, details, message_of, raw, running_cem, simulated


async def test_a_load_control_event_caps_charging_and_its_end_lifts_the_cap(tmp_path: Path) -> None:
    async with running_cem(tmp_path) as running, simulated(running.url, "ev_01") as (ev,):
        await eventually(lambda: running.cem.devices["ev_01"].power_kw == 22)
        running.event("cap", 50, start=1, seconds=2)
        began = time.time()
        await eventually(lambda: ev.machine.storage.power_kw == 11)
        assert time.time() - began > 0.01  # not before its time, which is full seconds
        await eventually(lambda: ev.machine.storage.power_kw == 22)
        assert 1 < time.time() - began < 4.5


async def test_a_cancelled_event_and_a_modified_one_are_followed(tmp_path: Path) -> None:
    async with running_cem(tmp_path) as running, simulated(running.url, "ev_01") as (ev,):
        await eventually(lambda: running.cem.devices["ev_01"].power_kw == 22)
        running.event("cap", 50)
        await eventually(lambda: ev.machine.storage.power_kw == 11)
        running.event("cap", 25, number=1)
        await eventually(lambda: ev.machine.storage.power_kw == 5.5)
        running.event("cap", 0, number=2, cancelled=True)
        await eventually(lambda: ev.machine.storage.power_kw == 22)


async def test_demand_response_stops_consumption_and_leaves_a_resting_battery_alone(tmp_path: Path) -> None:
    async with running_cem(tmp_path) as running, simulated(running.url, "ev_01", "battery_01") as (ev, battery):
        await eventually(lambda: all(device.power_kw is not None for device in running.cem.devices.values()))
        running.event("level", 3, signal="SIMPLE")
        await eventually(lambda: ev.machine.storage.power_kw == 0)
        assert battery.machine.storage.power_kw == 0
        assert running.cem.devices["battery_01"].order is None  # it consumes nothing: nothing was sent


async def test_a_device_that_comes_during_an_event_is_capped_at_once(tmp_path: Path) -> None:
    async with running_cem(tmp_path) as running:
        running.event("cap", 50)
        async with simulated(running.url, "ev_01") as (ev,):
            await eventually(lambda: ev.machine.storage.power_kw == 11)


async def test_the_cap_is_lifted_after_a_restart_of_the_cem(tmp_path: Path) -> None:
    """What the device did before is remembered on disk, so the end of the event brings it back."""
    async with running_cem(tmp_path) as running, simulated(running.url, "ev_01") as (ev,):
        await eventually(lambda: running.cem.devices["ev_01"].power_kw == 22)
        running.event("cap", 50)
        await eventually(lambda: running.cem.devices["ev_01"].power_kw == 11)
    async with running_cem(tmp_path) as running:
        manager = ev
        task = asyncio.create_task(manager.run(running.url, TOKENS["ev_01"]))
        await eventually(lambda: running.cem.devices["ev_01"].power_kw == 11)
        running.event("cap", 0, number=1, cancelled=True)
        await eventually(lambda: manager.machine.storage.power_kw == 22)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_instruction_that_is_lost_with_the_connection_does_not_make_the_one_before_the_devices_will(
    tmp_path: Path,
) -> None:
    async with running_cem(tmp_path) as running, simulated(running.url, "ev_01") as (ev,):
        await eventually(lambda: running.cem.devices["ev_01"].power_kw == 22)
        running.event("cap", 50)
        await eventually(lambda: running.cem.devices["ev_01"].power_kw == 11)
        lost: list[Any] = []
        ev._instructed = lambda message: lost.append(message) or []  # type: ignore[method-assign, func-returns-value]
        running.event("cap", 25, number=1)
        await eventually(lambda: lost)
        del ev._instructed
        assert ev.door is not None
        await ev.door.close("the cable is pulled")
        await eventually(lambda: ev.machine.storage.power_kw == 5.5)
        running.event("cap", 0, number=2, cancelled=True)
        await eventually(lambda: ev.machine.storage.power_kw == 22)


async def test_stored_energy_goes_to_the_outbox_once_a_cell(tmp_path: Path) -> None:
    now = [1_800_000_000.0]
    async with running_cem(tmp_path, lambda: now[0]) as running, simulated(running.url, "battery_01"):
        device = running.cem.devices["battery_01"]
        await eventually(lambda: device.stored_kwh() == 50)
        running.cem.queue_energy(device)
        assert running.ven.next() is None  # the cell in which it came is not known from its beginning
        now[0] += 299
        running.cem.queue_energy(device)
        assert running.ven.next() is None
        now[0] += 1
        device.status_at = now[0]
        running.cem.queue_energy(device)
        running.cem.queue_energy(device)
        post = running.ven.next()
        assert post is not None
        assert (post.sensor, post.start, post.values, post.event_id) == (51, 1_800_000_300, (50.0,), "s2:battery_01")
        running.ven.delivered(post)
        assert running.ven.next() is None


async def test_health_tells_each_device(tmp_path: Path) -> None:
    async with running_cem(tmp_path) as running, simulated(running.url, "ev_01"):
        await eventually(lambda: running.cem.devices["ev_01"].power_kw == 22)
        async with (
            aiohttp.ClientSession() as http,
            http.get(running.url.replace("ws:", "http:")[:-3] + "/health") as got,
        ):
            content = await got.json()
        assert got.status == 200
        assert content["devices"]["ev_01"]["connected"]
        assert content["devices"]["ev_01"]["stored_kwh"] == 30
        assert not content["devices"]["battery_01"]["connected"]


async def test_a_wrong_token_is_refused(tmp_path: Path) -> None:
    async with running_cem(tmp_path) as running:
        for token in ("", "wrong", "é"):
            with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
                async with raw(running.url, token):
                    pass


async def test_a_second_connection_of_a_device_replaces_the_first(tmp_path: Path) -> None:
    async with running_cem(tmp_path) as running, raw(running.url) as first, raw(running.url) as second:
        await first.socket.receive()  # the Handshake
        assert (await first.socket.receive(timeout=5)).type == aiohttp.WSMsgType.CLOSE
        assert (await second.introduce())["control_type"] == "FILL_RATE_BASED_CONTROL"


async def test_other_control_types_are_refused_and_the_device_is_still_heard(tmp_path: Path) -> None:
    async with running_cem(tmp_path) as running, raw(running.url) as manager:
        assert (await manager.introduce("POWER_ENVELOPE_BASED_CONTROL"))["control_type"] == "NO_SELECTION"
        measured = [{"commodity_quantity": "ELECTRIC.POWER.L1", "value": 1.0}]
        stamp = "2026-05-04T02:00:00Z"
        said = await manager.say(message_of("PowerMeasurement", measurement_timestamp=stamp, values=measured))
        assert said["status"] == "OK"
        said = await manager.say(message_of("FRBC.StorageStatus", present_fill_level=50))
        assert (said["status"], "control type" in said["diagnostic_label"]) == ("INVALID_CONTENT", True)


ANY_ID = str(uuid.uuid4())
WRONG: list[tuple[Any, str, str]] = [
    ("{", "INVALID_DATA", "not JSON"),
    ("[]", "INVALID_DATA", "not a JSON object"),
    (b"\xff\xfe", "INVALID_DATA", "not JSON"),
    ("[" * 100_000, "INVALID_DATA", "not JSON"),
    ({"message_type": "Handshake"}, "INVALID_DATA", "message_id"),
    ('{"message_type": "FRBC.StorageStatus", "message_id": 7, "present_fill_level": NaN}', "INVALID_DATA", "NaN"),
    ('{"message_type": "FRBC.StorageStatus", "present_fill_level": 1e999}', "INVALID_DATA", "64-bit"),
    (message_of("Nonsense"), "INVALID_MESSAGE", "Nonsense"),
    (message_of("FRBC.StorageStatus", present_fill_level="much"), "INVALID_MESSAGE", "present_fill_level"),
    (message_of("FRBC.StorageStatus", present_fill_level=5), "INVALID_CONTENT", "SystemDescription has to come"),
    (message_of("SelectControlType", control_type="NO_SELECTION"), "INVALID_CONTENT", "sent by a CEM only"),
    (
        message_of("OMBC.Status", active_operation_mode_id=ANY_ID, operation_mode_factor=0.5),
        "INVALID_CONTENT",
        "control type",
    ),
    (message_of("RevokeObject", object_type="FRBC.Instruction", object_id=ANY_ID), "INVALID_CONTENT", "there is no"),
    (
        message_of(
            "InstructionStatusUpdate",
            instruction_id=ANY_ID,
            status_type="STARTED",
            timestamp="2026-05-04T02:00:00Z",
        ),
        "INVALID_CONTENT",
        "there is no instruction",
    ),
]


async def test_what_is_wrong_gets_the_right_answer_and_the_connection_goes_on(tmp_path: Path) -> None:
    async with running_cem(tmp_path) as running, raw(running.url) as manager:
        early = await manager.say(details("FILL_RATE_BASED_CONTROL"))
        assert (early["status"], "before Handshake" in early["diagnostic_label"]) == ("INVALID_CONTENT", True)
        await manager.introduce()
        for message, status, text in WRONG:
            said = await manager.say(message)
            assert said["status"] == status, said
            assert text in said["diagnostic_label"]
            if isinstance(message, dict) and "message_id" in message:
                assert said["subject_message_id"] == message["message_id"]


async def test_a_factor_or_an_actuator_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    """s2-python accepts both."""
    async with running_cem(tmp_path) as running, simulated(running.url, "battery_01") as (battery,):
        device = running.cem.devices["battery_01"]
        await eventually(lambda: device.power_kw is not None)
        good = json.loads(battery._actuator_status().to_json())
        for wrong, text in (
            ({"operation_mode_factor": 1.7}, "not within 0..1"),
            ({"actuator_id": str(uuid.uuid4())}, "no actuator"),
            ({"active_operation_mode_id": str(uuid.uuid4())}, "no operation mode"),
        ):
            with pytest.raises(RefusedError, match=text):
                await device._handle(device.door, read(json.dumps(good | wrong)))  # type: ignore[arg-type]
        assert device.power_kw == 0


async def test_no_common_version_ends_the_connection(tmp_path: Path) -> None:
    async with running_cem(tmp_path) as running, raw(running.url) as manager:
        said = await manager.say(message_of("Handshake", role="RM", supported_protocol_versions=["9"]))
        assert said["status"] == "PERMANENT_ERROR"
        assert (await manager.socket.receive(timeout=5)).type == aiohttp.WSMsgType.CLOSE


async def test_an_instruction_waits_for_its_time_and_can_be_revoked(tmp_path: Path) -> None:
    """The device's side: execution times in the future, and their revocation."""
    async with running_cem(tmp_path) as running, simulated(running.url, "battery_01") as (battery,):
        device = running.cem.devices["battery_01"]
        await eventually(lambda: device.power_kw is not None)
        assert device.door is not None
        instruction = message_of(
            "FRBC.Instruction",
            id=str(uuid.uuid4()),
            actuator_id=str(battery._actuator),
            operation_mode=str(battery._mode),
            operation_mode_factor=1.0,
            execution_time=(datetime.now(UTC) + timedelta(seconds=1)).isoformat(),
            abnormal_condition=False,
        )
        await device.door.send(read(json.dumps(instruction)))
        await eventually(lambda: battery._waiting)
        assert battery.machine.storage.power_kw == 0
        revocation = message_of("RevokeObject", object_type="FRBC.Instruction", object_id=instruction["id"])
        await device.door.send(read(json.dumps(revocation)))
        await eventually(lambda: not battery._waiting)
        await asyncio.sleep(1.1)
        assert battery.machine.storage.power_kw == 0
        instruction |= {"message_id": str(uuid.uuid4()), "id": str(uuid.uuid4())}
        await device.door.send(read(json.dumps(instruction)))
        await eventually(lambda: battery.machine.storage.power_kw == 50)


powers = {"a": Range(-50, 50)}
stretch = st.tuples(st.integers(0, 100), st.integers(1, 50), st.floats(0, 100)).map(
    lambda drawn: Stretch(drawn[0], drawn[0] + drawn[1], drawn[2])
)


@given(st.lists(stretch), st.lists(stretch.map(lambda s: Stretch(s.start, s.end, s.value / 34))), st.floats(-10, 200))
def test_at_any_time_the_strictest_of_the_events_that_hold_then(
    load_control: list[Stretch], simple: list[Stretch], now: float
) -> None:
    holding = [s for s in load_control if s.start <= now < s.end]
    limit = limits_at(now, load_control, simple, powers).get("a")
    for s in holding:
        if s.value < 100:
            assert limit is not None
            assert limit <= s.value / 2 + 1e-9
    if not holding and not any(s.start <= now < s.end and s.value > 0 for s in simple):
        assert limit is None


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
garbage = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
KINDS = ("Handshake", "FRBC.SystemDescription", "FRBC.StorageStatus", "ReceptionStatus", "PowerForecast", "X")
FIELDS = ("actuators", "storage", "valid_from", "present_fill_level", "status", "elements", "start_time", "role")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(FIELDS), garbage, max_size=4), garbage, st.booleans())
def test_the_parser_answers_whatever_comes(kind: str, fields: dict[str, Any], other: Any, whole: bool) -> None:
    content = other if whole else {"message_type": kind, "message_id": str(uuid.uuid4())} | fields
    try:
        read(json.dumps(content))
    except RefusedError:
        return  # any other exception would be one that a device can cause


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_the_parser_answers_whatever_bytes_come(content: bytes) -> None:
    with pytest.raises(RefusedError):
        read(content)
