"""``POST /cariflex/v1/values``: values whose data source is somebody else than the caller.

FlexMeasures' own API makes the caller the source of what he sends. What our feeds bring is a weather service's or a
simulator's, and nobody shall take the one for the other: here the source is named. A source of that name that
FlexMeasures itself made, for a user or a scheduler, is never used. What was not known before its time is of type
``forecaster``, as FlexMeasures' own forecasts are, everything else ``feed``.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import pandas as pd
from flask import Response
from flexmeasures import Sensor
from flexmeasures.auth.policy import check_access
from flexmeasures.data import db
from flexmeasures.data.services.data_sources import get_or_create_source
from flexmeasures.data.utils import save_to_db
from sqlalchemy.exc import IntegrityError
from timely_beliefs import BeliefsDataFrame

from cariflex.fm_plugin.user_requests import RequestError, answer, mapping, sensor_id, time

MAX_BYTES = 1_000_000
MAX_VALUES = 20_000
_KEYS = {
    "sensor": "the id of a sensor",
    "start": "a time",
    "values": "a list of numbers, one for each of the sensor's intervals",
    "unit": "the sensor's unit",
    "prior": "the time at which they were known, or null: each at the end of its interval, as what is measured",
    "source": "the name of the data source",
}


class _Values(NamedTuple):
    sensor: int
    start: datetime
    values: list[float]
    unit: str
    prior: datetime | None
    source: str


def view() -> tuple[Response, int]:
    """Answer the request."""
    return answer(_carry_out, "Nothing was stored")


def _carry_out() -> dict[str, Any]:
    given = _read()
    try:
        return {"message": _store(given)}
    except IntegrityError:
        message = "INVALID_REPLACEMENT: other values of this source are there with the same prior: give a later one."
        raise RequestError(403, message) from None


def _read() -> _Values:
    body = mapping(_KEYS, MAX_BYTES)
    values, source = body["values"], body["source"]
    sensor = sensor_id(body["sensor"])
    if not isinstance(values, list) or not 0 < len(values) <= MAX_VALUES or not all(map(_is_number, values)):
        raise RequestError(422, f"values is no list of 1 to {MAX_VALUES} numbers.")
    if not isinstance(source, str) or not 0 < len(source.strip()) <= 80:
        raise RequestError(422, f"source is {source!r}: write a name of 1 to 80 characters.")
    start = time("start", body["start"])
    prior = None if body["prior"] is None else time("prior", body["prior"])
    return _Values(sensor, start, [float(value) for value in values], str(body["unit"]), prior, source.strip())


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _store(given: _Values) -> str:
    sensor = db.session.get(Sensor, given.sensor)
    if sensor is None:
        raise RequestError(404, f"There is no sensor {given.sensor}.")
    check_access(sensor, "create-children")
    resolution: timedelta = sensor.event_resolution
    if given.unit != sensor.unit:
        raise RequestError(422, f"unit is {given.unit!r}: sensor {sensor.id} ({sensor.name}) is in {sensor.unit!r}.")
    if not resolution:
        raise RequestError(422, f"Sensor {sensor.id} ({sensor.name}) has no resolution: its values cannot be a list.")
    if given.start.timestamp() % resolution.total_seconds():
        raise RequestError(422, f"start is {given.start.isoformat()}: no beginning of an interval of {resolution}.")
    index = pd.date_range(given.start, periods=len(given.values), freq=resolution)
    ahead = given.prior is not None and given.prior <= given.start
    source = get_or_create_source(given.source, "forecaster" if ahead else "feed")
    known = {"belief_time": given.prior} if given.prior else {"belief_horizon": timedelta(0)}
    beliefs = BeliefsDataFrame(
        pd.Series(given.values, index=index),
        source=source,
        sensor=sensor,
        event_resolution=resolution,
        **known,
    )
    status: str = save_to_db(beliefs)
    db.session.commit()
    return status
