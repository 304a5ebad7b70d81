"""What a topology consists of, and the changes that lead from what FlexMeasures has to what is declared.

Pure: no database and no FlexMeasures in here. `declaration` reads a request into a `State`, `store` reads FlexMeasures
into another and carries out the changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

from cariflex.durations import format_duration

Kind = Literal["accounts", "roles", "asset_types", "users", "assets", "sensors"]

# What FlexMeasures brings itself, by name with its own description: missing on a database that was never filled.
STANDARD_ASSET_TYPES = {
    "solar": "solar panel(s)",
    "wind": "wind turbine",
    "one-way_evse": "uni-directional Electric Vehicle Supply Equipment",
    "two-way_evse": "bi-directional Electric Vehicle Supply Equipment",
    "battery": "stationary battery",
    "building": "building",
    "process": "process",
    "heat-storage": "thermal storage / buffer",
}
STANDARD_ROLES = {
    "admin": "Super user",
    "admin-reader": "Can read everything",
    "account-admin": "Can update and delete data in their account (e.g. assets, sensors, users, beliefs)",
    "consultant": "Can read everything in consultancy client accounts",
}
AS_DECLARED, DIFFERENT = "as declared", "different"


@dataclass(frozen=True, slots=True)
class Account:
    """A tenant of FlexMeasures; it owns users and assets."""


@dataclass(frozen=True, slots=True)
class Described:
    """A role of users, or a type of assets."""

    description: str


@dataclass(frozen=True, slots=True)
class User:
    """A user; the password itself is never part of a state, only whether it is the declared one."""

    account: str
    username: str
    roles: tuple[str, ...]
    password: str = AS_DECLARED


# A mapping of JSON values; None in a declaration: left as it is.
Settings = Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Asset:
    """An asset of the account; latitude and longitude in decimal degrees (WGS 84).

    `flex_context` and `flex_model` are FlexMeasures' settings of the scheduler; sensors stand in them by id.
    """

    type: str
    parent: str | None
    latitude: float | None
    longitude: float | None
    attributes: Settings = None
    flex_context: Settings = None
    flex_model: Settings = None


@dataclass(frozen=True, slots=True)
class Sensor:
    """A sensor; its key is its id, which other systems rely on."""

    name: str
    unit: str
    resolution: timedelta
    timezone: str
    asset: str
    account: str | None
    attributes: Settings = None


Entity = Account | Described | User | Asset | Sensor


@dataclass(frozen=True)
class State:
    """Everything a topology can declare: users by e-mail address, sensors by id, the rest by name."""

    accounts: Mapping[str, Account] = field(default_factory=dict)
    roles: Mapping[str, Described] = field(default_factory=dict)
    asset_types: Mapping[str, Described] = field(default_factory=dict)
    users: Mapping[str, User] = field(default_factory=dict)
    assets: Mapping[str, Asset] = field(default_factory=dict)  # parents before their children
    sensors: Mapping[int, Sensor] = field(default_factory=dict)

    def items(self) -> Iterator[tuple[Kind, str | int, Entity]]:
        """Every entity, those that others refer to first."""
        kinds: tuple[Kind, ...] = ("accounts", "roles", "asset_types", "users", "assets", "sensors")
        for kind in kinds:
            for key, entity in getattr(self, kind).items():
                yield kind, key, entity

    def get(self, kind: Kind, key: str | int) -> Entity | None:
        """One entity, or None where there is none."""
        found: Entity | None = getattr(self, kind).get(key)
        return found


class Problem(NamedTuple):
    """One reason not to accept a topology; `path` is dotted and begins below the request's ``topology``."""

    path: str
    value: Any
    problem: str
    fix: str


