"""What a topology must be: its shape, and what its parts must say of each other.

Pure: a topology (``playbooks/vars/topology.yml`` combined with an environment's ``topology_overrides``) goes in, every
problem comes out at once. Nothing here raises on bad input, however odd; what has the wrong shape is reported once and
left out of the rules that need it.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
import zoneinfo
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .problem import Problem, closest, one_of, shown
from .units import USUAL_UNITS, is_known_unit

# What FlexMeasures 1.0 brings itself (its `add_default_asset_types`); others are declared in `topology.asset_types`.
ASSET_TYPES = ("solar", "wind", "one-way_evse", "two-way_evse", "battery", "building", "process", "heat-storage")
# OpenADR 2.0b, rule 18 and table 1: the signal names of the B profile that carry values.
SIGNALS = (
    *("SIMPLE", "ELECTRICITY_PRICE", "ENERGY_PRICE", "DEMAND_CHARGE", "BID_PRICE", "BID_LOAD", "BID_ENERGY"),
    *("CHARGE_STATE", "LOAD_DISPATCH", "LOAD_CONTROL"),
)

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
_DURATION = re.compile(r"P(?=.)(?:\d+W|(?:\d+D)?(?:T(?=\d)(?:\d+H)?(?:\d+M)?(?:\d+S)?)?)")
_DOCKER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,62}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+")

Fault = tuple[str, str]  # what is wrong, how to put it right
Leaf = Callable[[Any], Fault | None]


# --- shape ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    """A mapping with known keys."""

    required: Mapping[str, Schema] = field(default_factory=dict)
    optional: Mapping[str, Schema] = field(default_factory=dict)


@dataclass(frozen=True)
class Each:
    """A mapping of names, which the operator chooses, to values of one shape."""

    value: Schema
    name: Leaf


@dataclass(frozen=True)
class Many:
    """A list of values of one shape."""

    value: Schema


Schema = Record | Each | Many | Leaf


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: object) -> Fault | None:
    return None if isinstance(value, str) and value.strip() else ("is not a text", "write a text")


def _settings(value: object) -> Fault | None:
    if isinstance(value, dict) and all(isinstance(key, str) and key for key in value):
        return None
    return "is not a mapping with texts as keys", "write it as FlexMeasures takes it, such as {soc-max: 100 kWh}"


def _boolean(value: object) -> Fault | None:
    return None if isinstance(value, bool) else ("is not true or false", "write true or false, without quotes")


def _matching(pattern: re.Pattern[str], problem: str, fix: str) -> Leaf:
    return lambda value: None if isinstance(value, str) and pattern.fullmatch(value) else (problem, fix)


def _integer(lowest: int, highest: int | None = None) -> Leaf:
    limits = f"of at least {lowest}" if highest is None else f"from {lowest} to {highest}"

    def check(value: object) -> Fault | None:
        if isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= (highest or value):
            return None
        return f"is not a whole number {limits}", f"write a whole number {limits}, without quotes"

    return check


def _number(lowest: float, highest: float, what: str) -> Leaf:
    def check(value: Any) -> Fault | None:
        if not _is_number(value):
            return "is not a number", f"write {what} from {lowest:g} to {highest:g}, without quotes"
        return (
            None if lowest <= value <= highest else ("is out of range", f"write {what} from {lowest:g} to {highest:g}")
        )

    return check


def _timezone(value: object) -> Fault | None:
    try:
        zoneinfo.ZoneInfo(value if isinstance(value, str) else "")
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = zoneinfo.available_timezones()
        if not known:  # a controller without tzdata cannot judge
            return None
        near = closest(value, known) if isinstance(value, str) else None
        return "is no known timezone", f"write a name of the tz database, such as {near or 'America/Martinique'}"
    return None


def _unit(allowed: Collection[str]) -> Leaf:
    def check(value: object) -> Fault | None:
        if isinstance(value, str) and (value in allowed or is_known_unit(value)):
            return None
        near = closest(value, (*USUAL_UNITS, *allowed)) if isinstance(value, str) else None
        return "is no unit that FlexMeasures knows", f"write {near or 'one such as kW, kWh, W/m², °C, EUR/MWh or %'}"

    return check


def _subnet(value: object) -> Fault | None:
    fix = "write network address and prefix length, such as 192.168.240.0/24"
    if not isinstance(value, str) or "/" not in value:
        return "is no subnet in CIDR form", fix
    try:
        network = ipaddress.IPv4Network(value)
    except ValueError:
        try:
            return "has host bits set", f"write {ipaddress.IPv4Network(value, strict=False)}"
        except ValueError:
            return "is no subnet in CIDR form", fix
    if network.is_global:
        return (
            "is in use on the internet",
            "choose one within 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16",
        )
    if network.num_addresses < 8:
        return "is too small for the containers", "choose a prefix length of /29 or shorter"
    return None


def _address(value: object) -> Fault | None:
    if isinstance(value, str) and _address_of(value) is not None:
        return None
    return "is no IPv4 address", "write an address such as 192.168.240.10"


def _address_or_null(value: object) -> Fault | None:
    return None if value is None else _address(value)


def _address_range(value: object) -> Fault | None:
    if isinstance(value, str) and _range_of(value) is not None:
        return None
    return "is no address range", "write first-last, such as 192.168.240.128-192.168.240.254"


_name = _matching(re.compile(r"\S(?:.{0,78}\S)?"), "is no name", "use 1 to 80 characters, no space at either end")
_docker_name = _matching(
    _DOCKER_NAME,
    "is no name that Docker takes",
    "use letters, digits, '_', '.' and '-', beginning with a letter or digit",
)
_hostname = _matching(
    _HOSTNAME, "is no hostname", "write a name such as ems.example.org: no scheme, no port, no path, no underscore"
)
_email = _matching(_EMAIL, "is no e-mail address", "write an address such as operator@example.org")
_duration = _matching(_DURATION, "is no ISO 8601 duration of fixed length", "write one such as PT5M, PT1H or P1D")
_path = _matching(re.compile(r"/[^\s?#]*[^\s?#/]"), "is no path", "write one such as /OpenADR2/Simple/2.0b")
_vtn_id = _matching(
    re.compile(r"(?=.*[^a-z])\S+"),
    "is all lowercase, which openleadr's VEN refuses",
    "use a capital or a digit",
)


_WEATHER = {"irradiance": "W/m²", "temperature": "°C", "wind_speed": "m/s"}


def _weather_quantity(value: object) -> Fault | None:
    return None if value in _WEATHER else ("is nothing that Open-Meteo is asked for", one_of(str(value), _WEATHER))


def _simulated_kind(value: object) -> Fault | None:
    return None if value in ("battery", "ev") else ("is no kind of device", "write battery or ev")


def _moment_of(value: object) -> datetime.datetime | None:
    if isinstance(value, datetime.datetime):
        return value
    if isinstance(value, datetime.date):
        return datetime.datetime.combine(value, datetime.time())
    try:
        return datetime.datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _moment(value: object) -> Fault | None:
    if _moment_of(value) is None:
        return "is no time", "write one such as '2027-03-01T08:00', in the site's timezone"
    return None


_group = _matching(
    re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"),
    "is no name of a group",
    "use up to 64 letters, digits, '_', '.' and '-', beginning with a letter or digit",
)


def _signal(value: object) -> Fault | None:
    if value in SIGNALS:
        return None
    return "is no OpenADR 2.0b signal", one_of(str(value), SIGNALS)


_day = _matching(
    re.compile("mon|tue|wed|thu|fri|sat|sun"), "is no day of the week", "write mon, tue, wed, thu, fri, sat or sun"
)
_clock = _matching(
    re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d|24:00"), "is no time of day", "write it in quotes, such as '22:00'"
)
_coordinates: dict[str, Schema] = {
    "latitude": _number(-90, 90, "decimal degrees"),
    "longitude": _number(-180, 180, "decimal degrees"),
}
_power = _number(-1e6, 1e6, "kW (+ is consumption)")
_energy = _number(0.001, 1e6, "kWh")


_opt_out = Record(
    required={"reason": _text},
    optional={
        "signals": Many(_signal),
        "start": _moment,
        "end": _moment,
        "days": Many(_day),
        "from": _clock,
        "to": _clock,
        **dict.fromkeys(("above", "below"), _number(-1e9, 1e9, "a value in the signal's unit")),
    },
)


_schedules = Record(
    required={"consumption_price": _name, "production_price": _name},
    optional={
        **dict.fromkeys(("every", "horizon", "forecast_every"), _duration),
        "roundtrip_efficiency": _number(0.01, 1, "a share"),
        **dict.fromkeys(("production", "consumption"), Many(_name)),
    },
)

_price = _number(-10_000, 10_000, "EUR/MWh")
_simulated_pv = Record(
    required={"peak_kw": _number(0.001, 1e5, "kW")},
    optional={"tilt": _number(0, 90, "degrees from the horizontal"), "azimuth": _number(0, 359, "degrees from north")},
)
_simulated_load = Record({"base_kw": _number(0, 1e5, "kW"), "peak_kw": _number(0.001, 1e5, "kW")})
_simulated_storage = Record({"kind": _simulated_kind, "min_kw": _power, "max_kw": _power, "energy_kwh": _energy})
_feeds = Record(
    optional={
        "weather": Each(_name, name=_weather_quantity),
        "production_tariff": Record(
            required={"sensor": _name}, optional={"daily": Each(_price, name=_clock), "file": _text}
        ),
        "simulated": Record(
            required={"pv": Each(_simulated_pv, name=_name), "storages": Each(_simulated_storage, name=_name)},
            optional={"loads": Each(_simulated_load, name=_name), "history": _duration, "seed": _integer(0)},
        ),
    },
)


def _schema(units_allowed: Collection[str]) -> Record:
    return Record(
        required={
            "site": Record({"name": _name, "timezone": _timezone, **_coordinates}),
            "domains": Each(_hostname, name=_docker_name),
            "networks": Each(
                Record({"subnet": _subnet}, {"internal": _boolean, "reserved": _address_range}), name=_docker_name
            ),
            "containers": Each(
                Record({"networks": Each(_address_or_null, name=_docker_name)}, {"port": _integer(1, 65535)}),
                name=_docker_name,
            ),
            "account": _name,
            "users": Each(Record({"username": _name}, {"roles": Many(_name)}), name=_email),
            "assets": Each(
                Record(
                    {"type": _name},
                    {
                        "parent": _name,
                        **_coordinates,
                        **dict.fromkeys(("attributes", "flex_context", "flex_model"), _settings),
                    },
                ),
                name=_name,
            ),
            "sensors": Each(
                Record(
                    {"id": _integer(1), "unit": _unit(units_allowed), "resolution": _duration, "asset": _name},
                    {"timezone": _timezone, "attributes": _settings},
                ),
                name=_name,
            ),
            "openadr": Record(
                required={
                    "vtn_id": _vtn_id,
                    "path": _path,
                    "api_port": _integer(1, 65535),
                    "poll_seconds": _integer(1, 3600),
                    "vens": Each(Record({"registration_id": _name}, optional={"groups": Many(_group)}), name=_name),
                    "signals": Each(_name, name=_signal),
                },
                optional={"opt_out": Many(_opt_out)},
            ),
            "s2_resources": Each(
                Record(
                    {"asset": _name, "sensor": _name, "min_kw": _power, "max_kw": _power, "energy_kwh": _energy},
                    {"token_version": _integer(1), "plan_sensor": _name},
                ),
                name=_name,
            ),
        },
        optional={"asset_types": Each(_text, name=_name), "schedules": _schedules, "feeds": _feeds},
    )


def shape_problems(value: object, schema: Schema, path: str) -> Iterator[Problem]:
    """Unknown and missing keys, wrong types, and values that are wrong by themselves."""
    if isinstance(schema, (Record, Each)):
        if not isinstance(value, dict):
            yield Problem(path, shown(value), "is not a mapping", "write it as 'key: value' lines")
        elif isinstance(schema, Record):
            yield from _record_problems(value, schema, path)
        else:
            for name, entry in value.items():
                fault = schema.name(name)
                if fault:
                    yield Problem(f"{path}.{name}", shown(name), f"the name {fault[0]}", fault[1])
                yield from shape_problems(entry, schema.value, f"{path}.{name}")
    elif isinstance(schema, Many):
        if not isinstance(value, list):
            yield Problem(path, shown(value), "is not a list", "write it as [a, b]")
        else:
            for index, entry in enumerate(value):
                yield from shape_problems(entry, schema.value, f"{path}.{index}")
    else:
        fault = schema(value)
        if fault:
            yield Problem(path, shown(value), *fault)


def _record_problems(value: dict[Any, Any], schema: Record, path: str) -> Iterator[Problem]:
    known = {**schema.required, **schema.optional}
    for key, entry in value.items():
        if key in known:
            yield from shape_problems(entry, known[key], f"{path}.{key}")
        else:
            yield Problem(f"{path}.{key}", shown(entry), "is an unknown key", one_of(str(key), known))
    for key in schema.required:
        if key not in value:
            yield Problem(f"{path}.{key}", None, "is missing", "declare it, or do not remove it with null")


_PRICES = ("consumption_price", "production_price")

# --- what parts say of each other ----------------------------------------------------------------------------------


def _address_of(text: object) -> ipaddress.IPv4Address | None:
    try:
        return ipaddress.IPv4Address(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _network_of(text: object) -> ipaddress.IPv4Network | None:
    return ipaddress.IPv4Network(text) if _subnet(text) is None else None


def _range_of(text: object) -> tuple[ipaddress.IPv4Address, ipaddress.IPv4Address] | None:
    first, _, last = text.partition("-") if isinstance(text, str) else ("", "", "")
    low, high = _address_of(first.strip()), _address_of(last.strip())
    return (low, high) if low is not None and high is not None and low <= high else None


def _section(parent: object, *keys: str) -> dict[str, Any]:
    """The mapping below `keys`; empty where the shape is wrong, which `shape_problems` has reported."""
    for key in keys:
        parent = parent.get(key) if isinstance(parent, dict) else None
    return {str(name): entry for name, entry in parent.items()} if isinstance(parent, dict) else {}


def _records(topology: object, *keys: str) -> dict[str, dict[str, Any]]:
    return {name: entry for name, entry in _section(topology, *keys).items() if isinstance(entry, dict)}


def _missing(path: str, name: object, known: Mapping[str, object], what: str) -> Iterator[Problem]:
    """A problem when `name` is a text that is not among the declared names."""
    if isinstance(name, str) and name not in known:
        yield Problem(path, shown(name), f"names no declared {what}", one_of(name, known))


def _duplicates(named: list[tuple[str, Any]], what: str, fix: str) -> Iterator[Problem]:
    first: dict[Any, str] = {}
    for path, value in named:
        if value in first:
            yield Problem(path, shown(value), f"is the same {what} as {first[value]}", fix)
        else:
            first[value] = path


def _network_problems(topology: object) -> Iterator[Problem]:
    networks = _records(topology, "networks")
    subnets = [(name, net) for name, entry in networks.items() if (net := _network_of(entry.get("subnet"))) is not None]
    for index, (name, subnet) in enumerate(subnets):
        for other_name, other in subnets[:index]:
            if subnet.overlaps(other):
                yield Problem(
                    f"topology.networks.{name}.subnet",
                    shown(str(subnet)),
                    f"overlaps topology.networks.{other_name}.subnet, {other}",
                    "choose a subnet that no other network uses",
                )
        ends = _range_of(networks[name].get("reserved"))
        if ends and not all(end in subnet for end in ends):
            yield Problem(
                f"topology.networks.{name}.reserved",
                shown(networks[name]["reserved"]),
                f"is not within the network's subnet {subnet}",
                f"choose a range from {subnet[2]} to {subnet[-2]}, or leave it out",
            )


def _container_problems(topology: object) -> Iterator[Problem]:
    networks = _records(topology, "networks")
    addresses: list[tuple[str, Any]] = []
    for container in _records(topology, "containers"):
        for name, address in _section(topology, "containers", container, "networks").items():
            path = f"topology.containers.{container}.networks.{name}"
            if name not in networks:
                yield Problem(path, shown(address), f"the network {name} is not declared", one_of(name, networks))
                continue
            subnet, parsed = _network_of(networks[name].get("subnet")), _address_of(address)
            if subnet is None or parsed is None:
                continue
            addresses.append((path, str(parsed)))
            wrong = _address_fault(parsed, subnet, _range_of(networks[name].get("reserved")))
            if wrong:
                yield Problem(path, shown(address), wrong, f"choose a free address of {name}, {subnet}")
    yield from _duplicates(addresses, "IP address", "give every container an address of its own, or null")


def _address_fault(
    address: ipaddress.IPv4Address,
    subnet: ipaddress.IPv4Network,
    reserved: tuple[ipaddress.IPv4Address, ipaddress.IPv4Address] | None,
) -> str | None:
    if address not in subnet:
        return f"is not within the network's subnet {subnet}"
    if address in (subnet.network_address, subnet.broadcast_address):
        return "is the subnet's network or broadcast address"
    if address == subnet[1]:
        return "is the gateway's address"
    if reserved and reserved[0] <= address <= reserved[1]:
        return f"is within the reserved range {reserved[0]}-{reserved[1]}"
    return None


def _domain_problems(topology: object) -> Iterator[Problem]:
    named = [(f"topology.domains.{name}", value) for name, value in _section(topology, "domains").items()]
    texts = [(path, value.lower()) for path, value in named if isinstance(value, str)]
    yield from _duplicates(texts, "domain", "give every service a domain of its own")


def _asset_problems(topology: object) -> Iterator[Problem]:
    assets = _records(topology, "assets")
    types = {**dict.fromkeys(ASSET_TYPES), **_section(topology, "asset_types")}
    for name, asset in assets.items():
        path = f"topology.assets.{name}"
        yield from _missing(f"{path}.type", asset.get("type"), types, "asset type (topology.asset_types)")
        yield from _missing(f"{path}.parent", asset.get("parent"), assets, "asset")
        for which in ("flex_context", "flex_model"):
            for where, sensor in _sensors_named(asset.get(which), f"{path}.{which}"):
                yield from _missing(where, sensor, _records(topology, "sensors"), "sensor")
        if _is_in_loop(name, assets):
            yield Problem(
                f"{path}.parent",
                shown(asset.get("parent")),
                "makes the asset a part of itself",
                "break the loop of parents",
            )


def _sensors_named(value: object, path: str) -> Iterator[tuple[str, str]]:
    """Where settings of FlexMeasures' scheduler name a sensor, and which."""
    if isinstance(value, dict):
        for key, entry in value.items():
            if key == "sensor" and isinstance(entry, str):
                yield f"{path}.sensor", entry
            yield from _sensors_named(entry, f"{path}.{key}")
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _sensors_named(entry, f"{path}.{index}")


