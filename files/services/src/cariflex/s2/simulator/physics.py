"""What a simulated storage does in time. Pure: the caller says what time it is.

Energy in kWh, power in kW at the meter (+ is consumption). Charging stores `efficiency` of the energy that is consumed,
discharging takes 1/`efficiency` of what is given, so energy is never made.
"""

from dataclasses import dataclass
from datetime import datetime, time, timedelta

from cariflex.s2.mapping import Range

EFFICIENCY = 0.95  # one way; about 90 % for a cycle, usual for lithium batteries with their inverter
DEPARTURE_LEVEL = 80.0  # % of its capacity that an EV wants when it leaves
TRIP_SHARE = 0.4  # of its capacity that an EV uses on a day


@dataclass
class Storage:
    """A battery, or the battery of an EV.

    Attributes:
        power_kw: power it is set to.
        energy_kwh: stored energy, 0 to capacity.
    """

    capacity_kwh: float
    limits: Range
    energy_kwh: float
    power_kw: float = 0.0
    efficiency: float = EFFICIENCY

    def set_power(self, power_kw: float) -> float:
        """Set the power, as far as limits, fullness and emptiness allow; returns what it does."""
        self.power_kw = self.limits.clamp(power_kw)
        if (self.energy_kwh >= self.capacity_kwh and self.power_kw > 0) or (self.energy_kwh <= 0 and self.power_kw < 0):
            self.power_kw = 0.0
        return self.power_kw

    def pass_time(self, seconds: float) -> float:
        """Let time go by; a storage that gets full or empty stops at that moment.

        Returns:
            Energy at the meter in kWh, + is consumption.
        """
        kwh = self.power_kw * seconds / 3600
        wanted = kwh * self.efficiency if kwh > 0 else kwh / self.efficiency
        stored = min(max(wanted, -self.energy_kwh), self.capacity_kwh - self.energy_kwh)
        self.energy_kwh = min(max(self.energy_kwh + stored, 0.0), self.capacity_kwh)
        self.set_power(self.power_kw)
        return stored / self.efficiency if stored > 0 else stored * self.efficiency


class Battery:
    """A stationary battery that charges from the sun at noon and gives in the evening."""

    def __init__(self, capacity_kwh: float, limits: Range, _number: int) -> None:
        self.storage = Storage(capacity_kwh, limits, capacity_kwh / 2)
        self.is_there = True

    def own_power(self, now: datetime) -> float:
        """What it does when nobody tells it anything; `now` in the site's time."""
        if 10 <= now.hour < 15:
            return self.storage.limits.high / 4
        if 18 <= now.hour < 22:
            return self.storage.limits.low / 4
        return 0.0

    def move(self, _now: datetime) -> None:
        """A battery stays where it is."""


class Ev:
    """An EV with its charger: away by day, charging as fast as it may when it is there."""

    def __init__(self, capacity_kwh: float, limits: Range, number: int) -> None:
        self.storage = Storage(capacity_kwh, limits, capacity_kwh / 2)
        # not all at once: the first leaves at 07:00 and comes at 17:00, each next one 10 and 15 minutes later
        self.leaves = time(7 + number * 10 // 60 % 4, number * 10 % 60)
        self.comes = time(17 + number * 15 // 60 % 4, number * 15 % 60)
        self.is_there = True

    def until_departure(self, now: datetime) -> timedelta:
        """How long it stays, by the site's time."""
        leaves = datetime.combine(now.date(), self.leaves, now.tzinfo)
        return (leaves if now < leaves else leaves + timedelta(days=1)) - now

    def own_power(self, _now: datetime) -> float:
        """What it does when nobody tells it anything."""
        return self.storage.limits.high if self.is_there else 0.0

    def move(self, now: datetime) -> None:
        """Leave or come, by the site's time; a trip costs energy."""
        is_there = not self.leaves <= now.time() < self.comes
        if is_there and not self.is_there:
            self.storage.energy_kwh = max(0.0, self.storage.energy_kwh - TRIP_SHARE * self.storage.capacity_kwh)
        if not is_there:
            self.storage.set_power(0.0)
        self.is_there = is_there


Machine = Battery | Ev
