"""What FlexMeasures has, what it is to have, and the changes between the two.

Pure: no request in here. The way through FlexMeasures' own API plans with this; our plugin plans by itself, by the same
rules (``cariflex.fm_plugin.plan``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .problem import Problem, one_of, shown

# A kind (accounts, users, assets or sensors) and what tells entities of that kind apart: name, e-mail address, or id.
Key = tuple[str, str | int]
Fields = Mapping[str, Any]
Entities = Mapping[Key, Fields]

# The id of a sensor that gets one from FlexMeasures.
ANY_ID = 0
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")
# Keys under which FlexMeasures' scheduler takes times.
_TIMES = ("start", "end", "datetime")
_NAIVE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?")


@dataclass(frozen=True)
class State:
    """What an account has.

    Attributes:
        entities: the account, its users, assets and sensors.
        asset_types: description by name, of every type there is.
        asset_ids: name -> ids of the assets that bear it.
        free_sensor_id: an id that no sensor has; None where only FlexMeasures knows.
        data: id of a sensor -> whether it has data, where that was asked.
    """

    entities: Entities
    asset_types: Mapping[str, str] = field(default_factory=dict)
    asset_ids: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    free_sensor_id: int | None = None
    data: Mapping[int, bool] = field(default_factory=dict)

    def of(self, kind: str) -> dict[Any, Fields]:
        """The entities of one kind, by name or id."""
        return {key: fields for (each, key), fields in self.entities.items() if each == kind}


@dataclass(frozen=True)
class Change:
    """One entity to create (`before` is None), to update, or to remove (`after` is None)."""

    kind: str
    key: str | int
    before: Fields | None
    after: Fields | None

    @property
    def action(self) -> Literal["create", "update", "delete"]:
        """What is done."""
        return "create" if self.before is None else "delete" if self.after is None else "update"

    @property
    def path(self) -> str:
        """Where the entity stands in a topology, such as ``sensors.pv_01_power``."""
        name = (self.after or self.before or {}).get("name", self.key) if self.kind == "sensors" else self.key
        return f"{self.kind}.{name}"

    def differences(self) -> list[str]:
        """The fields that differ."""
        before, after = self.before or {}, self.after or {}
        return [name for name in {**before, **after} if before.get(name) != after.get(name)]

    def told(self) -> dict[str, Any]:
        """The change as the modules return it."""
        return self.told_of(self.differences())

    def told_of(self, names: Collection[str]) -> dict[str, Any]:
        """The same of some of the fields."""
        own = {"id": self.key or None} if self.kind == "sensors" and self.action != "update" else {}
        sides = {"before": self.before, "after": self.after}
        return {
            "action": self.action,
            "path": self.path,
            **{
                side: {} if fields is None else {**own, **{name: fields.get(name) for name in names}}
                for side, fields in sides.items()
            },
        }


def canonical(duration: str) -> str:
    """A duration in its shortest form, such as PT1H for PT60M; as it is when it is none of fixed length."""
    weeks = re.fullmatch(r"P(\d+)W", duration)
    match = _DURATION.fullmatch(duration)
    if weeks is None and match is None:
        return duration
    if weeks is not None:
        days, seconds = 7 * int(weeks[1]), 0
    else:
        numbers = [int(group or 0) for group in match.groups()] if match else []
        days, seconds = divmod(86400 * numbers[0] + 3600 * numbers[1] + 60 * numbers[2] + numbers[3], 86400)
    parts = ((seconds // 3600, "H"), (seconds // 60 % 60, "M"), (seconds % 60, "S"))
    time = "".join(f"{number}{unit}" for number, unit in parts if number)
    date = f"{days}D" if days else ""
    return f"P{date}T{time}" if time else f"P{date}" if date else "PT0S"


def wanted(declaration: Mapping[str, Any]) -> dict[Key, dict[str, Any]]:
    """The entities that a declaration wants, assets below those that they are part of; None leaves a field as it is.

    Args:
        declaration: account, timezone, users, assets and sensors; `id` of an asset is that of one that is there.
    """
    assets: Mapping[str, Any] = declaration.get("assets") or {}
    sensors: Mapping[str, Any] = declaration.get("sensors") or {}
    ids = {name: sensor.get("id") for name, sensor in sensors.items()}
    found: dict[Key, dict[str, Any]] = {("accounts", declaration["account"]): {}}
    for email, user in (declaration.get("users") or {}).items():
        found["users", email] = {"username": user["username"]}
    for name in sorted(assets, key=lambda name: len(list(above(name, assets)))):
        asset = assets[name]
        located = (assets[each] for each in (name, *above(name, assets)) if assets[each].get("latitude") is not None)
        place: Mapping[str, Any] = next(located, {})
        found["assets", name] = {
            "type": asset["type"],
            "parent": asset.get("parent"),
            "latitude": place.get("latitude"),
            "longitude": place.get("longitude"),
            "attributes": asset.get("attributes"),
            "flex_context": with_ids(asset.get("flex_context"), ids),
            "flex_model": with_ids(asset.get("flex_model"), ids),
        }
    for name, sensor in sensors.items():
        found["sensors", sensor.get("id") or ANY_ID] = {
            "name": name,
            "unit": sensor["unit"],
            "resolution": canonical(sensor["resolution"]),
            "timezone": sensor.get("timezone") or declaration["timezone"],
            "asset": sensor["asset"],
            "attributes": sensor.get("attributes"),
        }
    return found


def above(name: str, assets: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The names above an asset, nearest first; ends where a name comes again."""
    seen = {name}
    parent = assets[name].get("parent")
    while parent is not None and parent not in seen and parent in assets:
        yield parent
        seen.add(parent)
        parent = assets[parent].get("parent")


