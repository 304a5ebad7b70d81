"""JSON without what could name somebody: known keys alone, and values that are numbers, switches or quantities."""

from __future__ import annotations

import re
from typing import Any

from cariflex_backup.anonymize.rules import UNIT

# FlexMeasures' own: of flex-context and flex-model, of what is shown, of attributes, of knowledge horizons.
KEYS = frozenset(
    """
    aggregate-consumption aggregate-power aggregate-production asset baseline charging-efficiency commitments
    commodities commodity consumption consumption-breach-price consumption-capacity consumption-price
    consumption-price-sensor consumption-range coupling-coefficient default discharging-efficiency down-price
    duration inflexible-consumption inflexible-device-sensors inflexible-production operation-modes power-capacity
    prefer-charging-sooner prefer-curtailing-later production production-breach-price production-capacity
    production-price production-price-sensor production-range relax-capacity-constraints relax-constraints
    relax-site-capacity-constraints relax-soc-constraints roundtrip-efficiency sensor sensors
    site-consumption-breach-price site-consumption-capacity site-peak-consumption site-peak-consumption-price
    site-peak-production site-peak-production-price site-power-capacity site-production-breach-price
    site-production-capacity soc-at-start soc-gain soc-max soc-maxima soc-maxima-breach-price soc-min soc-minima
    soc-minima-breach-price soc-targets soc-unit soc-usage state-of-charge storage-efficiency up-price value
    plots flex-model flex-context y-axis min max function
    consumption_is_positive capacity_in_mw floor_datetimes_to_resolution frequency interpolate is_consumer
    is_producer is_strictly_non_negative is_strictly_non_positive max_soc_in_mwh min_soc_in_mwh soc_in_mwh process-type
    x y z day month ex_ante_horizon ex_post_horizon
    """.split()  # noqa: SIM905 - easier to read
)
WORDS = "storage|electricity|gas|heat|zero|data|INFLEXIBLE|SHIFTABLE|BREAKABLE|sum|mean|min|max"
_WORD = re.compile(WORDS)
_QUANTITY = re.compile(rf"(-?\d+(?:\.\d+)?)( ?)({UNIT})")
_DURATION = re.compile(r"-?P(?=\d|T\d)(?:\d{1,4}[YMWD]){0,3}(?:T(?:\d{1,4}[HMS]){1,3})?")
_ZONE, _ZONE_KEPT = re.compile(r"[A-Z][A-Za-z_]+/[A-Z][A-Za-z_]+"), "America/Martinique"
_LARGEST = 10**8
_SMALLEST, _BEYOND = 1e-9, 1e15
_DROPPED = object()


def cleaned(document: Any) -> Any:
    """A JSON value of which only what is known to name nobody is left; an empty one of its kind at worst."""
    found = _cleaned(document)
    return ([] if isinstance(document, list) else {}) if found is _DROPPED else found


def is_harmless(text: str) -> bool:
    """Whether a text may stand in a document as it is."""
    return _text(text) is not _DROPPED and (text == _ZONE_KEPT or not _ZONE.fullmatch(text))


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: _cleaned(one) for name, one in value.items() if name in KEYS}
        return {name: one for name, one in kept.items() if one is not _DROPPED}
    if isinstance(value, list):
        return [one for one in map(_cleaned, value) if one is not _DROPPED]
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool) or value is None:
        return value
    return value if isinstance(value, int) and abs(value) < _LARGEST else rounded(value)


def _text(text: str) -> Any:
    if _WORD.fullmatch(text) or _DURATION.fullmatch(text):
        return text
    if _ZONE.fullmatch(text):
        return _ZONE_KEPT  # a horizon of knowledge needs one
    if (found := _QUANTITY.fullmatch(text)) is None:
        return text if text in KEYS else _DROPPED  # a plot names the key that it shows
    return f"{rounded(float(found[1])):g}{found[2]}{found[3]}"


def rounded(number: float) -> float:
    """A number with three significant digits: where something is cannot be told by it. Beyond reason it is 0."""
    return float(f"{number:.2e}") if _SMALLEST <= abs(number) < _BEYOND else 0.0
