"""Calls to FlexMeasures, through our plugin or through its own API, and errors that say what to do."""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .flexmeasures_plan import (
    ANY_ID,
    Change,
    Entities,
    Key,
    State,
    api_conflicts,
    below,
    canonical,
    plan,
    remeasured,
    removal_conflicts,
    undeclared,
    wanted,
    with_names,
)
from .http_api import TRIES, Answer, ApiError, HttpApi, pause, redirected, unanswered
from .problem import Problem, headline, listing, shown
from .units import is_known_unit

PATH = "/cariflex/v1/topology"
API = "/api/v3_0"
CONTAINER = "flexmeasures-server"
EXAMPLE = "http://192.168.240.20:5000"
_ASSET_FIELDS = (
    "id|name|account_id|generic_asset_type|parent_asset_id|latitude|longitude|attributes|flex_context|flex_model"
)
# Settings of an asset that may name sensors, which therefore have to be there first.
_FLEX = ("flex_context", "flex_model")


class FlexMeasuresError(ApiError):
    """A call failed.

    Attributes:
        http_status: of the answer; 0 when there was none.
        problems: what is wrong with the declaration, where that is why.
        partial: the changes that had been made.
    """

    def __init__(
        self,
        message: str,
        http_status: int = 0,
        problems: Collection[Problem] = (),
        partial: Collection[dict[str, Any]] = (),
    ) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.problems = list(problems)
        self.partial = list(partial)


@dataclass(frozen=True)
class Wish:
    """What FlexMeasures is to have, and how far to go.

    Attributes:
        topology: account, timezone, users, asset_types, assets and sensors.
        passwords: e-mail address -> password.
        rename: whether a sensor that has another name gets the declared one.
        remove_assets: names of assets that go.
        remove_sensors: ids of sensors that go.
        purge: whether assets and sensors that are not declared go.
        force: whether what has data goes too, and everything below an asset.
    """

    topology: Mapping[str, Any]
    passwords: Mapping[str, str]
    rename: bool = False
    remove_assets: tuple[str, ...] = ()
    remove_sensors: tuple[int, ...] = ()
    purge: bool = False
    force: bool = False


class PluginMissingError(FlexMeasuresError):
    """The server does not have our plugin."""


class FlexMeasuresClient(HttpApi):
    """Our plugin at one FlexMeasures; the token is the server's ``flexmeasures_topology_token``."""

    def __init__(self, url: str, token: str, **options: Any) -> None:
        super().__init__(url, token, example=EXAMPLE, **options)
        self.address = self.server + PATH

    def state(self, account: str, *, data: bool = False) -> State:
        """What an account has.

        Args:
            account: its name.
            data: whether to look which of its sensors have data.

        Raises:
            FlexMeasuresError: as for `declare`.
        """
        query = urllib.parse.urlencode({"account": account, "data": int(data)})
        told = self._told(self.call("GET", f"{PATH}?{query}"), {"assets": list, "sensors": list, "users": dict})
        sensors = {int(sensor["id"]): sensor for sensor in told["sensors"]}
        entities: dict[Key, Mapping[str, Any]] = {} if told.get("account") is None else {("accounts", account): {}}
        entities.update({("users", email): user for email, user in told["users"].items()})
        entities.update({("assets", each["name"]): _without(each, "id", "name") for each in told["assets"]})
        entities.update({("sensors", id_): _without(each, "id", "data") for id_, each in sensors.items()})
        return State(
            entities,
            told.get("asset_types") or {},
            _ids_by_name(told["assets"]),
            told.get("free_sensor_id"),
            {id_: each["data"] for id_, each in sensors.items() if "data" in each},
        )

    def declare(self, wish: Wish, *, dry_run: bool) -> dict[str, Any]:
        """Make FlexMeasures as wished in one transaction, or only ask what that would change.

        Args:
            wish: what it is to have.
            dry_run: whether to change nothing.

        Returns:
            ``changed``, ``changes``, ``counts`` and ``undeclared``.

        Raises:
            FlexMeasuresError: no answer in any try, a refusal, or an answer that is not the plugin's.
        """
        content: dict[str, Any] = {"topology": wish.topology, "passwords": wish.passwords, "dry_run": dry_run}
        content.update({name: True for name in ("rename", "purge", "force") if getattr(wish, name)})
        if wish.remove_assets or wish.remove_sensors:
            content["remove"] = {"assets": [*wish.remove_assets], "sensors": [*wish.remove_sensors]}
        return self._told(self.call("POST", PATH, content), {"changed": bool, "changes": list})

    def _told(self, answer: Answer, shape: Mapping[str, type]) -> dict[str, Any]:
        if answer.status == 0:
            raise FlexMeasuresError(str(unanswered(self.address, answer, CONTAINER)))
        if answer.status != 200:
            raise self._refusal(answer)
        result = answer.json()
        if not all(isinstance(result.get(name), kind) for name, kind in shape.items()):
            raise FlexMeasuresError(
                f"{self.address} answered 200, but not as our plugin does: {answer.excerpt() or 'nothing'}. "
                "Fix: let url be the FlexMeasures server itself, and see that its plugin is as new as this module.",
                200,
            )
        return result

    def _refusal(self, answer: Answer) -> FlexMeasuresError:
        """Why there is no result, and what to do about it."""
        told = answer.json()
        problems = told.get("problems")
        if isinstance(problems, list) and problems:
            return _refused(f"{self.address} answered {answer.status}", map(_problem, problems), answer.status)
        reason = told.get("message") or answer.excerpt()
        message = f"{self.address} answered {answer.status}{f' ({reason})' if reason else ''}. Fix: {_fix(answer)}."
        return (PluginMissingError if answer.status in (404, 405) else FlexMeasuresError)(message, answer.status)


