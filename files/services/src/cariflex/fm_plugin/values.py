"""``POST /cariflex/v1/values``: values whose data source is somebody else than the caller.

FlexMeasures' own API makes the caller the source of what he sends. What our feeds bring is a weather service's or a
simulator's, and nobody shall take the one for the other: here the source is named. A source of that name that
FlexMeasures itself made, for a user or a scheduler, is never used. What was not known before its time is of type
``forecaster``, as FlexMeasures' own forecasts are, everything else ``feed``.
"""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import pandas as pd
from flask import Response, current_app, jsonify, request
from flask_security import current_user
from flexmeasures import Sensor
from flexmeasures.auth.policy import check_access
from flexmeasures.data import db
from flexmeasures.data.services.data_sources import get_or_create_source
from flexmeasures.data.utils import save_to_db
from sqlalchemy.exc import IntegrityError, OperationalError
from timely_beliefs import BeliefsDataFrame
from werkzeug.exceptions import RequestEntityTooLarge

MAX_BYTES = 1_000_000
MAX_VALUES = 20_000
_KEYS = {
    "sensor": "the id of a sensor",
    "start": "a time",
    "values": "a list of numbers, one for each of the sensor's intervals",
    "unit": "the sensor's unit",
    "prior": "the time at which they were known",
    "source": "the name of the data source",
}


class _RequestError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Values(NamedTuple):
    sensor: int
    start: datetime
    values: list[float]
    unit: str
    prior: datetime
    source: str


def view() -> tuple[Response, int]:
    """Answer the request; whatever goes wrong, the transaction is rolled back."""
    try:
        # The header is asked for because a browser's session would do otherwise, also when another site uses it.
        if current_user.is_anonymous or "Authorization" not in request.headers:
            raise _RequestError(401, "Give the token of a user of FlexMeasures: 'Authorization: <token>'.")
        return jsonify({"message": _store(_read())}), 200
    except _RequestError as error:
        return jsonify({"message": str(error)}), error.status
    except IntegrityError:
        message = "INVALID_REPLACEMENT: other values of this source are there with the same prior: give a later one."
        return jsonify({"message": message}), 403
    except OperationalError:
        current_app.logger.exception("Values could not be stored.")
        return jsonify({"message": "The database is away. Nothing was stored: try again later."}), 503
    finally:
        db.session.rollback()  # does nothing after a commit


def _read() -> _Values:
    request.max_content_length = MAX_BYTES
    try:
        body: Any = json.loads(request.get_data())
    except RequestEntityTooLarge:
        raise _RequestError(413, f"The body is larger than {MAX_BYTES} bytes.") from None
    except (ValueError, RecursionError):
        raise _RequestError(400, "The body is not JSON.") from None
    if not isinstance(body, dict) or body.keys() != _KEYS.keys():
        wanted = ", ".join(f"{key} ({what})" for key, what in _KEYS.items())
        raise _RequestError(422, f"The body is no mapping of exactly {wanted}.")
    sensor, values, source = body["sensor"], body["values"], body["source"]
    if not isinstance(sensor, int) or isinstance(sensor, bool) or not 0 < sensor < 2**31:
        raise _RequestError(422, f"sensor is {sensor!r}: write the id of a sensor.")
    if not isinstance(values, list) or not 0 < len(values) <= MAX_VALUES or not all(map(_is_number, values)):
        raise _RequestError(422, f"values is no list of 1 to {MAX_VALUES} numbers.")
    if not isinstance(source, str) or not 0 < len(source.strip()) <= 80:
        raise _RequestError(422, f"source is {source!r}: write a name of 1 to 80 characters.")
    times = (_time(key, body[key]) for key in ("start", "prior"))
    start, prior = times
    return _Values(sensor, start, [float(value) for value in values], str(body["unit"]), prior, source.strip())


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _time(key: str, value: object) -> datetime:
    try:
        time = datetime.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise _RequestError(422, f"{key} is {value!r}: write a time such as 2027-01-01T00:00:00+00:00.")
    return time


def _store(given: _Values) -> str:
    sensor = db.session.get(Sensor, given.sensor)
    if sensor is None:
        raise _RequestError(404, f"There is no sensor {given.sensor}.")
    check_access(sensor, "create-children")
    resolution: timedelta = sensor.event_resolution
    if given.unit != sensor.unit:
        raise _RequestError(422, f"unit is {given.unit!r}: sensor {sensor.id} ({sensor.name}) is in {sensor.unit!r}.")
    if not resolution:
        raise _RequestError(422, f"Sensor {sensor.id} ({sensor.name}) has no resolution: its values cannot be a list.")
    if given.start.timestamp() % resolution.total_seconds():
        raise _RequestError(422, f"start is {given.start.isoformat()}: no beginning of an interval of {resolution}.")
    index = pd.date_range(given.start, periods=len(given.values), freq=resolution)
    source = get_or_create_source(given.source, "forecaster" if given.prior <= given.start else "feed")
    beliefs = BeliefsDataFrame(
        pd.Series(given.values, index=index),
        source=source,
        sensor=sensor,
        event_resolution=resolution,
        belief_time=given.prior,
    )
    status: str = save_to_db(beliefs)
    db.session.commit()
    return status
