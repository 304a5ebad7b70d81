"""Signals: units on both sides and what is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cariflex.openadr.signals import SIGNALS, SignalError, read_values
from cariflex.s2.mapping import SHARE_OF_LEVEL


def message(**different: Any) -> dict[str, Any]:
    """A price signal as openleadr parses it."""
    return {
        "signal_name": "ENERGY_PRICE",
        "signal_type": "price",
        "measurement": {"name": "currencyPerKWh", "unit": "EUR", "scale": "none"},
        "intervals": [{"signal_payload": 0.12}, {"signal_payload": 0.12345}],
    } | different


@given(st.sampled_from(sorted(SIGNALS)), st.data())
def test_a_value_comes_off_the_wire_exactly_as_it_went_on(name: str, data: st.DataObject) -> None:
    signal = SIGNALS[name]
    drawn = data.draw(st.floats(signal.minimum, signal.maximum).filter(lambda x: x == 0 or abs(x) > 1e-9))
    value = float(f"{drawn:.15g}")
    assert signal.from_wire(signal.to_wire(value)) == value


def test_a_price_goes_out_in_euro_per_kilowatt_hour() -> None:
    signal = SIGNALS["ENERGY_PRICE"]
    measurement = signal.measurement()
    assert signal.to_wire(120.0) == 0.12
    assert (measurement.name, measurement.unit, measurement.scale) == ("currencyPerKWh", "EUR", "none")


def test_load_control_goes_out_as_a_fraction_of_maximum_consumption() -> None:
    signal = SIGNALS["LOAD_CONTROL"]
    assert (signal.type, signal.to_wire(70.0)) == ("x-loadControlCapacity", 0.7)


def test_a_price_is_read_in_the_sensors_unit() -> None:
    assert read_values(message())[1] == [120.0, 123.45]


def test_a_price_that_other_vtns_send_in_euro_per_megawatt_hour_is_read() -> None:
    given_unit = {"name": "customUnit", "unit": "EUR/MWh", "scale": "none"}
    assert read_values(message(measurement=given_unit, intervals=[{"signal_payload": 120}]))[1] == [120.0]


@pytest.mark.parametrize(
    ("name", "value", "measurement", "on_the_wire"),
    [("LOAD_DISPATCH", -12.5, "powerReal", -12500.0), ("CHARGE_STATE", 0.1, "energyReal", 100.0)],
)
def test_dispatch_goes_out_in_plain_si_units_and_is_read_with_any_prefix(
    name: str, value: float, measurement: str, on_the_wire: float
) -> None:
    signal = SIGNALS[name]
    made = signal.measurement()
    assert (signal.type, made.name, signal.to_wire(value)) == ("setpoint", measurement, on_the_wire)
    for scale, factor in (("none", 1.0), ("k", 1e3), ("M", 1e6)):
        received: dict[str, Any] = {
            "signal_name": name,
            "signal_type": "setpoint",
            "measurement": {"name": measurement, "unit": made.unit, "scale": scale},
            "intervals": [{"signal_payload": on_the_wire / factor}],
        }
        assert read_values(received)[1] == pytest.approx([value], rel=1e-12)
    with pytest.raises(SignalError, match="scale 'm'"):
        read_values(received | {"measurement": received["measurement"] | {"scale": "m"}})


@pytest.mark.parametrize(
    ("different", "said"),
    [
        ({"signal_name": "BID_PRICE"}, "not one of"),
        ({"signal_type": "priceRelative"}, "'price' is understood"),
        ({"measurement": {"name": "currencyPerKWh", "unit": "USD", "scale": "none"}}, "USD"),
        ({"measurement": {"name": "currencyPerKWh", "unit": "EUR", "scale": "k"}}, "scale 'k'"),
        ({"measurement": None}, "is meant"),
        ({"intervals": [{"signal_payload": 20.0}]}, "outside -9999 to 9999 EUR/MWh"),
        ({"intervals": [{"signal_payload": float("nan")}]}, "not a number"),
        ({"intervals": [{"signal_payload": "cheap"}]}, "not a number"),
    ],
)
def test_what_cannot_be_turned_into_the_unit_is_refused(different: dict[str, Any], said: str) -> None:
    with pytest.raises(SignalError, match=said):
        read_values(message(**different))


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("LOAD_CONTROL", 100.5, "outside"),
        ("LOAD_CONTROL", -1, "outside"),
        ("SIMPLE", 4, "outside"),
        ("LOAD_DISPATCH", -1.1e6, "outside"),
        ("CHARGE_STATE", -0.1, "outside"),
        ("SIMPLE", 1.5, "not a whole"),
        ("ENERGY_PRICE", float("inf"), "finite"),
    ],
)
def test_values_out_of_range_are_named(name: str, value: float, fault: str) -> None:
    assert fault in (SIGNALS[name].fault_of(value) or "")


def load_control(kind: str, *payloads: float, measurement: dict[str, str] | None = None) -> dict[str, Any]:
    """A LOAD_CONTROL signal of another type than ours, as openleadr parses it."""
    signal = {
        "signal_name": "LOAD_CONTROL",
        "signal_type": kind,
        "intervals": [{"signal_payload": payload} for payload in payloads],
    }
    return signal | ({"measurement": measurement} if measurement else {})


def test_level_offsets_limit_as_the_levels_of_simple_do() -> None:
    signal, values = read_values(load_control("x-loadControlLevelOffset", 2, 0, -1, -2, -3, -10))
    assert (signal.name, values) == ("LOAD_CONTROL", [100.0, 100.0, 70.0, 30.0, 0.0, 0.0])
    assert values[2:5] == [100 * SHARE_OF_LEVEL[level] for level in (1, 2, 3)]
    with pytest.raises(SignalError, match="whole number"):
        read_values(load_control("x-loadControlLevelOffset", -1.5))


def test_a_setpoint_in_powerreal_dispatches_the_storages() -> None:
    power = {"name": "powerReal", "unit": "W", "scale": "k"}
    signal, values = read_values(load_control("x-loadControlSetpoint", 12.5, -50, measurement=power))
    assert (signal.name, values) == ("LOAD_DISPATCH", [12.5, -50.0])


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("x-loadControlPercentOffset", "no such normal is agreed"),
        ("x-loadControlSetpoint", "with powerReal only"),
        ("delta", "'x-loadControlCapacity' is understood"),
    ],
)
def test_other_types_of_load_control_are_refused_with_the_reason(kind: str, said: str) -> None:
    with pytest.raises(SignalError, match=said):
        read_values(load_control(kind, -10))