def _is_in_loop(name: str, assets: Mapping[str, dict[str, Any]]) -> bool:
    seen: set[str] = set()
    parent = assets[name].get("parent")
    while isinstance(parent, str) and parent in assets and parent not in seen:
        if parent == name:
            return True
        seen.add(parent)
        parent = assets[parent].get("parent")
    return False


def _sensor_problems(topology: object) -> Iterator[Problem]:
    sensors, assets = _records(topology, "sensors"), _records(topology, "assets")
    for name, sensor in sensors.items():
        yield from _missing(f"topology.sensors.{name}.asset", sensor.get("asset"), assets, "asset")
    ids = [
        (f"topology.sensors.{name}.id", sensor["id"])
        for name, sensor in sensors.items()
        if _is_number(sensor.get("id"))
    ]
    taken = [value for _, value in ids]
    free = max(100, *taken) + 1 if taken else 101
    yield from _duplicates(ids, "sensor id", f"give it a free id, such as {free:.0f}")


def _openadr_problems(topology: object) -> Iterator[Problem]:
    sensors = _records(topology, "sensors")
    for signal, sensor in _section(topology, "openadr", "signals").items():
        yield from _missing(f"topology.openadr.signals.{signal}", sensor, sensors, "sensor")
    registrations = [
        (f"topology.openadr.vens.{name}.registration_id", ven["registration_id"])
        for name, ven in _records(topology, "openadr", "vens").items()
        if isinstance(ven.get("registration_id"), str)
    ]
    yield from _duplicates(registrations, "registration id", "give every VEN a registration id of its own")
    openadr = topology.get("openadr") if isinstance(topology, dict) else None
    rules = openadr.get("opt_out") if isinstance(openadr, dict) else None
    for number, rule in enumerate(rules if isinstance(rules, list) else []):
        if isinstance(rule, dict) and (fault := _opt_out_fault(rule)):
            yield Problem(f"topology.openadr.opt_out.{number}", shown(rule), *fault)


