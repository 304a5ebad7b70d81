"""The first form of the store: VENs, events with versions, intervals and targets, opts."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    moment = sa.DateTime(timezone=True)
    version_key = ["event_version.event_id", "event_version.modification_number"]
    op.create_table(
        "ven",
        sa.Column("ven_id", sa.Text),
        sa.Column("registration_id", sa.Text),
        sa.Column("registered_at", moment),
        sa.PrimaryKeyConstraint("ven_id", name="ven_pkey"),
    )
    op.create_table(
        "event",
        sa.Column("event_id", sa.Text),
        sa.Column("modification_number", sa.Integer, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("event_id", name="event_pkey"),
    )
    op.create_table(
        "event_version",
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("modification_number", sa.Integer, nullable=False),
        sa.Column("signal_name", sa.Text, nullable=False),
        sa.Column("starts_at", moment, nullable=False),
        sa.Column("ends_at", moment, nullable=False),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("test_event", sa.Boolean, nullable=False),
        sa.Column("cancelled", sa.Boolean, nullable=False),
        sa.Column("modified_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("event_id", "modification_number", name="event_version_pkey"),
        sa.ForeignKeyConstraint(["event_id"], ["event.event_id"], name="event_version_event_id_fkey"),
        sa.CheckConstraint("ends_at > starts_at", name=op.f("event_version_period_check")),
    )
    op.create_index("event_version_ends_at_idx", "event_version", ["ends_at"])
    op.create_table(
        "event_interval",
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("modification_number", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("seconds", sa.Integer, nullable=False),
        sa.Column("value", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("event_id", "modification_number", "position", name="event_interval_pkey"),
        sa.ForeignKeyConstraint(["event_id", "modification_number"], version_key, name="event_interval_event_id_fkey"),
        sa.CheckConstraint("seconds > 0", name=op.f("event_interval_seconds_check")),
    )
    op.create_table(
        "event_target",
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("modification_number", sa.Integer, nullable=False),
        sa.Column("ven_id", sa.Text, nullable=False),
        sa.Column("withdrawn", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("event_id", "modification_number", "ven_id", name="event_target_pkey"),
        sa.ForeignKeyConstraint(["event_id", "modification_number"], version_key, name="event_target_event_id_fkey"),
        sa.ForeignKeyConstraint(["ven_id"], ["ven.ven_id"], name="event_target_ven_id_fkey"),
    )
    op.create_table(
        "opt",
        sa.Column("opt_id", sa.Integer, sa.Identity(always=True)),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("modification_number", sa.Integer, nullable=False),
        sa.Column("ven_id", sa.Text, nullable=False),
        sa.Column("opt_type", sa.Text, nullable=False),
        sa.Column("received_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("opt_id", name="opt_pkey"),
        sa.ForeignKeyConstraint(["event_id", "modification_number"], version_key, name="opt_event_id_fkey"),
        sa.ForeignKeyConstraint(["ven_id"], ["ven.ven_id"], name="opt_ven_id_fkey"),
        sa.CheckConstraint("opt_type IN ('optIn', 'optOut')", name=op.f("opt_opt_type_check")),
    )
    op.create_index("opt_event_id_idx", "opt", ["event_id"])
