"""One event can be followed by its id through all logs, from the VTN's API to the device and to FlexMeasures."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.ems import VEN, Ems, until
from tests.support.summary import TRACE

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


def shown(line: dict[str, Any]) -> str:
    """A line of a log for people."""
    rest = {key: value for key, value in line.items() if key not in ("time", "level", "service", "logger", "message")}
    return f"{line['time'][11:23]} {line['service']:<4} {line['message']:<18} {json.dumps(rest)}"


def test_an_event_is_followed_from_the_api_to_the_device_and_to_flexmeasures(
    ems: Ems, record_property: Callable[[str, object], None]
) -> None:
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
        lines = until(told, 60, "the whole story")
    finally:
        for line in ems.trace(EVENT):
            record_property(TRACE, shown(line))
        assert ems.vtn("DELETE", f"events/{EVENT}").ok
        until(lambda: all(values[-1] == 100.0 for values in ems.beliefs().values()), 60, "the limit is lifted")
    first = [next(line for line in lines if (line["service"], line["message"]) == step) for step in STORY]
    times = {step: line["time"] for step, line in zip(STORY, first, strict=True)}
    assert times[STORY[0]] <= times[STORY[1]] <= times[STORY[2]] <= times[STORY[3]], times
    assert times[STORY[2]] <= times[STORY[5]] <= times[STORY[6]] <= times[STORY[7]], times
