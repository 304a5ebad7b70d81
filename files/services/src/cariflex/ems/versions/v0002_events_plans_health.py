"""Events with their opts, runs of the schedules, samples of health, backups and restore drills."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables."""
    _events()
    _plans()
    _health()
    _backups()


def _events() -> None:
    op.create_table(
        "openadr_event",
        sa.Column("ven", sa.Text, primary_key=True),
        sa.Column("event_id", sa.Text, primary_key=True),
        sa.Column("modification_number", sa.Integer, primary_key=True),
        sa.Column("signal", sa.Text, comment="null: not understood"),
        sa.Column("status", sa.Text, nullable=False, comment="as the VTN told it: far, near, active …"),
        sa.Column("test_event", sa.Boolean, nullable=False),
        sa.Column("starts_at", _MOMENT),
        sa.Column("ends_at", _MOMENT),
        sa.Column("intervals", postgresql.JSONB, nullable=False, comment="list of seconds and value"),
        sa.Column("created_at", _MOMENT, comment="by the VTN"),
        sa.Column("received_at", _MOMENT, nullable=False),
        sa.Column("answered_at", _MOMENT, nullable=False),
        schema="ems",
    )
    op.create_index("openadr_event_received_at_idx", "openadr_event", ["received_at"], schema="ems")
    op.create_table(
        "openadr_opt",
        sa.Column("ven", sa.Text, primary_key=True),
        sa.Column("event_id", sa.Text, primary_key=True),
        sa.Column("modification_number", sa.Integer, primary_key=True),
        sa.Column("time", _MOMENT, primary_key=True),
        sa.Column("opt_type", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, comment="why optOut"),
        sa.CheckConstraint("opt_type IN ('optIn', 'optOut')", name="openadr_opt_type_check"),
        schema="ems",
    )
    op.create_index("openadr_opt_time_idx", "openadr_opt", ["time"], schema="ems")


def _plans() -> None:
    op.create_table(
        "schedule_run",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("started_at", _MOMENT, nullable=False),
        sa.Column("finished_at", _MOMENT, comment="null: under way"),
        sa.Column("trigger", sa.Text, nullable=False, comment="what made it necessary"),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("horizon_start", _MOMENT),
        sa.Column("horizon_end", _MOMENT),
        sa.Column("devices", sa.Integer),
        sa.Column("solver_seconds", sa.Double),
        sa.Column("cost_eur", sa.Double),
        sa.Column("baseline_cost_eur", sa.Double, comment="of doing nothing"),
        sa.Column("energy_kwh", sa.Double),
        sa.Column("baseline_energy_kwh", sa.Double),
        sa.Column("peak_kw", sa.Double),
        sa.Column("baseline_peak_kw", sa.Double),
        schema="ems",
    )
    op.create_index("schedule_run_started_at_idx", "schedule_run", ["started_at"], schema="ems")


def _health() -> None:
    op.create_table(
        "health_sample",
        sa.Column("time", _MOMENT, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True, comment="container, host, queue or certificate"),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("status", sa.Text, nullable=False, comment="ok, or what is wrong in a word"),
        sa.Column("detail", sa.Text, comment="what is wrong in a sentence"),
        sa.Column("cpu", sa.Double, comment="cores in use"),
        sa.Column("memory_bytes", sa.BigInteger),
        sa.Column("memory_limit_bytes", sa.BigInteger, comment="null: none"),
        sa.Column("restarts", sa.Integer),
        sa.Column("disk_used_fraction", sa.Double),
        sa.Column("certificate_days", sa.Double, comment="left"),
        sa.Column("outbox_age_seconds", sa.Double),
        sa.Column("waiting", sa.Integer, comment="jobs in the queue, rows in the outbox"),
        sa.Column("failed", sa.Integer, comment="jobs that failed, rows set aside"),
        sa.CheckConstraint("kind IN ('container', 'host', 'queue', 'certificate')", name="health_sample_kind_check"),
        sa.CheckConstraint("disk_used_fraction BETWEEN 0 AND 1", name="health_sample_disk_check"),
        schema="ems",
    )
    op.create_index("health_sample_name_idx", "health_sample", ["kind", "name", "time"], schema="ems")


def _backups() -> None:
    op.create_table(
        "backup_run",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("started_at", _MOMENT, nullable=False),
        sa.Column("finished_at", _MOMENT, comment="null: under way"),
        sa.Column("status", sa.Text, nullable=False, comment="running, ok or failed"),
        sa.Column("archive", sa.Text, comment="its name"),
        sa.Column("bytes", sa.BigInteger),
        sa.Column("seconds", sa.Double),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("error", sa.Text),
        sa.CheckConstraint("status IN ('running', 'ok', 'failed')", name="backup_run_status_check"),
        sa.CheckConstraint("kind IN ('full', 'wal', 'offsite')", name="backup_run_kind_check"),
        schema="ems",
    )
    op.create_index("backup_run_started_at_idx", "backup_run", ["started_at"], schema="ems")
    op.create_table(
        "drill_run",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("started_at", _MOMENT, nullable=False),
        sa.Column("finished_at", _MOMENT, comment="null: under way"),
        sa.Column("status", sa.Text, nullable=False, comment="running, ok or failed"),
        sa.Column("archive", sa.Text, comment="the one that was restored"),
        sa.Column("seconds", sa.Double, comment="of the restore"),
        sa.Column("differences", sa.Integer, comment="between the restored database and the archive's manifest"),
        sa.Column("error", sa.Text),
        sa.CheckConstraint("status IN ('running', 'ok', 'failed')", name="drill_run_status_check"),
        schema="ems",
    )
    op.create_index("drill_run_started_at_idx", "drill_run", ["started_at"], schema="ems")