def _refused(subject: str, problems: Collection[Problem] | Iterator[Problem], status: int = 0) -> FlexMeasuresError:
    found = list(problems)
    return FlexMeasuresError(f"{headline(found, subject)}:\n{listing(found)}", status, found)


def _fix(answer: Answer) -> str:
    return redirected(answer) or {
        400: "if the host is not trusted, add it to TRUSTED_HOSTS in flexmeasures.cfg or set host_header",
        401: "give the content of the server's secret flexmeasures_topology_token as token",
        403: "let url be the server itself; something in front of it refuses the call",
        404: 'load our plugin: FLEXMEASURES_PLUGINS = ["cariflex.fm_plugin"] in flexmeasures.cfg',
        405: "let the server's plugin be as new as this module",
        413: "declare less at once",
        429: "try again later",
    }.get(answer.status, f"see the server's log: docker logs {CONTAINER}")


def _problem(told: Any) -> Problem:
    """A problem as the plugin reports it; its paths begin below the topology."""
    told = told if isinstance(told, dict) else {}
    path = str(told.get("path", ""))
    variable = f"user_{path}" if path.startswith("passwords") else f"topology.{path}"
    value = told.get("value")
    fix = str(told.get("fix", "")).rstrip(".")
    return Problem(variable, None if value is None else shown(value), str(told.get("problem", "")), fix)


