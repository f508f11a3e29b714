"""What each metric of perf events really counted on each host of a run. Of runs of before it is not known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0007"
down_revision = "0006"

TEXT = sa.Text()
WHOLE = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
KEY = ("run_id", "host_id", "metric", "event", "encoding")


def upgrade() -> None:
    op.create_table(
        "counted_event",
        sa.Column("run_id", WHOLE, sa.ForeignKey("run.run_id", name="fk_counted_event_run_id_run"), nullable=False),
        sa.Column(
            "host_id", WHOLE, sa.ForeignKey("host.host_id", name="fk_counted_event_host_id_host"), nullable=False
        ),
        sa.Column("metric", TEXT, nullable=False),
        sa.Column("event", TEXT, nullable=False),
        sa.Column("encoding", TEXT, nullable=False),
        sa.Column("pmu", TEXT, nullable=False),
        sa.Column("scope", TEXT, nullable=False),
        sa.Column("meaning", TEXT, nullable=False),
        sa.PrimaryKeyConstraint(*KEY, name="pk_counted_event"),
        sqlite_strict=True,
    )
    op.create_index("ix_counted_event_host_id", "counted_event", ["host_id"])
