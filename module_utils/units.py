"""Which units a sensor may have, decided on the controller, where FlexMeasures and its unit library are not installed.

FlexMeasures takes what pint reads, with every currency code as a unit of its own. This is the part of that which a
sensor can reasonably be measured in; a unit that pint would refuse is never accepted here.
"""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PREFIXES = ("y", "z", "a", "f", "p", "n", "µ", "m", "c", "d", "da", "h", "k", "M", "G", "T", "P", "E")
# Units that take a prefix.
_PREFIXED = _words("W Wh VA V A Ah J cal eV N Pa bar Hz g m L l s K Ω ohm lm lx mol C F S T")
_PLAIN = _words(
    "% ‰ ppm dimensionless °C degC delta_degC °F degF delta_degF ° deg degree rad min minute h hour d day week month"
    " year t ha knot rpm dB"
)
# Scales with an offset or a logarithm mean nothing inside a product, and a share of something has no other unit.
_ALONE = frozenset({"%", "‰", "dimensionless", "°C", "degC", "°F", "degF", "dB"})
# ISO 4217, the codes in use.
CURRENCIES = _words(
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF"
    " CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG"
    " HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA"
    " MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD"
    " RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX"
    " USD UYU UZS VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW"
)
_TERM = re.compile(r"(?P<symbol>[A-Za-zΩµ]+(?:_degC|_degF)?|°[CF]?|%|‰)(?P<power>[²³⁴]|(?:\*\*|\^)-?[1-9])?")
_OPERATOR = re.compile(r"(?<!\*)[*·/](?!\*)")

# What a message offers when a unit has no near neighbour, and what near neighbours are looked for in.
USUAL_UNITS = (
    *("W", "kW", "MW", "Wh", "kWh", "MWh", "VA", "kVA", "V", "A", "Hz", "%", "dimensionless"),
    *("W/m²", "°C", "m/s", "mm", "hPa", "EUR/MWh", "EUR/kWh", "m³", "m³/h", "kg/kWh", "s", "h"),
)


def _is_symbol(symbol: str) -> bool:
    if symbol in _PLAIN or symbol in _PREFIXED or symbol in CURRENCIES:
        return True
    return any(
        symbol.startswith(prefix) and (symbol[len(prefix) :] in _PREFIXED or symbol[len(prefix) :] in CURRENCIES)
        for prefix in _PREFIXES
    )


def is_known_unit(unit: str) -> bool:
    """Whether FlexMeasures takes `unit`: a symbol, or a product or quotient of symbols with powers (``W/m²``)."""
    if unit in _ALONE:
        return True
    terms = _OPERATOR.split(unit)
    if terms[0] == "1" and len(terms) > 1:  # 1/h
        del terms[0]
    matches = [_TERM.fullmatch(term) for term in terms]
    return all(match is not None and _is_symbol(match["symbol"]) for match in matches) and not (
        len(terms) > 1 and any(match is not None and match["symbol"] in _ALONE for match in matches)
    )
