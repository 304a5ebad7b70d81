"""``POST /cariflex/v1/topology``: the declared topology in, what would change or has changed out."""

from __future__ import annotations

import hmac
import json
from collections import Counter
from collections.abc import Mapping
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
from cariflex.fm_plugin.plan import Change, Problem, Sensor, conflicts, plan, readable, undeclared, with_standard

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
    desired = with_standard(declaration.state, found.state)
    changes = plan(found.state, desired)
    problems = conflicts(
        found.state,
        desired,
        ambiguous_assets=found.ambiguous_assets,
        passwords=declaration.passwords,
        with_data=store.with_data(_remeasured(changes)),
    )
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
    counts = Counter(_action(change) for change in changes)
    return {
        "changed": bool(changes),
        "dry_run": declaration.dry_run,
        "changes": [_told(change) for change in changes],
        "counts": {
            "create": counts["create"],
            "update": counts["update"],
            "unchanged": declared - len(changes),
        },
        "undeclared": undeclared(found.state, desired, declaration.account),
    }


def _remeasured(changes: list[Change]) -> list[int]:
    """Ids of the sensors that are to change in what their data means."""
    return [
        int(change.key)
        for change in changes
        if isinstance(change.after, Sensor) and change.before and {"unit", "resolution"} & change.differences().keys()
    ]


def _action(change: Change) -> str:
    return "create" if change.before is None else "update"


def _told(change: Change) -> dict[str, Any]:
    differences = change.differences().items()
    before = {} if change.before is None else {name: readable(old) for name, (old, _) in differences}
    after = {name: readable(new) for name, (_, new) in differences}
    return {"action": _action(change), "path": change.path, "before": before, "after": after}


def _paths(changes: list[Change], most: int = 10) -> str:
    paths = [change.path for change in changes[:most]]
    return ", ".join(paths) + (f" and {len(changes) - most} more" if len(changes) > most else "")