def with_ids(value: Any, ids: Mapping[str, int | None]) -> Any:
    """Settings of the scheduler with sensors by id, as FlexMeasures keeps them."""
    if isinstance(value, Mapping):
        return {
            key: ids.get(entry, entry) if key == "sensor" and isinstance(entry, str) else with_ids(entry, ids)
            for key, entry in value.items()
        }
    return [with_ids(entry, ids) for entry in value] if isinstance(value, list) else value


def plan(current: Entities, desired: Entities, removed: Collection[Key] = ()) -> list[Change]:
    """The changes that make `current` contain `desired` and not `removed`.

    Sensors go first, since their names may be wanted again; assets go last, the lowest first, since what is below them
    may be wanted elsewhere.
    """
    gone = [key for key in removed if key in current and key not in desired]
    changes = [Change(*key, current[key], None) for key in gone if key[0] == "sensors"]
    for key, fields in desired.items():
        before = current.get(key)
        after = {**fields, **{name: (before or {}).get(name) for name, value in fields.items() if value is None}}
        if before is not None:
            # what may be cleared, other than what is left as it is where it is not declared
            after.update({name: fields[name] for name in ("parent", "latitude", "longitude") if name in fields})
            after = {**before, **after}
        if before != after:
            changes.append(Change(*key, before, after))
    assets = {str(name): fields for (kind, name), fields in current.items() if kind == "assets"}
    last = [key for key in gone if key[0] != "sensors"]
    last.sort(key=lambda key: -len(list(above(str(key[1]), assets))) if key[0] == "assets" else 1)
    return changes + [Change(*key, current[key], None) for key in last]


def apply(current: Entities, changes: Collection[Change]) -> dict[Key, Fields]:
    """What there is after the changes."""
    after = dict(current)
    for change in changes:
        if change.after is None:
            del after[change.kind, change.key]
        else:
            after[change.kind, change.key] = change.after
    return after


def with_names(current: Entities, names: Mapping[str, str]) -> dict[Key, Fields]:
    """The same with assets under other names.

    Args:
        current: what there is.
        names: old name -> new name.
    """
    renamed: dict[Key, Fields] = {}
    for (kind, key), fields in current.items():
        place = {"assets": "parent", "sensors": "asset"}.get(kind)
        moved = fields if place is None else {**fields, place: names.get(fields[place], fields[place])}
        renamed[kind, names.get(str(key), str(key)) if kind == "assets" else key] = moved
    return renamed


def below(current: Entities, names: Collection[str]) -> list[Key]:
    """Assets with all that is below them: what goes when they go."""
    assets = {str(name): fields for (kind, name), fields in current.items() if kind == "assets"}
    tops = set(names)
    gone = {name for name in assets if name in tops or not tops.isdisjoint(above(name, assets))}
    return [
        (kind, key)
        for (kind, key), fields in current.items()
        if (kind == "assets" and key in gone) or (kind == "sensors" and fields["asset"] in gone)
    ]


def undeclared(current: Entities, desired: Entities) -> list[Key]:
    """Users, assets and sensors that the account has and the declaration does not mention."""
    return [key for key in current if key not in desired and key[0] != "accounts"]


def remeasured(changes: Collection[Change]) -> list[int]:
    """Ids of the sensors whose data would mean something else."""
    return [
        int(change.key)
        for change in changes
        if change.kind == "sensors" and change.action == "update" and {"unit", "resolution"} & {*change.differences()}
    ]


