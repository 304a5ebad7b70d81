"""From events, prices and devices to a question for FlexMeasures, and from its answer to plans. Pure.

Powers are in kW, + is consumption; times are seconds since 1970 (UTC); prices are EUR/MWh.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cariflex.durations import format_duration
from cariflex.s2.mapping import Range
from cariflex.s2.program import limits_at
from cariflex.ven.grid import Stretch
from cariflex.ven.outbox import Flexibility

_LEAST_KW = 0.001  # a device that can do less is away


class AnswerError(Exception):
    """FlexMeasures' answer is no plan; the text says why."""


@dataclass(frozen=True)
class Window:
    """The cells of a plan."""

    start: int
    end: int
    resolution: int

    @property
    def cells(self) -> range:
        """The start of each."""
        return range(self.start, self.end, self.resolution)

    @property
    def hours(self) -> float:
        """The length of a cell."""
        return self.resolution / 3600


def window_of(now: float, horizon: int, resolution: int) -> Window:
    """From the beginning of the present cell on."""
    start = int(now) // resolution * resolution
    return Window(start, start + horizon, resolution)


def known_until(window: Window, series: Mapping[int, float], resolution: int) -> int:
    """The end of the last cell of a window, from its start on, for which a coarser series has a value.

    Args:
        window: the cells.
        series: value by start of each of its own cells.
        resolution: of the series, in seconds.
    """
    for cell in window.cells:
        if cell // resolution * resolution not in series:
            return cell
    return window.end


