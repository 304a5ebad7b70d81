"""The feeds: tariffs, simulated devices, and jobs that can be done again at any time."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cariflex.feeds.jobs import HOUR, JobError, Progress, SimulatorJob, TariffJob, WeatherJob
from cariflex.feeds.load import Consumption, Load
from cariflex.feeds.main import jobs_of, serve
from cariflex.feeds.open_meteo import OpenMeteo, OpenMeteoError
from cariflex.feeds.pv import CELL, Array, Sky
from cariflex.feeds.settings import FedSensor, FeedsSettings
from cariflex.feeds.storages import Fleet, Storage
from cariflex.feeds.tariff import Daily, TariffError, listed
from cariflex.feeds.weather import CLEAR_SKY, Place, Weather
from cariflex.settings import SettingsError
from cariflex.ven.outbox import AT_ITS_END, Outbox, Post

ZONE = ZoneInfo("America/Martinique")
DAYS = st.dates(date(2024, 1, 1), date(2032, 12, 31))
NOW = int(datetime(2028, 2, 29, 12, 3, tzinfo=ZONE).timestamp())  # a leap day
PRICE = FedSensor(sensor=85, unit="EUR/MWh", resolution=timedelta(hours=1))
POWER = FedSensor(sensor=41, unit="kW", resolution=timedelta(minutes=5))


def midnight(day: Any) -> int:
    return int(datetime.combine(day, time(0), ZONE).timestamp())


# --- the sun ---


@settings(max_examples=25, deadline=None)
@given(DAYS, st.integers(0, 9))
def test_an_array_gives_nothing_at_night_never_more_than_its_peak_and_a_likely_energy(day: Any, seed: int) -> None:
    powers = Sky(14.64, -61.02, ZONE, seed).powers([Array("a", 20, 15, 180)], midnight(day), 288)["a"]
    assert all(0 <= kw <= 20 for kw in powers)
    assert set(powers[: 5 * 12]) == set(powers[19 * 12 :]) == {0.0}
    assert 20 < sum(powers) / 12 < 130, "kWh of 20 kW on a day: 1 to 6.5 hours of full power"


@settings(max_examples=10, deadline=None)
@given(DAYS, st.integers(0, 287), st.integers(1, 50))
def test_power_is_the_same_whenever_it_is_asked_for(day: Any, first: int, cells: int) -> None:
    arrays = [Array("a", 20, 15, 180), Array("b", 9, 10, 90)]
    whole = Sky(14.64, -61.02, ZONE, 1).powers(arrays, midnight(day), 340)
    part = Sky(14.64, -61.02, ZONE, 1).powers(arrays, midnight(day) + first * CELL, cells)
    assert part == {name: values[first : first + cells] for name, values in whole.items()}


def test_clouds_make_arrays_and_days_differ() -> None:
    sky = Sky(14.64, -61.02, ZONE, 1)
    days = sky.powers([Array("a", 20, 15, 180), Array("b", 20, 15, 180)], NOW // 86400 * 86400, 7 * 288)
    assert days["a"] != days["b"]
    assert len({round(sum(days["a"][n * 288 : n * 288 + 288])) for n in range(7)}) > 3


# --- consumption ---


@settings(max_examples=25, deadline=None)
@given(DAYS, st.integers(0, 9), st.integers(0, 287), st.integers(1, 50))
def test_a_load_stays_within_its_powers_and_is_the_same_whenever_asked_for(
    day: Any, seed: int, first: int, cells: int
) -> None:
    loads = {"shop": Load(15, 60), "lamp": Load(0, 0.1)}
    whole = Consumption(loads, ZONE, seed).powers(midnight(day), 340)
    assert all(loads[name].base_kw <= kw <= loads[name].peak_kw for name, values in whole.items() for kw in values)
    part = Consumption(loads, ZONE, seed).powers(midnight(day) + first * CELL, cells)
    assert part == {name: values[first : first + cells] for name, values in whole.items()}


def test_a_load_is_lowest_before_dawn_highest_in_the_evening_and_lower_on_a_sunday() -> None:
    hours: dict[int, list[float]] = {}
    monday, sunday = midnight(date(2028, 2, 28)), midnight(date(2028, 3, 5))
    found = Consumption({"a": Load(15, 60)}, ZONE, 1)
    for index, kw in enumerate(found.powers(monday, 5 * 288)["a"]):
        hours.setdefault(index % 288 // 12, []).append(kw)
    means = {hour: sum(values) / len(values) for hour, values in hours.items()}
    assert min(means, key=means.__getitem__) in (2, 3, 4, 5)
    assert max(means, key=means.__getitem__) in (18, 19, 20)
    working_day = sum(means.values()) / 24
    assert 25 < working_day < 45
    assert sum(found.powers(sunday, 288)["a"]) / 288 < 0.95 * working_day


# --- batteries and EVs ---


def test_storages_stay_within_what_they_hold_and_do_the_same_after_a_restart() -> None:
    storages = {"b": Storage("battery", -50, 50, 100, 0), "e": Storage("ev", -22, 22, 60, 1)}
    start = midnight(date(2028, 2, 28))
    day = Fleet(storages, ZONE, start).live(288)
    assert all(0 <= kwh <= storages[name].energy_kwh for name, values in day.items() for kwh in values)
    assert all(len(set(values)) > 10 for values in day.values())
    later = Fleet(storages, ZONE, start + 100 * CELL).live(50)
    assert later == {name: values[100:150] for name, values in day.items()}


# --- tariffs ---


def test_a_daily_tariff_goes_by_the_sites_clock() -> None:
    daily = Daily({time(0): 90.0, time(18): 140.0}, ZONE)
    clock = {hour: daily.at(midnight(date(2028, 2, 29)) + hour * HOUR) for hour in (0, 17, 18, 23)}
    assert clock == {0: 90, 17: 90, 18: 140, 23: 140}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("start,eur_per_mwh\n2028-01-01T00:00:00,90\n", "line 2: 2028-01-01T00:00:00 has no offset"),
        ("start,eur_per_mwh\n2028-01-01T00:00:00-04:00,cheap\n", "line 2: write start,eur_per_mwh"),
        ("start,price\n2028-01-01T00:00:00-04:00,90\n", "line 2: write start,eur_per_mwh"),
        ("start,eur_per_mwh\n2028-01-01T00:00:00-04:00,nan\n", "nan EUR/MWh is no price"),
        ("start,eur_per_mwh\n2028-01-02T00:00:00-04:00,90\n2028-01-01T00:00:00-04:00,9\n", "line 3: its start"),
        ("start,eur_per_mwh\n", "has no prices"),
    ],
)
def test_a_tariff_that_is_wrong_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "tariff.csv"
    path.write_text(text)
    with pytest.raises(TariffError, match=said):
        listed(path)


def test_a_listed_price_holds_until_the_next(tmp_path: Path) -> None:
    path = tmp_path / "tariff.csv"
    path.write_text("start,eur_per_mwh\n2028-01-01T00:00:00-04:00,90\n2028-01-01T06:00:00-04:00,-5\n")
    prices, first = listed(path), midnight(date(2028, 1, 1))
    assert [prices.at(first + hour * HOUR) for hour in (-1, 0, 5, 6, 1000)] == [None, 90, 90, -5, -5]


# --- jobs ---


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(tmp_path, lambda: NOW)
    yield box
    box.close()


def drained(outbox: Outbox) -> list[Post]:
    posts = []
    while post := outbox.next():
        outbox.delivered(post)
        posts.append(post)
    return posts


def run(job: Any, now: float = NOW) -> float:
    return float(asyncio.run(job.run(now)))


def test_a_tariff_is_told_two_days_ahead_once_and_again_when_it_changes(tmp_path: Path, outbox: Outbox) -> None:
    daily = {time(0): 90.0}
    progress = Progress(tmp_path)
    job = TariffJob(Daily(daily, ZONE).at, PRICE, outbox, progress, timedelta(days=7))
    assert 0 < run(job) <= HOUR + 5
    (post,) = drained(outbox)
    assert (post.sensor, post.source, len(post.values)) == (85, "", 7 * 24 + 48)
    run(job)
    assert drained(outbox) == []
    run(TariffJob(Daily(daily, ZONE).at, PRICE, outbox, Progress(tmp_path), timedelta(days=7)), NOW + HOUR)
    assert [len(post.values) for post in drained(outbox)] == [1], "only the new hour, also after a restart"
    daily[time(18)] = 140.0
    run(TariffJob(Daily(daily, ZONE).at, PRICE, outbox, Progress(tmp_path)), NOW + HOUR)
    assert {value for post in drained(outbox) for value in post.values} == {140.0}


def test_a_tariff_that_ends_soon_is_told(tmp_path: Path, outbox: Outbox) -> None:
    job = TariffJob(lambda moment: 90.0 if moment < NOW + 5 * HOUR else None, PRICE, outbox, Progress(tmp_path))
    run(job)
    assert job.restless(NOW) == "the tariff says nothing of the next 24 hours"


def simulator(outbox: Outbox, folder: Path) -> SimulatorJob:
    storages = {"s2": Storage("battery", -50, 50, 100, 0), "own": Storage("battery", -50, 50, 100, 1)}
    return SimulatorJob(
        lambda start, cells: {"pv": tuple(float(start + n) for n in range(cells))},
        lambda start: Fleet(storages, ZONE, start),
        {
            name: FedSensor(sensor=n, unit="kW", resolution=timedelta(minutes=5))
            for n, name in enumerate(("pv", "s2", "own"), 41)
        },
        {"s2": False, "own": True},
        outbox,
        Progress(folder),
        timedelta(days=2),
    )


def test_history_is_made_up_once_and_then_five_minutes_at_a_time(tmp_path: Path, outbox: Outbox) -> None:
    job = simulator(outbox, tmp_path)
    assert 0 < run(job) <= CELL + 2
    posts = drained(outbox)
    assert {(post.sensor, len(post.values), post.source) for post in posts} == {
        (n, 576, "simulator") for n in (41, 42, 43)
    }
    assert {post.start + CELL * 576 for post in posts} == {NOW // CELL * CELL}
    assert {post.belief for post in posts} == {AT_ITS_END}, "history that is made up now was not unknown before"
    run(simulator(outbox, tmp_path), NOW + CELL)
    assert {(post.sensor, len(post.values)) for post in drained(outbox)} == {(41, 1), (43, 1)}, "the CEM tells of 42"
    assert job.restless(NOW) is None


class Skies(OpenMeteo):
    """An Open-Meteo that cannot be reached."""

    async def weather(self) -> Weather:
        raise OpenMeteoError("it does not answer", 30)


def test_without_open_meteo_dev_gets_a_clear_sky_that_says_so(tmp_path: Path, outbox: Outbox) -> None:
    place = Place(14.64, -61.02)
    sensors = {"irradiance": FedSensor(sensor=81, unit="W/m²", resolution=timedelta(hours=1))}
    away = Skies(place, tmp_path / "cache.json")
    job = WeatherJob(away, sensors, place, outbox, Progress(tmp_path), fallback_history=timedelta(days=7))
    assert run(job) == 30
    posts = drained(outbox)
    assert {post.source for post in posts} == {CLEAR_SKY}
    assert sum(len(post.values) for post in posts if post.start < NOW) >= 7 * 24 - 1
    assert {post.belief for post in posts if post.start < NOW} == {AT_ITS_END}
    assert {post.belief for post in posts if post.start > NOW} == {NOW}, "a forecast, believed now"
    with pytest.raises(JobError, match="it does not answer"):
        run(WeatherJob(away, sensors, place, outbox, Progress(tmp_path)))
    assert drained(outbox) == [], "elsewhere nothing is made up"


# --- settings ---

SETTINGS: dict[str, Any] = {
    "environment": "dev",
    "flexmeasures": {"url": "http://f:5000", "email": "a@b.c"},
    "latitude": 14.64,
    "longitude": -61.02,
    "timezone": "America/Martinique",
    "simulated": {"pv": {"pv_01_power": {"sensor": POWER.model_dump(), "peak_kw": 20}}},
}


@pytest.mark.parametrize("environment", ["test", "prod"])
def test_only_dev_simulates(environment: str) -> None:
    with pytest.raises(ValidationError, match=f"the environment {environment} gets none"):
        FeedsSettings(**{**SETTINGS, "environment": environment})


def test_what_a_site_takes_is_simulated_beside_its_pv(tmp_path: Path) -> None:
    load = {"sensor": {"sensor": 111, "unit": "kW", "resolution": "PT5M"}, "base_kw": 15, "peak_kw": 60}
    box = Outbox(tmp_path, lambda: NOW)
    given = {**SETTINGS, "data_dir": tmp_path, "simulated": {**SETTINGS["simulated"], "loads": {"rest": load}}}
    (job,) = jobs_of(FeedsSettings(**given), box)
    run(job)
    values = {post.sensor: post.values for post in drained(box)}
    assert values.keys() == {41, 111}
    assert len(values[111]) == 2016
    box.close()
    with pytest.raises(ValidationError, match="base_kw, 70, is above peak_kw, 60"):
        FeedsSettings(**{**given, "simulated": {"loads": {"rest": load | {"base_kw": 70}}}})


def test_a_tariff_is_a_table_or_a_file(tmp_path: Path) -> None:
    sensor = PRICE.model_dump()
    for tariff, said in (
        ({"sensor": sensor}, "either daily or file"),
        ({"sensor": sensor, "daily": {"06:00": 1}}, "says nothing of 00:00"),
        ({"sensor": POWER.model_dump(), "daily": {"00:00": 1}}, "is in kW"),
    ):
        with pytest.raises(ValidationError, match=said):
            FeedsSettings(**{**SETTINGS, "tariff": tariff})
    wrong = FeedsSettings(**{**SETTINGS, "data_dir": tmp_path, "tariff": {"sensor": sensor, "file": "/nowhere.csv"}})
    box = Outbox(tmp_path)
    with pytest.raises(SettingsError, match=r"tariff: /nowhere.csv cannot be read"):
        jobs_of(wrong, box)
    box.close()


KEYED: dict[str, Any] = {
    "url": "https://customer-api.open-meteo.com",
    "with_key": True,
    "sensors": {"irradiance": {"sensor": 81, "unit": "W/m²", "resolution": "PT1H"}},
}


def test_a_key_is_read_from_its_file_and_never_sent_in_the_clear(tmp_path: Path) -> None:
    given = {**SETTINGS, "simulated": None, "data_dir": tmp_path, "secrets_dir": tmp_path, "weather": KEYED}
    box = Outbox(tmp_path)
    with pytest.raises(SettingsError, match="open_meteo_api_key: secret cannot be read"):
        jobs_of(FeedsSettings(**given), box)
    (tmp_path / "open_meteo_api_key").write_text("k3y\n")
    (job,) = jobs_of(FeedsSettings(**given), box)
    assert isinstance(job, WeatherJob)
    key = job._open_meteo._api_key
    assert key is not None
    assert key.get_secret_value() == "k3y"
    with pytest.raises(ValidationError, match="a key is not sent in the clear"):
        FeedsSettings(**{**given, "weather": KEYED | {"url": "http://weather.internal"}})
    box.close()


def test_progress_that_is_damaged_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "feeds.json").write_text("{")
    progress = Progress(tmp_path)
    assert progress.get("tariff") is None
    progress.keep("tariff", 1)
    assert json.loads((tmp_path / "feeds.json").read_text()) == {"tariff": 1}


async def test_a_weather_service_that_is_away_is_told_and_makes_nothing_unwell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deployment waits for health: it must not fail for somebody else's outage."""
    monkeypatch.setattr("cariflex.feeds.main.OpenMeteo", Skies)
    (tmp_path / "flexmeasures_ven_password").write_text("secret")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = {
        **SETTINGS,
        "environment": "prod",
        "simulated": None,
        "host": "127.0.0.1",
        "port": port,
        "data_dir": tmp_path,
        "secrets_dir": tmp_path,
        "flexmeasures": {"url": "http://127.0.0.1:9", "email": "a@b.c"},
        "weather": {"sensors": {"irradiance": {"sensor": 81, "unit": "W/m²", "resolution": "PT1H"}}},
    }
    serving = asyncio.create_task(serve(FeedsSettings(**given)))
    try:
        async with aiohttp.ClientSession() as http:
            for _ in range(100):
                await asyncio.sleep(0.05)
                try:
                    async with http.get(f"http://127.0.0.1:{port}/health") as answer:
                        status, said = answer.status, await answer.json()
                except aiohttp.ClientError:
                    continue
                if said["notes"]:
                    break
        assert (status, said["reasons"], said["notes"]) == (200, [], ["weather: it does not answer"])
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
