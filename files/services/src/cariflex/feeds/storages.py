"""Batteries and EVs that nobody controls, with the physics of the S2 simulator.

What they hold at a time follows from the times before it alone: a fleet begins a week before its first cell, by when
the daily round has forgotten its beginning. So the same time always gives the same energy, after a restart too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from cariflex.s2.mapping import Range
from cariflex.s2.simulator.physics import Battery, Ev, Machine

CELL = 300  # s
_STEP = 60  # s
_BEFORE = 7 * 86_400  # s
_MACHINES: dict[str, type[Machine]] = {"battery": Battery, "ev": Ev}


@dataclass(frozen=True)
class Storage:
    """A battery or an EV: its number shifts an EV's day; power in kW (+ is consumption), energy in kWh."""

    kind: str
    min_kw: float
    max_kw: float
    energy_kwh: float
    number: int


class Fleet:
    """Storages that live on from a time.

    Attributes:
        time: up to when they have lived, in seconds since 1970.
    """

    def __init__(self, storages: Mapping[str, Storage], zone: ZoneInfo, start: int) -> None:
        self._zone = zone
        self._machines = {
            name: _MACHINES[one.kind](one.energy_kwh, Range(one.min_kw, one.max_kw), one.number)
            for name, one in storages.items()
        }
        self.time = start - _BEFORE
        self.live(_BEFORE // CELL)

    def live(self, cells: int) -> dict[str, tuple[float, ...]]:
        """Let cells of five minutes go by; the energy in kWh that each holds at the end of each."""
        found: dict[str, list[float]] = {name: [] for name in self._machines}
        for _ in range(cells):
            for moment in range(self.time, self.time + CELL, _STEP):
                now = datetime.fromtimestamp(moment, self._zone)
                for machine in self._machines.values():
                    machine.move(now)
                    machine.storage.set_power(machine.own_power(now))
                    machine.storage.pass_time(_STEP)
            self.time += CELL
            for name, machine in self._machines.items():
                found[name].append(round(machine.storage.energy_kwh, 3))
        return {name: tuple(values) for name, values in found.items()}
