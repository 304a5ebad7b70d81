"""What the CEM observes reaches FlexMeasures' database: in order, once it can, and without holding anything up."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cariflex.ven.observations import Observations, Observer
from cariflex.ven.sender import UnreachableError
from tests.unit.services.openadr_support import eventually
from tests.unit.services.s2_support import running_cem, simulated


class FlexMeasures:
    """In the place of the sender: refuses what is marked bad, and is away when told so."""

    def __init__(self) -> None:
        self.stored: list[Any] = []
        self.status = 200

    async def post(self, _http: Any, path: str, body: dict[str, Any]) -> tuple[int, str, None]:
        assert path == "/cariflex/v1/observations"
        if self.status != 200:
            return self.status, "away", None
        if any(one.get("bad") for one in body["observations"]):
            return 422, "bad", None
        self.stored += body["observations"]
        return 200, "", None


async def drained(observer: Observer) -> None:
    async with aiohttp.ClientSession() as http:
        while await observer.send(http):
            pass


async def test_they_wait_for_flexmeasures_and_one_that_is_refused_does_not_stop_the_others(tmp_path: Path) -> None:
    flexmeasures, observations = FlexMeasures(), Observations(tmp_path)
    observer = Observer(observations, flexmeasures)  # type: ignore[arg-type]
    observations.add([{"n": 1}, {"n": 2, "bad": True}])
    observations.add([{"n": 3}])
    for status in (500, 404, 403, 429):
        flexmeasures.status = status
        with pytest.raises(UnreachableError, match=str(status)):
            await drained(observer)
        assert observations.waiting().count == 3
    flexmeasures.status = 200
    observations.close()
    reopened = Observations(tmp_path)  # another process
    await drained(Observer(reopened, flexmeasures))  # type: ignore[arg-type]
    assert flexmeasures.stored == [{"n": 1}, {"n": 3}]
    assert reopened.waiting().count == 0
    reopened.close()


def test_what_could_not_be_stored_for_a_month_is_given_up(tmp_path: Path) -> None:
    now = [1_800_000_000.0]
    observations = Observations(tmp_path, lambda: now[0])
    observations.add([{"n": 1}])
    now[0] += 31 * 86400
    observations.add([{"n": 2}])
    assert [content for _, content in observations.first(9)] == [{"n": 2}]
    observations.close()


async def test_the_cem_tells_what_became_of_an_event_at_the_device(tmp_path: Path) -> None:
    async with running_cem(tmp_path) as running, simulated(running.url, "ev_01"):
        await eventually(lambda: running.cem.devices["ev_01"].power_kw == 22)
        running.event("cap-1", 50)

        def found(kind: str) -> list[dict[str, Any]]:
            return [one for _, one in running.observations.first(99) if one["kind"] == kind]

        await eventually(lambda: any(one["status"] == "SUCCEEDED" for one in found("s2_instruction")))
        last = next(one for one in found("s2_instruction") if one["status"] == "SUCCEEDED" and one["power_kw"] == 11)
        assert (last["resource"], last["event_ids"], last["limit_kw"]) == ("ev_01", ["cap-1"], 11)
        assert list(last["times"]) == ["SENT", "ACCEPTED", "STARTED", "SUCCEEDED"]
        await eventually(lambda: any(one["limit_kw"] == 11 and one["connected"] for one in found("s2_status")))
        assert any(not one["connected"] for one in found("s2_status") if one["resource"] == "battery_01")
        assert running.ven.states()["ev_01"].connected
