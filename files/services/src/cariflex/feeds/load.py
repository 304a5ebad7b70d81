"""Consumption that does not exist: what a site takes beside its devices, over day and week. Pure.

The same load, seed and time always give the same power, so that what was sent can be made again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

from cariflex.feeds.chance import Chance

CELL = 300  # s
# hour of the day -> share of the way from the lowest to the highest power: air conditioning by day, people at home
# in the evening; in the Caribbean the evening is the peak
_DAY = ((0.0, 0.15), (4.0, 0.05), (7.0, 0.45), (11.0, 0.65), (15.0, 0.6), (17.0, 0.6), (19.5, 0.95), (22.0, 0.5))
_ROUND = (*_DAY, (24.0, _DAY[0][1]))
_WEEKEND = 0.8  # of what is above the lowest power
_SLOW_S, _QUICK_S = 5400, 600


@dataclass(frozen=True)
class Load:
    """A consumer: its lowest and highest power in kW, + is consumption."""

    base_kw: float
    peak_kw: float


class Consumption:
    """Consumers that live by the clock of a place."""

    def __init__(self, loads: Mapping[str, Load], zone: ZoneInfo, seed: int) -> None:
        self._loads = loads
        self._zone = zone
        self._chance = Chance(seed)

    def powers(self, start: int, cells: int) -> dict[str, tuple[float, ...]]:
        """Power in kW of each consumer in the middle of consecutive cells of five minutes, within its two powers.

        Args:
            start: seconds since 1970.
            cells: how many.
        """
        moments = [start + CELL * index + CELL // 2 for index in range(cells)]
        return {
            name: tuple(
                round(load.base_kw + (load.peak_kw - load.base_kw) * self._share(name, moment), 3) for moment in moments
            )
            for name, load in self._loads.items()
        }

    def _share(self, name: str, moment: int) -> float:
        now = datetime.fromtimestamp(moment, self._zone)
        usual = _usual(now.hour + now.minute / 60 + now.second / 3600) * (_WEEKEND if now.weekday() >= 5 else 1)
        slow = self._chance.smooth(f"load {name} slow", moment / _SLOW_S) - 0.5
        quick = self._chance.smooth(f"load {name} quick", moment / _QUICK_S) - 0.5
        return min(max(usual + 0.2 * slow + 0.1 * quick, 0.0), 1.0)


def _usual(hour: float) -> float:
    """The share at an hour of the day, on straight lines between those of the table."""
    for (begin, low), (end, high) in pairwise(_ROUND):
        if hour < end:
            return low + (high - low) * (hour - begin) / (end - begin)
    return _ROUND[-1][1]