def _without(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def _ids_by_name(assets: Collection[Mapping[str, Any]]) -> dict[str, tuple[int, ...]]:
    ids: dict[str, tuple[int, ...]] = {}
    for asset in assets:
        ids[asset["name"]] = (*ids.get(asset["name"], ()), int(asset["id"]))
    return ids


class FlexMeasuresApi(HttpApi):
    """FlexMeasures' own API (v3), with a user's e-mail address and password.

    It sets no ids: the id that a new sensor got is compared with the declared one, and the sensor is taken back when it
    is another. Nor does it tell roles or take passwords of users.
    """

    def __init__(self, url: str, email: str, password: str, **options: Any) -> None:
        super().__init__(url, "", example=EXAMPLE, headers={}, **options)
        self._email, self._password = email, password
        self._token: str | None = None
        self._account_id: int | None = None
        self._types: dict[str, int] = {}
        self._ids: dict[Key, int] = {}
        self._written: list[dict[str, Any]] = []
        self._known: tuple[str, State] | None = None

    # --- reading ---

    def state(self, account: str, *, data: bool = False) -> State:
        """What an account has; as `FlexMeasuresClient.state`, with one more call for each sensor when `data`.

        It is read once, and again after a change.
        """
        if self._known is None or self._known[0] != account:
            self._known = account, self._read(account)
        state = self._known[1]
        sensors = state.of("sensors") if data else ()
        return replace(state, data={id_: self._has_data(id_) for id_ in sensors})

    def _read(self, account: str) -> State:
        accounts = [row for row in self._rows("/accounts") if row.get("name") == account]
        found = self._rows("/assets/types")
        self._types = {row["name"]: row["id"] for row in found}
        types = {row["name"]: row.get("description") or "" for row in found}
        if not accounts:
            return State({}, types)
        self._account_id = int(accounts[0]["id"])
        of = f"account={self._account_id}"
        users = self._rows(f"/users?{of}&include_inactive=true")
        assets = self._rows(f"/assets?{of}&fields={urllib.parse.quote(_ASSET_FIELDS)}")
        sensors = self._rows(f"/sensors?{of}")
        names = {row["id"]: row["name"] for row in assets}
        entities: dict[Key, Mapping[str, Any]] = {("accounts", account): {}}
        entities.update({("users", row["email"]): {"username": row["username"]} for row in users})
        entities.update({("assets", row["name"]): _asset(row, names) for row in assets})
        entities.update({("sensors", row["id"]): _sensor(row, names) for row in sensors})
        self._ids = {("users", row["email"]): row["id"] for row in users}
        self._ids.update({("assets", row["name"]): row["id"] for row in assets})
        return State(entities, types, _ids_by_name(assets))

    def _has_data(self, sensor_id: int) -> bool:
        told = self._told("GET", f"/sensors/{sensor_id}/stats?fresh=true").json()
        return any(isinstance(each, dict) for each in told.values())

    # --- changing ---

    def declare(self, wish: Wish, *, dry_run: bool) -> dict[str, Any]:
        """As `FlexMeasuresClient.declare`, one call for each change; ``ids`` are those that were given, by path.

        Raises:
            FlexMeasuresError: also when it fails half way, with what had been written; the next run finishes.
        """
        account = str(wish.topology["account"])
        found = self.state(account)
        desired = wanted(wish.topology)
        state, names = self._renamed(wish, found)
        desired = _recognized(desired, state.entities)
        told, removed = _removed(wish, state.entities, desired)
        changes = _with_renames(plan(state.entities, desired, removed), state.entities, desired, names)
        asked = {*remeasured(changes)}
        if not wish.force:
            asked.update(int(id_) for kind, id_ in removed if kind == "sensors")
        data = {id_: self._has_data(id_) for id_ in sorted(asked)}
        problems = [
            *api_conflicts(state, wish.topology, desired, changes, removed=removed, data=data, rename=wish.rename),
            *removal_conflicts(state.entities, desired, told, removed, data, force=wish.force),
            *self._unit_problems(changes, state.entities),
        ]
        if problems:
            told_problems = (problem._replace(variable=f"topology.{problem.variable}") for problem in problems)
            raise _refused("FlexMeasures cannot take the topology as it is", told_problems)
        ids: dict[str, int] = {}
        if changes and not dry_run:
            ids = self._write(changes)
        actions = [change.action for change in changes]
        left = undeclared({key: value for key, value in state.entities.items() if key not in removed}, desired)
        return {
            "changed": bool(changes),
            "changes": [change.told() for change in changes],
            "counts": {
                **{action: actions.count(action) for action in ("create", "update", "delete")},
                "unchanged": len(desired) - actions.count("create") - actions.count("update"),
            },
            "undeclared": _left(left, state.entities),
            "ids": ids,
        }

    def _renamed(self, wish: Wish, found: State) -> tuple[State, dict[str, str]]:
        """What there is, with the assets that are recognized by their id under their declared names."""
        names = {id_: name for name, ids in found.asset_ids.items() for id_ in ids}
        renamed: dict[str, str] = {}
        for name, asset in (wish.topology.get("assets") or {}).items():
            id_ = asset.get("id")
            if id_ is None or names.get(id_) == name:
                continue
            fault = ("is no asset of the account", "leave the id out to make one")
            if id_ in names:
                others = ", ".join(map(str, found.asset_ids.get(name, ())))
                fault = (f"cannot get this name: the asset {others} has it", "choose another name")
            if id_ not in names or name in found.asset_ids:
                problem = Problem(f"topology.assets.{name}.id", shown(id_), *fault)
                raise _refused("FlexMeasures cannot take the topology as it is", [problem])
            renamed[names[id_]] = name
        for old, name in renamed.items():
            self._ids["assets", name] = self._ids.pop(("assets", old))
        ids = {renamed.get(name, name): several for name, several in found.asset_ids.items()}
        return replace(found, entities=with_names(found.entities, renamed), asset_ids=ids), renamed

    def _unit_problems(self, changes: Collection[Change], current: Entities) -> Iterator[Problem]:
        """Units that FlexMeasures does not know. Where we cannot judge it is asked, by a sensor on no asset."""
        known = {fields["unit"] for (kind, _), fields in current.items() if kind == "sensors"}
        answers: dict[str, bool] = {}
        for change in changes:
            unit = change.after["unit"] if change.kind == "sensors" and change.after is not None else None
            if unit is None or unit in known or is_known_unit(unit):
                continue
            if unit not in answers:
                body = {"name": "unit", "unit": unit, "event_resolution": "PT5M", "generic_asset_id": 0}
                told = self._authorized("POST", "/sensors", body).json().get("message")
                fields = told.get("json") if isinstance(told, dict) else None
                answers[unit] = isinstance(fields, dict) and "unit" not in fields
            if not answers[unit]:
                fix = "write it as FlexMeasures does: kW, kWh, W/m², m/s, °C, EUR/MWh, % or dimensionless"
                yield Problem(f"{change.path}.unit", shown(unit), "is no unit that FlexMeasures knows", fix)

    def _write(self, changes: Collection[Change]) -> dict[str, int]:
        self._written, self._known = [], None
        ids: dict[str, int] = {}
        # ids are given in ascending order; settings of the scheduler name sensors; what is below goes with an asset
        ordered = sorted(changes, key=_turn)
        try:
            for change in _in_the_way(changes):
                self._give_way(change)
            for change in ordered:
                self._carry_out(change, ids)
            for change in ordered:
                if change.kind == "assets" and change.after is not None and {*_FLEX} & {*change.differences()}:
                    self._write_flex(change)
            for change in ordered:
                if change.kind == "assets" and change.after is None:
                    self._told("DELETE", f"/assets/{self._ids['assets', change.key]}", gone=True)
                    self._written.append(change.told())
        except FlexMeasuresError as error:
            error.partial = self._written
            raise
        return ids

    def _carry_out(self, change: Change, ids: dict[str, int]) -> None:
        if change.kind == "accounts":
            self._account_id = self._create("/accounts", {"name": change.key}, lambda: self._account(str(change.key)))
        elif change.kind == "users" and change.after is not None:
            self._told("PATCH", f"/users/{self._ids['users', change.key]}", {"username": change.after["username"]})
        elif change.kind == "assets" and change.after is not None:
            self._write_asset(change, str(change.key), change.after, ids)
        elif change.kind == "sensors":
            self._write_sensor(change, ids)
        else:
            return  # an asset that goes, later
        names = [name for name in change.differences() if name not in _FLEX]
        if names or change.kind != "assets" or change.before is None:
            self._written.append(change.told_of(names))

    def _give_way(self, change: Change) -> None:
        """Let a sensor that gets another name go by one in between, and leave the one it has."""
        before, after = change.before or {}, change.after or {}
        between = f"{after['name']} (renaming {change.key})"
        self._told("PATCH", f"/sensors/{change.key}", {"name": between})
        told = {"before": {"name": before["name"]}, "after": {"name": between}}
        self._written.append({"action": "update", "path": change.path, **told})

    def _write_asset(self, change: Change, name: str, after: Mapping[str, Any], ids: dict[str, int]) -> None:
        parent = after.get("parent")
        body = {
            "name": name,
            "generic_asset_type_id": self._types[after["type"]],
            "parent_asset_id": None if parent is None else self._ids["assets", parent],
            "latitude": after.get("latitude"),
            "longitude": after.get("longitude"),
            **({} if after.get("attributes") is None else {"attributes": after["attributes"]}),
        }
        if change.before is None:
            body["account_id"] = self._account_id
            ids[change.path] = self._ids["assets", name] = self._create(
                "/assets", body, lambda: self._asset_of(name, body["parent_asset_id"])
            )
        elif {*change.differences()} - {*_FLEX}:
            self._told("PATCH", f"/assets/{self._ids['assets', name]}", body)

    def _write_flex(self, change: Change) -> None:
        body = {name: (change.after or {})[name] for name in _FLEX if name in change.differences()}
        self._told("PATCH", f"/assets/{self._ids['assets', change.key]}", body)
        self._written.append({**change.told_of(list(body)), "action": "update"})

    def _write_sensor(self, change: Change, ids: dict[str, int]) -> None:
        if change.after is None:
            self._told("DELETE", f"/sensors/{change.key}", gone=True)
            return
        body = {
            "name": change.after["name"],
            "unit": change.after["unit"],
            "event_resolution": change.after["resolution"],
            "timezone": change.after["timezone"],
            **({} if change.after.get("attributes") is None else {"attributes": change.after["attributes"]}),
        }
        if change.before is not None:
            self._told("PATCH", f"/sensors/{change.key}", body)
            return
        asset_id = self._ids["assets", change.after["asset"]]
        body["generic_asset_id"] = asset_id
        given = self._create("/sensors", body, lambda: self._sensor_of(body["name"], asset_id))
        if change.key not in (ANY_ID, given):
            self._take_back(change, given)
        ids[change.path] = given

    def _take_back(self, change: Change, given: int) -> None:
        """Remove the sensor that got another id than the declared one, and say so."""
        self._told("DELETE", f"/sensors/{given}", gone=True)
        owner = self._authorized("GET", f"/sensors/{change.key}")
        name = owner.json().get("name") if owner.status == 200 else None
        taken = f"the sensor {name} has {change.key}" if name else f"{change.key} cannot be chosen"
        problem = f"was not given: FlexMeasures' API gives ids itself, and gave {given}; {taken}"
        fix = "load our plugin, which sets ids, or declare the next free id"
        path = f"topology.{change.path}.id"
        raise _refused_half_way([Problem(path, shown(change.key), problem, fix)])

    # --- calls ---

    def _create(self, path: str, body: Mapping[str, Any], look: Any) -> int:
        """Create something once, however often it has to be tried: after no or a broken answer it is looked for first.

        FlexMeasures answers 500 to what is there already.
        """
        for attempt in range(1, TRIES + 1):
            answer = self._authorized("POST", path, body, tries=1)
            if answer.status == 201 and isinstance(answer.json().get("id"), int):
                return int(answer.json()["id"])
            if answer.status == 0 or answer.status >= 500:
                found = look()
                if found is not None:
                    return int(found)
            if not self.passes(answer) or attempt == TRIES:
                break
            time.sleep(pause(answer, attempt))
        raise self._error("POST", path, answer)

    def _account(self, name: str) -> int | None:
        return next((row["id"] for row in self._rows("/accounts") if row.get("name") == name), None)

    def _asset_of(self, name: str, parent_id: int | None) -> int | None:
        path = f"/assets?account={self._account_id}&fields={urllib.parse.quote('id|name|parent_asset_id')}"
        found = [row["id"] for row in self._rows(path) if (row["name"], row["parent_asset_id"]) == (name, parent_id)]
        return found[0] if found else None

    def _sensor_of(self, name: str, asset_id: int) -> int | None:
        rows = self._rows(f"/sensors?account={self._account_id}")
        found = [row["id"] for row in rows if (row["name"], row["generic_asset_id"]) == (name, asset_id)]
        return found[0] if found else None

    def _rows(self, path: str) -> list[dict[str, Any]]:
        """The rows of a list, which has no pages when none is asked for."""
        answer = self._authorized("GET", path)
        rows = answer.rows()
        if answer.status != 200 or rows is None:
            raise self._error("GET", path, answer)
        return rows

    def _told(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, gone: bool = False) -> Answer:
        """The answer, which has to be FlexMeasures' own success; with `gone`, also that there is no such thing."""
        answer = self._authorized(method, path, body)
        own = isinstance(answer.told(), dict)  # else it is a page of something in front
        if answer.status == 204 or (own and answer.status == 200):
            return answer
        if gone and own and (answer.status == 404 or (answer.status == 422 and "found with ID" in answer.body)):
            return answer
        raise self._error(method, path, answer)

    def _authorized(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, tries: int | None = None
    ) -> Answer:
        """The answer to a call with a token, which is renewed once when it has ended."""
        fresh = self._token is None
        answer = self._sent(method, path, body, tries)
        if answer.status == 401 and not fresh:
            self._token = None
            answer = self._sent(method, path, body, tries)
        return answer

    def _sent(self, method: str, path: str, body: Mapping[str, Any] | None, tries: int | None) -> Answer:
        if self._token is None:
            self._token = self._login()
        return self.call(method, API + path, body, headers={"Authorization": self._token}, tries=tries)

    def _login(self) -> str:
        path = "/api/requestAuthToken"
        answer = self.call("POST", path, {"email": self._email, "password": self._password})
        token = answer.json().get("auth_token")
        if answer.status == 200 and isinstance(token, str) and token:
            return token
        if answer.status == 0:
            raise FlexMeasuresError(str(unanswered(self.server + path, answer, CONTAINER)))
        reason = "; ".join(map(str, answer.json().get("errors") or [])) or answer.excerpt() or "nothing"
        fix = redirected(answer) or {
            400: "if the host is not trusted, add it to TRUSTED_HOSTS in flexmeasures.cfg or set host_header",
            401: "check email and password: FlexMeasures does not take them",
            429: "try again in a minute",
        }.get(answer.status, f"let url be the FlexMeasures server itself, and see docker logs {CONTAINER}")
        raise FlexMeasuresError(f"{self.server}{path} answered {answer.status} ({reason}). Fix: {fix}.", answer.status)

    def _error(self, method: str, path: str, answer: Answer) -> FlexMeasuresError:
        address = f"{method} {self.server}{API}{path.partition('?')[0]}"
        if answer.status == 0:
            return FlexMeasuresError(str(unanswered(address, answer, CONTAINER)))
        told = answer.json()
        reason = _flat(told["message"]) if "message" in told else answer.excerpt() or "nothing"
        usual = "let url be the FlexMeasures server itself: this answer is not its API's"
        fix = redirected(answer) or {
            400: "if the host is not trusted, add it to TRUSTED_HOSTS in flexmeasures.cfg or set host_header",
            401: "check email and password: the token of the user is not taken",
            403: f"give the user {self._email} the right: the role account-admin in the account, or admin",
            404: "see whether it is still there, and let url be the FlexMeasures server itself",
            409: "see what is there already",
            413: "declare less at once",
            422: "correct what FlexMeasures names",
            429: "try again in a minute: FlexMeasures takes so many requests of a user in a minute",
        }.get(answer.status, usual if answer.status < 500 else f"see the server's log: docker logs {CONTAINER}")
        return FlexMeasuresError(f"{address} answered {answer.status} ({reason}). Fix: {fix}.", answer.status)


def _refused_half_way(problems: list[Problem]) -> FlexMeasuresError:
    return FlexMeasuresError(
        f"FlexMeasures did not do as declared; what had been written before stands:\n{listing(problems)}", 0, problems
    )


def _flat(told: Any) -> str:
    if isinstance(told, Mapping):
        return "; ".join(f"{key}: {_flat(value)}" for key, value in told.items())
    return "; ".join(map(_flat, told)) if isinstance(told, list) else " ".join(str(told).split())[:300]


def _settings(value: Any) -> Any:
    """A field that FlexMeasures answers as JSON within JSON."""
    try:
        return json.loads(value) if isinstance(value, str) else value or {}
    except ValueError:
        return {}


def _asset(row: Mapping[str, Any], names: Mapping[int, str]) -> dict[str, Any]:
    return {
        "type": row["generic_asset_type"]["name"],
        "parent": names.get(row["parent_asset_id"]),
        "latitude": row["latitude"],
        "longitude": row["longitude"],
        **{name: _settings(row.get(name)) for name in ("attributes", *_FLEX)},
    }


def _sensor(row: Mapping[str, Any], names: Mapping[int, str]) -> dict[str, Any]:
    return {
        "name": row["name"],
        "unit": row["unit"],
        "resolution": canonical(row["event_resolution"]),
        "timezone": row["timezone"],
        "asset": names.get(row["generic_asset_id"]),
        "attributes": _settings(row.get("attributes")),
    }


def _recognized(desired: Mapping[Key, dict[str, Any]], current: Entities) -> dict[Key, dict[str, Any]]:
    """The declaration with the ids of sensors that are there, where any id is right."""
    places = {(fields["asset"], fields["name"]): key for key, fields in current.items() if key[0] == "sensors"}
    return {
        places.get((fields["asset"], fields["name"]), key) if key == ("sensors", ANY_ID) else key: fields
        for key, fields in desired.items()
    }


def _removed(wish: Wish, current: Entities, desired: Entities) -> tuple[list[Key], list[Key]]:
    """What is to go, and that with all that goes with it."""
    named: list[Key] = [("assets", name) for name in wish.remove_assets]
    named += [("sensors", id_) for id_ in wish.remove_sensors]
    told = [key for key in named if key in current]
    if wish.purge:
        told += [key for key in undeclared(current, desired) if key[0] in ("assets", "sensors")]
    # what is declared elsewhere has left by then
    places = {key: {**current[key], **desired[key]} for key in current if key in desired}
    deep = below({**current, **(places if wish.purge else {})}, {str(key) for kind, key in told if kind == "assets"})
    return told, list(dict.fromkeys([*told, *deep]))


def _with_renames(
    changes: list[Change], current: Entities, desired: Entities, names: Mapping[str, str]
) -> list[Change]:
    """The plan in which a renamed asset shows both names."""
    planned = {(change.kind, change.key): change for change in changes}
    for old, new in names.items():
        key: Key = ("assets", new)
        change = planned.get(key) or Change(*key, current[key], {**current[key]})
        planned[key] = replace(
            change, before={"name": old, **(change.before or {})}, after={"name": new, **(change.after or {})}
        )
    order = {key: index for index, key in enumerate(desired)}
    if not names:
        return changes
    return sorted(planned.values(), key=lambda change: order.get((change.kind, change.key), -1))


def _turn(change: Change) -> tuple[int, int]:
    """When a change is made: sensors go first, then account, users, assets as planned, then sensors by id."""
    if change.kind == "sensors":
        return (0, 0) if change.after is None else (5, int(change.key)) if change.before is None else (4, 0)
    return ({"accounts": 1, "users": 2, "assets": 3}[change.kind], 0)


def _in_the_way(changes: Collection[Change]) -> Iterator[Change]:
    """Renamed sensors that have the name another one gets: FlexMeasures refuses two alike, if only for a moment."""
    renamed = [
        (change, change.before, change.after)
        for change in changes
        if change.kind == "sensors" and change.before and change.after and change.before["name"] != change.after["name"]
    ]
    wanted = {(after["asset"], after["name"]) for _, _, after in renamed}
    return (change for change, before, _ in renamed if (before["asset"], before["name"]) in wanted)


def _left(keys: Collection[Key], current: Entities) -> dict[str, list[dict[str, Any]]]:
    told: dict[str, list[dict[str, Any]]] = {"users": [], "assets": [], "sensors": []}
    for kind, key in keys:
        fields = current[kind, key]
        told[kind].append(
            {"email": key, "username": fields["username"]}
            if kind == "users"
            else {"name": key}
            if kind == "assets"
            else {"id": key, "name": fields["name"], "asset": fields["asset"]}
        )
    return told
