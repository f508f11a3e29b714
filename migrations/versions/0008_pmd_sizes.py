"""Counters of the PMD sizes of 16 and 64 KiB base pages get columns, as those of 2 MiB and 1 GiB have.

What was read of them before moves there from `extra`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0008"
down_revision = "0007"

REAL = sa.Double().with_variant(sqlite.REAL(), "sqlite")
METRICS = [
    f"thp_{size}kB_{stat}"
    for size in (32768, 524288)
    for stat in ("nr_anon", "anon_fault_alloc", "anon_fault_fallback", "split")
]


def upgrade() -> None:
    for name in METRICS:
        op.add_column("sample", sa.Column(name.lower(), REAL, nullable=True))
    if op.get_context().dialect.name == "sqlite":
        of_extra = "CAST(extra ->> '$.{name}' AS REAL)"
        rest = "json_remove(extra, " + ", ".join(f"'$.{name}'" for name in METRICS) + ")"
        has_any = " OR ".join(f"extra ->> '$.{name}' IS NOT NULL" for name in METRICS)
    else:
        of_extra = "CAST(extra ->> '{name}' AS DOUBLE PRECISION)"
        names = "ARRAY[" + ", ".join(f"'{name}'" for name in METRICS) + "]"
        rest, has_any = f"extra - {names}", f"jsonb_exists_any(extra, {names})"
    moved = ", ".join(f"{name.lower()} = {of_extra.format(name=name)}" for name in METRICS)
    op.execute(f"UPDATE sample SET {moved}, extra = {rest} WHERE {has_any}")  # noqa: S608 - our own words