@dataclass(frozen=True)
class Change:
    """One entity to create (`before` is None), to update, or to remove (`after` is None).

    `was` is the name that an asset had until now, where it is renamed.
    """

    kind: Kind
    key: str | int
    before: Entity | None
    after: Entity | None
    was: str | None = None

    @property
    def path(self) -> str:
        """Where the entity stands in the declaration, such as ``sensors.pv_01_power``."""
        entity = self.after or self.before
        return f"{self.kind}.{entity.name if isinstance(entity, Sensor) else self.key}"

    @property
    def action(self) -> Literal["create", "update", "delete"]:
        """What is done."""
        return "create" if self.before is None else "delete" if self.after is None else "update"

    def differences(self) -> dict[str, tuple[Any, Any]]:
        """Field name -> value before and after, of those that differ; None before a creation or after a removal."""
        entity = self.after or self.before
        names = [f.name for f in fields(entity)] if entity is not None else []
        pairs = {name: (getattr(self.before, name, None), getattr(self.after, name, None)) for name in names}
        if isinstance(entity, Sensor):
            pairs = {"id": (self.before and self.key, self.after and self.key), **pairs}
        if self.was is not None:
            pairs = {"name": (self.was, self.key), **pairs}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


# Kind and key of entities.
Keys = Collection[tuple[Kind, str | int]]


def plan(
    current: State, desired: State, *, removed: Keys = (), renamed: Mapping[str, str] | None = None
) -> list[Change]:
    """The changes that make `current` contain `desired`; what is only in `current` is left alone.

    Args:
        current: what there is, with the assets that are renamed under their new names (`with_names`).
        desired: the declaration.
        removed: what goes. Sensors go first, since their names may be wanted again; assets last, since what is below
            them may be wanted elsewhere.
        renamed: new name of an asset -> the name it has until now.
    """
    was = renamed or {}
    changes = [Change("sensors", key, current.sensors[int(key)], None) for kind, key in removed if kind == "sensors"]
    for kind, key, entity in desired.items():
        before = current.get(kind, key)
        after = _kept(before, entity)
        name = was.get(str(key)) if kind == "assets" else None
        if before != after or name is not None:
            changes.append(Change(kind, key, before, after, name))
    assets = [str(key) for kind, key in removed if kind == "assets"]
    deepest = sorted(assets, key=lambda name: -len(list(_above(current, name))))
    return changes + [Change("assets", name, current.assets[name], None) for name in deepest]


def _above(state: State, name: str) -> Iterator[str]:
    """The names above an asset, nearest first."""
    seen = {name}
    parent = state.assets[name].parent if name in state.assets else None
    while parent is not None and parent not in seen and parent in state.assets:
        yield parent
        seen.add(parent)
        parent = state.assets[parent].parent


def with_names(state: State, names: Mapping[str, str]) -> State:
    """The same with assets under other names.

    Args:
        state: what there is.
        names: old name -> new name.
    """

    def named(name: str | None) -> str | None:
        return None if name is None else names.get(name, name)

    assets = {names.get(key, key): replace(asset, parent=named(asset.parent)) for key, asset in state.assets.items()}
    sensors = {
        id_: replace(sensor, asset=names.get(sensor.asset, sensor.asset)) for id_, sensor in state.sensors.items()
    }
    return replace(state, assets=assets, sensors=sensors)


def below(state: State, account: str, names: Collection[str]) -> list[tuple[Kind, str | int]]:
    """Assets with all that is below them: what goes when they go.

    Args:
        state: what there is.
        account: whose assets they are.
        names: of assets.
    """
    wanted = set(names)
    gone = [name for name in state.assets if name in wanted or not wanted.isdisjoint(_above(state, name))]
    on = set(gone)
    sensors = [id_ for id_, sensor in state.sensors.items() if sensor.account == account and sensor.asset in on]
    return [*(("sensors", id_) for id_ in sensors), *(("assets", name) for name in gone)]


def _kept(before: Entity | None, after: Entity) -> Entity:
    """What is declared, with the settings that are not declared as they are."""
    if not isinstance(after, (Asset, Sensor)) or type(before) is not type(after):
        return after
    names = [f.name for f in fields(after) if f.default is None and getattr(after, f.name) is None]
    return replace(after, **{name: getattr(before, name) for name in names})


