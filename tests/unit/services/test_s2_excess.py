"""A device that goes on above its limit is told of once, and one that is only slow is not."""

import logging
import time
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from cariflex.s2.excess import Excess
from tests.unit.services.openadr_support import eventually
from tests.unit.services.s2_support import running_cem, simulated


@pytest.mark.parametrize(
    ("measured", "limits", "lasting"),
    [
        ({0: 22, 5: 22, 10: 22, 15: 22}, {0: 11}, [15]),
        ({0: 22, 5: 22, 10: 11, 15: 22, 25: 22}, {0: 11}, []),  # it followed in between
        ({0: 22, 20: 22, 25: 11, 30: 22, 45: 22}, {0: 11}, [20, 45]),
        ({0: 22, 5: 22, 10: 22, 15: 22}, {0: 11, 8: 5}, []),  # a new limit, and new time to follow
        ({0: 22, 20: 22, 30: 22}, {0: 11, 8: 5, 25: 11}, []),
        ({0: 11.3, 20: 11.3}, {0: 11}, []),  # meters are not exact
        ({0: -5, 20: -5}, {0: -11}, [20]),
        ({0: 22, 20: 22}, {}, []),
    ],
)
def test_only_what_lasts_counts(measured: dict[int, float], limits: dict[int, float], lasting: list[int]) -> None:
    excess, limit, last = Excess(settle_seconds=10), None, None
    found = []
    for now in range(60):
        limit = limits.get(now, limit)
        last = (measured[now], float(now)) if now in measured else last
        before = excess.is_lasting
        excess.look(last, limit, float(now))
        if excess.is_lasting and not before:
            found.append(now)
    assert found == lasting


def test_what_was_measured_before_the_limit_does_not_count() -> None:
    excess = Excess(settle_seconds=10)
    excess.look((22.0, 0.0), None, 1.0)
    for now in range(2, 60):
        excess.look((22.0, 0.0), 11.0, float(now))
    assert not excess.is_lasting


def test_a_device_that_is_away_or_free_again_is_not_above() -> None:
    excess = Excess(settle_seconds=10)
    for after in (None, (22.0, 40.0)):
        excess.look((22.0, 0.0), 11.0, 0.0)
        excess.look((22.0, 20.0), 11.0, 20.0)
        assert excess.is_lasting
        excess.look(after, None if after else 11.0, 40.0)
        assert not excess.is_lasting


async def test_a_device_above_its_limit_is_a_metric_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved = [0.0]
    async with (
        running_cem(tmp_path, lambda: time.time() + moved[0]) as running,
        simulated(running.url, "ev_01") as (ev,),
    ):
        device = running.cem.devices["ev_01"]
        await eventually(lambda: device.power_kw == 22)
        running.event("cap", 50, seconds=3600)
        await eventually(lambda: device.power_kw == 11 and running.cem._excess["ev_01"]._limit_kw == 11)
        ev.machine.storage.set_power(22)  # what it says of its actuator is not so

        async def measure(expected: float, above: int) -> None:
            await ev._say(ev._measurement())
            await eventually(lambda: device.measured() and device.measured()[0] == expected)  # type: ignore[index]
            await eventually(lambda: REGISTRY.get_sample_value("cariflex_s2_above_limit", {"device": "ev_01"}) == above)

        def warnings() -> list[logging.LogRecord]:
            return [record for record in caplog.records if record.message == "device above its limit"]

        await measure(22, 0)
        await eventually(lambda: running.cem._excess["ev_01"]._since is not None)
        for _ in range(2):
            moved[0] += 11
            await measure(22, 1)
        (warning,) = warnings()
        assert (warning.__dict__["resource"], warning.__dict__["power_kw"], warning.__dict__["limit_kw"]) == (
            *("ev_01", 22, 11),
        )
        assert (warning.levelname, warning.__dict__["event_ids"]) == ("WARNING", ("cap",))
        ev.machine.storage.set_power(11)
        await measure(11, 0)
