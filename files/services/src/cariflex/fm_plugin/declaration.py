"""A topology as a request declares it: its shape, and what its parts must say of each other.

Pure but for the unit check, which is passed in because only FlexMeasures' unit library can decide it.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError

from cariflex.durations import Duration
from cariflex.fm_plugin.plan import Account, Asset, Described, Kind, Problem, Sensor, State, User, closest
from cariflex.problems import problems_of

# FlexMeasures' columns: names of accounts take 100 characters, e-mail addresses 255, everything else 80.
_Name = Annotated[str, StringConstraints(min_length=1, max_length=80, pattern=r"^\S(.*\S)?$")]
_Email = Annotated[str, StringConstraints(max_length=255, pattern=r"^[^@\s]+@[^@\s]+\.[^@\s.]+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


_Settings = dict[_Name, Any]


class UserDeclaration(_Strict):
    """A user of the account, declared under its e-mail address."""

    username: _Name = Field(description="the name to show", examples=["operator"])
    roles: list[_Name] = Field(default=[], description="a list of roles", examples=[["admin"]])


class AssetDeclaration(_Strict):
    """An asset, declared under its name; without coordinates it takes its parent's."""

    type: _Name = Field(description="an asset type", examples=["battery"])
    id: int | None = Field(default=None, description="the id of an asset that is there, which gets this name")
    parent: _Name | None = Field(default=None, description="the name of a declared asset", examples=["Cariflex"])
    latitude: float | None = Field(
        default=None, ge=-90, le=90, allow_inf_nan=False, description="decimal degrees from -90 to 90", examples=[14.64]
    )
    longitude: float | None = Field(
        default=None,
        ge=-180,
        le=180,
        allow_inf_nan=False,
        description="decimal degrees from -180 to 180",
        examples=[-61.02],
    )
    attributes: _Settings | None = Field(default=None, description="a mapping, or null to leave it as it is")
    flex_context: _Settings | None = Field(
        default=None,
        description="a mapping as FlexMeasures' scheduler takes it, with names of declared sensors",
        examples=[{"consumption-price": {"sensor": "consumption_price"}}],
    )
    flex_model: _Settings | None = Field(
        default=None,
        description="a mapping as FlexMeasures' scheduler takes it, with names of declared sensors",
        examples=[{"soc-max": "100 kWh"}],
    )


class SensorDeclaration(_Strict):
    """A sensor, declared under its name."""

    id: int = Field(ge=1, le=2**31 - 1, description="a whole number of at least 1", examples=[101])
    unit: str = Field(max_length=80, description="a unit", examples=["kW"])
    resolution: Duration = Field(description="an ISO 8601 duration", examples=["PT5M"])
    asset: _Name = Field(description="the name of a declared asset", examples=["Bat_01"])
    timezone: str | None = Field(default=None, description="a name of the tz database, or null for the topology's")
    attributes: _Settings | None = Field(default=None, description="a mapping, or null to leave it as it is")


class TopologyDeclaration(_Strict):
    """Account, users, asset types, assets and sensors that FlexMeasures is to have."""

    account: _Name = Field(description="the account's name", examples=["Cariflex"])
    timezone: str = Field(description="a name of the tz database", examples=["America/Martinique"])
    users: dict[_Email, UserDeclaration] = Field(default={}, description="users by e-mail address")
    asset_types: dict[_Name, _Name] = Field(default={}, description="descriptions by name of asset type")
    assets: dict[_Name, AssetDeclaration] = Field(default={}, description="assets by name")
    sensors: dict[_Name, SensorDeclaration] = Field(default={}, description="sensors by name")


class RemovalDeclaration(_Strict):
    """What is to go: assets by name, sensors by id."""

    assets: list[_Name] = Field(default=[], description="names of assets")
    sensors: list[int] = Field(default=[], description="ids of sensors")


class TopologyRequest(_Strict):
    """The body of ``POST /cariflex/v1/topology``."""

    topology: TopologyDeclaration = Field(description="the topology")
    passwords: dict[str, Annotated[SecretStr, Field(min_length=8, description="at least 8 characters")]] = Field(
        default={}, description="passwords by e-mail address of a declared user"
    )
    dry_run: bool = Field(default=False, description="true to only report what would change", examples=[True])
    rename: bool = Field(default=False, description="true to give a sensor that has another name the declared one")
    remove: RemovalDeclaration = Field(default=RemovalDeclaration(), description="a mapping with assets and sensors")
    purge: bool = Field(default=False, description="true to remove assets and sensors that are not declared")
    force: bool = Field(default=False, description="true to remove also what has data, and all below an asset")


