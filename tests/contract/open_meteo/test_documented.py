"""Open-Meteo's answers as its documentation has them (documented.json), read, and refused where something is wrong."""

import copy
import itertools
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from cariflex.feeds.weather import (
    CLEAR_SKY,
    DIFFUSE,
    DIRECT_NORMAL,
    HOUR,
    IRRADIANCE,
    OPEN_METEO,
    QUANTITIES,
    TEMPERATURE,
    WIND_SPEED,
    Place,
    Run,
    Weather,
    WeatherError,
    clear_sky,
    question,
    run_of,
    sun_height,
    weather_of,
)

ANSWERS: dict[str, Any] = json.loads((Path(__file__).parent / "documented.json").read_text(encoding="utf-8"))
SITE = Place(14.6415, -61.0242)
ZONE = ZoneInfo("America/Martinique")
RUN = Run(1795672800, 1795692068)  # 2026-11-26, of 06:00, available at 11:21:08 (UTC)


def read(name: str = "forecast") -> Weather:
    return weather_of(ANSWERS[name], RUN, SITE)


def moment(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def test_the_run_is_read_from_the_models_metadata() -> None:
    assert run_of(ANSWERS["runs"]) == RUN


@pytest.mark.parametrize("answer", [None, [], {}, {"last_run_initialisation_time": 5}, {"error": True}])
def test_metadata_without_a_run_are_refused(answer: Any) -> None:
    with pytest.raises(WeatherError, match="the newest run is not told"):
        run_of(answer)


def test_what_is_asked_for_is_what_is_read() -> None:
    asked = question(SITE, "gfs_global")
    assert set(asked["hourly"].split(",")) == set(ANSWERS["forecast"]["hourly"]) - {"time"}
    assert (asked["wind_speed_unit"], asked["timeformat"], asked["timezone"]) == ("ms", "unixtime", "GMT")
    assert len(asked["hourly"].split(",")) <= 10, "more variables count as more than one question"


def test_irradiance_is_the_mean_of_the_hour_before_its_time() -> None:
    hourly = ANSWERS["forecast"]["hourly"]
    for quantity in (IRRADIANCE, DIRECT_NORMAL, DIFFUSE):
        for time, value in zip(hourly["time"], hourly[quantity.variable], strict=True):
            assert read().hours[quantity.name][time - HOUR] == value


def test_temperature_and_wind_of_an_hour_are_between_its_ends() -> None:
    hourly = ANSWERS["forecast"]["hourly"]
    for quantity in (TEMPERATURE, WIND_SPEED):
        first, second, *_ = hourly[quantity.variable]
        assert read().hours[quantity.name][hourly["time"][0]] == pytest.approx((first + second) / 2)
        assert hourly["time"][-1] not in read().hours[quantity.name], "its end is not known"


def test_hours_that_have_ended_are_actual_and_those_to_come_a_forecast() -> None:
    now = moment("2026-11-26T14:20:00+00:00")
    (actual,) = read().actual(IRRADIANCE, moment("2026-11-26T10:00:00+00:00"), now)
    (ahead,) = read().forecast(IRRADIANCE, now)
    assert (actual.start, len(actual.values)) == (moment("2026-11-26T10:00:00+00:00"), 4), "14:00 has not ended"
    assert actual.belief == now
    assert ahead.start == moment("2026-11-26T15:00:00+00:00"), "14:00 has begun"
    assert ahead.belief == RUN.available, "the same run says the same: the same belief time, and no second belief"


def test_a_forecast_is_never_believed_later_than_now() -> None:
    now = RUN.available - 60  # a clock that is behind
    assert {piece.belief for piece in read().forecast(TEMPERATURE, now)} == {now}


def test_a_hole_leaves_its_hours_out_and_splits_what_is_stored() -> None:
    answer = copy.deepcopy(ANSWERS["forecast"])
    answer["hourly"]["shortwave_radiation"][20:22] = [None, None]
    answer["hourly"]["temperature_2m"][20] = None
    weather, times = weather_of(answer, RUN, SITE), answer["hourly"]["time"]
    first, second = weather.actual(IRRADIANCE, 0, times[-1] + 1)
    assert first.start + HOUR * len(first.values) == times[20] - HOUR
    assert second.start == times[21]
    assert (weather.holes["irradiance"], weather.holes["temperature"], weather.holes["wind_speed"]) == (2, 1, 0)
    assert {times[19], times[20]}.isdisjoint(weather.hours["temperature"]), "both hours that it ends or begins"


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of an answer; the value `del` deletes."""

    def change(answer: dict[str, Any]) -> None:
        *way, last = path.split(".")
        for part in way:
            answer = answer[part]
        key: Any = int(last) if last.isdigit() else last
        if value is del_:
            del answer[key]
        else:
            answer[key] = value

    return change


del_ = object()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("hourly_units.wind_speed_10m", "km/h"), "hourly.wind_speed_10m is in 'km/h', not in 'm/s'"),
        (put("hourly_units.temperature_2m", "°F"), "is in '°F', not in '°C'"),
        (put("hourly_units.time", "iso8601"), "hourly.time is in 'iso8601', not in 'unixtime'"),
        (put("hourly_units", del_), "hourly or hourly_units is missing"),
        (put("hourly", [1]), "hourly or hourly_units is missing"),
        (put("hourly.diffuse_radiation", del_), "hourly.diffuse_radiation is missing"),
        (put("hourly.wind_speed_10m.95", del_), "hourly.wind_speed_10m has 95 values for 96 times"),
        (put("hourly.time.40", del_), "not one hour on"),
        (put("hourly.time.40", "2026-11-26T16:00"), "hourly.time is no list of times"),
        (put("hourly.time", []), "hourly.time is no list of times"),
        (put("hourly.temperature_2m.3", 400.0), r"hourly.temperature_2m\[3\] is 400.0, not between -90 and 60 °C"),
        (put("hourly.shortwave_radiation.3", -1.0), r"shortwave_radiation\[3\] is -1.0"),
        (put("hourly.shortwave_radiation.3", math.nan), r"shortwave_radiation\[3\] is nan"),
        (put("hourly.shortwave_radiation.3", "12"), r"shortwave_radiation\[3\] is '12'"),
        (put("hourly.shortwave_radiation.3", True), r"shortwave_radiation\[3\] is True"),
        (put("hourly.temperature_2m", [None] * 96), "hourly.temperature_2m has no value at all"),
        (put("latitude", 46.2), "latitude is 46.2, asked for was 14.6415"),
        (put("longitude", del_), "longitude is None"),
    ],
)
def test_what_is_wrong_is_said(change: Callable[[dict[str, Any]], None], said: str) -> None:
    answer = copy.deepcopy(ANSWERS["forecast"])
    change(answer)
    with pytest.raises(WeatherError, match=said):
        weather_of(answer, RUN, SITE)


def test_times_that_begin_within_an_hour_are_refused() -> None:
    answer = copy.deepcopy(ANSWERS["forecast"])
    answer["hourly"]["time"] = [time + 900 for time in answer["hourly"]["time"]]
    with pytest.raises(WeatherError, match="not at a full hour"):
        weather_of(answer, RUN, SITE)


@pytest.mark.parametrize("answer", [None, [], "rain", 5])
def test_what_is_no_object_is_refused(answer: Any) -> None:
    with pytest.raises(WeatherError, match="not an object"):
        weather_of(answer, RUN, SITE)


def test_open_meteos_own_errors_are_said() -> None:
    with pytest.raises(WeatherError, match="Open-Meteo says: Cannot initialize"):
        weather_of(ANSWERS["refused"], RUN, SITE)


def test_a_zone_without_summer_time_changes_no_hour() -> None:
    """Times are UTC whatever zone is said beside them; the nights when others turn their clocks have 24 hours."""
    weather = read("site_zone")
    assert ANSWERS["site_zone"]["timezone"] == "America/Martinique"
    (piece,) = weather.actual(IRRADIANCE, 0, moment("2026-03-10T00:00:00+00:00"))
    starts = [datetime.fromtimestamp(piece.start + HOUR * index, ZONE) for index in range(len(piece.values))]
    assert {start.utcoffset() for start in starts} == {timedelta(hours=-4)}
    day = [start for start in starts if start.date().isoformat() == "2026-03-08"]  # the United States turn theirs
    assert [start.hour for start in day] == list(range(23)), "the last hour of the answer ends at 23:00"
    brightest = max(zip(piece.values, starts, strict=True))[1]
    assert 10 <= brightest.hour <= 13, "the sun is high at noon of the site"


def test_a_leap_day_has_its_hours() -> None:
    (piece,) = read("leap_day").actual(IRRADIANCE, 0, moment("2028-03-05T00:00:00+00:00"))
    starts = [datetime.fromtimestamp(piece.start + HOUR * index, UTC) for index in range(len(piece.values))]
    assert [s.hour for s in starts if (s.month, s.day) == (2, 29)] == list(range(24))
    assert [b - a for a, b in itertools.pairwise(starts)] == [timedelta(hours=1)] * (len(starts) - 1)


# --- the clear sky ---------------------------------------------------------------------------------------------------


def test_a_clear_sky_says_that_it_is_one() -> None:
    assert read().source == OPEN_METEO
    assert clear_sky(SITE, 1795694400.0).source == CLEAR_SKY != OPEN_METEO


def test_a_clear_sky_has_days_and_nights_of_the_site() -> None:
    weather = clear_sky(SITE, moment("2026-11-26T04:00:00+00:00"), 0, 24)  # midnight of the site
    sun = list(weather.hours["irradiance"].values())
    assert sun[:6] == [0.0] * 6
    assert sun[18:] == [0.0] * 6
    assert 700 < max(sun) < 1000
    assert sun.index(max(sun)) in (11, 12)
    for quantity in QUANTITIES:
        values = weather.hours[quantity.name].values()
        assert len(values) == 24
        assert quantity.least <= min(values) <= max(values) <= quantity.most
    for whole, normal, diffuse in zip(*(weather.hours[q.name].values() for q in QUANTITIES[:3]), strict=True):
        assert diffuse <= whole + 0.1
        assert normal >= 0


@pytest.mark.parametrize(
    ("at", "degrees"),
    [
        ("2026-06-21T16:06:00+00:00", 90 - (23.44 - 14.64)),  # the sun passes north of the site in June
        ("2026-12-21T16:02:00+00:00", 90 - (23.44 + 14.64)),
        ("2028-02-29T16:16:30+00:00", 90 - (14.64 + 7.6)),
    ],
)
def test_the_suns_height_at_noon(at: str, degrees: float) -> None:
    assert math.degrees(math.asin(sun_height(SITE, moment(at)))) == pytest.approx(degrees, abs=0.3)
