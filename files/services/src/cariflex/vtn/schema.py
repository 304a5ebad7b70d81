"""Tables of the VTN's store. The migrations make them; a test holds both together."""

from sqlalchemy import (
    ARRAY,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_name)s_idx",
        "uq": "%(table_name)s_%(column_0_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

ven = Table(
    "ven",
    metadata,
    Column("ven_id", Text, primary_key=True),
    Column("registration_id", Text),  # null: known, not registered
    Column("registered_at", DateTime(timezone=True)),
)

event = Table(
    "event",
    metadata,
    Column("event_id", Text, primary_key=True),
    Column("modification_number", Integer, nullable=False),  # of the current version
    Column("created_at", DateTime(timezone=True), nullable=False),
)

event_version = Table(
    "event_version",
    metadata,
    Column("event_id", Text, ForeignKey("event.event_id"), nullable=False),
    Column("modification_number", Integer, nullable=False),
    Column("signal_name", Text, nullable=False),
    Column("starts_at", DateTime(timezone=True), nullable=False),
    Column("ends_at", DateTime(timezone=True), nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("test_event", Boolean, nullable=False),
    Column("cancelled", Boolean, nullable=False),
    Column("modified_at", DateTime(timezone=True), nullable=False),
    Column("asked", ARRAY(Text), nullable=False, server_default=text("'{}'")),  # the targets as the operator named them
    PrimaryKeyConstraint("event_id", "modification_number"),
    CheckConstraint("ends_at > starts_at", name="period"),
    Index(None, "ends_at"),
)

_version_key = ["event_version.event_id", "event_version.modification_number"]

event_interval = Table(
    "event_interval",
    metadata,
    Column("event_id", Text, nullable=False),
    Column("modification_number", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    Column("seconds", Integer, nullable=False),
    Column("value", Double, nullable=False),  # in the operator's unit of the signal
    PrimaryKeyConstraint("event_id", "modification_number", "position"),
    ForeignKeyConstraint(["event_id", "modification_number"], _version_key),
    CheckConstraint("seconds > 0", name="seconds"),
)

event_target = Table(
    "event_target",
    metadata,
    Column("event_id", Text, nullable=False),
    Column("modification_number", Integer, nullable=False),
    Column("ven_id", Text, ForeignKey("ven.ven_id"), nullable=False),
    Column("withdrawn", Boolean, nullable=False),  # told that the event is cancelled, because a version left it out
    PrimaryKeyConstraint("event_id", "modification_number", "ven_id"),
    ForeignKeyConstraint(["event_id", "modification_number"], _version_key),
)

# Every answer of a VEN that said something new; the last one of a version counts.
opt = Table(
    "opt",
    metadata,
    Column("opt_id", Integer, Identity(always=True), primary_key=True),
    Column("event_id", Text, nullable=False),
    Column("modification_number", Integer, nullable=False),
    Column("ven_id", Text, ForeignKey("ven.ven_id"), nullable=False),
    Column("opt_type", Text, nullable=False),
    Column("received_at", DateTime(timezone=True), nullable=False),
    ForeignKeyConstraint(["event_id", "modification_number"], _version_key),
    CheckConstraint(text("opt_type IN ('optIn', 'optOut')"), name="opt_type"),
    Index(None, "event_id"),
)

# Events that ended long ago, out of the tables that every change reads: all versions with their opts in one document.
event_history = Table(
    "event_history",
    metadata,
    Column("event_id", Text, primary_key=True),
    Column("starts_at", DateTime(timezone=True), nullable=False),
    Column("versions", JSONB, nullable=False),
    Index(None, "starts_at"),
)

# EiOpt: what VENs say about their availability. An id is used once, also after it was cancelled.
opt_schedule = Table(
    "opt_schedule",
    metadata,
    Column("ven_id", Text, ForeignKey("ven.ven_id"), nullable=False),
    Column("opt_id", Text, nullable=False),
    Column("event_id", Text),  # no foreign key: events move to the history
    Column("schedule", JSONB, nullable=False),
    Column("ends_at", DateTime(timezone=True), nullable=False),  # of the last period, or of the event
    Column("received_at", DateTime(timezone=True), nullable=False),
    Column("cancelled_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("ven_id", "opt_id"),
    Index(None, "received_at"),
)

# EiReport: what VENs were asked to report. A value on the wire times factor is in unit.
report_point = Table(
    "report_point",
    metadata,
    Column("point_id", Integer, Identity(always=True), primary_key=True),
    Column("ven_id", Text, ForeignKey("ven.ven_id"), nullable=False),
    Column("report_name", Text, nullable=False),
    Column("specifier_id", Text, nullable=False),
    Column("r_id", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("resource_id", Text),
    Column("measurement", Text),
    Column("unit", Text),
    Column("factor", Double, nullable=False),
    Column("reading_type", Text, nullable=False),
    Column("granularity_seconds", Integer, nullable=False),
    Column("offered", Boolean, nullable=False),  # by the VEN's last registration of reports
    Column("registered_at", DateTime(timezone=True), nullable=False),
    UniqueConstraint("ven_id", "specifier_id", "r_id"),
)

report_datum = Table(
    "report_datum",
    metadata,
    Column("point_id", Integer, ForeignKey("report_point.point_id"), nullable=False),
    Column("starts_at", DateTime(timezone=True), nullable=False),
    Column("seconds", Double),
    Column("value", Double),
    Column("online", Boolean),
    Column("manual_override", Boolean),
    Column("quality", Text),
    PrimaryKeyConstraint("point_id", "starts_at"),
    Index(None, "starts_at"),
)