@dataclass(frozen=True)
class Declaration:
    """A request that is right in itself."""

    account: str
    timezone: str
    state: State
    passwords: Mapping[str, str]
    dry_run: bool
    asset_ids: Mapping[str, int]
    rename: bool
    remove: tuple[tuple[Kind, str | int], ...]
    purge: bool
    force: bool


# Which of the two it is, and its content with sensors' ids -> key -> what is wrong with it.
FlexFaults = Callable[[Literal["flex_context", "flex_model"], Mapping[str, Any]], Mapping[str, str]]


class DeclarationError(Exception):
    """A request that is wrong in itself; `problems` says why."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = problems


def read(
    body: object, is_unit: Callable[[str], bool], flex_faults: FlexFaults = lambda _which, _given: {}
) -> Declaration:
    """Read a request's body, already decoded from JSON.

    Args:
        body: what the client sent.
        is_unit: whether FlexMeasures can work with a unit.
        flex_faults: what FlexMeasures finds wrong with a `flex_context` or `flex_model`, by key.

    Raises:
        DeclarationError: the body is wrong; every problem is named at once.
    """
    try:
        request = TopologyRequest.model_validate(body)
    except ValidationError as error:
        raise DeclarationError([_shape_problem(problem) for problem in problems_of(error, TopologyRequest)]) from None
    topology = request.topology
    problems = list(_problems(request, is_unit)) or list(_flex_problems(topology, flex_faults))
    if problems:
        raise DeclarationError(problems)
    return Declaration(
        account=topology.account,
        timezone=topology.timezone,
        state=_state(topology),
        passwords={email: password.get_secret_value() for email, password in request.passwords.items()},
        dry_run=request.dry_run,
        asset_ids={name: asset.id for name, asset in topology.assets.items() if asset.id is not None},
        rename=request.rename,
        remove=(
            *(("assets", name) for name in dict.fromkeys(request.remove.assets)),
            *(("sensors", id_) for id_ in dict.fromkeys(request.remove.sensors)),
        ),
        purge=request.purge,
        force=request.force,
    )


def _shape_problem(problem: Any) -> Problem:
    # What stands under `passwords` is never repeated, however wrong; nor is a whole section, which may hold NaN too.
    simple = isinstance(problem.value, (str, int)) and not problem.field.startswith("passwords")
    path = problem.field.removeprefix("topology.")
    return Problem(path, problem.value if simple else None, problem.problem, problem.fix)


def _problems(request: TopologyRequest, is_unit: Callable[[str], bool]) -> Iterator[Problem]:
    topology = request.topology
    yield from _timezone_problems("timezone", topology.timezone)
    for email in request.passwords:
        if email not in topology.users:
            yield Problem(f"passwords.{email}", None, "belongs to no declared user", closest(email, topology.users))
    yield from _duplicates(
        ((f"users.{email}.username", user.username) for email, user in topology.users.items()),
        "choose another username",
    )
    yield from _duplicates(
        ((f"sensors.{name}.id", sensor.id) for name, sensor in topology.sensors.items()),
        f"choose a free id, such as {max((100, *(s.id for s in topology.sensors.values()))) + 1}",
    )
    for name, asset in topology.assets.items():
        if asset.parent is not None and asset.parent not in topology.assets:
            fix = closest(asset.parent, topology.assets.keys() - {name})
            yield Problem(f"assets.{name}.parent", asset.parent, "is no declared asset", fix)
        elif name in _ancestors(name, topology.assets):
            yield Problem(f"assets.{name}.parent", asset.parent, "makes the asset a part of itself", "break the loop")
        if (asset.latitude is None) != (asset.longitude is None):
            yield Problem(
                f"assets.{name}", None, "has one coordinate of two", "give latitude and longitude, or neither"
            )
    units = {unit: is_unit(unit) for unit in {sensor.unit for sensor in topology.sensors.values()}}
    for name, sensor in topology.sensors.items():
        if sensor.asset not in topology.assets:
            fix = closest(sensor.asset, topology.assets)
            yield Problem(f"sensors.{name}.asset", sensor.asset, "is no declared asset", fix)
        if not units[sensor.unit]:
            fix = "write it as FlexMeasures does: kW, kWh, W/m², m/s, °C, EUR/MWh, % or dimensionless"
            yield Problem(f"sensors.{name}.unit", sensor.unit, "is no unit that FlexMeasures knows", fix)
        if sensor.timezone is not None:
            yield from _timezone_problems(f"sensors.{name}.timezone", sensor.timezone)


def _flex_problems(topology: TopologyDeclaration, flex_faults: FlexFaults) -> Iterator[Problem]:
    ids = {name: sensor.id for name, sensor in topology.sensors.items()}
    for name, asset in topology.assets.items():
        for which in ("flex_context", "flex_model"):
            given = getattr(asset, which) or {}
            unknown = list(_unknown_sensors(given, ids, f"assets.{name}.{which}"))
            yield from unknown
            if given and not unknown:
                for key, fault in flex_faults(which, _with_ids(given, ids)).items():
                    fix = "write it as FlexMeasures' documentation of the scheduler says"
                    yield Problem(f"assets.{name}.{which}.{key}", given.get(key), fault, fix)


def _unknown_sensors(value: Any, ids: Mapping[str, int], path: str) -> Iterator[Problem]:
    """References to sensors by a name that no declared sensor has."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if key == "sensor" and isinstance(entry, str) and entry not in ids:
                yield Problem(f"{path}.sensor", entry, "is no declared sensor", closest(entry, ids))
            yield from _unknown_sensors(entry, ids, f"{path}.{key}")
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _unknown_sensors(entry, ids, f"{path}.{index}")


