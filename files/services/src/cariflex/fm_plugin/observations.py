"""``POST /cariflex/v1/observations``: what the VEN and the CEM have observed, into the schema `ems`.

The body is ``{"observations": [{"kind": "s2_status", …}, {"kind": "s2_instruction", …}]}``, the token that of a
FlexMeasures user in the setting CARIFLEX_OBSERVERS. Sending something again changes nothing, whatever the order.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
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
KEPT = timedelta(days=400)  # how long a state is kept; instructions stay

Name = Annotated[str, Field(min_length=1, max_length=100)]
StatusName = Literal["SENT", "NEW", "ACCEPTED", "REJECTED", "REVOKED", "STARTED", "SUCCEEDED", "ABORTED"]
_ENDS = ("REJECTED", "REVOKED", "SUCCEEDED", "ABORTED")


class _Observation(BaseModel):
    model_config = ConfigDict(extra="forbid")

    resource: Name


class Instruction(_Observation):
    """An instruction to a device, with the time of each status it has had so far."""

    kind: Literal["s2_instruction"]
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
    time: AwareDatetime
    power_kw: FiniteFloat | None
    stored_kwh: FiniteFloat | None
    fill_level: FiniteFloat | None
    connected: bool
    limit_kw: FiniteFloat | None

    def row(self) -> dict[str, Any]:
        """As columns."""
        return self.model_dump(exclude={"kind"})


class Body(BaseModel):
    """What a request says."""

    model_config = ConfigDict(extra="forbid")

    observations: list[Annotated[Instruction | State, Field(discriminator="kind")]] = Field(max_length=MOST)


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
    rows = sorted(body.observations, key=lambda one: str(one.row().get("instruction_id", "")))
    for kind, statement in ((Instruction, _INSTRUCTION), (State, _STATE)):
        if of_kind := [one.row() for one in rows if isinstance(one, kind)]:
            db.session.execute(text(statement), of_kind)
    db.session.execute(text("DELETE FROM ems.s2_status WHERE time < now() - :kept"), {"kept": KEPT})
    db.session.commit()


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _error(status: int, message: str) -> Response:
    response = jsonify({"message": message})
    response.status_code = status
    return response
