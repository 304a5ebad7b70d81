"""Photovoltaic arrays that do not exist: pvlib's sun and panels, under clouds of our own. Pure.

The same array, seed and time always give the same power, so that what was sent can be made again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import pandas as pd
from pvlib.irradiance import get_total_irradiance
from pvlib.location import Location
from pvlib.pvsystem import pvwatts_dc
from pvlib.temperature import faiman

from cariflex.feeds.chance import Chance

CELL = 300  # s
_LOSSES = 0.14  # pvlib's and NREL's usual for cables, dirt and mismatch
_PER_DEGREE = -0.0035  # of crystalline silicon
_INVERTER = 0.96
_AIR_C, _WIND_M_S = 27.0, 5.0  # Martinique, the year round


@dataclass(frozen=True)
class Array:
    """An array: its peak power in kW, its tilt and azimuth in degrees."""

    name: str
    peak_kw: float
    tilt: float
    azimuth: float


class Sky:
    """The sun over a place, and its clouds."""

    def __init__(self, latitude: float, longitude: float, zone: ZoneInfo, seed: int) -> None:
        self._location = Location(latitude, longitude, tz=str(zone), altitude=50)
        self._zone = zone
        self._chance = Chance(seed)

    def powers(self, arrays: Sequence[Array], start: int, cells: int) -> dict[str, tuple[float, ...]]:
        """Mean power in kW of each array in consecutive cells of five minutes, at their middle; never below 0.

        Args:
            start: seconds since 1970.
        """
        moments = [start + CELL * index + CELL // 2 for index in range(cells)]
        index = pd.DatetimeIndex(pd.to_datetime(moments, unit="s", utc=True))
        sun = self._location.get_solarposition(index)
        clear = self._location.get_clearsky(index, model="simplified_solis", solar_position=sun)
        found = {}
        for array in arrays:
            share = pd.Series([self.passing(array.name, moment) for moment in moments], index=index)
            # clouds take the direct light first, and scatter some of it
            direct = clear["dni"] * share**2
            whole = clear["ghi"] * share
            diffuse = (whole - direct * sun["apparent_zenith"].map(_cosine)).clip(lower=0)
            plane = get_total_irradiance(
                array.tilt, array.azimuth, sun["apparent_zenith"], sun["azimuth"], direct, whole, diffuse
            )["poa_global"].fillna(0.0)
            cell_c = faiman(plane, _AIR_C, _WIND_M_S)
            power = pvwatts_dc(plane, cell_c, array.peak_kw, _PER_DEGREE) * (1 - _LOSSES) * _INVERTER
            found[array.name] = tuple(round(min(max(float(kw), 0.0), array.peak_kw), 3) for kw in power)
        return found

    def passing(self, name: str, moment: int) -> float:
        """The share of a clear sky's light that reaches an array: a day's weather, and clouds that go by."""
        day = datetime.fromtimestamp(moment, self._zone).date().isoformat()
        cloudiness = 0.15 + 0.6 * self._chance.at(f"day {day}") ** 2  # most days are fair
        slow = self._chance.smooth("front", moment / 5400)
        quick = self._chance.smooth(f"clouds {name}", moment / 900)
        return min(max(1 - cloudiness * (0.55 * slow + 0.45 * quick) * 1.3, 0.12), 1.0)


def _cosine(degrees: float) -> float:
    return max(math.cos(math.radians(degrees)), 0.0)