def apply(state: State, changes: Iterable[Change]) -> State:
    """The state after the changes, as the database has it after `store.write`."""
    entities: dict[str, dict[str | int, Entity]] = {f.name: dict(getattr(state, f.name)) for f in fields(state)}
    for change in changes:
        if change.after is None:
            del entities[change.kind][change.key]
        else:
            entities[change.kind][change.key] = change.after
    return replace(state, **entities)  # type: ignore[arg-type]


def with_standard(declared: State, current: State) -> State:
    """The declaration with the roles and asset types it uses and FlexMeasures brings, so that they exist."""

    def used(names: Iterable[str], known: Mapping[str, Described], standard: Mapping[str, str]) -> dict[str, Described]:
        return {
            name: known.get(name) or Described(standard[name])
            for name in dict.fromkeys(names)
            if name in known or name in standard
        }

    roles = used((role for user in declared.users.values() for role in user.roles), current.roles, STANDARD_ROLES)
    types = used((asset.type for asset in declared.assets.values()), current.asset_types, STANDARD_ASSET_TYPES)
    return replace(declared, roles=roles, asset_types={**types, **declared.asset_types})


def undeclared(current: State, declared: State, account: str) -> dict[str, list[dict[str, Any]]]:
    """What the account has and the topology does not mention. It is left alone, but shown."""
    return {
        "users": [
            {"email": email, "username": user.username}
            for email, user in current.users.items()
            if user.account == account and email not in declared.users
        ],
        "assets": [{"name": name} for name in current.assets if name not in declared.assets],
        "sensors": [
            {"id": id_, "name": sensor.name, "asset": sensor.asset}
            for id_, sensor in current.sensors.items()
            if sensor.account == account and id_ not in declared.sensors
        ],
    }


def conflicts(
    current: State,
    desired: State,
    *,
    ambiguous_assets: Mapping[str, tuple[int, ...]],
    passwords: Collection[str],
    with_data: Collection[int],
    removed: Keys = (),
    rename: bool = False,
) -> list[Problem]:
    """Why FlexMeasures, as it is, cannot take the topology; empty when it can.

    Args:
        current: what FlexMeasures has.
        desired: the declaration, completed by `with_standard`.
        ambiguous_assets: name -> ids, of names that several assets of the account bear.
        passwords: e-mail addresses for which a password was given.
        with_data: ids of sensors that have data.
        removed: what goes.
        rename: whether a sensor is recognized by its id alone.
    """
    return [
        *_role_and_type_conflicts(desired),
        *_user_conflicts(current, desired, passwords),
        *_asset_conflicts(desired, ambiguous_assets),
        *_sensor_conflicts(current, desired, with_data, {key for kind, key in removed if kind == "sensors"}, rename),
    ]


