"""``GET /cariflex/v1/schedules/<job>?sensors=101,102``: what a job has planned for several sensors, in one answer.

FlexMeasures itself gives the plan of one sensor, and takes a tenth of a second for each. The values are the same, and
so is who may read them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask import Response, current_app, request
from flexmeasures import Sensor
from flexmeasures.auth.policy import check_access
from flexmeasures.data import db
from flexmeasures.data.models.time_series import TimedBelief
from flexmeasures.data.services.scheduling import get_data_source_for_job
from rq.exceptions import NoSuchJobError
from rq.job import Job
from sqlalchemy import select

from cariflex.fm_plugin.user_requests import RequestError, answer

MOST = 1000  # sensors


def view(job_id: str) -> tuple[Response, int]:
    """Answer the request: by id of a sensor `start`, `unit` and `values`, + is consumption where it is a power."""
    return answer(lambda: {"schedules": _planned(job_id)}, "Nothing was read")


def _planned(job_id: str) -> dict[str, Any]:
    sensors = _sensors()
    job = _job(job_id)
    source = get_data_source_for_job(job)
    if source is None:
        raise RequestError(404, f"Job {job_id} has stored nothing.")
    return _schedules(sensors, source.id, job.kwargs["start"], job.kwargs["end"])


def _sensors() -> list[Sensor]:
    ids = request.args.get("sensors", "").split(",")
    if len(ids) > MOST or not all(one.isascii() and one.isdigit() and 0 < int(one[:10]) < 2**31 for one in ids):
        raise RequestError(422, f"sensors is no list of at most {MOST} ids: write for example sensors=101,102.")
    found = []
    for one in dict.fromkeys(map(int, ids)):
        sensor = db.session.get(Sensor, one)
        if sensor is None:
            raise RequestError(422, f"There is no sensor {one}.")
        check_access(sensor, "read")
        found.append(sensor)
    return found


def _job(job_id: str) -> Job:
    try:
        job = Job.fetch(job_id, connection=current_app.queues["scheduling"].connection)
    except NoSuchJobError:
        raise RequestError(422, f"There is no job {job_id}.") from None
    if not job.is_finished:
        raise RequestError(409, f"Job {job_id} is not finished.")
    if job.func_name.rpartition(".")[2] != "make_schedule":
        raise RequestError(422, f"Job {job_id} plans nothing.")
    return job


def _schedules(sensors: list[Sensor], source: int, start: datetime, end: datetime) -> dict[str, Any]:
    """Consecutive values from the first one on; a sensor without any is left out."""
    rows = db.session.execute(
        select(TimedBelief.sensor_id, TimedBelief.event_start, TimedBelief.event_value)
        .distinct(TimedBelief.sensor_id, TimedBelief.event_start)
        .where(
            TimedBelief.sensor_id.in_([sensor.id for sensor in sensors]),
            TimedBelief.source_id == source,
            TimedBelief.event_start >= start,
            TimedBelief.event_start < end,
        )
        .order_by(TimedBelief.sensor_id, TimedBelief.event_start, TimedBelief.belief_horizon)
    )
    by_sensor: dict[int, list[tuple[datetime, float]]] = {}
    for sensor_id, event_start, value in rows:
        by_sensor.setdefault(sensor_id, []).append((event_start, value))
    answer = {}
    for sensor in sensors:
        found = by_sensor.get(sensor.id, [])
        sign = -1 if sensor.measures_power and not sensor.get_attribute("consumption_is_positive", False) else 1
        values = []
        for index, (event_start, value) in enumerate(found):
            if event_start != found[0][0] + index * sensor.event_resolution:
                break  # what comes after a gap would stand at the wrong time
            values.append(sign * value)
        if values:
            answer[str(sensor.id)] = {"start": found[0][0].isoformat(), "unit": sensor.unit, "values": values}
    return answer
