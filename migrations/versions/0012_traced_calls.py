"""What the kernel was called for with big pages, by function, program and cause, in periods that were traced."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0012"
down_revision = "0011"

TEXT = sa.Text()
WHOLE = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
REAL = sa.Double().with_variant(sqlite.REAL(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "traced_call",
        sa.Column(
            "period_id",
            WHOLE,
            sa.ForeignKey("period.period_id", name="fk_traced_call_period_id_period"),
            nullable=False,
            autoincrement=False,
        ),
        sa.Column("function", TEXT, nullable=False),
        sa.Column("program", TEXT, nullable=False),
        sa.Column("cause", TEXT, nullable=False),
        sa.Column("calls", WHOLE, nullable=False),
        sa.Column("timed", WHOLE, nullable=False),
        sa.Column("seconds", REAL, nullable=True),
        sa.Column("longest_seconds", REAL, nullable=True),
        sa.PrimaryKeyConstraint("period_id", "function", "program", "cause", name="pk_traced_call"),
        sqlite_strict=True,
    )
