"""One event can be followed by its id through all logs, from the VTN's API to the device and to FlexMeasures."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.ems import VEN, Ems, until

pytestmark = [pytest.mark.docker, pytest.mark.slow]

EVENT = "follow-me"
STORY = [
    ("vtn", "event created"),
    ("vtn", "event sent"),
    ("ven", "event answered"),
    ("vtn", "event answered"),
    ("ven", "values stored"),
    ("s2", "limits changed"),
    ("s2", "device told"),
    ("s2", "instruction status"),
]


def test_an_event_is_followed_from_the_api_to_the_device_and_to_flexmeasures(ems: Ems) -> None:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    body = {
        "signal_name": "LOAD_CONTROL",
        "unit": "%",
        "start": (now - timedelta(minutes=now.minute % 15)).isoformat(),
        "intervals": [{"duration": "PT30M", "value": 50.0}],
        "targets": [VEN],
    }
    assert ems.vtn("PUT", f"events/{EVENT}", body).ok

    def told() -> list[dict[str, Any]]:
        lines = ems.trace(EVENT)
        steps = {(line["service"], line["message"]) for line in lines}
        return lines if steps.issuperset(STORY) else []

    try:
        lines = until(told, 20, "the whole story")
    finally:
        seen = "\n".join(json.dumps(line) for line in ems.trace(EVENT))
        print(seen)
        assert ems.vtn("DELETE", f"events/{EVENT}").ok
    first = [next(line for line in lines if (line["service"], line["message"]) == step) for step in STORY]
    times = {step: line["time"] for step, line in zip(STORY, first, strict=True)}
    assert times[STORY[0]] <= times[STORY[1]] <= times[STORY[2]] <= times[STORY[3]], seen
    assert times[STORY[2]] <= times[STORY[5]] <= times[STORY[6]] <= times[STORY[7]], seen
