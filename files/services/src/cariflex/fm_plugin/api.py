"""``/cariflex/v1/topology``: POST takes the declared topology and answers what would change or has changed, GET tells
what there is."""

from __future__ import annotations

import hmac
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flask import Response, current_app, jsonify, request
from flexmeasures.data import db
from flexmeasures.data.schemas.scheduling import DBFlexContextSchema
from flexmeasures.data.schemas.scheduling.storage import DBStorageFlexModelSchema
from flexmeasures.utils.unit_utils import is_valid_unit
from sqlalchemy.exc import IntegrityError, OperationalError
from werkzeug.exceptions import RequestEntityTooLarge

from cariflex.fm_plugin import store
from cariflex.fm_plugin.declaration import Declaration, DeclarationError, read
from cariflex.fm_plugin.plan import (
    Change,
    Keys,
    Problem,
    Sensor,
    State,
    apply,
    below,
    conflicts,
    plan,
    readable,
    removal_conflicts,
    undeclared,
    with_names,
    with_standard,
)

MAX_BYTES = 16 * 1024 * 1024  # 10,000 sensors are 1.5 MB
DEFAULT_TOKEN_FILE = "/run/secrets/flexmeasures_topology_token"  # noqa: S105 - a path
_MIN_TOKEN_LENGTH = 16


class _RequestError(Exception):
    """Answers the request with an error; raised where it is found, turned into a response in one place."""

    def __init__(self, status: int, message: str, problems: list[Problem] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.problems = problems or []

    def response(self) -> Response:
        body = {"message": str(self), "problems": [problem._asdict() for problem in self.problems]}
        response: Response = jsonify(body)
        response.status_code = self.status
        if self.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        return response


def view() -> Response:
    """Answer the request; whatever goes wrong, the transaction is rolled back."""
    try:
        _authorize()
        return jsonify(_carry_out(_declaration()))
    except _RequestError as error:
        return error.response()
    except IntegrityError:
        current_app.logger.exception("The topology clashed with a change made at the same time.")
        message = "FlexMeasures was changed by somebody else meanwhile. Nothing was written: send the request again."
        return _RequestError(409, message).response()
    except OperationalError:
        current_app.logger.exception("The topology could not be worked on.")
        message = "The database is away, or another topology call is running. Nothing was written: try again later."
        return _RequestError(503, message).response()
    finally:
        db.session.rollback()  # does nothing after a commit


def read_view() -> Response:
    """Tell what FlexMeasures has: ``?account=<name>``, and ``&data=1`` for which of its sensors have data."""
    try:
        _authorize()
        account = request.args.get("account", "")
        found = store.read(account, {})
        ids = [id_ for id_, sensor in found.state.sensors.items() if sensor.account == account]
        return jsonify(_shown(found, account, store.with_data(ids) if request.args.get("data") == "1" else None))
    except _RequestError as error:
        return error.response()
    except OperationalError:
        current_app.logger.exception("The topology could not be read.")
        return _RequestError(503, "The database is away. Try again later.").response()
    finally:
        db.session.rollback()


def _shown(found: store.Found, account: str, with_data: Collection[int] | None) -> dict[str, Any]:
    """What an account has, in the form of a declaration, with the ids of its assets."""
    state = found.state
    own = {id_: sensor for id_, sensor in state.sensors.items() if sensor.account == account}
    return {
        "account": account if state.accounts else None,
        "asset_types": {name: about.description for name, about in state.asset_types.items()},
        "users": {
            email: {"username": user.username, "roles": list(user.roles)}
            for email, user in state.users.items()
            if user.account == account
        },
        "assets": [
            {"id": id_, "name": name, **asdict(state.assets[name])}
            for name, ids in found.asset_ids.items()
            for id_ in ids
        ],
        "sensors": [
            {
                "id": id_,
                **{name: readable(value) for name, value in asdict(sensor).items() if name != "account"},
                **({} if with_data is None else {"data": id_ in with_data}),
            }
            for id_, sensor in own.items()
        ],
        "free_sensor_id": max((100, *state.sensors)) + 1,
    }


def _authorize() -> None:
    path = Path(current_app.config.get("CARIFLEX_TOPOLOGY_TOKEN_FILE", DEFAULT_TOKEN_FILE))
    try:
        expected = path.read_bytes().strip()  # read at every call: a new token needs no restart
    except OSError as error:
        raise _RequestError(503, f"The token file {path} cannot be read: {error.strerror}.") from None
    if len(expected) < _MIN_TOKEN_LENGTH:
        raise _RequestError(503, f"The token file {path} holds less than {_MIN_TOKEN_LENGTH} characters.")
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), expected):
        raise _RequestError(401, "Give the topology token: 'Authorization: Bearer <token>'.")


def _declaration() -> Declaration:
    request.max_content_length = MAX_BYTES
    try:
        return read(json.loads(request.get_data()), is_valid_unit, _flex_faults)
    except RequestEntityTooLarge:
        raise _RequestError(413, f"The body is larger than {MAX_BYTES} bytes.") from None
    except (ValueError, RecursionError):
        raise _RequestError(400, "The body is not JSON.") from None
    except DeclarationError as error:
        raise _RequestError(422, "The topology is wrong. Nothing was written.", error.problems) from None


