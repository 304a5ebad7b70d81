"""Every S2 message that our CEM and our resource managers exchange is valid against the standard's JSON schemas."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from referencing import Registry, Resource

from cariflex.s2.wire import read
from tests.unit.services.openadr_support import eventually
from tests.unit.services.s2_support import details, message_of, raw, running_cem, simulated

SCHEMAS = os.environ.get("CARIFLEX_S2_SCHEMAS", "")
pytestmark = pytest.mark.skipif(
    not SCHEMAS,
    reason="CARIFLEX_S2_SCHEMAS names no folder with the S2 JSON schemas (messages/, schemas/): "
    "clone https://github.com/flexiblepower/s2-ws-json and name its s2-json-schema",
)


class Oracle:
    """The schemas of the standard."""

    def __init__(self, folder: Path) -> None:
        contents = {path: json.loads(path.read_text(encoding="utf-8")) for path in folder.rglob("*.schema.json")}
        registry: Registry[Any] = Registry().with_resources(
            (content["$id"], Resource.from_contents(content)) for content in contents.values()
        )
        self._validators = {
            path.name.removesuffix(".schema.json"): Draft202012Validator(content, registry=registry)
            for path, content in contents.items()
            if path.parent.name == "messages"
        }

    def check(self, message: dict[str, Any]) -> str:
        """The type of a message that is valid."""
        self._validators[message["message_type"]].validate(message)
        return str(message["message_type"])


async def test_all_traffic_is_valid_in_both_directions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices are capped, released, told ahead, called off; a stranger sends what is wrong; the CEM stops."""
    heard: list[dict[str, Any]] = []

    def listen(text: str | bytes) -> Any:
        if b'"Nonsense"' not in (text if isinstance(text, bytes) else text.encode()):
            heard.append(json.loads(text))
        return read(text)

    monkeypatch.setattr("cariflex.s2.door.read", listen)
    async with running_cem(tmp_path) as running, simulated(running.url, "battery_01", "ev_01") as (_, ev):
        await eventually(lambda: running.cem.devices["ev_01"].power_kw == 22)
        running.event("cap", 50)
        await eventually(lambda: running.cem.devices["ev_01"].power_kw == 11)
        running.event("cap", 0, number=1, cancelled=True)
        await eventually(lambda: running.cem.devices["ev_01"].power_kw == 22)
        running.event("later", 50, start=600)
        await eventually(lambda: len(ev._waiting) == 2)
        running.event("later", 0, number=1, cancelled=True)
        await eventually(lambda: not ev._waiting)
        await ev._say(ev._storage_status(), ev._measurement())
        async with raw(running.url) as stranger:  # takes the battery's place
            for message in (message_of("Nonsense"), details("FILL_RATE_BASED_CONTROL")):
                heard.append(await stranger.say(message))
            await stranger.introduce("POWER_ENVELOPE_BASED_CONTROL")
        await running.cem.devices["ev_01"].dismiss("the CEM stops")
        await asyncio.sleep(0.1)
    oracle = Oracle(Path(SCHEMAS))
    assert {oracle.check(message) for message in heard} == {
        "Handshake",
        "HandshakeResponse",
        "ResourceManagerDetails",
        "SelectControlType",
        "ReceptionStatus",
        "InstructionStatusUpdate",
        "PowerMeasurement",
        "FRBC.SystemDescription",
        "FRBC.StorageStatus",
        "FRBC.ActuatorStatus",
        "FRBC.UsageForecast",
        "FRBC.LeakageBehaviour",
        "FRBC.FillLevelTargetProfile",
        "FRBC.Instruction",
        "RevokeObject",
        "SessionRequest",
    }


def test_the_schema_really_refuses() -> None:
    oracle = Oracle(Path(SCHEMAS))
    assert oracle.check(message_of("FRBC.StorageStatus", present_fill_level=5)) == "FRBC.StorageStatus"
    with pytest.raises(ValidationError):
        oracle.check(message_of("FRBC.StorageStatus", present_fill_level="5"))
