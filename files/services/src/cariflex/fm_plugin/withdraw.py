"""``POST /cariflex/v1/withdraw``: takes back what the caller itself stored, where FlexMeasures can only add.

FlexMeasures stores no empty value, and lets account admins alone delete data, of everybody. A price event that is
cancelled leaves a time without a price: the VEN takes its own values back, and nobody else's.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NamedTuple

from flask import Response, current_app, jsonify, request
from flask_security import current_user
from flexmeasures import Sensor
from flexmeasures.auth.policy import check_access
from flexmeasures.data import db
from flexmeasures.data.models.audit_log import AssetAuditLog
from flexmeasures.data.models.data_sources import DataSource
from flexmeasures.data.models.time_series import TimedBelief
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import RequestEntityTooLarge

MAX_BYTES = 4096
_KEYS = {"sensor": "the id of a sensor", "start": "a time", "end": "a time", "prior": "a time"}


class _RequestError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Withdrawal(NamedTuple):
    """Events of a sensor from `start` to before `end`, as believed at `prior` or earlier."""

    sensor: int
    start: datetime
    end: datetime
    prior: datetime


def view() -> tuple[Response, int]:
    """Answer the request; whatever goes wrong, the transaction is rolled back."""
    try:
        # The header is asked for because a browser's session would do otherwise, also when another site uses it.
        if current_user.is_anonymous or "Authorization" not in request.headers:
            raise _RequestError(401, "Give the token of a user of FlexMeasures: 'Authorization: <token>'.")
        return jsonify({"withdrawn": _carry_out(_read())}), 200
    except _RequestError as error:
        return jsonify({"message": str(error)}), error.status
    except OperationalError:
        current_app.logger.exception("Values could not be taken back.")
        return jsonify({"message": "The database is away. Nothing was taken back: try again later."}), 503
    finally:
        db.session.rollback()  # does nothing after a commit


def _read() -> _Withdrawal:
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
    sensor = body["sensor"]
    if not isinstance(sensor, int) or isinstance(sensor, bool) or not 0 < sensor < 2**31:
        raise _RequestError(422, f"sensor is {sensor!r}: write the id of a sensor.")
    withdrawal = _Withdrawal(sensor, *(_time(key, body[key]) for key in ("start", "end", "prior")))
    if withdrawal.start >= withdrawal.end:
        raise _RequestError(422, "end is not after start.")
    return withdrawal


def _time(key: str, value: object) -> datetime:
    try:
        time = datetime.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise _RequestError(422, f"{key} is {value!r}: write a time such as 2027-01-01T00:00:00+00:00.")
    return time


def _carry_out(withdrawal: _Withdrawal) -> int:
    sensor = db.session.get(Sensor, withdrawal.sensor)
    if sensor is None:
        raise _RequestError(404, f"There is no sensor {withdrawal.sensor}.")
    check_access(sensor, "create-children")  # whoever may add values may take back what he added
    beliefs = db.session.scalars(
        select(TimedBelief)
        .join(DataSource, TimedBelief.source_id == DataSource.id)
        .where(
            TimedBelief.sensor_id == sensor.id,
            DataSource.user_id == current_user.id,
            TimedBelief.event_start >= withdrawal.start,
            TimedBelief.event_start < withdrawal.end,
        )
    ).all()
    # A request that comes late must not remove what was stored after it was meant.
    old = [belief for belief in beliefs if belief.belief_time <= withdrawal.prior]
    for belief in old:
        db.session.delete(belief)
    if old:
        message = f"Taken back by {current_user.email}: {len(old)} values of sensor {sensor.name}: {sensor.id}"
        AssetAuditLog.add_record(sensor.generic_asset, message)
        db.session.commit()
    return len(old)