def _flex_faults(which: str, given: Mapping[str, Any]) -> dict[str, str]:
    """What FlexMeasures' own schemas find wrong, by key; whether sensors exist it can only say once they do."""
    schema = DBFlexContextSchema() if which == "flex_context" else DBStorageFlexModelSchema()
    faults = {}
    for key, value in given.items():
        if key not in (known := {field.data_key or name for name, field in schema.fields.items()}):
            faults[key] = f"is unknown to FlexMeasures' scheduler, which has {', '.join(sorted(known))}"
        elif not _names_a_sensor(value):
            told = schema.validate({key: value}, partial=True)
            if key in told:
                faults[key] = f"is refused by FlexMeasures: {_flat(told[key])}"
    return faults


def _names_a_sensor(value: Any) -> bool:
    if isinstance(value, dict):
        return "sensor" in value or any(map(_names_a_sensor, value.values()))
    return isinstance(value, list) and any(map(_names_a_sensor, value))


def _flat(told: Any) -> str:
    if isinstance(told, dict):
        return "; ".join(_flat(each) for each in told.values())
    return "; ".join(map(_flat, told)) if isinstance(told, list) else str(told)


def _carry_out(declaration: Declaration) -> dict[str, Any]:
    if not declaration.dry_run:
        store.exclusively()
    found = store.read(declaration.account, declaration.passwords)
    names = _new_names(declaration, found)
    current = with_names(found.state, names)
    desired = with_standard(declaration.state, current)
    told, removed = _removed(declaration, current, desired)
    changes = plan(current, desired, removed=removed, renamed={new: old for old, new in names.items()})
    with_data = store.with_data([*_remeasured(changes), *(int(key) for kind, key in removed if kind == "sensors")])
    problems = [
        *conflicts(
            current,
            desired,
            ambiguous_assets={names.get(name, name): ids for name, ids in found.ambiguous_assets.items()},
            passwords=declaration.passwords,
            with_data=with_data,
            removed=removed,
            rename=declaration.rename,
        ),
        *removal_conflicts(current, desired, told, removed, with_data, force=declaration.force),
        *_ambiguous_removals(removed, found),
    ]
    if problems:
        raise _RequestError(409, "FlexMeasures cannot take the topology as it is. Nothing was written.", problems)
    if changes and not declaration.dry_run:
        store.write(
            changes,
            account=declaration.account,
            timezone=declaration.timezone,
            passwords=declaration.passwords,
        )
        db.session.commit()
        current_app.logger.info("The topology changed %d things: %s", len(changes), _paths(changes))
    declared = sum(1 for _ in desired.items())
    counts = Counter(change.action for change in changes)
    return {
        "changed": bool(changes),
        "dry_run": declaration.dry_run,
        "changes": [_told(change) for change in changes],
        "counts": {
            "create": counts["create"],
            "update": counts["update"],
            "delete": counts["delete"],
            "unchanged": declared - counts["create"] - counts["update"],
        },
        "undeclared": undeclared(apply(current, changes), desired, declaration.account),
    }


def _new_names(declaration: Declaration, found: store.Found) -> dict[str, str]:
    """Old name -> declared name, of the assets that are recognized by their id."""
    names = {id_: name for name, ids in found.asset_ids.items() for id_ in ids}
    renamed = {}
    for name, id_ in declaration.asset_ids.items():
        old = names.get(id_)
        if old is None:
            problem = Problem(f"assets.{name}.id", id_, "is no asset of the account", "leave the id out to make one")
        elif old != name and name in found.state.assets:
            other = ", ".join(map(str, found.asset_ids[name]))
            problem = Problem(
                f"assets.{name}.id", id_, f"cannot get this name: the asset {other} has it", "choose another"
            )
        else:
            if old != name:
                renamed[old] = name
            continue
        raise _RequestError(409, "FlexMeasures cannot take the topology as it is. Nothing was written.", [problem])
    return renamed


def _removed(declaration: Declaration, current: State, desired: State) -> tuple[Keys, Keys]:
    """What is to go, and that with all that goes with it; what is not there any more needs no removal."""
    told = [(kind, key) for kind, key in declaration.remove if current.get(kind, key) is not None]
    if declaration.purge:
        extra = undeclared(current, desired, declaration.account)
        told += [("assets", asset["name"]) for asset in extra["assets"]]
        told += [("sensors", sensor["id"]) for sensor in extra["sensors"]]
    wanted = current if not declaration.purge else apply(current, plan(current, desired))
    deep = below(wanted, declaration.account, {str(key) for kind, key in told if kind == "assets"})
    return told, list(dict.fromkeys([*told, *deep]))


def _ambiguous_removals(removed: Keys, found: store.Found) -> Iterator[Problem]:
    for kind, key in removed:
        if kind == "assets" and str(key) in found.ambiguous_assets:
            ids = ", ".join(map(str, found.ambiguous_assets[str(key)]))
            problem = f"is the name of several assets of the account: {ids}"
            yield Problem(f"assets.{key}", None, problem, "rename or delete all but one of them")


def _remeasured(changes: list[Change]) -> list[int]:
    """Ids of the sensors that are to change in what their data means."""
    return [
        int(change.key)
        for change in changes
        if isinstance(change.after, Sensor) and change.before and {"unit", "resolution"} & change.differences().keys()
    ]


def _told(change: Change) -> dict[str, Any]:
    differences = change.differences().items()
    before = {} if change.before is None else {name: readable(old) for name, (old, _) in differences}
    after = {} if change.after is None else {name: readable(new) for name, (_, new) in differences}
    return {"action": change.action, "path": change.path, "before": before, "after": after}


def _paths(changes: list[Change], most: int = 10) -> str:
    paths = [change.path for change in changes[:most]]
    return ", ".join(paths) + (f" and {len(changes) - most} more" if len(changes) > most else "")
