"""The OpenADR signals we speak, in the operator's unit and in the form of the standard.

Operators and FlexMeasures use the unit of the sensor (EUR/MWh, %), OpenADR its own (EUR/kWh, fraction of maximum
consumption). Conversion goes through decimals, so a value of up to 15 digits comes out of the wire as it went in.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from openleadr import enums, objects


class SignalError(Exception):
    """A signal cannot be understood; the text says why."""


@dataclass(frozen=True)
class Signal:
    """One signal: its names on both sides, its range in the operator's unit and the factor to the wire."""

    name: str
    type: str
    unit: str
    minimum: float
    maximum: float
    meaning: str
    whole: bool = False
    neutral: float | None = None  # what "no event" means; None where nothing does
    wire_factor: Decimal = Decimal(1)
    # Name of the measurement and its unit on the wire; None where the type says it all.
    wire_measurement: tuple[str, str] | None = None
    wire_scales: Mapping[str, Decimal] = field(default_factory=lambda: {"none": Decimal(1)})  # those we understand

    def to_wire(self, value: float) -> float:
        """Convert from the operator's unit."""
        return float(Decimal(repr(value)) * self.wire_factor)

    def from_wire(self, value: float, scale: str = "none") -> float:
        """Convert to the operator's unit; `scale` is one of `wire_scales`."""
        return float(Decimal(repr(value)) * self.wire_scales[scale] / self.wire_factor)

    def measurement(self) -> Any:
        """The measurement element that goes with the signal, or None."""
        if self.wire_measurement is None:
            return None
        name, unit = self.wire_measurement
        template = next(m for m in enums.MEASUREMENTS.values if isinstance(m, objects.Measurement) and m.name == name)
        return replace(template, unit=unit)

    def fault_of(self, value: float) -> str | None:
        """Say what is wrong with a value in the operator's unit, if anything."""
        if not math.isfinite(value):
            return "is not a finite number"
        if not self.minimum <= value <= self.maximum:
            return f"is outside {self.minimum:g} to {self.maximum:g} {self.unit}"
        if self.whole and value != int(value):
            return "is not a whole number"
        return None


# Power and energy go out in plain W and Wh; other VTNs write them with a prefix.
_SI_SCALES = {"none": Decimal(1), "k": Decimal(1000), "M": Decimal(1_000_000)}

SIGNALS: Mapping[str, Signal] = {
    signal.name: signal
    for signal in (
        Signal(
            name="ENERGY_PRICE",
            type="price",
            unit="EUR/MWh",
            minimum=-9999,  # the limits of the European intraday market
            maximum=9999,
            meaning="price of consumed energy",
            wire_factor=Decimal("0.001"),
            wire_measurement=("currencyPerKWh", "EUR"),
        ),
        Signal(
            name="LOAD_CONTROL",
            type="x-loadControlCapacity",
            unit="%",
            minimum=0,
            maximum=100,
            meaning="share of maximum consumption that is allowed",
            neutral=100.0,
            wire_factor=Decimal("0.01"),
        ),
        Signal(
            name="SIMPLE",
            type="level",
            unit="dimensionless",
            minimum=0,
            maximum=3,
            meaning="0 normal, 1 moderate, 2 high, 3 special",
            whole=True,
            neutral=0.0,
        ),
        Signal(
            name="LOAD_DISPATCH",
            type="setpoint",
            unit="kW",
            minimum=-1e6,
            maximum=1e6,
            meaning="power that the storages of the VEN take together, negative when they give",
            wire_factor=Decimal(1000),
            wire_measurement=("powerReal", "W"),
            wire_scales=_SI_SCALES,
        ),
        Signal(
            name="CHARGE_STATE",
            type="setpoint",
            unit="kWh",
            minimum=0,
            maximum=1e6,
            meaning="energy that the storages of the VEN hold together at the end of the interval",
            wire_factor=Decimal(1000),
            wire_measurement=("energyReal", "Wh"),
            wire_scales=_SI_SCALES,
        ),
    )
}


# What x-loadControlLevelOffset allows, in % of maximum consumption: as the levels 1 to 3 of SIMPLE. The standard says
# of offsets only that 0 is normal operation; 0 and above do not limit.
_SHARES = {-1: 70.0, -2: 30.0, -3: 0.0}
# The types of LOAD_CONTROL that cannot be followed as they are.
_NOT_UNDERSTOOD = {
    "x-loadControlPercentOffset": "it changes a normal consumption by a share, and no such normal is agreed here",
    "x-loadControlSetpoint": "a setpoint is understood with powerReal only, because without it its unit is not said",
}


def share_of_offset(offset: float) -> float:
    """The share of maximum consumption in % that a level offset allows; offsets below -3 are as -3.

    Raises:
        SignalError: it is no whole number.
    """
    if offset != int(offset):
        raise SignalError(f"level offset {offset!r} is not a whole number")
    return _SHARES.get(max(int(offset), -3), 100.0)


def read_values(signal: Mapping[str, Any]) -> tuple[Signal, list[float]]:
    """Understand a signal as openleadr parses it from a message.

    Args:
        signal: an element of `event_signals`, with `signal_name`, `signal_type`, `intervals`, maybe `measurement`.

    Returns:
        The signal and the value of each interval in the operator's unit, in the order of the intervals. LOAD_CONTROL
        with level offsets comes as shares of the maximum, with setpoints in powerReal as LOAD_DISPATCH.

    Raises:
        SignalError: name, type, unit or a value is not one we can turn into the operator's unit.
    """
    name, kind = signal.get("signal_name"), signal.get("signal_type")
    known = SIGNALS.get(str(name))
    if known is None:
        raise SignalError(f"signal {name!r} is not one of {', '.join(SIGNALS)}")
    if name == "LOAD_CONTROL" and kind == "x-loadControlLevelOffset":
        return known, [share_of_offset(_number(interval)) for interval in signal["intervals"]]
    if name == "LOAD_CONTROL" and kind == "x-loadControlSetpoint" and signal.get("measurement"):
        return read_values({**signal, "signal_name": "LOAD_DISPATCH", "signal_type": "setpoint"})
    if name == "LOAD_CONTROL" and kind in _NOT_UNDERSTOOD:
        raise SignalError(f"signal {name} has type {kind!r}; {_NOT_UNDERSTOOD[kind]}")
    if kind != known.type:
        raise SignalError(f"signal {name} has type {kind!r}; {known.type!r} is understood")
    measurement = signal.get("measurement") or {}
    given = (measurement.get("name"), measurement.get("unit"))
    scale = measurement.get("scale", "none")
    if known.wire_measurement is None:
        values = [known.from_wire(_number(interval)) for interval in signal["intervals"]]
    elif given == known.wire_measurement and scale in known.wire_scales:
        values = [known.from_wire(_number(interval), scale) for interval in signal["intervals"]]
    elif given == ("customUnit", known.unit):
        values = [_number(interval) for interval in signal["intervals"]]
    else:
        raise SignalError(f"signal {name} has unit {given!r} (scale {scale!r}); {known.wire_measurement!r} is meant")
    for value in values:
        if fault := known.fault_of(value):
            raise SignalError(f"signal {name}: value {value!r} {fault}")
    return known, values


def _number(interval: Mapping[str, Any]) -> float:
    payload = interval["signal_payload"]
    if not isinstance(payload, int | float) or isinstance(payload, bool) or not math.isfinite(payload):
        raise SignalError(f"payload {payload!r} is not a number")
    return float(payload)
