"""Signals: units on both sides and what is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cariflex.openadr.signals import SIGNALS, SignalError, read_values


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
        ("SIMPLE", 1.5, "not a whole"),
        ("ENERGY_PRICE", float("inf"), "finite"),
    ],
)
def test_values_out_of_range_are_named(name: str, value: float, fault: str) -> None:
    assert fault in (SIGNALS[name].fault_of(value) or "")
