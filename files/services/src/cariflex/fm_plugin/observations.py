"""``POST /cariflex/v1/observations``: what our services have observed, into the schema `ems`.

The body is ``{"observations": [{"kind": "s2_status", …}, {"kind": "s2_instruction", …}]}``; the kinds are s2_status,
s2_instruction, openadr_event, openadr_opt and schedule_run. The token is that of a FlexMeasures user in the setting
CARIFLEX_OBSERVERS. Sending something again changes nothing, whatever the order.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Annotated, Any, Literal
from uuid import UUID

from flask import Response, current_app, jsonify, request
from flask_security import auth_token_required, current_user
from flexmeasures.data import db
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import RequestEntityTooLarge

MAX_BYTES = 1024 * 1024
MOST = 1000  # observations in a body
KEPT = timedelta(days=400)  # how long a state is kept; everything else stays

Name = Annotated[str, Field(min_length=1, max_length=100)]
Sentence = Annotated[str, Field(max_length=2000)]
EventId = Annotated[str, Field(min_length=1, max_length=1000)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
StatusName = Literal["SENT", "NEW", "ACCEPTED", "REJECTED", "REVOKED", "STARTED", "SUCCEEDED", "ABORTED"]
_ENDS = ("REJECTED", "REVOKED", "SUCCEEDED", "ABORTED")


class _Observation(BaseModel):
    """A row; the fields but `kind` are its columns."""

    model_config = ConfigDict(extra="forbid")

    def row(self) -> dict[str, Any]:
        """As columns."""
        return self.model_dump(exclude={"kind"})


class Instruction(_Observation):
    """An instruction to a device, with the time of each status it has had so far."""

    kind: Literal["s2_instruction"]
    resource: Name
    instruction_id: UUID
    execution_time: AwareDatetime
    power_kw: FiniteFloat
    limit_kw: FiniteFloat | None = None
    factor: float = Field(ge=0, le=1)
    mode: Name
    reason: Name
    event_ids: list[Name] = Field(max_length=100)
    status: StatusName
    times: dict[StatusName, AwareDatetime] = Field(min_length=1)

    def row(self) -> dict[str, Any]:
        """As columns."""
        ends: list[datetime] = [self.times[name] for name in _ENDS if name in self.times]
        return self.model_dump(exclude={"kind", "times"}) | {
            "changed_at": max(self.times.values()),
            "sent_at": self.times.get("SENT"),
            "accepted_at": self.times.get("ACCEPTED"),
            "started_at": self.times.get("STARTED"),
            "ended_at": max(ends, default=None),
        }


class State(_Observation):
    """A device at a time; None: not known, no limit."""

    kind: Literal["s2_status"]
    resource: Name
    time: AwareDatetime
    power_kw: FiniteFloat | None
    stored_kwh: FiniteFloat | None
    fill_level: FiniteFloat | None
    connected: bool
    limit_kw: FiniteFloat | None


class Event(_Observation):
    """A version of an OpenADR event that a VEN has answered; None: not understood, not told."""

    kind: Literal["openadr_event"]
    ven: Name
    event_id: EventId
    modification_number: Count
    signal: Name | None
    status: Name
    test_event: bool = False
    starts_at: AwareDatetime | None
    ends_at: AwareDatetime | None
    intervals: list[tuple[FiniteFloat, FiniteFloat]] = Field(max_length=10_000)  # seconds, value
    created_at: AwareDatetime | None = None
    received_at: AwareDatetime
    answered_at: AwareDatetime

    def row(self) -> dict[str, Any]:
        """As columns."""
        return super().row() | {"intervals": json.dumps(self.intervals)}


class Opt(_Observation):
    """A VEN's answer to a version of an event, and when it was decided."""

    kind: Literal["openadr_opt"]
    ven: Name
    event_id: EventId
    modification_number: Count
    time: AwareDatetime
    opt_type: Literal["optIn", "optOut"]
    reason: Sentence | None = None


class ScheduleRun(_Observation):
    """A run of the schedules, sent once when it begins and again when it has ended."""

    kind: Literal["schedule_run"]
    id: UUID
    started_at: AwareDatetime
    finished_at: AwareDatetime | None = None
    trigger: Name
    status: Name
    error: Sentence | None = None
    horizon_start: AwareDatetime | None = None
    horizon_end: AwareDatetime | None = None
    devices: Count | None = None
    solver_seconds: Annotated[FiniteFloat, Field(ge=0)] | None = None
    cost_eur: FiniteFloat | None = None
    baseline_cost_eur: FiniteFloat | None = None
    energy_kwh: FiniteFloat | None = None
    baseline_energy_kwh: FiniteFloat | None = None
    peak_kw: FiniteFloat | None = None
    baseline_peak_kw: FiniteFloat | None = None


class Body(BaseModel):
    """What a request says."""

    model_config = ConfigDict(extra="forbid")

    observations: list[Annotated[Instruction | State | Event | Opt | ScheduleRun, Field(discriminator="kind")]] = Field(
        max_length=MOST
    )


