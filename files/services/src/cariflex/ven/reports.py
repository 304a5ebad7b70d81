"""What the VEN reports to its VTN of the S2 resources: their power, their stored energy, and whether they are there.

openleadr's own reporting makes a job for each request, and another one with each registration. Here requests are plain
data that the session works through. Nothing is invented: of a device that is away there is no power and no energy,
and its status says offline.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from jinja2 import ChoiceLoader, DictLoader
from openleadr import enums, messaging, objects
from prometheus_client import Counter

from cariflex.ven.outbox import DeviceState
from cariflex.ven.settings import ReportedResource

log = logging.getLogger(__name__)

REPORTED = Counter("cariflex_ven_reported_values_total", "Values that the VTN has taken.", ["report"])
DROPPED = Counter("cariflex_ven_reports_dropped_total", "Values dropped: the VTN was away too long.")

SHORTEST, LONGEST = timedelta(seconds=10), timedelta(hours=1)  # the granularities that are offered
STALE_SECONDS = 90.0  # the CEM tells the state of a device every 30 s at least; one that is older is not known
BACKLOG = 10_000  # values kept for one request: with ten devices and a minute, some eight hours
MOST_REQUESTS = 20
MESSAGE_VALUES = 500  # in one message, some 250 kB

Name = Literal["TELEMETRY_USAGE", "TELEMETRY_STATUS"]

# openleadr's template, with a status where it knows numbers only.
_UPDATE = """\
<oadr:oadrSignedObject xmlns:oadr="http://openadr.org/oadr-2.0b/2012/07" oadr:Id="oadrSignedObject">
  <oadr:oadrUpdateReport ei:schemaVersion="2.0b" xmlns:ei="http://docs.oasis-open.org/ns/energyinterop/201110">
    <requestID xmlns="http://docs.oasis-open.org/ns/energyinterop/201110/payloads">{{ request_id }}</requestID>
    {% for report in reports %}
    <oadr:oadrReport xmlns:xcal="urn:ietf:params:xml:ns:icalendar-2.0">
      <xcal:dtstart><xcal:date-time>{{ report.dtstart|datetimeformat }}</xcal:date-time></xcal:dtstart>
      {% if report.intervals %}
      <strm:intervals xmlns:strm="urn:ietf:params:xml:ns:icalendar-2.0:stream">
        {% for interval in report.intervals %}
        <ei:interval>
          <xcal:dtstart><xcal:date-time>{{ interval.dtstart|datetimeformat }}</xcal:date-time></xcal:dtstart>
          <xcal:duration><xcal:duration>{{ interval.duration|timedeltaformat }}</xcal:duration></xcal:duration>
          <oadr:oadrReportPayload>
            <ei:rID>{{ interval.r_id }}</ei:rID>
            {% if interval.status %}
            <oadr:oadrPayloadResourceStatus>
              <oadr:oadrOnline>{{ interval.status.online|booleanformat }}</oadr:oadrOnline>
              <oadr:oadrManualOverride>false</oadr:oadrManualOverride>
              {% if interval.status.capacity %}
              <oadr:oadrLoadControlState>
                <oadr:oadrCapacity>
                  <oadr:oadrMin>{{ interval.status.capacity[0] }}</oadr:oadrMin>
                  <oadr:oadrMax>{{ interval.status.capacity[1] }}</oadr:oadrMax>
                  <oadr:oadrCurrent>{{ interval.status.capacity[2] }}</oadr:oadrCurrent>
                </oadr:oadrCapacity>
              </oadr:oadrLoadControlState>
              {% endif %}
            </oadr:oadrPayloadResourceStatus>
            {% else %}
            <ei:payloadFloat><ei:value>{{ interval.value }}</ei:value></ei:payloadFloat>
            {% endif %}
          </oadr:oadrReportPayload>
        </ei:interval>
        {% endfor %}
      </strm:intervals>
      {% endif %}
      <ei:eiReportID>{{ report.report_id }}</ei:eiReportID>
      <ei:reportRequestID>{{ report.report_request_id }}</ei:reportRequestID>
      <ei:reportSpecifierID>{{ report.report_specifier_id }}</ei:reportSpecifierID>
      <ei:reportName>{{ report.report_name }}</ei:reportName>
      <ei:createdDateTime>{{ report.created_date_time|datetimeformat }}</ei:createdDateTime>
    </oadr:oadrReport>
    {% endfor %}
    <ei:venID>{{ ven_id }}</ei:venID>
  </oadr:oadrUpdateReport>
</oadr:oadrSignedObject>
"""
messaging.TEMPLATES.loader = ChoiceLoader([DictLoader({"oadrUpdateReport.xml": _UPDATE}), messaging.TEMPLATES.loader])


class ReportError(Exception):
    """A request that cannot be met; the text says why, `code` is OpenADR's."""

    def __init__(self, reason: str, code: int = 452) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True)