def on(window: Window, series: Mapping[int, float], resolution: int, missing: float = 0.0) -> list[float]:
    """The value of each cell of a window: the mean of a finer series, the value of a coarser one."""
    if resolution >= window.resolution:
        return [series.get(cell // resolution * resolution, missing) for cell in window.cells]
    found = []
    for cell in window.cells:
        values = [series.get(part, missing) for part in range(cell, cell + window.resolution, resolution)]
        found.append(sum(values) / len(values))
    return found


def plannable(devices: Mapping[str, Flexibility]) -> dict[str, Flexibility]:
    """Those that can do something: not an EV that is away."""
    return {name: one for name, one in devices.items() if one.high_kw - one.low_kw > _LEAST_KW}


def limits(
    window: Window, load_control: Sequence[Stretch], simple: Sequence[Stretch], powers: Mapping[str, float]
) -> dict[str, list[float]]:
    """The upper limit of each device in each cell, as the CEM keeps it: the strictest that holds in the cell.

    Args:
        window: the cells.
        load_control: values in % of maximum consumption.
        simple: levels 0 to 3.
        powers: the maximum consumption of each device in kW.

    Returns:
        By device the limit of each cell, its maximum where there is none; empty when there is none at all.
    """
    ranges = {name: Range(min(0.0, high), high) for name, high in powers.items()}
    ends = {end for one in (*load_control, *simple) for end in (one.start, one.end)}
    found = {name: [high] * len(window.cells) for name, high in powers.items()}
    limited = False
    for index, cell in enumerate(window.cells):
        last = cell + window.resolution
        for moment in (cell, *(end for end in ends if cell < end < last)):
            for name, limit in limits_at(moment, load_control, simple, ranges).items():
                limited = True
                found[name][index] = min(found[name][index], limit)
    return found if limited else {}


def sale_prices(window: Window, bought: Sequence[float], sold: Sequence[float]) -> list[dict[str, str]] | None:
    """Prices of production that are nowhere above those of consumption; None where the sensor's are so already.

    Where selling pays more than buying costs, FlexMeasures' model would buy and sell without end at once, which no
    connection can, and its solver finds no plan. There what is sold counts as much as what is bought.

    Args:
        window: the cells.
        bought, sold: prices of consumption and production, in EUR/MWh, one for each cell.
    """
    if all(sale <= price for price, sale in zip(bought, sold, strict=True)):
        return None
    capped = [min(price, sale) for price, sale in zip(bought, sold, strict=True)]
    return _segments(window, capped, _price)


def question(
    window: Window,
    devices: Mapping[str, Flexibility],
    sensors: Mapping[str, int],
    limited: Mapping[str, Sequence[float]],
    *,
    prices: tuple[int, int],
    sale: Sequence[Mapping[str, str]] | None = None,
    production: Sequence[int] = (),
    consumption: Sequence[int] = (),
    roundtrip_efficiency: float = 1.0,
) -> dict[str, Any]:
    """The body of a trigger for all devices together.

    Args:
        window: when.
        devices: what each can do.
        sensors: by device the sensor of its plan.
        limited: as `limits` gives it, of all declared devices.
        prices: the sensors of the prices of consumption and production.
        sale: as `sale_prices` gives it, instead of the sensor of the price of production.
        production, consumption: sensors of what is not controlled.
        roundtrip_efficiency: of the storages, 0 to 1.
    """
    context: dict[str, Any] = {
        "consumption-price": {"sensor": prices[0]},
        "production-price": {"sensor": prices[1]} if sale is None else list(sale),
        "inflexible-production": [{"sensor": sensor} for sensor in production],
        "inflexible-consumption": [{"sensor": sensor} for sensor in consumption],
    }
    if limited:
        site = [sum(values) for values in zip(*limited.values(), strict=True)]
        context["site-consumption-capacity"] = _segments(window, site)
    return {
        "start": moment(window.start),
        "duration": format_duration(timedelta(seconds=window.end - window.start)),
        "force-new-job-creation": True,  # prices and limits may have changed, which FlexMeasures' cache does not see
        "flex-context": context,
        "flex-model": [
            _flex_model(window, sensors[name], one, limited.get(name), roundtrip_efficiency)
            for name, one in devices.items()
        ],
    }


def _flex_model(
    window: Window, sensor: int, device: Flexibility, limited: Sequence[float] | None, efficiency: float
) -> dict[str, Any]:
    highest, lowest = max(device.high_kw, 0.0), max(-device.low_kw, 0.0)
    model: dict[str, Any] = {
        "sensor": sensor,
        "soc-at-start": _kwh(min(max(device.stored_kwh, device.least_kwh), device.most_kwh)),
        "soc-min": _kwh(device.least_kwh),
        "soc-max": _kwh(device.most_kwh),
        "power-capacity": _kw(max(highest, lowest)),
        "consumption-capacity": _kw(highest),
        "production-capacity": _kw(lowest),
        "roundtrip-efficiency": f"{100 * efficiency:g}%",
    }
    if limited:
        model["consumption-capacity"] = _segments(window, [min(highest, limit) for limit in limited])
    minima = []
    for target in device.targets:
        # a storage cannot be told to hold what it cannot hold; what is wanted later is not known to this plan
        start, end = math.ceil(target.start / window.resolution), math.ceil(target.end / window.resolution)
        first, last = max(start * window.resolution, window.start), min(end * window.resolution, window.end)
        value = min(target.value, device.most_kwh)
        if window.start <= first < last and target.start < window.end and value > device.least_kwh:
            minima.append({"start": moment(first), "end": moment(last), "value": _kwh(value)})
    if minima:
        model["soc-minima"] = minima
    return model


def _kw(value: float) -> str:
    return f"{round(value, 6):.12g} kW"


def _price(value: float) -> str:
    return f"{round(value, 6):.12g} EUR/MWh"


def _segments(window: Window, values: Sequence[float], written: Callable[[float], str] = _kw) -> list[dict[str, str]]:
    """Values as FlexMeasures takes a series in a question; equal ones together."""
    return [
        {"start": moment(one.start), "end": moment(one.end), "value": written(one.value)}
        for one in _together(window.start, window.resolution, values)
    ]


def plan_of(answer: Any, window: Window) -> tuple[Stretch, ...]:
    """A device's plan from what FlexMeasures says of its sensor.

    Args:
        answer: `values` of consecutive cells from `start` on, in `unit`; + is consumption, as asked for by default.
        window: what was asked for.

    Raises:
        AnswerError: it is no plan for the window's beginning.
    """
    try:
        factor = {"kW": 1.0, "MW": 1000.0, "W": 0.001}[answer["unit"]]
        values = [factor * float(value) for value in answer["values"]]
        start = int(datetime.fromisoformat(answer["start"]).timestamp())
    except (KeyError, TypeError, ValueError) as error:
        raise AnswerError(f"a schedule cannot be read: {type(error).__name__} {error}") from None
    if not values or start != window.start or not all(map(math.isfinite, values)):
        raise AnswerError(f"a schedule has {len(values)} values from {moment(start)} on, not from the start on numbers")
    return tuple(_together(start, window.resolution, [round(value, 6) + 0.0 for value in values[: len(window.cells)]]))


def _together(start: int, resolution: int, values: Sequence[float]) -> list[Stretch]:
    joined: list[Stretch] = []
    for index, value in enumerate(values):
        end = start + (index + 1) * resolution
        if joined and joined[-1].value == value:
            joined[-1] = Stretch(joined[-1].start, end, value)
        else:
            joined.append(Stretch(end - resolution, end, value))
    return joined


def values_of(plan: Sequence[Stretch], window: Window) -> list[float]:
    """The power of each cell; 0 outside the plan."""
    found = [0.0] * len(window.cells)
    for stretch in plan:
        for cell in range(max(stretch.start, window.start), min(stretch.end, window.end), window.resolution):
            found[(cell - window.start) // window.resolution] = stretch.value
    return found


def moment(seconds: float) -> str:
    """As FlexMeasures takes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _kwh(value: float) -> str:
    return f"{round(value, 6):.12g} kWh"
