"""``POST /cariflex/v1/withdraw``: takes back what the caller itself stored, where FlexMeasures can only add.

FlexMeasures stores no empty value, and lets account admins alone delete data, of everybody. A price event that is
cancelled leaves a time without a price: the VEN takes its own values back, and nobody else's.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from flask import Response
from flask_security import current_user
from flexmeasures import Sensor
from flexmeasures.auth.policy import check_access
from flexmeasures.data import db
from flexmeasures.data.models.audit_log import AssetAuditLog
from flexmeasures.data.models.data_sources import DataSource
from flexmeasures.data.models.time_series import TimedBelief
from sqlalchemy import select

from cariflex.fm_plugin.user_requests import RequestError, answer, mapping, sensor_id, time

MAX_BYTES = 4096
_KEYS = {"sensor": "the id of a sensor", "start": "a time", "end": "a time", "prior": "a time"}


class _Withdrawal(NamedTuple):
    """Events of a sensor from `start` to before `end`, as believed at `prior` or earlier."""

    sensor: int
    start: datetime
    end: datetime
    prior: datetime


def view() -> tuple[Response, int]:
    """Answer the request."""
    return answer(lambda: {"withdrawn": _carry_out(_read())}, "Nothing was taken back")


def _read() -> _Withdrawal:
    body = mapping(_KEYS, MAX_BYTES)
    withdrawal = _Withdrawal(sensor_id(body["sensor"]), *(time(key, body[key]) for key in ("start", "end", "prior")))
    if withdrawal.start >= withdrawal.end:
        raise RequestError(422, "end is not after start.")
    return withdrawal


def _carry_out(withdrawal: _Withdrawal) -> int:
    sensor = db.session.get(Sensor, withdrawal.sensor)
    if sensor is None:
        raise RequestError(404, f"There is no sensor {withdrawal.sensor}.")
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