def _opt_out_fault(rule: Mapping[str, Any]) -> Fault | None:
    """What the parts of a rule say of each other; the VEN refuses the same (`cariflex.ven.policy`)."""
    signals = rule.get("signals")
    for first, second in (("start", "end"), ("from", "to")):
        if (first in rule) != (second in rule):
            return f"has one of {first} and {second}", "give both"
    if "start" in rule and "from" in rule:
        return "has start and from", "give start and end, or days, from and to"
    if rule.get("days") and "from" not in rule:
        return "has days and no times", "add from and to, such as '00:00' and '24:00'"
    if "from" in rule and rule["from"] in (rule["to"], "24:00"):
        return "covers no time", "give from and to that differ"
    start, end = _moment_of(rule.get("start")), _moment_of(rule.get("end"))
    if start and end and (start.tzinfo is None) != (end.tzinfo is None):
        return "has a timezone in one of start and end", "give it in both or in none"
    if start and end and start >= end:
        return "ends before it starts", "exchange start and end"
    if ("above" in rule or "below" in rule) and (not isinstance(signals, list) or len(signals) != 1):
        return "has a limit for no or several signals, whose units differ", "name one signal in signals"
    if not (signals or "start" in rule or "from" in rule):
        return "would refuse every event", "name signals, or times"
    return None


