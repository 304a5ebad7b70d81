"""What the VTN wants VENs to report, and what it keeps of it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from openleadr import objects

from cariflex.durations import format_duration
from cariflex.openadr.incoming import Datum, OfferedReport, OptSchedule, Point

MOST_POINTS = 1000  # of one VEN
MOST_OPTS = 1000  # of one VEN
MOST_VALUES = 5_000_000  # of one VEN: 1000 points at a minute for three and a half days
LATEST = timedelta(days=1)  # how far in the future a value may lie: clocks differ, and forecasts are not asked for


@dataclass(frozen=True)
class WantedReport:
    """A report that the VTN asks a VEN for. `request_id` is the same after every registration."""

    offered: OfferedReport
    granularity: timedelta

    @property
    def request_id(self) -> str:
        """Begins with letters: openleadr's VEN turns what looks like a number into one."""
        return f"request-{self.offered.specifier_id}"

    def on_the_wire(self) -> Any:
        """The request as openleadr renders it."""
        payloads = [objects.SpecifierPayload(r_id=p.r_id, reading_type=p.reading_type) for p in self.offered.points]
        specifier = objects.ReportSpecifier(
            report_specifier_id=self.offered.specifier_id,
            granularity=self.granularity,
            report_back_duration=self.granularity,
            specifier_payloads=payloads,
        )
        return objects.ReportRequest(report_request_id=self.request_id, report_specifier=specifier)


def wanted(offered: list[OfferedReport], granularities: Mapping[Any, timedelta]) -> list[WantedReport]:
    """What to ask for of what a VEN offers, at the granularity that comes nearest to the wish."""
    return [
        WantedReport(report, max(report.shortest, min(report.longest, granularities[report.name])))
        for report in offered
        if report.name in granularities and report.points
    ]


@dataclass(frozen=True)
class KeptOpt:
    """An opt schedule as the store keeps it; `event_id` is the operator's."""

    ven_id: str
    schedule: OptSchedule
    received_at: datetime
    event_id: str | None = None
    cancelled_at: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        """The form in which the API shows it."""
        return {
            "ven_id": self.ven_id,
            "opt_id": self.schedule.opt_id,
            "opt_type": self.schedule.opt_type,
            "reason": self.schedule.reason,
            "market_context": self.schedule.market_context,
            "event_id": self.event_id,
            "modification_number": self.schedule.modification_number,
            "resources": list(self.schedule.resources),
            "periods": [
                {"start": period.start.isoformat(), "duration": format_duration(period.duration)}
                for period in self.schedule.periods
            ],
            "created_at": self.schedule.created_at.isoformat(),
            "received_at": self.received_at.isoformat(),
            "cancelled_at": self.cancelled_at.isoformat() if self.cancelled_at else None,
        }


@dataclass(frozen=True)
class KeptPoint:
    """A point of a report that a VEN was asked for; `offered` tells whether its last registration has it."""

    ven_id: str
    report_name: str
    specifier_id: str
    point: Point
    granularity: timedelta
    offered: bool
    registered_at: datetime
    last_value_at: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        """The form in which the API shows it."""
        return {
            "ven_id": self.ven_id,
            "report_name": self.report_name,
            "specifier_id": self.specifier_id,
            "r_id": self.point.r_id,
            "resource_id": self.point.resource_id,
            "measurement": self.point.measurement,
            "unit": self.point.unit,
            "reading_type": self.point.reading_type,
            "granularity": format_duration(self.granularity),
            "offered": self.offered,
            "registered_at": self.registered_at.isoformat(),
            "last_value_at": self.last_value_at.isoformat() if self.last_value_at else None,
        }


@dataclass(frozen=True)
class Reported:
    """A value in the unit of its point."""

    ven_id: str
    report_name: str
    resource_id: str | None
    unit: str | None
    datum: Datum

    def as_dict(self) -> dict[str, Any]:
        """The form in which the API shows it."""
        return {
            "ven_id": self.ven_id,
            "report_name": self.report_name,
            "r_id": self.datum.r_id,
            "resource_id": self.resource_id,
            "start": self.datum.start.isoformat(),
            "duration": format_duration(self.datum.duration) if self.datum.duration else None,
            "value": self.datum.value,
            "unit": self.unit,
            "online": self.datum.online,
            "manual_override": self.datum.manual_override,
            "quality": self.datum.quality,
        }


@dataclass(frozen=True)
class ValueQuery:
    """Which reported values are asked for; None leaves a side open."""

    ven_id: str | None = None
    resource_id: str | None = None
    report_name: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    limit: int = 1000
