"""Units: what the documented sensors have is taken, what FlexMeasures would refuse is not."""

from __future__ import annotations

import pytest
from ansible.module_utils.units import USUAL_UNITS, is_known_unit


@pytest.mark.parametrize(
    "unit",
    [
        *("kW", "kWh", "W/m²", "°C", "m/s", "EUR/MWh", "%", "dimensionless"),
        *(
            "MW",
            "Wh",
            "kVA",
            "mA",
            "hPa",
            "m³/h",
            "cEUR/kWh",
            "kEUR",
            "kg/kWh",
            "W/m²/K",
            "W/m**2",
            "m^2",
            "1/h",
            "kW·h",
        ),
        *("‰", "µs", "delta_degC/h", "mm", "t", "min"),
        *USUAL_UNITS,
    ],
)
def test_unit_is_taken(unit: str) -> None:
    assert is_known_unit(unit)


@pytest.mark.parametrize(
    "unit",
    [
        *("kw", "kwh", "Kwh", "KW", "watt", "EURO/MWh", "EUR/", "/h", "", " kW", "kW h", "m3", "W/m2"),
        *("%/h", "°C/h", "dimensionless/h", "kmin", "k%", "kvar", "octa", "EUR//MWh", "kW***2", "ppt"),
    ],
)
def test_unit_is_refused(unit: str) -> None:
    assert not is_known_unit(unit)
