"""Surveys of hosts: what huge pages of each size would back and add, process by process. Of before there are none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql, sqlite

revision = "0010"
down_revision = "0009"

TEXT = sa.Text()
WHOLE = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
REAL = sa.Double().with_variant(sqlite.REAL(), "sqlite")
DOCUMENT = postgresql.JSON(none_as_null=True).with_variant(sqlite.TEXT(), "sqlite")
INSTANT = sa.DateTime(timezone=True).with_variant(sqlite.TEXT(), "sqlite")
OF_HOST = (
    "memory_total_bytes",
    "base_page_bytes",
    "pmd_kib",
    "small_processes",
    "small_anon_bytes",
    "looked_at_bytes",
)
OF_PROCESS = ("anon_bytes", "swap_bytes", "span_bytes", "page_table_bytes", "forked_children")
SEEN_OF_PROCESS = ("refused_bytes", "huge_bytes", "shared_bytes")
OF_SIZE = ("extents", "cut_extents", "whole_at_most", "growth_at_most_bytes")
SEEN_OF_SIZE = (
    "whole",
    "mostly",
    "partly",
    "resident_bytes",
    "growth_bytes",
    "tables_saved_bytes",
    "deposit_bytes",
)


def _wholes(names: tuple[str, ...], *, nullable: bool = False) -> list[sa.Column[int]]:
    return [sa.Column(name, WHOLE, nullable=nullable) for name in names]


def _survey(table: str) -> sa.Column[int]:
    key = sa.ForeignKey("page_survey.page_survey_id", name=f"fk_{table}_page_survey_id_page_survey")
    return sa.Column("page_survey_id", WHOLE, key, autoincrement=False, nullable=False)


def upgrade() -> None:
    host = sa.ForeignKey("host.host_id", name="fk_page_survey_host_id_host")
    op.create_table(
        "page_survey",
        sa.Column("page_survey_id", WHOLE, primary_key=True),
        sa.Column("host_id", WHOLE, host, nullable=False),
        sa.Column("taken_at", INSTANT, nullable=False),
        sa.Column("boot_id", TEXT, nullable=False),
        sa.Column("kernel", TEXT, nullable=False),
        *_wholes(OF_HOST),
        sa.Column("forks_per_second", REAL, nullable=True),
        sa.Column("cpu_seconds", REAL, nullable=False),
        sa.Column("wall_seconds", REAL, nullable=False),
        sa.Column("splitting_sizes_kib", DOCUMENT, nullable=False),
        sa.Column("sizes", DOCUMENT, nullable=False),
        sa.Column("readers", DOCUMENT, nullable=False),
        sa.UniqueConstraint("host_id", "taken_at", name="uq_page_survey_host_id_taken_at"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_table(
        "surveyed_process",
        _survey("surveyed_process"),
        sa.Column("pid", WHOLE, autoincrement=False, nullable=False),
        sa.Column("command", TEXT, nullable=False),
        sa.Column("cgroup", TEXT, nullable=False),
        sa.Column("sight", TEXT, nullable=False),
        *_wholes(OF_PROCESS),
        *_wholes(SEEN_OF_PROCESS, nullable=True),
        sa.PrimaryKeyConstraint("page_survey_id", "pid", name="pk_surveyed_process"),
        sqlite_strict=True,
    )
    op.create_table(
        "surveyed_size",
        _survey("surveyed_size"),
        sa.Column("pid", WHOLE, autoincrement=False, nullable=False),
        sa.Column("size_kib", WHOLE, autoincrement=False, nullable=False),
        *_wholes(OF_SIZE),
        *_wholes(SEEN_OF_SIZE, nullable=True),
        sa.Column("growth_error_bytes", REAL, nullable=True),
        sa.PrimaryKeyConstraint("page_survey_id", "pid", "size_kib", name="pk_surveyed_size"),
        sqlite_strict=True,
    )
    op.create_table(
        "surveyed_share",
        _survey("surveyed_share"),
        sa.Column("pid", WHOLE, autoincrement=False, nullable=False),
        sa.Column("size_kib", WHOLE, autoincrement=False, nullable=False),
        sa.Column("share", WHOLE, autoincrement=False, nullable=False),
        *_wholes(("extents", "growth_bytes")),
        sa.PrimaryKeyConstraint("page_survey_id", "pid", "size_kib", "share", name="pk_surveyed_share"),
        sqlite_strict=True,
    )