def _s2_problems(topology: object) -> Iterator[Problem]:
    sensors, assets = _records(topology, "sensors"), _records(topology, "assets")
    states: list[tuple[str, Any]] = []
    for name, resource in _records(topology, "s2_resources").items():
        path = f"topology.s2_resources.{name}"
        asset, sensor = resource.get("asset"), resource.get("sensor")
        yield from _missing(f"{path}.asset", asset, assets, "asset")
        yield from _missing(f"{path}.sensor", sensor, sensors, "sensor")
        if isinstance(sensor, str) and sensor in sensors:
            states.append((f"{path}.sensor", sensor))
            owner = sensors[sensor].get("asset")
            declared = isinstance(owner, str) and owner in assets and isinstance(asset, str) and asset in assets
            if declared and owner != asset:
                yield Problem(
                    f"{path}.sensor",
                    shown(sensor),
                    f"belongs to the asset {owner}, not to {asset}",
                    f"name a sensor of {asset}",
                )
        low, high = resource.get("min_kw"), resource.get("max_kw")
        if _is_number(low) and _is_number(high) and low >= high:  # type: ignore[operator]
            yield Problem(
                f"{path}.min_kw",
                shown(low),
                f"is not below {path}.max_kw, {shown(high)}",
                "write the lower limit in min_kw and the higher in max_kw (kW, + is consumption)",
            )
    yield from _duplicates(states, "sensor", "give every S2 resource a state sensor of its own")