def _with_ids(value: Any, ids: Mapping[str, int]) -> Any:
    """The same with the ids of sensors in the place of their names, as FlexMeasures keeps it."""
    if isinstance(value, Mapping):
        return {
            key: ids[entry] if key == "sensor" and isinstance(entry, str) else _with_ids(entry, ids)
            for key, entry in value.items()
        }
    return [_with_ids(entry, ids) for entry in value] if isinstance(value, list) else value


def _timezone_problems(path: str, name: str) -> Iterator[Problem]:
    known = zoneinfo.available_timezones()
    if name not in known:
        yield Problem(path, name, "is no known timezone", closest(name, known) if name else "write America/Martinique")


def _duplicates(values: Any, fix: str) -> Iterator[Problem]:
    first: dict[Any, str] = {}
    for path, value in values:
        if value in first:
            yield Problem(path, value, f"is the same as {first[value]}", fix)
        first.setdefault(value, path)


def _ancestors(name: str, assets: Mapping[str, AssetDeclaration]) -> list[str]:
    """The names above an asset, nearest first; ends where a name comes again."""
    found: list[str] = []
    parent = assets[name].parent
    while parent is not None and parent in assets and parent not in found:
        found.append(parent)
        parent = assets[parent].parent
    return found


def _state(topology: TopologyDeclaration) -> State:
    ids = {name: sensor.id for name, sensor in topology.sensors.items()}
    depth = {name: len(_ancestors(name, topology.assets)) for name in topology.assets}
    return State(
        accounts={topology.account: Account()},
        asset_types={name: Described(text) for name, text in topology.asset_types.items()},
        users={
            email: User(topology.account, user.username, tuple(sorted(set(user.roles))))
            for email, user in topology.users.items()
        },
        assets={name: _asset(name, topology.assets, ids) for name in sorted(topology.assets, key=depth.__getitem__)},
        sensors={
            sensor.id: Sensor(
                name=name,
                unit=sensor.unit,
                resolution=sensor.resolution,
                timezone=sensor.timezone or topology.timezone,
                asset=sensor.asset,
                account=topology.account,
                attributes=sensor.attributes,
            )
            for name, sensor in topology.sensors.items()
        },
    )


def _asset(name: str, assets: Mapping[str, AssetDeclaration], ids: Mapping[str, int]) -> Asset:
    located = [assets[each] for each in (name, *_ancestors(name, assets)) if assets[each].latitude is not None]
    latitude, longitude = (located[0].latitude, located[0].longitude) if located else (None, None)
    asset = assets[name]
    flex = (_with_ids(asset.flex_context, ids), _with_ids(asset.flex_model, ids))
    return Asset(asset.type, asset.parent, latitude, longitude, asset.attributes, *flex)
