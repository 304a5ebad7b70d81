"""Requests that users of FlexMeasures send with their token: who asks, what the body says, and how errors are told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from flask import Response, current_app, jsonify, request
from flask_security import current_user
from flexmeasures.data import db
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import RequestEntityTooLarge


class RequestError(Exception):
    """Answers the request with an error; raised where it is found, turned into a response in one place."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def answer(carry_out: Callable[[], dict[str, Any]], not_done: str) -> tuple[Response, int]:
    """Answer a user's request; whatever goes wrong, the transaction is rolled back.

    `not_done` says what did not happen when the database is away.
    """
    try:
        # The header is asked for because a browser's session would do otherwise, also when another site uses it.
        if current_user.is_anonymous or "Authorization" not in request.headers:
            raise RequestError(401, "Give the token of a user of FlexMeasures: 'Authorization: <token>'.")
        return jsonify(carry_out()), 200
    except RequestError as error:
        return jsonify({"message": str(error)}), error.status
    except OperationalError:
        current_app.logger.exception("The database is away.")
        return jsonify({"message": f"The database is away. {not_done}: try again later."}), 503
    finally:
        db.session.rollback()  # does nothing after a commit


def mapping(keys: Mapping[str, str], max_bytes: int) -> dict[str, Any]:
    """The body, which has exactly `keys`; their values say what each is."""
    request.max_content_length = max_bytes
    try:
        body: Any = json.loads(request.get_data())
    except RequestEntityTooLarge:
        raise RequestError(413, f"The body is larger than {max_bytes} bytes.") from None
    except (ValueError, RecursionError):
        raise RequestError(400, "The body is not JSON.") from None
    if not isinstance(body, dict) or body.keys() != keys.keys():
        wanted = ", ".join(f"{key} ({what})" for key, what in keys.items())
        raise RequestError(422, f"The body is no mapping of exactly {wanted}.")
    return body


def sensor_id(value: object) -> int:
    """An id that a sensor can have."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
        raise RequestError(422, f"sensor is {value!r}: write the id of a sensor.")
    return value


def time(key: str, value: object) -> datetime:
    """A time with its time zone."""
    try:
        told = datetime.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        told = None
    if told is None or told.tzinfo is None:
        raise RequestError(422, f"{key} is {value!r}: write a time such as 2027-01-01T00:00:00+00:00.")
    return told