def _schedule_problems(topology: object) -> Iterator[Problem]:
    sensors, schedules = _records(topology, "sensors"), _section(topology, "schedules")
    named = [(f"topology.schedules.{key}", schedules.get(key), "EUR/MWh") for key in _PRICES if schedules]
    for key in ("production", "consumption"):
        names = schedules.get(key)
        for index, name in enumerate(names if isinstance(names, list) else []):
            named.append((f"topology.schedules.{key}.{index}", name, "kW"))
    takers: list[tuple[str, Any]] = []
    resolutions: dict[str, Any] = {}
    for resource, entry in _records(topology, "s2_resources").items():
        path, name = f"topology.s2_resources.{resource}.plan_sensor", entry.get("plan_sensor")
        named.append((path, name, "kW"))
        if not isinstance(name, str) or name not in sensors:
            continue
        takers.append((path, name))
        resolutions[name] = sensors[name].get("resolution")
        if sensors[name].get("asset") != entry.get("asset"):
            owner = sensors[name].get("asset")
            fault = f"belongs to the asset {owner}, not to {entry.get('asset')}"
            yield Problem(path, shown(name), fault, f"name a sensor of {entry.get('asset')}")
    for path, name, unit in named:
        yield from _missing(path, name, sensors, "sensor")
        found = sensors[name].get("unit") if isinstance(name, str) and name in sensors else unit
        if found != unit and isinstance(found, str) and is_known_unit(found):
            yield Problem(path, shown(name), f"is in {found}", f"name a sensor in {unit}")
    yield from _duplicates(takers, "sensor", "give every S2 resource a sensor of its own for its plan")
    for name, resolution in resolutions.items():
        if resolution != (first := next(iter(resolutions.values()))):
            fix = f"write {first}: all plans have the same resolution"
            yield Problem(
                f"topology.sensors.{name}.resolution", shown(resolution), "is another than of other plans", fix
            )


