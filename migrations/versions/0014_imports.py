"""Runs that were imported: where a run comes from, since when a host is changed, and what was read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0014"
down_revision = "0009"

TEXT = sa.Text()
WHOLE = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
INSTANT = sa.DateTime(timezone=True).with_variant(sqlite.TEXT(), "sqlite")


def upgrade() -> None:
    op.add_column("run", sa.Column("origin", TEXT, nullable=False, server_default="fleet"))
    op.add_column("assignment", sa.Column("changed_at", INSTANT, nullable=True))
    op.create_table(
        "import_source",
        sa.Column("run_id", WHOLE, sa.ForeignKey("run.run_id", name="fk_import_source_run_id_run"), nullable=False),
        sa.Column("position", WHOLE, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("size_bytes", WHOLE, nullable=True),
        sa.Column("question", TEXT, nullable=False),
        sa.Column("rows", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "position", name="pk_import_source"),
        sqlite_strict=True,
    )
