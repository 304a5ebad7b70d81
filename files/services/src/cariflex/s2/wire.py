"""S2 messages on the wire: reading what a peer sends, and the ReceptionStatus that answers it."""

import json
import math
import uuid
from typing import Any

from s2python.common import ReceptionStatus, ReceptionStatusValues
from s2python.s2_parser import TYPE_TO_MESSAGE_CLASS
from s2python.s2_validation_error import S2ValidationError

MAX_MESSAGE_BYTES = 256 * 1024  # a system description with a hundred operation modes is 60 kB
VERSION = "0.0.2-beta"  # of the S2 messages (JSON), the one s2-python 0.11.1 speaks
NO_ID = uuid.UUID(int=0)  # a ReceptionStatus has to name a message also where none could be read

Status = ReceptionStatusValues


class RefusedError(Exception):
    """A message is answered with `status` and the text, and has no other effect.

    Attributes:
        subject: the id of the message, as far as it could be read; None for an answer, which is not answered.
        fatal: the standard lets the connection end after this one.
    """

    def __init__(self, status: Any, text: str, subject: uuid.UUID | None = NO_ID, *, fatal: bool = False) -> None:
        super().__init__(text)
        self.status = status
        self.subject = subject
        self.fatal = fatal


def new_id() -> uuid.UUID:
    """An id for a message or an object."""
    return uuid.uuid4()


def read(text: str | bytes) -> Any:
    """Turn what came over the websocket into a message of s2-python.

    Raises:
        RefusedError: INVALID_DATA for what is not JSON or has no message id, INVALID_MESSAGE for what the schema of
            its type does not allow.
    """
    try:
        content = json.loads(text, parse_constant=_not_a_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise RefusedError(Status.INVALID_DATA, f"not JSON: {error}") from None
    if not isinstance(content, dict):
        raise RefusedError(Status.INVALID_DATA, "not a JSON object")
    kind = content.get("message_type")
    subject: uuid.UUID | None = None
    if kind != "ReceptionStatus":
        try:
            subject = uuid.UUID(content["message_id"])
        except (KeyError, ValueError, TypeError, AttributeError):
            raise RefusedError(Status.INVALID_DATA, "message_id is not a UUID") from None
    message_class = TYPE_TO_MESSAGE_CLASS.get(kind) if isinstance(kind, str) else None
    if message_class is None:
        raise RefusedError(Status.INVALID_MESSAGE, f"message_type {str(kind)[:60]!r} is not one of S2", subject)
    try:
        return message_class.from_dict(content)
    except S2ValidationError as error:
        raise RefusedError(Status.INVALID_MESSAGE, f"not a valid {kind}: {_first_line(error)}", subject) from None
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise RefusedError(Status.INVALID_MESSAGE, f"not a valid {kind}: {error}", subject) from None


def answer(subject: uuid.UUID, status: Any = Status.OK, text: str | None = None) -> Any:
    """The ReceptionStatus for a message."""
    return ReceptionStatus(subject_message_id=subject, status=status, diagnostic_label=text[:500] if text else None)


def _not_a_number(text: str) -> float:
    raise ValueError(f"{text} is not a number in JSON")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:40]} is beyond a 64-bit number")
    return number


def _first_line(error: S2ValidationError) -> str:
    cause = error.__cause__
    errors = cause.errors(include_url=False, include_context=False) if hasattr(cause, "errors") else []
    if not errors:
        return str(error)[:200]
    return f"{'.'.join(str(part) for part in errors[0]['loc'])}: {str(errors[0]['msg'])[:200]}"