class Status:
    """Whether a resource is there; least, most and present consumption as shares of the most."""

    online: bool
    capacity: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Value:
    """What one data point was at a time (seconds since 1970): a number or a status."""

    at: int
    r_id: str
    value: float | Status


@dataclass
class Request:
    """A report that the VTN wants. Times in seconds since 1970, spans in seconds."""

    request_id: str
    name: Name
    r_ids: frozenset[str]
    granularity: int  # 0: once, now
    back: int
    start: float
    end: float | None
    sampled: int  # the last time of the grid that was looked at
    due: float  # when the values are to be sent
    confirmed: bool = True  # asked for since the last registration
    values: deque[Value] = field(default_factory=lambda: deque(maxlen=BACKLOG))


class Reports:
    """The reports that are offered, those that the VTN wants, and the values that wait for it."""

    def __init__(
        self,
        resources: Mapping[str, ReportedResource],
        states: Callable[[], Mapping[str, DeviceState]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`states` tells what the CEM knows of the devices."""
        self._resources = resources
        self._states = states
        self._clock = clock
        self._requests: dict[str, Request] = {}

    def offered(self) -> list[dict[str, Any]]:
        """The reports in the form in which openleadr registers them; none without resources."""
        if not self._resources:
            return []
        power = replace(enums.MEASUREMENTS.POWER_REAL, scale="k")
        energy = replace(enums.MEASUREMENTS.ENERGY_REAL, scale="k")
        usage = [
            self._description(name, f"{name}:{what}", kind, "Direct Read", measurement)
            for name in self._resources
            for what, kind, measurement in (("power", "reading", power), ("energy", "storedEnergy", energy))
        ]
        status = [
            self._description(name, f"{name}:status", "x-resourceStatus", "x-notApplicable", None)
            for name in self._resources
        ]
        return [self._report("TELEMETRY_USAGE", usage), self._report("TELEMETRY_STATUS", status)]

    def _report(self, name: Name, descriptions: list[Any]) -> dict[str, Any]:
        return {
            "report_name": f"METADATA_{name}",
            "report_specifier_id": name,
            "report_request_id": 0,
            "report_descriptions": descriptions,
            "duration": LONGEST,
            "created_date_time": self._moment(self._clock()),
        }

    @staticmethod
    def _description(resource: str, r_id: str, kind: str, reading: str, measurement: Any) -> dict[str, Any]:
        return {
            "r_id": r_id,
            "report_type": kind,
            "reading_type": reading,
            "report_data_source": {"resource_id": resource},
            "report_subject": None,
            "market_context": None,
            "measurement": None if measurement is None else asdict(measurement),
            "sampling_rate": asdict(objects.SamplingRate(SHORTEST, LONGEST, on_change=False)),
        }

    def registered(self) -> None:
        """A new registration: what the VTN wanted before is sent only once it wants it again."""
        for request in self._requests.values():
            request.confirmed = False

    def pending(self) -> list[str]:
        """The ids of the requests that are being met."""
        return [request.request_id for request in self._requests.values() if request.confirmed]

    def request(self, wanted: Mapping[str, Any]) -> None:
        """Take a request as openleadr parses it; one with a known id takes the place of the earlier one.

        Raises:
            ReportError: it asks for what was not offered.
        """
        request_id = str(wanted["report_request_id"])
        specifier = wanted["report_specifier"]
        name = specifier["report_specifier_id"]
        if name not in ("TELEMETRY_USAGE", "TELEMETRY_STATUS"):
            raise ReportError(f"there is no report {name!r}")
        known = self._points(name)
        r_ids = frozenset(str(payload["r_id"]) for payload in specifier["specifier_payloads"])
        if not r_ids or r_ids - known:
            raise ReportError(f"the report {name} has no data point {', '.join(sorted(r_ids - known)) or 'none'}")
        granularity, back = _span(specifier.get("granularity")), _span(specifier.get("report_back_duration"))
        if granularity and not SHORTEST.total_seconds() <= granularity <= LONGEST.total_seconds():
            raise ReportError(f"the granularity is {granularity} s; {SHORTEST} to {LONGEST} are offered", 454)
        now = self._clock()
        start, end = _interval(specifier.get("report_interval"), now)
        earlier = self._requests.pop(request_id, None)
        if len(self._requests) >= MOST_REQUESTS:
            raise ReportError(f"more than {MOST_REQUESTS} reports are wanted at once", 459)
        sampled = int(now) // granularity * granularity if granularity else 0
        request = Request(request_id, name, r_ids, granularity, max(back, granularity), start, end, sampled, now)
        request.due = _next(now, request.back)
        # What was gathered while the VTN was away, also under another id, is for whoever asks again.
        for other in [earlier] if earlier else [r for r in self._requests.values() if not r.confirmed]:
            if other.name == name and other.r_ids == r_ids:
                request.values.extend(other.values)
                self._requests.pop(other.request_id, None)
        self._requests[request_id] = request
        log.info(
            "report requested",
            extra={"report_request_id": request_id, "report": name, "granularity_seconds": granularity},
        )

    def cancel(self, request_id: str, *, report_to_follow: bool) -> None:
        """Stop meeting a request; with `report_to_follow` what is there is sent a last time.

        Raises:
            ReportError: there is no such request.
        """
        request = self._requests.get(request_id)
        if request is None:
            raise ReportError(f"there is no report request {request_id!r}")
        log.info("report cancelled", extra={"report_request_id": request_id})
        request.end = request.due = self._clock()
        if not report_to_follow:
            del self._requests[request_id]

    def sample(self) -> None:
        """Take the values of every request whose time has come; called once a second."""
        now = self._clock()
        states = self._states()
        for request in self._requests.values():
            at = int(now) // request.granularity * request.granularity if request.granularity else int(now)
            if at <= request.sampled or now < request.start or (request.end is not None and at > request.end):
                continue
            request.sampled = at
            values = list(self._values(request, states, at))
            DROPPED.inc(max(0, len(request.values) + len(values) - BACKLOG))
            request.values.extend(values)
            if not request.granularity:
                request.end = request.due = now

    def due(self) -> Iterator[tuple[Request, list[Value]]]:
        """The requests that are to be sent to now, each with the oldest of its values; ended ones leave."""
        now = self._clock()
        for request in list(self._requests.values()):
            if not request.confirmed or now < request.due:
                continue
            if request.values:
                yield request, [request.values[n] for n in range(min(len(request.values), MESSAGE_VALUES))]
            if request.values:
                continue  # the VTN did not take all
            if request.end is not None and request.end <= now:
                self._requests.pop(request.request_id, None)
            else:
                request.due = _next(now, request.back)

    def message(self, request: Request, values: list[Value]) -> dict[str, Any]:
        """An oadrReport, as the template renders it."""
        span = timedelta(seconds=request.granularity)
        return {
            "report_id": f"{request.request_id}-{values[0].at}",
            "report_request_id": request.request_id,
            "report_specifier_id": request.name,
            "report_name": request.name,
            "created_date_time": self._moment(self._clock()),
            "dtstart": self._moment(min(value.at for value in values)),
            "intervals": [
                {
                    "dtstart": self._moment(value.at),
                    "duration": span,
                    "r_id": value.r_id,
                    "status": value.value if isinstance(value.value, Status) else None,
                    "value": value.value,
                }
                for value in values
            ],
        }

    def sent(self, request: Request, values: list[Value]) -> None:
        """The VTN has taken values."""
        for value in values:
            if request.values and request.values[0] is value:  # while it was sent, the backlog may have dropped it
                request.values.popleft()
        REPORTED.labels(request.name).inc(len(values))

    def refused(self, request: Request, values: list[Value], reason: str, *, unknown: bool) -> None:
        """The VTN does not want values, or (`unknown`) does not know the request."""
        log.warning("report refused", extra={"report_request_id": request.request_id, "reason": reason})
        if unknown:
            self._requests.pop(request.request_id, None)
        else:
            self.sent(request, values)

    def _points(self, name: Name) -> frozenset[str]:
        whats = ("power", "energy") if name == "TELEMETRY_USAGE" else ("status",)
        return frozenset(f"{resource}:{what}" for resource in self._resources for what in whats)

    def _values(self, request: Request, states: Mapping[str, DeviceState], at: int) -> Iterator[Value]:
        for name, resource in self._resources.items():
            state = states.get(name)
            there = state is not None and state.connected and self._clock() - state.at <= STALE_SECONDS
            power = state.power_kw if state and there and _finite(state.power_kw) else None
            energy = state.stored_kwh if state and there and _finite(state.stored_kwh) else None
            most = max(resource.max_kw, -resource.min_kw)
            present = None if power is None else (resource.min_kw / most, resource.max_kw / most, power / most)
            for what, value in (("power", power), ("energy", energy), ("status", Status(there, present))):
                if value is not None and f"{name}:{what}" in request.r_ids:
                    yield Value(at, f"{name}:{what}", value)

    @staticmethod
    def _moment(seconds: float) -> datetime:
        return datetime.fromtimestamp(int(seconds), UTC)


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _next(now: float, period: int) -> float:
    """The next time of the grid of a period; at once without one."""
    return now if not period else (int(now) // period + 1) * period


def _span(duration: object) -> int:
    if duration is None:
        return 0
    if not isinstance(duration, timedelta) or not timedelta(0) <= duration <= timedelta(days=366):
        raise ReportError(f"the duration {duration!r} is not understood", 454)
    return math.ceil(duration.total_seconds())


def _interval(interval: Any, now: float) -> tuple[float, float | None]:
    """Start and end of a report interval; without one, or with a duration of zero, it goes on for ever."""
    start = interval.get("dtstart") if isinstance(interval, Mapping) else None
    if not isinstance(start, datetime) or start.tzinfo is None:
        return now, None
    duration = _span(interval.get("duration"))
    return start.timestamp(), start.timestamp() + duration if duration else None
