"""Opt schedules and reports as VENs send them, read from the XML itself.

openleadr 0.5.36 has no EiOpt, and its parser guesses types: an id made of digits becomes a number, and what looks like
a number becomes one. Messages have been validated against the schema before they come here; what the schema leaves open
(real dates, lengths of ids, fixed durations) is checked here.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from openleadr import messaging

from cariflex.durations import parse_duration
from cariflex.openadr.messages import MessageError

# Messages that are read here. Their names cannot appear in others but as text, which does no harm.
KINDS = ("oadrCreateOpt", "oadrCancelOpt", "oadrRegisterReport", "oadrUpdateReport", "oadrCreatedReport")

_LONGEST_ID = 200
_LONGEST_PERIOD = timedelta(days=366)
# A zero is all that the standard's years and months may have with us: others have no fixed length.
_ZEROS = re.compile(r"P(?:0+Y)?(?:0+M)?(?=\d+D|T|$)")
_SCALES = {
    code: Decimal(10) ** power for code, power in zip("pnmcdkMGT", (-12, -9, -3, -2, -1, 3, 6, 9, 12), strict=True)
}
_SCALES |= {"none": Decimal(1), "micro": Decimal("1e-6")}
# What operators read in kW and kWh comes in W and Wh.
_OPERATOR_UNITS = {"W": "kW", "J/s": "kW", "Wh": "kWh"}


@dataclass(frozen=True)
class Period:
    """A stretch of time."""

    start: datetime
    duration: timedelta


@dataclass(frozen=True)
class OptSchedule:
    """When a VEN takes part (optIn) or does not (optOut): in `periods`, or for the event it names.

    `event_id` is the id on the wire. Without `resources` the whole VEN is meant.
    """

    opt_id: str
    opt_type: Literal["optIn", "optOut"]
    reason: str
    created_at: datetime
    market_context: str | None = None
    periods: tuple[Period, ...] = ()
    event_id: str | None = None
    modification_number: int | None = None
    resources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Point:
    """What a VEN can report: a quantity of a resource. A value on the wire times `factor` is in `unit`."""

    r_id: str
    resource_id: str | None
    measurement: str | None
    unit: str | None
    factor: float
    reading_type: str


@dataclass(frozen=True)
class OfferedReport:
    """A report that a VEN offers, with the shortest and the longest sampling period of all its points."""

    name: str
    specifier_id: str
    points: tuple[Point, ...]
    shortest: timedelta
    longest: timedelta


@dataclass(frozen=True)
class Datum:
    """A value of a point, as it came over the wire; a status instead of a value, or neither, is possible."""

    r_id: str
    start: datetime
    duration: timedelta | None = None
    value: float | None = None
    online: bool | None = None
    manual_override: bool | None = None
    quality: str | None = None


@dataclass(frozen=True)
class SentReport:
    """Values that answer one request of ours."""

    request_id: str
    data: tuple[Datum, ...]


def parse(content: bytes) -> tuple[str, dict[str, Any]]:
    """Parse a valid message as openleadr's `parse_message` does; those of KINDS keep their element under `message`."""
    if any(kind.encode() in content for kind in KINDS):
        message = messaging.validate_xml_schema(content).find("{*}oadrSignedObject")[0]
        kind = message.tag.rpartition("}")[2]
        if kind in KINDS:
            ids = {"request_id": _text(message, "requestID"), "ven_id": _text(message, "venID")}
            return kind, {"message": message} | {key: value for key, value in ids.items() if value is not None}
    parsed: tuple[str, dict[str, Any]] = messaging.parse_message(content)
    return parsed


def opt_schedule(message: Any) -> OptSchedule:
    """Read an oadrCreateOpt; raises MessageError."""
    periods = tuple(
        Period(_time(_needed(available, "{*}dtstart/{*}date-time")), _duration(available, positive=True))
        for available in message.iterfind("{*}vavailability/{*}components/{*}available/{*}properties")
    )
    event = message.find("{*}qualifiedEventID")
    if event is None and not periods:
        raise MessageError("an opt names an event or periods")
    context = _text(message, "marketContext")
    if context is not None and len(context) > _LONGEST_ID:
        raise MessageError("the market context is too long")
    return OptSchedule(
        opt_id=_id(message, "optID"),
        opt_type="optIn" if _text(message, "optType") == "optIn" else "optOut",
        reason=_id(message, "optReason"),
        created_at=_time(_needed(message, "{*}createdDateTime")),
        market_context=context,
        periods=periods,
        event_id=None if event is None else _id(event, "eventID"),
        modification_number=None if event is None else _number(_needed(event, "{*}modificationNumber")),
        resources=tuple(_checked(each.text, "resourceID") for each in message.iterfind("{*}eiTarget/{*}resourceID")),
    )


def opt_id(message: Any) -> str:
    """Read which opt an oadrCancelOpt cancels; raises MessageError."""
    return _id(message, "optID")


def offered_reports(message: Any) -> list[OfferedReport]:
    """Read an oadrRegisterReport; raises MessageError."""
    return [_offered(report) for report in message.iterfind("{*}oadrReport")]


