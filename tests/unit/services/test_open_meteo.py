"""Asking Open-Meteo: how often, what is kept, and what happens when it fails."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

from cariflex.feeds import open_meteo as module
from cariflex.feeds.open_meteo import OpenMeteo, OpenMeteoError
from cariflex.feeds.weather import IRRADIANCE, Place
from tests.unit.services.openadr_support import free_port

ANSWERS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "contract/open_meteo/documented.json").read_text(encoding="utf-8")
)
SITE = Place(14.6415, -61.0242)
NOON = 1795694400.0  # 2026-11-26, UTC: after the run could be had
RUNS, FORECAST = "/data/ncep_gfs013/static/meta.json", "/v1/forecast"
Answer = Callable[[], web.Response]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(module, "LONGEST_PAUSE_SECONDS", 0.02)


class Clock:
    """Goes on when told."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


class Service:
    """Open-Meteo as documented; `fail` has answers that come first, by path."""

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.runs = dict(ANSWERS["runs"])
        self.asked: list[web.Request] = []
        self.fail: dict[str, list[Answer]] = {}
        self.slow = 0.0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        await asyncio.sleep(self.slow)
        if waiting := self.fail.get(request.path):
            return waiting.pop(0)()
        return web.json_response(self.runs if request.path == RUNS else ANSWERS["forecast"])

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.asked]


@asynccontextmanager
async def service() -> AsyncIterator[Service]:
    found = Service()
    app = web.Application()
    app.router.add_get("/{path:.*}", found.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(found.url.rpartition(":")[2])).start()
    try:
        yield found
    finally:
        await runner.cleanup()


def client(at: Service, folder: Path, clock: Clock, key: str | None = None) -> OpenMeteo:
    return OpenMeteo(SITE, folder / "weather.json", url=at.url, api_key=SecretStr(key) if key else None, clock=clock)


def answers(status: int, body: Any = None, **headers: str) -> Answer:
    return lambda: web.json_response(body or {}, status=status, headers=headers)


async def test_it_is_asked_once_an_hour_and_for_the_forecast_once_a_run(tmp_path: Path) -> None:
    clock = Clock()
    async with service() as at:
        meteo = client(at, tmp_path, clock)
        for _ in range(5):
            weather = await meteo.weather()
        assert at.paths == [RUNS, FORECAST]
        assert len(weather.forecast(IRRADIANCE, clock.now)[0].values) > 48
        clock.now += 3600
        await meteo.weather()
        assert at.paths == [RUNS, FORECAST, RUNS], "the run is the same"
        at.runs["last_run_initialisation_time"] += 21600
        at.runs["last_run_availability_time"] += 21600
        clock.now += 3600
        assert (await meteo.weather()).run.began == at.runs["last_run_initialisation_time"]
        assert at.paths[3:] == [RUNS, FORECAST]
        assert {request.headers["User-Agent"] for request in at.asked} == {module.USER_AGENT}
        assert at.asked[1].query["latitude"] == "14.6415"


async def test_a_restart_knows_the_weather_and_asks_only_whether_there_is_a_newer_run(tmp_path: Path) -> None:
    async with service() as at:
        before = await client(at, tmp_path, Clock()).weather()
        assert await client(at, tmp_path, Clock()).weather() == before
        assert at.paths == [RUNS, FORECAST, RUNS]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": "gfs_global"}', '{"model": 1}', "null"])
async def test_a_broken_file_is_as_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "weather.json").write_text(content)
    async with service() as at:
        await client(at, tmp_path, Clock()).weather()
        assert at.paths == [RUNS, FORECAST]


async def test_a_file_that_cannot_be_written_costs_no_weather(tmp_path: Path) -> None:
    async with service() as at:
        assert (await client(at, tmp_path / "missing", Clock()).weather()).hours


async def test_what_fails_once_is_asked_again(tmp_path: Path) -> None:
    async with service() as at:
        at.fail[RUNS] = [answers(503)]
        at.fail[FORECAST] = [lambda: web.Response(text="<html>busy</html>"), answers(502)]
        meteo = client(at, tmp_path, Clock())
        await meteo.weather()
        assert at.paths == [RUNS, RUNS, FORECAST, FORECAST, FORECAST]
        assert meteo.trouble is None


async def test_an_answer_that_stays_no_json_is_said(tmp_path: Path) -> None:
    async with service() as at:
        at.fail[FORECAST] = [lambda: web.Response(text='{"hourly": [') for _ in range(module.ATTEMPTS)]
        with pytest.raises(OpenMeteoError, match="/v1/forecast answered with something that is no JSON"):
            await client(at, tmp_path, Clock()).weather()
        assert at.paths == [RUNS, *[FORECAST] * module.ATTEMPTS]
    assert not (tmp_path / "weather.json").exists()