def naive_times(value: Any, path: str) -> Iterator[Problem]:
    """Times without a timezone in settings of the scheduler; FlexMeasures would refuse them when it plans."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if key in _TIMES and isinstance(entry, str) and _NAIVE.fullmatch(entry):
                fix = f"write one such as {entry[:10]}T00:00-04:00"
                yield Problem(f"{path}.{key}", shown(entry), "is a time without a timezone", fix)
            yield from naive_times(entry, f"{path}.{key}")
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from naive_times(entry, f"{path}.{index}")


# --- why FlexMeasures' own API cannot take a declaration -------------------------------------------------------------


def api_conflicts(
    current: State,
    declaration: Mapping[str, Any],
    desired: Entities,
    changes: Collection[Change],
    *,
    removed: Collection[Key],
    data: Mapping[int, bool],
    rename: bool,
) -> list[Problem]:
    """Everything that is in the way; paths begin below the topology.

    Args:
        current: what there is, with assets under their new names.
        declaration: what was declared.
        desired: the same, as entities.
        changes: the plan.
        removed: what goes.
        data: id -> whether the sensor has data, of the sensors of `remeasured`.
        rename: whether a sensor is recognized by its id alone.
    """
    return [
        *_type_conflicts(current, declaration, desired),
        *_user_conflicts(current, desired),
        *_asset_conflicts(current, desired, removed),
        *_sensor_conflicts(current, desired, removed, rename),
        *_changed_conflicts(changes, data),
    ]


def _type_conflicts(current: State, declaration: Mapping[str, Any], desired: Entities) -> Iterator[Problem]:
    for name, about in (declaration.get("asset_types") or {}).items():
        if name not in current.asset_types:
            fix = f"type 'flexmeasures add asset-type --name {name}' at the server, or load our plugin"
            yield Problem(f"asset_types.{name}", shown(about), "is missing, and FlexMeasures' API makes no types", fix)
    known = {*current.asset_types, *(declaration.get("asset_types") or {})}
    for (kind, key), fields in desired.items():
        if kind == "assets" and fields["type"] not in known:
            fix = one_of(str(fields["type"]), known)
            yield Problem(f"assets.{key}.type", shown(fields["type"]), "is no asset type that FlexMeasures has", fix)


def _user_conflicts(current: State, desired: Entities) -> Iterator[Problem]:
    for kind, key in desired:
        if kind == "users" and (kind, key) not in current.entities:
            problem = "is missing, and FlexMeasures' API gives nobody a password"
            fix = "type 'flexmeasures add user' at the server, or load our plugin"
            yield Problem(f"users.{key}", None, problem, fix)


def _asset_conflicts(current: State, desired: Entities, removed: Collection[Key]) -> Iterator[Problem]:
    for kind, key in {**dict.fromkeys(desired), **dict.fromkeys(removed)}:
        ids = current.asset_ids.get(str(key), ())
        if kind == "assets" and len(ids) > 1:
            problem = f"is the name of several assets of the account: {', '.join(map(str, ids))}"
            yield Problem(f"assets.{key}", None, problem, "rename or delete all but one of them")


def _sensor_conflicts(current: State, desired: Entities, removed: Collection[Key], rename: bool) -> Iterator[Problem]:
    sensors = current.of("sensors")
    places = {
        (fields["asset"], fields["name"]): id_
        for id_, fields in sensors.items()
        if ("sensors", id_) not in removed and not (rename and ("sensors", id_) in desired)
    }
    for (kind, id_), fields in desired.items():
        if kind != "sensors":
            continue
        path = f"sensors.{fields['name']}"
        before = sensors.get(id_)
        other = places.get((fields["asset"], fields["name"]), id_)
        if before is not None and before["name"] != fields["name"] and not rename:
            problem = f"is taken by the sensor {before['name']} on the asset {before['asset']}"
            fix = f"choose a free id, or rename or delete that sensor first; with rename it becomes {fields['name']}"
            yield Problem(f"{path}.id", shown(id_), problem, fix)
        elif other != id_:
            problem = f"cannot be its id: FlexMeasures has this sensor on {fields['asset']} with the id {other}"
            yield Problem(f"{path}.id", shown(id_), problem, f"declare the id {other}; ids cannot be changed")


def _changed_conflicts(changes: Collection[Change], data: Mapping[int, bool]) -> Iterator[Problem]:
    for change in changes:
        if change.kind != "sensors" or change.before is None or change.after is None:
            continue
        names = change.differences()
        if "asset" in names:
            problem = f"is another than {change.before['asset']}, and FlexMeasures' API moves no sensors"
            fix = f"keep {change.before['asset']}, or load our plugin"
            yield Problem(f"{change.path}.asset", shown(change.after["asset"]), problem, fix)
        for name in ("unit", "resolution"):
            if name in names and data.get(int(change.key)):
                was = change.before[name]
                problem = f"differs from {was}, in which the sensor has data"
                fix = f"keep {was}, or declare a new sensor with a new id"
                yield Problem(f"{change.path}.{name}", shown(change.after[name]), problem, fix)


def removal_conflicts(
    current: Entities,
    desired: Entities,
    told: Collection[Key],
    removed: Collection[Key],
    data: Mapping[int, bool],
    *,
    force: bool,
) -> Iterator[Problem]:
    """Why something may not be removed.

    Args:
        current: what there is.
        desired: the declaration; nothing of it goes.
        told: what is to go.
        removed: that, and what goes with it.
        data: id -> whether the sensor has data.
        force: whether data and the assets below go too.
    """
    for kind, key in removed:
        fields = current[kind, key]
        path = f"{kind}.{fields['name'] if kind == 'sensors' else key}"
        if (kind, key) in desired:
            yield Problem(path, None, "is declared and would be removed", "remove only what is not declared")
        elif not force and kind == "sensors" and data.get(int(key)):
            problem = f"has data, and the sensor {key} would be removed"
            yield Problem(path, None, problem, "keep it, or set force to delete the data too")
        elif not force and kind == "assets" and (kind, key) not in told:
            problem = f"is below {fields['parent']}, and would be removed with it"
            yield Problem(path, None, problem, "remove it first, or set force to remove everything below")
