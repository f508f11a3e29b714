"""How huge page sizes behaved on a host under a kernel: what a trial found, and what an experiment may require."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql, sqlite

revision = "0011"
down_revision = "0010"

TEXT = sa.Text()
WHOLE = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
REAL = sa.Double().with_variant(sqlite.REAL(), "sqlite")
INSTANT = sa.DateTime(timezone=True).with_variant(sqlite.TEXT(), "sqlite")
DOCUMENT = postgresql.JSON(none_as_null=True).with_variant(sqlite.TEXT(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "conformance",
        sa.Column("conformance_id", WHOLE, nullable=False),
        sa.Column("host", TEXT, nullable=False),
        sa.Column("kernel", TEXT, nullable=False),
        sa.Column("architecture", TEXT, nullable=False),
        sa.Column("boot_id", TEXT, nullable=False),
        sa.Column("size_kib", WHOLE, nullable=False),
        sa.Column("begun_at", INSTANT, nullable=False),
        sa.Column("begun_by", TEXT, nullable=False),
        sa.Column("ended_at", INSTANT),
        sa.Column("given_up", TEXT),
        sa.PrimaryKeyConstraint("conformance_id", name="pk_conformance"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_index("ix_conformance_host_size_kib", "conformance", ["host", "size_kib"])
    op.create_table(
        "conformance_result",
        sa.Column(
            "conformance_id",
            WHOLE,
            sa.ForeignKey("conformance.conformance_id", name="fk_conformance_result_conformance_id_conformance"),
            nullable=False,
        ),
        sa.Column("scenario", TEXT, nullable=False),
        sa.Column("verdict", TEXT, nullable=False),
        sa.Column("cause", TEXT, nullable=False),
        sa.Column("detail", TEXT, nullable=False),
        sa.Column("seconds", REAL, nullable=False),
        sa.Column("attempts", WHOLE, nullable=False),
        sa.Column("found", DOCUMENT, nullable=False),
        sa.PrimaryKeyConstraint("conformance_id", "scenario", name="pk_conformance_result"),
        sqlite_strict=True,
    )
