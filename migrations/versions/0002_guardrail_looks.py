"""Guardrails are tested more than once: at the end of each stage, and on a host at once.

A row says in which stage it was made, which planned look it was, when, and which host crossed a tripwire. Rows of
before are of the end of their runs.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0002"
down_revision = "0001"

WHOLE = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
INSTANT = sa.DateTime(timezone=True).with_variant(sqlite.TEXT(), "sqlite")
FOREIGN_KEY = "fk_guardrail_check_host_id_host"


def upgrade() -> None:
    op.add_column("guardrail_check", sa.Column("stage", WHOLE, nullable=True))
    op.add_column("guardrail_check", sa.Column("look", WHOLE, nullable=True))
    op.add_column("guardrail_check", sa.Column("checked_at", INSTANT, nullable=True))
    if op.get_bind().dialect.name == "sqlite":  # which takes a new foreign key with its column only
        op.execute(
            f"ALTER TABLE guardrail_check ADD COLUMN host_id INTEGER CONSTRAINT {FOREIGN_KEY} REFERENCES host (host_id)"
        )
    else:
        host = sa.Column("host_id", WHOLE, sa.ForeignKey("host.host_id", name=FOREIGN_KEY), nullable=True)
        op.add_column("guardrail_check", host)
