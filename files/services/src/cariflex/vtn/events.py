"""Events as the VTN keeps them, the rules by which they are accepted, and their form on the wire.

Pure: nothing here touches the database, the network or the clock.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from openleadr import objects
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    field_validator,
)

from cariflex.durations import Duration, format_duration
from cariflex.openadr.messages import schema_fault
from cariflex.openadr.signals import SIGNALS, Signal
from cariflex.problems import InputError, Problem, problems_of

Status = Literal["far", "active", "completed", "cancelled"]

EVENT_ID_PATTERN = r"[A-Za-z][A-Za-z0-9._-]{0,99}"
GROUP = "group:"  # before the name of a group among targets; no id of a VEN has a colon
MARKET_CONTEXT = "https://cariflex.digitribe.fr/openadr"
LONGEST_EVENT = timedelta(days=31)


class ConflictError(InputError):
    """The event itself is well formed, but something that exists is in its way."""


@dataclass(frozen=True)
class Interval:
    """A stretch of an event with one value, in the operator's unit."""

    duration: timedelta
    value: float


@dataclass(frozen=True)
class Opt:
    """What a VEN answered to a version of an event."""

    modification_number: int
    opt_type: Literal["optIn", "optOut"]
    received_at: datetime


@dataclass(frozen=True)
class Event:
    """The current version of an event.

    `withdrawn` are VENs that an earlier version was meant for and this one is not: they are told it is cancelled.
    """

    event_id: str
    modification_number: int
    signal_name: str
    start: datetime
    intervals: tuple[Interval, ...]
    targets: frozenset[str]
    created_at: datetime
    modified_at: datetime
    withdrawn: frozenset[str] = frozenset()
    asked: tuple[str, ...] = ()  # the targets as the operator named them, groups among them
    priority: int = 0
    test_event: bool = False
    cancelled: bool = False
    opts: Mapping[str, Opt] = field(default_factory=dict)

    @property
    def signal(self) -> Signal:
        """The signal the event carries."""
        return SIGNALS[self.signal_name]

    @cached_property  # asked with every poll
    def duration(self) -> timedelta:
        """From the first interval's start to the last one's end."""
        return sum((interval.duration for interval in self.intervals), timedelta())

    @property
    def end(self) -> datetime:
        """When the last interval ends."""
        return self.start + self.duration

    def status(self, now: datetime) -> Status:
        """Where the event stands in its life."""
        if self.cancelled:
            return "cancelled"
        if now >= self.end:
            return "completed"
        return "active" if now >= self.start else "far"

    def unanswered_by(self, ven_id: str) -> bool:
        """Whether this version concerns the VEN and the VEN has not answered it."""
        if ven_id not in self.targets and ven_id not in self.withdrawn:  # no union: there may be thousands of them
            return False
        opt = self.opts.get(ven_id)
        return opt is None or opt.modification_number < self.modification_number

    def content(self) -> tuple[Any, ...]:
        """What an operator decides about an event: two versions with the same content are the same."""
        return self.signal_name, self.start, self.intervals, self.targets, self.priority, self.test_event

    def as_dict(self, now: datetime) -> dict[str, Any]:
        """The form in which the API shows it. Opts stand for the current version; None is "no answer yet"."""
        return {
            "event_id": self.event_id,
            "signal_name": self.signal_name,
            "unit": self.signal.unit,
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "intervals": [
                {"duration": format_duration(interval.duration), "value": interval.value} for interval in self.intervals
            ],
            "targets": sorted(self.targets),
            "targets_asked": list(self.asked) or sorted(self.targets),
            "priority": self.priority,
            "test_event": self.test_event,
            "modification_number": self.modification_number,
            "status": self.status(now),
            "created_at": self.created_at.isoformat(),
            "modified_at": self.modified_at.isoformat(),
            "opts": {
                ven_id: None
                if self.unanswered_by(ven_id)
                else {
                    "opt_type": self.opts[ven_id].opt_type,
                    "modification_number": self.opts[ven_id].modification_number,
                    "received_at": self.opts[ven_id].received_at.isoformat(),
                }
                for ven_id in sorted(self.targets | self.withdrawn)
            },
        }


class IntervalRequest(BaseModel):
    """One interval of an event that an operator asks for."""

    model_config = ConfigDict(extra="forbid", strict=True)

    duration: Duration = Field(description="an ISO 8601 duration of whole minutes", examples=["PT1H"])
    value: float = Field(allow_inf_nan=False, description="a number in the unit of the event", examples=[120.0])

    @field_validator("duration")
    @classmethod
    def _whole_minutes(cls, value: timedelta) -> timedelta:
        if value < timedelta(minutes=1) or value % timedelta(minutes=1):
            raise ValueError("is not one or more whole minutes")
        return value


def _targets(value: object) -> str | list[str]:
    if value == "all" or (isinstance(value, list) and value and all(isinstance(target, str) for target in value)):
        return value
    raise ValueError('is neither "all" nor a list of VEN ids and group:<name>')


