"""Instructions to S2 devices with what became of them, and the devices' states."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "s2_instruction",
        sa.Column("instruction_id", sa.Uuid, primary_key=True),
        sa.Column("resource", sa.Text, nullable=False),
        sa.Column("execution_time", moment, nullable=False),
        sa.Column("power_kw", sa.Double, nullable=False, comment="+ is consumption"),
        sa.Column("limit_kw", sa.Double, comment="the upper limit that held; null: none"),
        sa.Column("factor", sa.Double, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False, comment="own, plan, charge or dispatch"),
        sa.Column("event_ids", sa.ARRAY(sa.Text), nullable=False),
        sa.Column("status", sa.Text, nullable=False, comment="the last one"),
        sa.Column("changed_at", moment, nullable=False),
        sa.Column("sent_at", moment),
        sa.Column("accepted_at", moment),
        sa.Column("started_at", moment),
        sa.Column("ended_at", moment, comment="succeeded, or the status that ended it"),
        sa.CheckConstraint("factor BETWEEN 0 AND 1", name="s2_instruction_factor_check"),
        schema="ems",
    )
    op.create_index("s2_instruction_execution_time_idx", "s2_instruction", ["execution_time"], schema="ems")
    op.create_table(
        "s2_status",
        sa.Column("resource", sa.Text, primary_key=True),
        sa.Column("time", moment, primary_key=True),
        sa.Column("power_kw", sa.Double, comment="+ is consumption"),
        sa.Column("stored_kwh", sa.Double),
        sa.Column("fill_level", sa.Double, comment="in the device's own unit"),
        sa.Column("connected", sa.Boolean, nullable=False),
        sa.Column("limit_kw", sa.Double, comment="the upper limit that held; null: none"),
        schema="ems",
    )
    op.create_index("s2_status_time_idx", "s2_status", ["time"], schema="ems")