def _feed_problems(topology: object) -> Iterator[Problem]:
    sensors, feeds = _records(topology, "sensors"), _section(topology, "feeds")
    path = "topology.feeds"
    named: list[tuple[str, object, str | None]] = [
        (f"{path}.weather.{quantity}", name, _WEATHER.get(str(quantity)))
        for quantity, name in _mapping(feeds.get("weather")).items()
    ]
    tariff = _mapping(feeds.get("production_tariff"))
    if tariff:
        named.append((f"{path}.production_tariff.sensor", tariff.get("sensor"), "EUR/MWh"))
        if ("daily" in tariff) == ("file" in tariff):
            fault = "has both daily and file" if "daily" in tariff else "has neither daily nor file"
            yield Problem(f"{path}.production_tariff", None, fault, "give one of the two")
        daily = _mapping(tariff.get("daily"))
        if daily and "00:00" not in daily:
            yield Problem(f"{path}.production_tariff.daily", None, "says nothing of 00:00", "begin with '00:00'")
    simulated = _mapping(feeds.get("simulated"))
    for kind, unit in (("pv", "kW"), ("loads", "kW"), ("storages", "kWh")):
        named += [(f"{path}.simulated.{kind}.{name}", name, unit) for name in _mapping(simulated.get(kind))]
    for name, load in _mapping(simulated.get("loads")).items():
        least, most = _mapping(load).get("base_kw"), _mapping(load).get("peak_kw")
        if _is_number(least) and _is_number(most) and least > most:  # type: ignore[operator]
            where = f"{path}.simulated.loads.{name}.base_kw"
            yield Problem(where, shown(least), f"is above peak_kw, {shown(most)}", "write the lower power in base_kw")
    for name, storage in _mapping(simulated.get("storages")).items():
        low, high = _mapping(storage).get("min_kw"), _mapping(storage).get("max_kw")
        if _is_number(low) and _is_number(high) and low >= high:  # type: ignore[operator]
            where = f"{path}.simulated.storages.{name}.min_kw"
            yield Problem(where, shown(low), f"is not below max_kw, {shown(high)}", "write the lower limit in min_kw")
    told = [resource.get("sensor") for resource in _records(topology, "s2_resources").values()]
    for name in _mapping(simulated.get("storages")):
        if name in told:
            where = f"{path}.simulated.storages.{name}"
            yield Problem(where, None, "is the state of an S2 resource, which the CEM tells", "remove it here")
    for where, sensor, wanted in named:
        yield from _missing(where, sensor, sensors, "sensor")
        found = sensors[sensor].get("unit") if isinstance(sensor, str) and sensor in sensors else wanted
        if wanted is not None and found != wanted:
            yield Problem(where, shown(sensor), f"is in {found}", f"name a sensor in {wanted}")
    if feeds and "cariflex-feeds" not in _records(topology, "containers"):
        fix = "declare it, or remove topology.feeds with null"
        yield Problem("topology.containers.cariflex-feeds", None, "is missing, and topology.feeds needs it", fix)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def simulation_problems(topology: object, environment: object) -> Iterator[Problem]:
    """Simulated data in an environment that is not dev."""
    if environment != "dev" and _mapping(_section(topology, "feeds").get("simulated")):
        fault = f"is for dev; the environment {environment} never gets simulated data"
        yield Problem("topology.feeds.simulated", None, fault, "remove it")