async def test_attempts_have_an_end_and_rests_grow(tmp_path: Path) -> None:
    clock = Clock()
    async with service() as at:
        at.fail[RUNS] = [answers(500, {"error": True, "reason": "out of order"}) for _ in range(99)]
        meteo = client(at, tmp_path, clock)
        for rest in (60, 120, 240):
            with pytest.raises(OpenMeteoError, match=r"meta\.json answered 500: out of order") as error:
                await meteo.weather()
            assert error.value.pause == rest
            asked = len(at.asked)
            clock.now += rest - 1
            with pytest.raises(OpenMeteoError):
                await meteo.weather()
            assert len(at.asked) == asked, "it is left alone meanwhile"
            clock.now += 1
        assert len(at.asked) == 3 * module.ATTEMPTS


@pytest.mark.parametrize(
    ("after", "pause"),
    [
        ("120", 120.0),
        (format_datetime(datetime.fromtimestamp(NOON + 90, UTC), usegmt=True), 90.0),
        ("9999999", module.LONGEST_ASKED_SECONDS),
        ("soon", module.LOOK_SECONDS),
        ("", module.LOOK_SECONDS),
        ("-5", module.LOOK_SECONDS),
    ],
)
async def test_too_many_questions_are_followed_by_the_pause_that_is_asked_for(
    after: str, pause: float, tmp_path: Path
) -> None:
    clock = Clock()
    async with service() as at:
        at.fail[RUNS] = [answers(429, ANSWERS["too_many"], **{"Retry-After": after})]
        meteo = client(at, tmp_path, clock)
        with pytest.raises(OpenMeteoError, match="429, too many questions: Minutely API request limit") as error:
            await meteo.weather()
        assert error.value.pause == pytest.approx(pause)
        assert at.paths == [RUNS], "no second attempt"
        clock.now += pause - 1
        with pytest.raises(OpenMeteoError):
            await meteo.weather()
        assert at.paths == [RUNS]
        clock.now += 1
        await meteo.weather()


async def test_known_weather_serves_while_asking_fails_and_until_it_ends(tmp_path: Path) -> None:
    clock = Clock()
    async with service() as at:
        meteo = client(at, tmp_path, clock)
        known = await meteo.weather()
        at.fail[RUNS] = [answers(503) for _ in range(99)]
        clock.now += 7200
        assert await meteo.weather() == known
        assert "answered 503" in (meteo.trouble or "")
        clock.now = known.end
        with pytest.raises(OpenMeteoError, match="answered 503"):
            await meteo.weather()


async def test_a_question_that_is_refused_is_not_repeated(tmp_path: Path) -> None:
    async with service() as at:
        at.fail[FORECAST] = [answers(400, ANSWERS["refused"])]
        with pytest.raises(OpenMeteoError, match="/v1/forecast answered 400: Cannot initialize WeatherVariable"):
            await client(at, tmp_path, Clock()).weather()
        assert at.paths == [RUNS, FORECAST]


async def test_no_answer_in_time_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", aiohttp.ClientTimeout(total=0.1))
    async with service() as at:
        at.slow = 0.5
        with pytest.raises(OpenMeteoError, match="does not answer within"):
            await client(at, tmp_path, Clock()).weather()
        assert len(at.asked) == module.ATTEMPTS


async def test_nobody_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(OpenMeteoError, match="cannot be reached"):
        await client(Service(), tmp_path, Clock()).weather()


async def test_units_that_are_others_are_said_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    wrong = json.loads(json.dumps(ANSWERS["forecast"]))
    wrong["hourly_units"]["wind_speed_10m"] = "km/h"
    async with service() as at:
        at.fail[FORECAST] = [answers(200, wrong)]
        with pytest.raises(OpenMeteoError, match=r"cannot be used: hourly\.wind_speed_10m is in 'km/h'"):
            await client(at, tmp_path, Clock()).weather()
    assert not (tmp_path / "weather.json").exists()


async def test_an_endless_answer_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_ANSWER", 1000)
    async with service() as at:
        with pytest.raises(OpenMeteoError, match="more than 1000 bytes"):
            await client(at, tmp_path, Clock()).weather()


async def test_a_key_is_sent_and_never_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with service() as at:
        at.fail[FORECAST] = [answers(500) for _ in range(3)]
        with pytest.raises(OpenMeteoError) as error:
            await client(at, tmp_path, Clock(), "s3cret-key").weather()
        assert {request.query["apikey"] for request in at.asked} == {"s3cret-key"}
    assert "s3cret-key" not in str(error.value) + caplog.text
