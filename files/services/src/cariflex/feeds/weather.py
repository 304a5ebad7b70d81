"""The weather of a site, hour by hour: what Open-Meteo says, read and checked, or a clear sky. Pure.

Times are seconds since 1970 (UTC) and name the beginning of an hour; so no zone and no leap day changes them. A value
holds for its whole hour, as FlexMeasures' sensors have it: Open-Meteo gives irradiance as the mean of the hour before
its time, and temperature and wind as they are at its time, of which an hour has two.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

HOUR = 3600
OPEN_METEO = "Open-Meteo"
CLEAR_SKY = "clear sky, simulated"  # the name of its data source: nobody takes it for weather
_ELSEWHERE_DEGREES = 0.5  # Open-Meteo answers for the middle of a cell of its grid, at most 25 km wide


@dataclass(frozen=True)
class Quantity:
    """Something that Open-Meteo says of an hour.

    Attributes:
        name: what we call it.
        variable: what Open-Meteo calls it.
        unit: Open-Meteo's and ours.
        of: the hour before its time, or the moment.
        least, most: what there is on Earth; anything else is an error.
    """

    name: str
    variable: str
    unit: str
    of: Literal["hour before", "moment"]
    least: float
    most: float


IRRADIANCE = Quantity("irradiance", "shortwave_radiation", "W/m²", "hour before", 0, 1500)
DIRECT_NORMAL = Quantity("direct_normal_irradiance", "direct_normal_irradiance", "W/m²", "hour before", 0, 1500)
DIFFUSE = Quantity("diffuse_irradiance", "diffuse_radiation", "W/m²", "hour before", 0, 1500)
TEMPERATURE = Quantity("temperature", "temperature_2m", "°C", "moment", -90, 60)
WIND_SPEED = Quantity("wind_speed", "wind_speed_10m", "m/s", "moment", 0, 120)
QUANTITIES = (IRRADIANCE, DIRECT_NORMAL, DIFFUSE, TEMPERATURE, WIND_SPEED)


class WeatherError(Exception):
    """What was answered is no weather; the text says what is wrong and where."""


@dataclass(frozen=True)
class Place:
    """Degrees, WGS 84."""

    latitude: float
    longitude: float


@dataclass(frozen=True)
class Run:
    """A computation of the weather model: when it began, and when its result could be had."""

    began: int
    available: int


@dataclass(frozen=True)
class Piece:
    """Values of consecutive hours, and when they were believed."""

    quantity: Quantity
    start: int
    values: tuple[float, ...]
    belief: int


@dataclass(frozen=True)
class Weather:
    """What one run says.

    Attributes:
        source: `OPEN_METEO` or `CLEAR_SKY`.
        run: whose result it is.
        hours: by name of a quantity the value of each hour; hours without one are missing.
        holes: by name of a quantity how many values Open-Meteo left out.
    """

    source: str
    run: Run
    hours: Mapping[str, Mapping[int, float]]
    holes: Mapping[str, int]

    def actual(self, quantity: Quantity, since: int, now: float) -> list[Piece]:
        """Hours that have ended, from `since` on, believed now: what the newest run says of them."""
        hours = {start: v for start, v in self.hours[quantity.name].items() if since <= start <= now - HOUR}
        return _pieces(quantity, hours, int(now))

    def forecast(self, quantity: Quantity, now: float) -> list[Piece]:
        """Hours that have not begun, believed since the run could be had; never later than now."""
        hours = {start: v for start, v in self.hours[quantity.name].items() if start > now}
        return _pieces(quantity, hours, min(self.run.available, int(now)))

    @property
    def end(self) -> int:
        """The end of the last hour of which all is known; 0 where there is none."""
        return min((max(hours, default=-HOUR) + HOUR for hours in self.hours.values()), default=0)


def _pieces(quantity: Quantity, hours: Mapping[int, float], belief: int) -> list[Piece]:
    found: list[Piece] = []
    for start, value in sorted(hours.items()):
        if found and found[-1].start + HOUR * len(found[-1].values) == start:
            found[-1] = Piece(quantity, found[-1].start, (*found[-1].values, value), belief)
        else:
            found.append(Piece(quantity, start, (value,), belief))
    return found


def question(place: Place, model: str, past_days: int = 1, forecast_days: int = 3) -> dict[str, str]:
    """What to ask Open-Meteo's forecast for, as its documentation has it."""
    return {
        "latitude": f"{place.latitude:.4f}",
        "longitude": f"{place.longitude:.4f}",
        "hourly": ",".join(quantity.variable for quantity in QUANTITIES),
        "models": model,
        "past_days": str(past_days),
        "forecast_days": str(forecast_days),
        "wind_speed_unit": "ms",  # km/h without it
        "timeformat": "unixtime",
        "timezone": "GMT",
    }


