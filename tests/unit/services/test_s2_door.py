"""The door under TLS and under a peer that sends anything: always an answer, never an effect of what was refused."""

import asyncio
import copy
import json
import ssl
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cariflex.s2.device import Device
from cariflex.s2.settings import S2Settings
from cariflex.s2.simulator.manager import Manager
from cariflex.settings import SettingsError
from tests.unit.services.certificates import Authority
from tests.unit.services.openadr_support import eventually, free_port
from tests.unit.services.s2_support import (
    NIGHT,
    RESOURCES,
    TOKENS,
    Raw,
    details,
    machine_of,
    message_of,
    raw,
    running_cem,
)

# --- TLS -------------------------------------------------------------------------------------------------------------


async def test_devices_come_over_tls_and_check_whom_they_talk_to(tmp_path: Path) -> None:
    identity = Authority(tmp_path / "ours").identity("cem")
    stranger = Authority(tmp_path / "another")
    files: dict[str, Any] = {
        "tls_certificate": identity.certificate,
        "tls_key": identity.key,
        "health_port": free_port(),
    }
    async with running_cem(tmp_path, **files) as running:
        assert running.url.startswith("wss:")
        trusting = ssl.create_default_context(cafile=identity.ca)
        wary = ssl.create_default_context(cafile=stranger.ca)
        managers = {
            name: Manager(name, machine_of(name), lambda: NIGHT, tls=tls)
            for name, tls in (("ev_01", trusting), ("battery_01", wary))
        }
        tasks = [asyncio.create_task(m.run(running.url, TOKENS[name])) for name, m in managers.items()]
        await eventually(lambda: running.cem.devices["ev_01"].power_kw == 22)
        assert running.cem.devices["battery_01"].connections == 0
        health = f"http://127.0.0.1:{files['health_port']}/health"
        async with aiohttp.ClientSession() as http, http.get(health) as got:
            assert got.status == 200
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_half_of_tls_and_files_that_are_none_are_refused(tmp_path: Path) -> None:
    ours = {"resources": RESOURCES}
    for wrong in ({"tls_key": tmp_path}, {"tls_key": tmp_path, "tls_certificate": tmp_path}):
        with pytest.raises(ValidationError, match=r"both or not at all|another than port"):
            S2Settings.model_validate(ours | wrong)
    files = {"tls_key": tmp_path / "none", "tls_certificate": tmp_path / "none", "health_port": 1}
    with pytest.raises(SettingsError, match="no certificate in PEM form"):
        S2Settings.model_validate(ours | files).server_tls()


# --- a peer that sends anything --------------------------------------------------------------------------------------

ACTUATOR, MODE, OTHER, TIMER = (str(uuid.uuid4()) for _ in range(4))
STAMP = "2026-05-04T02:00:00Z"


def span(low: float, high: float) -> dict[str, float]:
    return {"start_of_range": low, "end_of_range": high}


def mode(mode_id: str) -> dict[str, Any]:
    power = {**span(-5000, 5000), "commodity_quantity": "ELECTRIC.POWER.L1"}
    element = {"fill_level_range": span(0, 100), "fill_rate": span(-0.1, 0.1), "power_ranges": [power]}
    return {"id": mode_id, "elements": [element], "abnormal_condition_only": False}


