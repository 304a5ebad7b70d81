"""A FlexMeasures to test with: it keeps state and answers as version 1.0.1 does, through its own API and our plugin.

It knows what our modules use. What its own API answers was seen of a real one; tests/integration/flexmeasures runs the
same modules against that. As our plugin it plans with the modules' own planner, which is tested by itself.
"""

from __future__ import annotations

import itertools
import json
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils import flexmeasures_plan as planning

from tests.support.phpipam import Refusal, Reply

TOKEN = "topology-token-0123456789"
EMAIL, PASSWORD = "admin@example.org", "made-up password 42"
READER = "reader@example.org"
TYPES = {"solar": "solar panel(s)", "battery": "stationary battery", "building": "building"}
UNITS = {"kW", "MW", "W", "kWh", "%", "EUR/MWh", "barn"}


@dataclass
class FlexMeasures:
    """The state, and the answers.

    Attributes:
        plugin: whether our plugin is loaded.
        requests: method and path of each request.
        before: called with each request before it is answered; may raise `Refusal`, or give a reply of its own.
        after: the same after a change was made, in the place of its answer.
    """

    plugin: bool = True
    accounts: dict[int, str] = field(default_factory=lambda: {1: "Cariflex", 2: "Other"})
    users: dict[int, dict[str, Any]] = field(default_factory=dict)
    assets: dict[int, dict[str, Any]] = field(default_factory=dict)
    sensors: dict[int, dict[str, Any]] = field(default_factory=dict)
    data: set[int] = field(default_factory=set)
    requests: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    before: Callable[[str, str], Reply | None] = lambda _method, _path: None
    after: Callable[[str, str], Reply | None] = lambda _method, _path: None
    tokens: dict[str, str] = field(default_factory=dict)
    counter: Any = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.users = {
            1: {"id": 1, "email": EMAIL, "username": "admin", "account_id": 1},
            2: {"id": 2, "email": READER, "username": "reader", "account_id": 1},
        }
        self.assets = {7: _asset_row(7, "Site", "building", latitude=14.6, longitude=-61.0)}

    # --- the frame ---

    def answer(self, method: str, target: str, headers: dict[str, str], raw: bytes) -> Reply:
        """Answer a request."""
        path, _, query = target.partition("?")
        self.requests.append((method, path))
        body = json.loads(raw or b"{}")
        self.bodies.append(body)
        asked = dict(urllib.parse.parse_qsl(query))
        try:
            if (prepared := self.before(method, path)) is not None:
                return prepared
            told = self._route(method, path, headers, body, asked)
            return self.after(method, path) or told
        except Refusal as refusal:
            return Reply(refusal.status, {"message": str(refusal), "status": refusal.status})

    def _route(self, method: str, path: str, headers: dict[str, str], body: Any, asked: dict[str, str]) -> Reply:
        if path == "/cariflex/v1/topology":
            return self._plugin(method, headers, body, asked)
        if path == "/api/requestAuthToken":
            if body.get("password") != PASSWORD:
                return Reply(401, {"errors": ["User password does not match."], "status": 401})
            token = f"token-{len(self.requests)}"
            self.tokens[token] = body["email"]
            return Reply(200, {"auth_token": token, "user_id": 1})
        email = self.tokens.get(headers.get("authorization", ""))
        if email is None:
            raise Refusal(401, "You could not be properly authenticated for this content or functionality.")
        if method != "GET" and email == READER:
            raise Refusal(403, "You cannot be authorized for this content or functionality.")
        kind, *rest = path.removeprefix("/api/v3_0/").split("/")
        if kind not in ("accounts", "users", "assets", "sensors"):
            raise Refusal(404, "Not Found")
        told: Reply = getattr(self, f"_{kind}")(method, rest, body, asked)
        return told

    # --- its own API ---

    def _accounts(self, method: str, _rest: list[str], body: Any, _asked: dict[str, str]) -> Reply:
        if method == "POST":
            id_ = max(self.accounts) + 1
            self.accounts[id_] = body["name"]
            return Reply(201, {"id": id_, "name": body["name"]})
        return _list({"id": id_, "name": name} for id_, name in self.accounts.items())

    def _users(self, method: str, rest: list[str], body: Any, asked: dict[str, str]) -> Reply:
        if method == "PATCH":
            self.users[int(rest[0])].update(body)
            return Reply(200, self.users[int(rest[0])])
        return _list(row for row in self.users.values() if str(row["account_id"]) == asked["account"])

    def _assets(self, method: str, rest: list[str], body: Any, asked: dict[str, str]) -> Reply:
        if rest == ["types"]:
            return _list({"id": id_, "name": name, "description": TYPES[name]} for id_, name in enumerate(TYPES, 1))
        if method == "GET":
            names = asked["fields"].split("|")
            rows = [row for row in self.assets.values() if str(row["account_id"]) == asked["account"]]
            return _list({name: _as_json(row[name]) for name in names} for row in rows)
        fields = {name: value for name, value in body.items() if name != "generic_asset_type_id"}
        if "generic_asset_type_id" in body:
            fields["generic_asset_type"] = {"name": [*TYPES][body["generic_asset_type_id"] - 1]}
        if method == "POST":
            place = ("name", "parent_asset_id", "account_id")
            if [body[name] for name in place] in [[row[name] for name in place] for row in self.assets.values()]:
                raise Refusal(422, "An asset with the name already exists")
            id_ = max([0, *self.assets]) + 1
            self.assets[id_] = {**_asset_row(id_, body["name"], "battery"), **fields}
            return Reply(201, self.assets[id_])
        if int(rest[0]) not in self.assets:
            raise Refusal(404, f"No asset found with ID {rest[0]}.")
        if method == "DELETE":
            del self.assets[int(rest[0])]
            return Reply(204, None)
        for which in ("flex_context", "flex_model"):
            for key, value in (body.get(which) or {}).items():
                sensor = value.get("sensor") if isinstance(value, dict) else None
                if "apples" in str(value) or (sensor is not None and sensor not in self.sensors):
                    raise Refusal(422, f"{key}: cannot be taken")
        self.assets[int(rest[0])].update(fields)
        return Reply(200, self.assets[int(rest[0])])

    def _sensors(self, method: str, rest: list[str], body: Any, asked: dict[str, str]) -> Reply:
        if method == "GET" and not rest:
            own = {id_ for id_, row in self.assets.items() if str(row["account_id"]) == asked["account"]}
            rows = [row for row in self.sensors.values() if row["generic_asset_id"] in own]
            return _list({name: _as_json(value) for name, value in row.items()} for row in rows)
        if method == "POST":
            return self._create_sensor(body)
        row = self.sensors.get(int(rest[0]))
        if row is None:
            return Reply(422, {"message": {"path": {"id": [f"No sensor found with ID {rest[0]}."]}}})
        if rest[1:] == ["stats"]:
            counted = {"admin (ID: 4)": {"Number of values": 1}} if row["id"] in self.data else {}
            return Reply(200, {**counted, "status": 200})
        if method == "DELETE":
            del self.sensors[row["id"]]
            return Reply(204, None)
        if "generic_asset_id" in body:
            return Reply(422, {"message": {"json": {"generic_asset_id": ["Unknown field."]}}})
        place = (body.get("name", row["name"]), row["generic_asset_id"])
        others = (other for other in self.sensors.values() if other is not row)
        if place in {(other["name"], other["generic_asset_id"]) for other in others}:
            raise Refusal(409, "duplicate key value violates unique constraint")
        row.update(body)
        return Reply(200, row)

    def _create_sensor(self, body: Any) -> Reply:
        faults: dict[str, list[str]] = {}
        if body["unit"] not in UNITS:
            faults["unit"] = [f"Unit '{body['unit']}' cannot be handled."]
        if body["generic_asset_id"] not in self.assets:
            faults["generic_asset_id"] = [f"Generic asset with id {body['generic_asset_id']} doesn't exist."]
        if faults:
            return Reply(422, {"message": {"json": faults}})
        place = (body["name"], body["generic_asset_id"])
        if place in {(row["name"], row["generic_asset_id"]) for row in self.sensors.values()}:
            raise Refusal(500, "duplicate key value violates unique constraint")
        id_ = next(self.counter) + 100
        self.sensors[id_] = {"id": id_, "attributes": {}, **body}
        return Reply(201, self.sensors[id_])

    # --- our plugin ---

    def _plugin(self, method: str, headers: dict[str, str], body: Any, asked: dict[str, str]) -> Reply:
        if not self.plugin:
            return Reply(404, "<!DOCTYPE html><title>Error</title>")
        if headers.get("authorization") != f"Bearer {TOKEN}":
            raise Refusal(401, "Give the topology token: 'Authorization: Bearer <token>'.")
        if method == "GET":
            return Reply(200, self._shown(asked["account"], told_data=asked["data"] == "1"))
        topology = body["topology"]
        desired = planning.wanted(topology)
        current = self._entities(topology["account"])
        names = {row["id"]: row["name"] for row in self.assets.values()}
        given = {name: asset["id"] for name, asset in (topology.get("assets") or {}).items() if asset.get("id")}
        current = planning.with_names(current, {names[id_]: name for name, id_ in given.items()})
        gone: list[planning.Key] = [("sensors", id_) for id_ in body.get("remove", {}).get("sensors", [])]
        gone += planning.below(current, body.get("remove", {}).get("assets", []))
        problems = [
            {"path": problem.variable, "value": None, "problem": problem.problem, "fix": problem.fix}
            for problem in planning.removal_conflicts(
                current, desired, gone, gone, dict.fromkeys(self.data, True), force=body.get("force", False)
            )
        ]
        for (kind, id_), fields in desired.items():
            known = current.get((kind, id_))
            if kind == "sensors" and known and known["name"] != fields["name"] and not body.get("rename"):
                path = f"sensors.{fields['name']}.id"
                problem = f"is taken by the sensor {known['name']}"
                problems.append({"path": path, "value": id_, "problem": problem, "fix": "choose a free id"})
        if problems:
            return Reply(409, {"message": "no", "problems": problems})
        changes = planning.plan(current, desired, gone)
        renamed = [
            {"action": "update", "path": f"assets.{name}", "before": {"name": names[id_]}, "after": {"name": name}}
            for name, id_ in given.items()
            if names[id_] != name
        ]
        if not body["dry_run"]:
            self._keep(planning.apply(current, changes), given)
        told = renamed + [change.told() for change in changes]
        return Reply(200, {"changed": bool(told), "changes": told, "counts": {}, "undeclared": {}})

    def _entities(self, account: str) -> dict[planning.Key, planning.Fields]:
        shown = self._shown(account, told_data=False)
        found: dict[planning.Key, planning.Fields] = {("accounts", account): {}} if shown["account"] else {}
        found.update({("users", row["email"]): {"username": row["username"]} for row in self.users.values()})
        for kind, key in (("assets", "name"), ("sensors", "id")):
            for row in shown[kind]:
                drop = {"id", "name"} if kind == "assets" else {"id"}
                found[kind, row[key]] = {name: value for name, value in row.items() if name not in drop}
        return found

    def _shown(self, account: str, *, told_data: bool) -> dict[str, Any]:
        ids = [id_ for id_, name in self.accounts.items() if name == account]
        names = {row["id"]: row["name"] for row in self.assets.values()}
        assets = [
            {
                **{name: row[name] for name in ("id", "name", "latitude", "longitude")},
                **{name: row[name] for name in ("attributes", "flex_context", "flex_model")},
                "type": row["generic_asset_type"]["name"],
                "parent": names.get(row["parent_asset_id"]),
            }
            for row in self.assets.values()
            if row["account_id"] in ids
        ]
        sensors = [
            {
                **{name: row[name] for name in ("id", "name", "unit", "timezone", "attributes")},
                "resolution": row["event_resolution"],
                "asset": names[row["generic_asset_id"]],
                **({"data": row["id"] in self.data} if told_data else {}),
            }
            for row in self.sensors.values()
        ]
        return {
            "account": account if ids else None,
            "asset_types": TYPES,
            "users": {row["email"]: {"username": row["username"], "roles": []} for row in self.users.values()},
            "assets": assets,
            "sensors": sensors,
            "free_sensor_id": max([100, *self.sensors]) + 1,
        }

    def _keep(self, entities: dict[planning.Key, planning.Fields], given: dict[str, int]) -> None:
        ids = {row["name"]: id_ for id_, row in self.assets.items()} | given
        names = [str(name) for kind, name in entities if kind == "assets"]
        for name in names:
            ids.setdefault(name, max([0, *ids.values()]) + 1)
        emails = [str(email) for kind, email in entities if kind == "users"]
        self.users = {
            id_: {"id": id_, "email": email, "username": entities["users", email]["username"], "account_id": 1}
            for id_, email in enumerate(emails, 1)
        }
        self.assets = {}
        for name in names:
            fields = entities["assets", name]
            row = {**fields, "parent": ids.get(str(fields.get("parent")))}
            self.assets[ids[name]] = _asset_row(ids[name], name, **row)
        self.sensors = {
            int(id_): {
                **{name: fields[name] for name in ("name", "unit", "timezone")},
                "id": int(id_),
                "attributes": fields.get("attributes") or {},
                "event_resolution": fields["resolution"],
                "generic_asset_id": ids[fields["asset"]],
            }
            for (kind, id_), fields in entities.items()
            if kind == "sensors"
        }


def _asset_row(id_: int, name: str, type: str, parent: int | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "name": name,
        "account_id": 1,
        "generic_asset_type": {"name": type},
        "parent_asset_id": parent,
        **dict.fromkeys(("latitude", "longitude")),
        **{which: {} for which in ("attributes", "flex_context", "flex_model")},
        **{key: value for key, value in fields.items() if value is not None},
    }


def _as_json(value: Any) -> Any:
    """FlexMeasures answers settings as JSON within JSON; types are plain."""
    return json.dumps(value) if isinstance(value, dict) and "name" not in value else value


def _list(rows: Any) -> Reply:
    return Reply(200, json.dumps(list(rows)))