def run_of(answer: Any) -> Run:
    """The newest run, from what Open-Meteo says of a model (`/data/<model>/static/meta.json`).

    Raises:
        WeatherError: it says nothing of the kind.
    """
    found = answer if isinstance(answer, dict) else {}
    began, available = found.get("last_run_initialisation_time"), found.get("last_run_availability_time")
    if not _is_moment(began) or not _is_moment(available) or available < began:
        raise WeatherError(f"the newest run is not told: initialisation {began!r}, availability {available!r}")
    return Run(began, available)


def weather_of(answer: Any, run: Run, place: Place) -> Weather:
    """Read a forecast.

    Raises:
        WeatherError: it is none, is for another place, or has other units, uneven hours or impossible values.
    """
    if not isinstance(answer, dict):
        raise WeatherError(f"the answer is {type(answer).__name__}, not an object")
    if answer.get("error"):
        raise WeatherError(f"Open-Meteo says: {str(answer.get('reason'))[:200]}")
    for axis in ("latitude", "longitude"):
        got, asked = answer.get(axis), getattr(place, axis)
        if not _is_number(got) or abs(got - asked) > _ELSEWHERE_DEGREES:
            raise WeatherError(f"{axis} is {got!r}, asked for was {asked}")
    units, hourly = answer.get("hourly_units"), answer.get("hourly")
    if not isinstance(units, dict) or not isinstance(hourly, dict):
        raise WeatherError("hourly or hourly_units is missing")
    times = _times(hourly, units)
    hours, holes = {}, {}
    for quantity in QUANTITIES:
        values = _values(quantity, hourly, units, len(times))
        known = {time: value for time, value in zip(times, values, strict=True) if value is not None}
        if not known:
            raise WeatherError(f"hourly.{quantity.variable} has no value at all")
        hours[quantity.name] = _whole_hours(quantity, known)
        holes[quantity.name] = len(times) - len(known)
    return Weather(OPEN_METEO, run, hours, holes)


def _times(hourly: Mapping[str, Any], units: Mapping[str, Any]) -> list[int]:
    if (unit := units.get("time")) != "unixtime":
        raise WeatherError(f"hourly.time is in {unit!r}, not in 'unixtime'")
    times = hourly.get("time")
    if not isinstance(times, list) or not times or not all(map(_is_moment, times)):
        raise WeatherError("hourly.time is no list of times")
    for before, time in itertools.pairwise(times):
        if time - before != HOUR:
            raise WeatherError(f"hourly.time goes from {before} to {time}, not one hour on")
    if times[0] % HOUR:
        raise WeatherError(f"hourly.time begins at {times[0]}, not at a full hour")
    return [int(time) for time in times]


def _values(
    quantity: Quantity, hourly: Mapping[str, Any], units: Mapping[str, Any], length: int
) -> Sequence[float | None]:
    name = f"hourly.{quantity.variable}"
    values = hourly.get(quantity.variable)
    if not isinstance(values, list):
        raise WeatherError(f"{name} is missing")
    if (unit := units.get(quantity.variable)) != quantity.unit:
        raise WeatherError(f"{name} is in {unit!r}, not in {quantity.unit!r}")
    if len(values) != length:
        raise WeatherError(f"{name} has {len(values)} values for {length} times")
    for index, value in enumerate(values):
        if value is not None and not (_is_number(value) and quantity.least <= value <= quantity.most):
            raise WeatherError(
                f"{name}[{index}] is {value!r}, not between {quantity.least:g} and {quantity.most:g} {quantity.unit}"
            )
    return values