def sent_reports(message: Any) -> list[SentReport]:
    """Read an oadrUpdateReport; raises MessageError."""
    return [
        SentReport(_id(report, "reportRequestID"), tuple(_data(report))) for report in message.iterfind("{*}oadrReport")
    ]


def _offered(report: Any) -> OfferedReport:
    points, shortest, longest = [], timedelta(0), _LONGEST_PERIOD
    for description in report.iterfind("{*}oadrReportDescription"):
        points.append(_point(description))
        rate = description.find("{*}oadrSamplingRate")
        if rate is not None:
            shortest = max(shortest, _duration_of(_needed(rate, "{*}oadrMinPeriod")))
            longest = min(longest, _duration_of(_needed(rate, "{*}oadrMaxPeriod")))
    if len({point.r_id for point in points}) < len(points):
        raise MessageError("a report describes an rID twice")
    name = (_text(report, "reportName") or "").removeprefix("METADATA_")[:_LONGEST_ID]
    return OfferedReport(name, _id(report, "reportSpecifierID"), tuple(points), shortest, longest)


def _point(description: Any) -> Point:
    measurement, unit, factor = None, None, Decimal(1)
    for element in description:
        units = element.find("{*}itemUnits")
        if units is not None:
            measurement = element.tag.rpartition("}")[2]
            unit = _checked(units.text, "itemUnits")
            factor = _SCALES.get(_text(element, "siScaleCode") or "none", Decimal(1))
            if unit in _OPERATOR_UNITS:
                unit, factor = _OPERATOR_UNITS[unit], factor / 1000
    resource = description.find("{*}reportDataSource/{*}resourceID")
    return Point(
        r_id=_id(description, "rID"),
        resource_id=None if resource is None else _checked(resource.text, "resourceID"),
        measurement=measurement,
        unit=unit,
        factor=float(factor),
        reading_type=_id(description, "readingType"),
    )


def _data(report: Any) -> Iterator[Datum]:
    """Intervals follow each other from the report's start, unless they say otherwise."""
    start = report.find("{*}dtstart/{*}date-time")
    position = None if start is None else _time(start.text)
    for interval in report.iterfind("{*}intervals/{*}interval"):
        start = interval.find("{*}dtstart/{*}date-time")
        position = position if start is None else _time(start.text)
        if position is None:
            raise MessageError("an interval has no start")
        duration = None if interval.find("{*}duration") is None else _duration(interval)
        for payload in interval.iterfind("{*}oadrReportPayload"):
            yield _datum(payload, position, duration)
        try:
            position += duration or timedelta(0)
        except OverflowError:
            raise MessageError("an interval ends after the end of time") from None


def _datum(payload: Any, start: datetime, duration: timedelta | None) -> Datum:
    number = payload.find("{*}payloadFloat/{*}value")
    value = None if number is None else float(number.text)
    status = payload.find("{*}oadrPayloadResourceStatus")
    return Datum(
        r_id=_id(payload, "rID"),
        start=start,
        duration=duration,
        value=value if value is not None and math.isfinite(value) else None,  # NaN is how some say "none"
        online=None if status is None else _needed(status, "{*}oadrOnline").strip() in ("true", "1"),
        manual_override=None if status is None else _needed(status, "{*}oadrManualOverride").strip() in ("true", "1"),
        quality=_text(payload, "oadrDataQuality"),
    )


def _text(element: Any, name: str) -> str | None:
    text = element.findtext(f"{{*}}{name}")
    return None if text is None else str(text).strip()


def _needed(element: Any, path: str) -> str:
    text = element.findtext(path)
    if not text:
        raise MessageError(f"{path.rpartition('}')[2]} is empty or missing")
    return str(text)


def _id(element: Any, name: str) -> str:
    return _checked(element.findtext(f"{{*}}{name}"), name)


def _checked(text: str | None, name: str) -> str:
    if not (text := (text or "").strip()) or len(text) > _LONGEST_ID:
        raise MessageError(f"{name} does not have 1 to {_LONGEST_ID} characters")
    return text


def _number(text: str) -> int:
    number = int(text) if len(text) < 20 else 2**31
    if not 0 <= number < 2**31:
        raise MessageError("the modification number is no such number")
    return number


def _time(text: str) -> datetime:
    """OpenADR writes UTC; the schema does not insist on the Z."""
    try:
        return datetime.fromisoformat(text.strip().removesuffix("Z") + "+00:00").astimezone(UTC)
    except (ValueError, OverflowError):
        raise MessageError(f"{text!r} is no time") from None


def _duration(element: Any, *, positive: bool = False) -> timedelta:
    duration = _duration_of(_needed(element, "{*}duration/{*}duration"))
    if positive and not duration:
        raise MessageError("a period has no length")
    return duration


def _duration_of(text: str) -> timedelta:
    plain = _ZEROS.sub("P", text.strip().removeprefix("+"), count=1)
    if plain in ("P", "PT"):  # openleadr writes nothing as P
        return timedelta(0)
    try:
        duration = parse_duration(plain)
    except ValueError as error:
        raise MessageError(f"the duration {text!r} {error}") from None
    if duration > _LONGEST_PERIOD:
        raise MessageError(f"the duration {text!r} is longer than a year")
    return duration
