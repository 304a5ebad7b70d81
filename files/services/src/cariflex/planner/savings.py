"""What a plan saves against doing nothing. Pure.

Doing nothing is what devices do that nobody tells anything: one that the plan gives energy charges as fast as it may
until it has as much, one that the plan takes energy from rests. Energy that the plan takes out of storages is counted
as bought at the mean price, so that emptying a battery is no saving.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Costs:
    """Money in EUR, energy from the grid in kWh, the highest power from the grid in kW."""

    eur: float
    kwh: float
    peak_kw: float


@dataclass(frozen=True)
class Savings:
    """What it costs with a plan and without; a difference below 0: the plan costs more."""

    planned: Costs
    without: Costs

    @property
    def eur(self) -> float:
        """Money."""
        return self.without.eur - self.planned.eur

    @property
    def kwh(self) -> float:
        """Energy from the grid."""
        return self.without.kwh - self.planned.kwh

    @property
    def peak_kw(self) -> float:
        """The highest power from the grid."""
        return self.without.peak_kw - self.planned.peak_kw

    def as_dict(self) -> dict[str, float]:
        """For logs and health."""
        return {"eur": round(self.eur, 3), "kwh": round(self.kwh, 3), "peak_kw": round(self.peak_kw, 3)}


def savings(
    plans: Mapping[str, Sequence[float]],
    most_kw: Mapping[str, Sequence[float]],
    other_kw: Sequence[float],
    prices: tuple[Sequence[float], Sequence[float]],
    hours: float,
) -> Savings:
    """What plans save.

    Args:
        plans: kW of each device in each cell, + is consumption.
        most_kw: the highest power of each device in each cell; not below its plan.
        other_kw: what the rest of the site consumes (+) or produces (-) in each cell.
        prices: EUR/MWh in each cell, of what comes from the grid and of what is fed in.
        hours: the length of a cell.
    """
    idle = {name: at_once(values, most_kw[name]) for name, values in plans.items()}
    planned, without = (
        [other + sum(values) for other, *values in zip(other_kw, *devices.values(), strict=True)]
        for devices in (plans, idle)
    )
    taken_kwh = sum(max(0.0, -sum(values)) for values in plans.values()) * hours
    mean_price = sum(prices[0]) / len(prices[0])
    return Savings(
        Costs(
            eur=_cost(planned, prices, hours) + taken_kwh * mean_price / 1000,
            kwh=_imported(planned) * hours + taken_kwh,
            peak_kw=max(0.0, *planned),
        ),
        Costs(_cost(without, prices, hours), _imported(without) * hours, max(0.0, *without)),
    )


def at_once(plan: Sequence[float], most_kw: Sequence[float]) -> list[float]:
    """The same energy as soon as it can be had; nothing where the plan takes energy."""
    left = max(0.0, sum(plan))
    found = []
    for most in most_kw:
        found.append(min(left, max(0.0, most)))
        left -= found[-1]
    return found


def _imported(site_kw: Sequence[float]) -> float:
    return sum(max(0.0, power) for power in site_kw)


def _cost(site_kw: Sequence[float], prices: tuple[Sequence[float], Sequence[float]], hours: float) -> float:
    """EUR; what is fed in is income."""
    cells = zip(site_kw, *prices, strict=True)
    return sum(power * (bought if power > 0 else fed_in) for power, bought, fed_in in cells) * hours / 1000
