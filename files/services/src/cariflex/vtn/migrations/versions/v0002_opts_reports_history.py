"""Groups as targets, opt schedules, reports, and the history of events."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add to the tables; nothing that is there changes."""
    moment = sa.DateTime(timezone=True)
    asked: sa.Column[list[str]] = sa.Column("asked", sa.ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'"))
    op.add_column("event_version", asked)
    op.create_table(
        "event_history",
        sa.Column("event_id", sa.Text),
        sa.Column("starts_at", moment, nullable=False),
        sa.Column("versions", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("event_id", name="event_history_pkey"),
    )
    op.create_index("event_history_starts_at_idx", "event_history", ["starts_at"])
    op.create_table(
        "opt_schedule",
        sa.Column("ven_id", sa.Text, nullable=False),
        sa.Column("opt_id", sa.Text, nullable=False),
        sa.Column("event_id", sa.Text),
        sa.Column("schedule", JSONB, nullable=False),
        sa.Column("ends_at", moment, nullable=False),
        sa.Column("received_at", moment, nullable=False),
        sa.Column("cancelled_at", moment),
        sa.PrimaryKeyConstraint("ven_id", "opt_id", name="opt_schedule_pkey"),
        sa.ForeignKeyConstraint(["ven_id"], ["ven.ven_id"], name="opt_schedule_ven_id_fkey"),
    )
    op.create_index("opt_schedule_received_at_idx", "opt_schedule", ["received_at"])
    op.create_table(
        "report_point",
        sa.Column("point_id", sa.Integer, sa.Identity(always=True)),
        sa.Column("ven_id", sa.Text, nullable=False),
        sa.Column("report_name", sa.Text, nullable=False),
        sa.Column("specifier_id", sa.Text, nullable=False),
        sa.Column("r_id", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("resource_id", sa.Text),
        sa.Column("measurement", sa.Text),
        sa.Column("unit", sa.Text),
        sa.Column("factor", sa.Double, nullable=False),
        sa.Column("reading_type", sa.Text, nullable=False),
        sa.Column("granularity_seconds", sa.Integer, nullable=False),
        sa.Column("offered", sa.Boolean, nullable=False),
        sa.Column("registered_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("point_id", name="report_point_pkey"),
        sa.ForeignKeyConstraint(["ven_id"], ["ven.ven_id"], name="report_point_ven_id_fkey"),
        sa.UniqueConstraint("ven_id", "specifier_id", "r_id", name="report_point_ven_id_key"),
    )
    op.create_table(
        "report_datum",
        sa.Column("point_id", sa.Integer, nullable=False),
        sa.Column("starts_at", moment, nullable=False),
        sa.Column("seconds", sa.Double),
        sa.Column("value", sa.Double),
        sa.Column("online", sa.Boolean),
        sa.Column("manual_override", sa.Boolean),
        sa.Column("quality", sa.Text),
        sa.PrimaryKeyConstraint("point_id", "starts_at", name="report_datum_pkey"),
        sa.ForeignKeyConstraint(["point_id"], ["report_point.point_id"], name="report_datum_point_id_fkey"),
    )
    op.create_index("report_datum_starts_at_idx", "report_datum", ["starts_at"])