VALID = [
    message_of("Handshake", role="RM", supported_protocol_versions=["0.0.2-beta"]),
    details("FILL_RATE_BASED_CONTROL"),
    message_of(
        "FRBC.SystemDescription",
        valid_from=STAMP,
        actuators=[
            {
                "id": ACTUATOR,
                "supported_commodities": ["ELECTRICITY"],
                "operation_modes": [mode(MODE), mode(OTHER)],
                "transitions": [
                    {
                        "id": str(uuid.uuid4()),
                        "from": MODE,
                        "to": OTHER,
                        "start_timers": [TIMER],
                        "blocking_timers": [],
                        "abnormal_condition_only": False,
                    }
                ],
                "timers": [{"id": TIMER, "duration": 5000}],
            }
        ],
        storage={
            "provides_leakage_behaviour": True,
            "provides_fill_level_target_profile": True,
            "provides_usage_forecast": True,
            "fill_level_range": span(0, 100),
        },
    ),
    message_of("FRBC.StorageStatus", present_fill_level=50),
    message_of("FRBC.ActuatorStatus", actuator_id=ACTUATOR, active_operation_mode_id=MODE, operation_mode_factor=0.7),
    message_of(
        "FRBC.ActuatorStatus",
        actuator_id=ACTUATOR,
        active_operation_mode_id=OTHER,
        operation_mode_factor=0.2,
        previous_operation_mode_id=MODE,
        transition_timestamp=STAMP,
    ),
    message_of("FRBC.TimerStatus", timer_id=TIMER, actuator_id=ACTUATOR, finished_at=STAMP),
    message_of("FRBC.UsageForecast", start_time=STAMP, elements=[{"duration": 86400000, "usage_rate_expected": -0.1}]),
    message_of(
        "FRBC.LeakageBehaviour",
        valid_from=STAMP,
        elements=[{"fill_level_range": span(0, 100), "leakage_rate": 0.01}],
    ),
    message_of(
        "FRBC.FillLevelTargetProfile",
        start_time=STAMP,
        elements=[{"duration": 3600000, "fill_level_range": span(60, 90)}],
    ),
    message_of(
        "PowerMeasurement",
        measurement_timestamp=STAMP,
        values=[{"commodity_quantity": "ELECTRIC.POWER.L1", "value": 1200.0}],
    ),
    message_of("InstructionStatusUpdate", instruction_id=str(uuid.uuid4()), status_type="STARTED", timestamp=STAMP),
    message_of("RevokeObject", object_type="FRBC.SystemDescription", object_id=str(uuid.uuid4())),
    message_of("ReceptionStatus", subject_message_id=str(uuid.uuid4()), status="INVALID_CONTENT"),
]
GARBAGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 1.7, 1e308, -1e308, 10**400, "", "é" * 300, [], {}, [[]], ACTUATOR, STAMP, "9999-12-31"]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=10),
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A valid message, with some of its parts replaced, left out or added."""
    message = copy.deepcopy(draw(st.sampled_from(VALID)))
    message["message_id"] = str(uuid.UUID(int=draw(st.integers(0, 2**128 - 1))))
    for _ in range(draw(st.integers(0, 3))):
        place: Any = message
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and draw(st.booleans()):
                place = place[key]
                continue
            action = draw(st.sampled_from(["replace", "remove", "add"]))
            if action == "remove":
                del place[key]
            elif action == "replace" or isinstance(place, list):
                place[key] = draw(GARBAGE)
            else:
                place[draw(st.text(max_size=5))] = draw(GARBAGE)
            break
    return json.dumps(message)


def state(device: Device) -> str:
    """All that messages of the device have an effect on."""
    kept = {name: value for name, value in vars(device).items() if name not in ("door", "_changed", "_clock")}
    return repr(kept)


async def introduced(manager: Raw) -> None:
    await manager.introduce()
    for message in VALID[2:5]:
        assert (await manager.say(message))["status"] == "OK"


async def converse(messages: list[str]) -> None:
    with TemporaryDirectory() as folder:
        async with running_cem(Path(folder)) as running, raw(running.url) as manager:
            device = running.cem.devices["battery_01"]
            await introduced(manager)
            for text in messages:
                before = state(device)
                await manager.socket.send_str(text)
                if json.loads(text).get("message_type") == "ReceptionStatus":
                    continue  # an answer is not answered, also when it is wrong
                answer = await manager.next("ReceptionStatus")
                assert answer["status"] != "TEMPORARY_ERROR", text
                if answer["status"] == "PERMANENT_ERROR" or "the role of" in (answer.get("diagnostic_label") or ""):
                    return  # the connection ends, as the standard says
                if answer["status"] != "OK":
                    assert state(device) == before, text
            assert running.cem.health()[0] == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(mutated(), min_size=1, max_size=20))
def test_every_message_gets_an_answer_and_a_refused_one_has_no_effect(messages: list[str]) -> None:
    asyncio.run(asyncio.wait_for(converse(messages), 60))