def closest(name: str, known: Iterable[str]) -> str:
    """How to put an unknown name right: the nearest known one, or all of them."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    return f"write {near[0]}" if near else f"use one of {', '.join(names)}" if names else "declare it"


def _role_and_type_conflicts(desired: State) -> Iterator[Problem]:
    for email, user in desired.users.items():
        for role in user.roles:
            if role not in desired.roles:
                fix = closest(role, STANDARD_ROLES)
                yield Problem(f"users.{email}.roles", role, "is no role that FlexMeasures has", fix)
    for name, asset in desired.assets.items():
        if asset.type not in desired.asset_types:
            fix = (
                f"{closest(asset.type, {**STANDARD_ASSET_TYPES, **desired.asset_types})}, or declare it in asset_types"
            )
            yield Problem(f"assets.{name}.type", asset.type, "is no asset type that FlexMeasures has", fix)


def _user_conflicts(current: State, desired: State, passwords: Collection[str]) -> Iterator[Problem]:
    owners = {user.username: email for email, user in current.users.items()}
    for email, user in desired.users.items():
        before = current.users.get(email)
        if before is None and email not in passwords:
            yield Problem(f"users.{email}", None, "is new and has no password", "give its password along")
        if before is not None and before.account != user.account:
            problem = f"is a user of the account {before.account}"
            yield Problem(f"users.{email}", None, problem, "declare another address, or delete that user first")
        owner = owners.get(user.username, email)
        if owner != email and getattr(desired.users.get(owner), "username", user.username) == user.username:
            problem = f"is the username of {owner}"
            yield Problem(f"users.{email}.username", user.username, problem, "choose another username")


def _asset_conflicts(desired: State, ambiguous: Mapping[str, tuple[int, ...]]) -> Iterator[Problem]:
    for name in desired.assets:
        if name in ambiguous:
            ids = ", ".join(map(str, ambiguous[name]))
            problem = f"is the name of several assets of the account: {ids}"
            yield Problem(f"assets.{name}", None, problem, "rename or delete all but one of them")


def removal_conflicts(
    current: State, desired: State, told: Keys, removed: Keys, with_data: Collection[int], *, force: bool
) -> list[Problem]:
    """Why something may not be removed.

    Args:
        current: what there is.
        desired: the declaration; nothing of it goes.
        told: what is to go.
        removed: that, and what goes with it.
        with_data: ids of sensors that have data.
        force: whether data and the assets below go too.
    """
    return list(_removal_conflicts(current, desired, set(told), removed, with_data, force))


def _removal_conflicts(
    current: State,
    desired: State,
    told: set[tuple[Kind, str | int]],
    removed: Keys,
    with_data: Collection[int],
    force: bool,
) -> Iterator[Problem]:
    for kind, key in removed:
        sensor = current.sensors.get(int(key)) if kind == "sensors" else None
        path = f"{kind}.{key if sensor is None else sensor.name}"
        if sensor is not None and sensor.account not in desired.accounts:
            yield Problem(path, key, f"is a sensor of the account {sensor.account}", "remove it there")
        elif desired.get(kind, key) is not None:
            yield Problem(path, None, "is declared and would be removed", "remove only what is not declared")
        elif not force and sensor is not None and key in with_data:
            problem = f"has data, and the sensor {key} would be removed"
            yield Problem(path, None, problem, "keep it, or set force to delete the data too")
        elif not force and (kind, key) not in told and kind == "assets":
            problem = f"is below {current.assets[str(key)].parent}, and would be removed with it"
            yield Problem(path, None, problem, "remove it first, or set force to remove everything below")


def _sensor_conflicts(
    current: State, desired: State, with_data: Collection[int], removed: Collection[str | int], rename: bool
) -> Iterator[Problem]:
    places = {
        (sensor.account, sensor.asset, sensor.name): id_
        for id_, sensor in current.sensors.items()
        if id_ not in removed and not (rename and id_ in desired.sensors)  # its name and place are about to change
    }
    for id_, sensor in desired.sensors.items():
        path = f"sensors.{sensor.name}"
        before = current.sensors.get(id_)
        known = before is None or before.name == sensor.name or rename
        if before is not None and not (known and before.account == sensor.account):
            owner = f" of the account {before.account}" if before.account != sensor.account else ""
            problem = f"is taken by the sensor {before.name} on the asset {before.asset}{owner}"
            fix = "choose a free id, or rename or delete that sensor first"
            if before.account == sensor.account:
                fix += f"; with rename it becomes {sensor.name}"
            yield Problem(f"{path}.id", id_, problem, fix)
            continue
        other = places.get((sensor.account, sensor.asset, sensor.name), id_)
        if other != id_:
            problem = f"cannot be its id: FlexMeasures has this sensor on {sensor.asset} with the id {other}"
            yield Problem(f"{path}.id", id_, problem, f"rename or delete the sensor {other}; ids cannot be changed")
        if before is not None and id_ in with_data:
            for name in ("unit", "resolution"):
                was, wanted = getattr(before, name), getattr(sensor, name)
                if was != wanted:
                    problem = f"differs from {readable(was)}, in which the sensor has data"
                    fix = f"keep {readable(was)}, or declare a new sensor with a new id"
                    yield Problem(f"{path}.{name}", readable(wanted), problem, fix)


def readable(value: Any) -> Any:
    """A field's value as JSON takes it: durations in ISO 8601."""
    return format_duration(value) if isinstance(value, timedelta) else value
