"""What a metrics' server was asked in a run, and which periods have a value by it. Runs of before asked none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql, sqlite

revision = "0013"
down_revision = "0012"

TEXT = sa.Text()
WHOLE = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
REAL = sa.Double().with_variant(sqlite.REAL(), "sqlite")
INSTANT = sa.DateTime(timezone=True).with_variant(sqlite.TEXT(), "sqlite")
DOCUMENT = postgresql.JSON(none_as_null=True).with_variant(sqlite.TEXT(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "central_answer",
        sa.Column("central_answer_id", WHOLE, nullable=False),
        sa.Column("run_id", WHOLE, sa.ForeignKey("run.run_id", name="fk_central_answer_run_id_run"), nullable=False),
        sa.Column("metric", TEXT, nullable=False),
        sa.Column("server", TEXT, nullable=False),
        sa.Column("promql", TEXT, nullable=False),
        sa.Column("start_at", INSTANT, nullable=False),
        sa.Column("end_at", INSTANT, nullable=False),
        sa.Column("step_seconds", REAL, nullable=False),
        sa.Column("asked_at", INSTANT, nullable=False),
        sa.Column("took_seconds", REAL, nullable=False),
        sa.Column("outcome", TEXT, nullable=False),
        sa.Column("detail", TEXT, nullable=False),
        sa.Column("warnings", DOCUMENT, nullable=False),
        sa.Column("series", WHOLE, nullable=False),
        sa.Column("size_bytes", WHOLE, nullable=False),
        sa.Column("sha256", TEXT, nullable=True),
        sa.Column("ahead_seconds", REAL, nullable=True),
        sa.Column("ahead_error_seconds", REAL, nullable=True),
        sa.PrimaryKeyConstraint("central_answer_id", name="pk_central_answer"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_index("ix_central_answer_run_id", "central_answer", ["run_id"])
    op.create_table(
        "central_value",
        sa.Column(
            "period_id",
            WHOLE,
            sa.ForeignKey("period.period_id", name="fk_central_value_period_id_period"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("metric", TEXT, nullable=False),
        sa.Column("due", WHOLE, nullable=False),
        sa.Column("read", WHOLE, nullable=False),
        sa.Column("gap", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("period_id", "metric", name="pk_central_value"),
        sqlite_strict=True,
    )