_INSTRUCTION = """
INSERT INTO ems.s2_instruction (instruction_id, resource, execution_time, power_kw, limit_kw, factor, mode, reason,
    event_ids, status, changed_at, sent_at, accepted_at, started_at, ended_at)
VALUES (:instruction_id, :resource, :execution_time, :power_kw, :limit_kw, :factor, :mode, :reason,
    :event_ids, :status, :changed_at, :sent_at, :accepted_at, :started_at, :ended_at)
ON CONFLICT (instruction_id) DO UPDATE SET status = excluded.status, changed_at = excluded.changed_at,
    accepted_at = excluded.accepted_at, started_at = excluded.started_at, ended_at = excluded.ended_at
WHERE s2_instruction.resource = excluded.resource AND excluded.changed_at > s2_instruction.changed_at
"""
_STATE = """
INSERT INTO ems.s2_status (resource, time, power_kw, stored_kwh, fill_level, connected, limit_kw)
VALUES (:resource, :time, :power_kw, :stored_kwh, :fill_level, :connected, :limit_kw)
ON CONFLICT DO NOTHING
"""
_EVENT = """
INSERT INTO ems.openadr_event (ven, event_id, modification_number, signal, status, test_event, starts_at, ends_at,
    intervals, created_at, received_at, answered_at)
VALUES (:ven, :event_id, :modification_number, :signal, :status, :test_event, :starts_at, :ends_at,
    CAST(:intervals AS jsonb), :created_at, :received_at, :answered_at)
ON CONFLICT (ven, event_id, modification_number) DO UPDATE SET signal = excluded.signal, status = excluded.status,
    test_event = excluded.test_event, starts_at = excluded.starts_at, ends_at = excluded.ends_at,
    intervals = excluded.intervals, created_at = excluded.created_at, received_at = excluded.received_at,
    answered_at = excluded.answered_at
WHERE excluded.received_at > openadr_event.received_at
"""
_OPT = """
INSERT INTO ems.openadr_opt (ven, event_id, modification_number, time, opt_type, reason)
VALUES (:ven, :event_id, :modification_number, :time, :opt_type, :reason)
ON CONFLICT DO NOTHING
"""
_RUN = """
INSERT INTO ems.schedule_run (id, started_at, finished_at, trigger, status, error, horizon_start, horizon_end, devices,
    solver_seconds, cost_eur, baseline_cost_eur, energy_kwh, baseline_energy_kwh, peak_kw, baseline_peak_kw)
VALUES (:id, :started_at, :finished_at, :trigger, :status, :error, :horizon_start, :horizon_end, :devices,
    :solver_seconds, :cost_eur, :baseline_cost_eur, :energy_kwh, :baseline_energy_kwh, :peak_kw, :baseline_peak_kw)
ON CONFLICT (id) DO UPDATE SET finished_at = excluded.finished_at, status = excluded.status, error = excluded.error,
    horizon_start = excluded.horizon_start, horizon_end = excluded.horizon_end, devices = excluded.devices,
    solver_seconds = excluded.solver_seconds, cost_eur = excluded.cost_eur,
    baseline_cost_eur = excluded.baseline_cost_eur, energy_kwh = excluded.energy_kwh,
    baseline_energy_kwh = excluded.baseline_energy_kwh, peak_kw = excluded.peak_kw,
    baseline_peak_kw = excluded.baseline_peak_kw
WHERE schedule_run.finished_at IS NULL AND excluded.finished_at IS NOT NULL
"""


@auth_token_required  # type: ignore[untyped-decorator, unused-ignore]
def view() -> Response:
    """Answer the request: 200 when all is stored, else nothing is."""
    if current_user.email not in current_app.config.get("CARIFLEX_OBSERVERS", []):
        return _error(403, "This user may not report observations: CARIFLEX_OBSERVERS does not name it.")
    request.max_content_length = MAX_BYTES
    try:
        body = Body.model_validate(json.loads(request.get_data()))
    except RequestEntityTooLarge:
        return _error(413, f"The body is larger than {MAX_BYTES} bytes. Send less at a time.")
    except ValidationError as error:
        return _error(422, f"Nothing was stored: {_first(error)}")
    except (ValueError, RecursionError):
        return _error(400, "The body is not JSON.")
    try:
        _store(body)
    except OperationalError:
        current_app.logger.exception("Observations could not be stored.")
        return _error(503, "The database is away. Nothing was stored: try again later.")
    finally:
        db.session.rollback()  # does nothing after a commit
    return jsonify({"stored": len(body.observations)})


def _store(body: Body) -> None:
    # in the order of their keys: two senders at the same time do not wait for each other in a circle
    for kind, statement, key in (
        (Instruction, _INSTRUCTION, ("instruction_id",)),
        (State, _STATE, ("resource", "time")),
        (Event, _EVENT, ("ven", "event_id", "modification_number")),
        (Opt, _OPT, ("ven", "event_id", "modification_number", "time")),
        (ScheduleRun, _RUN, ("id",)),
    ):
        if of_kind := [one.row() for one in body.observations if isinstance(one, kind)]:
            db.session.execute(text(statement), sorted(of_kind, key=itemgetter(*key)))
    db.session.execute(text("DELETE FROM ems.s2_status WHERE time < now() - :kept"), {"kept": KEPT})
    db.session.commit()


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _error(status: int, message: str) -> Response:
    response = jsonify({"message": message})
    response.status_code = status
    return response