def _whole_hours(quantity: Quantity, known: Mapping[int, float]) -> dict[int, float]:
    """From Open-Meteo's times to hours by their beginning."""
    if quantity.of == "hour before":
        return {time - HOUR: float(value) for time, value in known.items()}
    return {time: (value + known[time + HOUR]) / 2 for time, value in known.items() if time + HOUR in known}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_moment(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 34


# --- a clear sky ---------------------------------------------------------------------------------------------------

_PARTS = 12  # of an hour, whose mean it is
_CALM_C, _SWING_C, _WARMEST_HOUR = 26.5, 2.5, 14  # the year round in Martinique, by the sea
_TRADE_WIND_M_S = 6.0


def clear_sky(place: Place, now: float, past_hours: int = 24, future_hours: int = 72) -> Weather:
    """What the weather would be without a cloud: for development where there is no Open-Meteo.

    Haurwitz' model of irradiance and Erbs' of what of it is diffuse; a day's round of temperature; the trade wind.
    """
    first = int(now) // HOUR * HOUR - past_hours * HOUR
    hours: dict[str, dict[int, float]] = {quantity.name: {} for quantity in QUANTITIES}
    for start in range(first, first + (past_hours + future_hours) * HOUR, HOUR):
        moments = [start + (part + 0.5) * HOUR / _PARTS for part in range(_PARTS)]
        parts = [_irradiance(sun_height(place, moment), moment) for moment in moments]
        for quantity, values in zip((IRRADIANCE, DIRECT_NORMAL, DIFFUSE), zip(*parts, strict=True), strict=True):
            hours[quantity.name][start] = round(sum(values) / _PARTS, 1)
        local_hour = (start / HOUR + 0.5 + place.longitude / 15) % 24
        warmth = math.cos((local_hour - _WARMEST_HOUR) * math.pi / 12)
        hours[TEMPERATURE.name][start] = round(_CALM_C + _SWING_C * warmth, 1)
        hours[WIND_SPEED.name][start] = _TRADE_WIND_M_S
    return Weather(CLEAR_SKY, Run(int(now), int(now)), hours, dict.fromkeys(hours, 0))


def _irradiance(sine: float, moment: float) -> tuple[float, float, float]:
    """Global, direct normal and diffuse irradiance in W/m² by the sine of the sun's height."""
    if sine <= 0.01:
        return 0.0, 0.0, 0.0
    whole = 1098 * sine * math.exp(-0.057 / sine)
    clearness = whole / (1361 * (1 + 0.033 * math.cos(2 * math.pi * _year_share(moment))) * sine)
    if clearness <= 0.22:
        share = 1 - 0.09 * clearness
    elif clearness <= 0.8:
        share = 0.9511 - 0.1604 * clearness + 4.388 * clearness**2 - 16.638 * clearness**3 + 12.336 * clearness**4
    else:
        share = 0.165
    return whole, min(whole * (1 - share) / sine, DIRECT_NORMAL.most), whole * share


def sun_height(place: Place, moment: float) -> float:
    """The sine of the sun's height over the horizon, exact to a quarter of a degree."""
    days = moment / 86400 - 10957.5  # since noon of 2000-01-01
    anomaly = math.radians((357.529 + 0.98560028 * days) % 360)
    mean = 280.459 + 0.98564736 * days
    ecliptic = math.radians((mean + 1.915 * math.sin(anomaly) + 0.020 * math.sin(2 * anomaly)) % 360)
    tilt = math.radians(23.439 - 0.00000036 * days)
    ascension = math.atan2(math.cos(tilt) * math.sin(ecliptic), math.cos(ecliptic))
    declination = math.asin(math.sin(tilt) * math.sin(ecliptic))
    sidereal = math.radians((280.46062 + 360.98564737 * days + place.longitude) % 360)
    latitude = math.radians(place.latitude)
    hour_angle = sidereal - ascension
    return math.sin(latitude) * math.sin(declination) + math.cos(latitude) * math.cos(declination) * math.cos(
        hour_angle
    )


def _year_share(moment: float) -> float:
    return (moment / 86400 - 10957) / 365.2422 % 1