def topology_problems(topology: object, units_allowed: Collection[str] = ()) -> list[Problem]:
    """Every problem of a topology; an empty list when it is fit to be deployed.

    Args:
        topology: the combined topology.
        units_allowed: units beyond those of `units.is_known_unit` that sensors may have.
    """
    shape = list(shape_problems(topology, _schema(units_allowed), "topology"))
    rules = (
        *(_network_problems, _container_problems, _domain_problems, _asset_problems),
        *(_sensor_problems, _openadr_problems, _s2_problems, _schedule_problems, _feed_problems),
    )
    return shape + [problem for rule in rules for problem in rule(topology)]


# --- an environment's differences ----------------------------------------------------------------------------------

# A container that is there for one entry alone goes with it: entry -> container.
_SERVED_BY = {"feeds": "cariflex-feeds"}

# Below these, null is a value ("Docker chooses the address"), not a removal; * is any one name.
_NULL_IS_A_VALUE = ("containers", "*", "networks", "*")


def combined(declared: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """The topology of an environment: mappings are merged, anything else is replaced, null removes."""
    return without_nulls(_merged(declared, overrides))


def _merged(declared: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    merged = dict(declared)
    for key, value in overrides.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def without_nulls(topology: dict[str, Any]) -> dict[str, Any]:
    """The topology without the entries that are null: an override removes what it sets to null.

    A container's address on a network stays null, because there null means that Docker chooses it. A container that is
    there for such an entry alone goes with it.
    """
    kept = _without_nulls(topology)
    if isinstance(containers := kept.get("containers"), dict):
        gone = {container for entry, container in _SERVED_BY.items() if topology.get(entry, ...) is None}
        kept["containers"] = {name: value for name, value in containers.items() if name not in gone}
    return kept


def _without_nulls(topology: dict[str, Any], _path: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        key: _without_nulls(value, (*_path, key)) if isinstance(value, dict) else value
        for key, value in topology.items()
        if value is not None or _is_null_value((*_path, key))
    }


def _is_null_value(path: tuple[str, ...]) -> bool:
    return len(path) == len(_NULL_IS_A_VALUE) and all(
        wanted in ("*", key) for wanted, key in zip(_NULL_IS_A_VALUE, path, strict=True)
    )


def override_problems(declared: object, overrides: object, _path: tuple[str, ...] = ()) -> list[Problem]:
    """What is wrong with the differences themselves: no mapping, or a removal of something that is not declared."""
    if not isinstance(overrides, dict):
        fix = "write what differs, in the form of playbooks/vars/topology.yml"
        return [Problem("topology_overrides", shown(overrides), "is not a mapping", fix)]
    known = declared if isinstance(declared, dict) else {}
    found: list[Problem] = []
    for key, value in overrides.items():
        path = (*_path, str(key))
        if value is None and key not in known and not _is_null_value(path):
            name = ".".join(("topology_overrides", *path))
            fix = one_of(str(key), [str(other) for other in known])
            found.append(Problem(name, "null", "removes nothing: there is no such entry", fix))
        elif isinstance(value, dict):
            found += override_problems(known.get(key), value, path)
    return found