# One validator instead of a union of types, whose errors would name each branch.
Targets = Annotated[
    Any,
    PlainValidator(_targets),
    WithJsonSchema({"anyOf": [{"const": "all"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]


class EventRequest(BaseModel):
    """An event as an operator asks for it (body of PUT /api/v1/events/{event_id})."""

    model_config = ConfigDict(extra="forbid", strict=True)

    signal_name: Literal["ENERGY_PRICE", "LOAD_CONTROL", "SIMPLE", "LOAD_DISPATCH", "CHARGE_STATE"] = Field(
        description=f"one of {', '.join(SIGNALS)}", examples=["ENERGY_PRICE"]
    )
    unit: str = Field(description="the unit of the values", examples=["EUR/MWh"])
    start: AwareDatetime = Field(
        description="the start as ISO 8601 with an offset from UTC and whole seconds",
        examples=["2026-05-01T00:00:00-04:00"],
    )
    intervals: list[IntervalRequest] = Field(
        min_length=1,
        max_length=2976,  # 31 days at 15 minutes
        description="the intervals, one after the other from the start",
        examples=[[{"duration": "PT1H", "value": 120.0}]],
    )
    targets: Targets = Field(
        description='a list of VEN ids and group:<name>, or "all"', examples=[["Cariflex-VEN-001", "group:north"]]
    )
    priority: int = Field(0, ge=0, le=255, description="a whole number, 0 for none, 1 for the highest", examples=[0])
    test_event: bool = Field(
        False, description="true for an event that VENs answer but do not act upon", examples=[False]
    )

    @field_validator("start")
    @classmethod
    def _whole_seconds(cls, value: datetime) -> datetime:
        if value.microsecond:
            raise ValueError("has fractions of a second")
        return value.astimezone(UTC)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read the body of a request.

        Raises:
            InputError: with every problem of form that it has.
        """
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            raise InputError(problems_of(error, cls)) from None


def requested(
    event_id: str,
    request: EventRequest,
    current: Event | None,
    vens: Collection[str],
    now: datetime,
    groups: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> Event:
    """Make the version that a request asks for, following on `current`, and check it against the domain.

    Groups stand for the VENs that are in them now.

    Raises:
        InputError: unit, values, targets or times are not acceptable.
    """
    signal = SIGNALS[request.signal_name]
    problems = []
    if request.unit != signal.unit:
        problems.append(
            Problem("unit", request.unit, f"is not the unit of {signal.name}", f"Give the values in {signal.unit}.")
        )
    for number, interval in enumerate(request.intervals):
        if fault := signal.fault_of(interval.value):
            problems.append(
                Problem(
                    f"intervals.{number}.value",
                    interval.value,
                    fault,
                    f"Give {signal.minimum:g} to {signal.maximum:g} {signal.unit} ({signal.meaning}).",
                )
            )
    asked = ("all",) if request.targets == "all" else tuple(dict.fromkeys(request.targets))
    known = {target: frozenset([target]) for target in vens}
    known |= {f"{GROUP}{name}": frozenset(members) for name, members in groups.items()}
    known["all"] = frozenset(vens)
    choices = ", ".join([*sorted(vens), *sorted(f"{GROUP}{name}" for name in groups)])
    for target in sorted({target for target in asked if target not in known or (target == "all" and len(asked) > 1)}):
        kind = {True: "is not a group of this VTN", False: "is not a VEN of this VTN"}[target.startswith(GROUP)]
        wrong = "stands alone, not in a list" if target == "all" else kind
        problems.append(Problem("targets", target, wrong, f'Choose from {choices}, or "all".'))
    targets = frozenset[str]().union(*(known.get(target, ()) for target in asked))
    if sum((interval.duration for interval in request.intervals), timedelta()) > LONGEST_EVENT:
        problems.append(Problem("intervals", len(request.intervals), "add up to more than 31 days", "Split the event."))
    if problems:
        raise InputError(problems)
    return Event(
        event_id=event_id,
        modification_number=0 if current is None else current.modification_number + 1,
        signal_name=signal.name,
        start=request.start,
        intervals=tuple(Interval(i.duration, i.value) for i in request.intervals),
        targets=targets,
        asked=asked,
        withdrawn=frozenset() if current is None else (current.targets | current.withdrawn) - targets,
        priority=request.priority,
        test_event=request.test_event,
        created_at=now if current is None else current.created_at,
        modified_at=now,
        opts={} if current is None else current.opts,
    )


def accepted(
    wanted: Event, current: Event | None, live: Iterable[Event], vtn_id: str, now: datetime, past_start: timedelta
) -> Event:
    """Decide whether `wanted` becomes the current version.

    Args:
        wanted: the version asked for.
        current: the version there is.
        live: the other events that have neither ended nor been cancelled.
        past_start: how long ago a start may be that is not the current one.

    Returns:
        `wanted`, or `current` when that already says the same.

    Raises:
        ConflictError: `current` has ended, or another event is in the way.
        InputError: the times lie in the past, or the message would not be valid OpenADR.
    """
    if current is not None and not current.cancelled and current.content() == wanted.content():
        return current
    _refuse_finished(current, now)
    if wanted.end <= now:
        raise InputError(
            [Problem("start", wanted.start.isoformat(), "the event has already ended", "Give a later start.")]
        )
    if wanted.start < now - past_start and (current is None or current.start != wanted.start):
        limit = format_duration(past_start)
        raise InputError(
            [Problem("start", wanted.start.isoformat(), f"lies more than {limit} in the past", "Give a later start.")]
        )
    if conflicts := list(_overlaps(wanted, live)):
        raise ConflictError(conflicts)
    for ven_id in sorted(wanted.targets):
        if fault := schema_fault("oadrDistributeEvent", **distribution(vtn_id, [wanted], ven_id, now)):
            raise InputError(
                [Problem("(whole input)", wanted.event_id, f"is not valid OpenADR: {fault}", "Correct it.")]
            )
    return wanted


def cancelled(current: Event, now: datetime) -> Event:
    """The version that cancels an event, or `current` when it is cancelled already.

    Raises:
        ConflictError: the event has ended.
    """
    if current.cancelled:
        return current
    _refuse_finished(current, now)
    return replace(current, modification_number=current.modification_number + 1, modified_at=now, cancelled=True)


def _refuse_finished(current: Event | None, now: datetime) -> None:
    if current is not None and (status := current.status(now)) in ("completed", "cancelled"):
        raise ConflictError(
            [Problem("event_id", current.event_id, f"this event is {status} and stays so", "Use a new event id.")]
        )


def _overlaps(wanted: Event, live: Iterable[Event]) -> Iterable[Problem]:
    if wanted.test_event:
        return
    for other in live:
        if other.event_id == wanted.event_id or other.test_event or other.signal_name != wanted.signal_name:
            continue
        shared = sorted(wanted.targets & other.targets)
        if shared and wanted.start < other.end and other.start < wanted.end:
            yield Problem(
                "start",
                wanted.start.isoformat(),
                f"overlaps event {other.event_id} of the same signal, {other.start.isoformat()} to "
                f"{other.end.isoformat()}, for {', '.join(shared)}",
                f"Choose other times, or change or cancel {other.event_id}.",
            )


def wire_id(event_id: str, ven_id: str) -> str:
    """The id of an event as one VEN sees it: unique per VEN, because answers carry nothing else to tell them apart."""
    return f"{event_id}:{ven_id}"


def event_id_of(wire: object, ven_id: str) -> str | None:
    """The event an id from the wire stands for, or None if it is not one that this VEN can have been given."""
    event_id, separator, owner = str(wire).rpartition(":")
    return event_id if separator and owner == ven_id else None


def status_for(event: Event, ven_id: str, now: datetime) -> Status:
    """Where an event stands for one VEN, which it may have been taken from."""
    return "cancelled" if ven_id in event.withdrawn else event.status(now)


def distribution(
    vtn_id: str, events: Iterable[Event], ven_id: str, now: datetime, name: str | None = None
) -> dict[str, Any]:
    """Payload of an oadrDistributeEvent: events for one VEN, active ones first, then by start.

    Args:
        name: what to write where the VEN's name stands; its name when left out.
    """
    name = name or ven_id
    standing = [(status_for(event, ven_id, now), event) for event in events]
    standing.sort(key=lambda pair: (pair[0] != "active", pair[1].start, pair[1].event_id))
    return {
        "vtn_id": vtn_id,
        "request_id": wire_id("distribution", name),
        "response": {"response_code": 200, "response_description": "OK", "request_id": ""},
        "events": [_on_the_wire(event, name, status) for status, event in standing],
    }


def _on_the_wire(event: Event, name: str, status: Status) -> Any:
    signal = event.signal
    starts = [event.start]
    for interval in event.intervals:
        starts.append(starts[-1] + interval.duration)
    made = objects.Event(
        event_descriptor=objects.EventDescriptor(
            event_id=wire_id(event.event_id, name),
            modification_number=event.modification_number,
            modification_date_time=event.modified_at,
            created_date_time=event.created_at,
            market_context=MARKET_CONTEXT,
            event_status=None,
            priority=event.priority,
            test_event=event.test_event,
        ),
        active_period=objects.ActivePeriod(dtstart=event.start, duration=event.duration),
        event_signals=[
            objects.EventSignal(
                signal_name=signal.name,
                signal_type=signal.type,
                signal_id=signal.name,
                intervals=[
                    objects.Interval(
                        dtstart=start, duration=interval.duration, signal_payload=signal.to_wire(interval.value)
                    )
                    for start, interval in zip(starts, event.intervals, strict=False)
                ],
                measurement=signal.measurement(),
            )
        ],
        targets=[{"ven_id": name}],
        response_required="always",
    )
    # objects.Event computes a status from the clock; ours knows about cancellation and about `now`.
    made.event_descriptor.event_status = status
    return made
