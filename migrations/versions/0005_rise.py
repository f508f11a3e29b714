"""By how much each counter rose in a period, as the kernel counted it: a rate times a length is that only nearly.

Rows of before get that nearly, where a view, the exposure or a guardrail asks how many.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0005"
down_revision = "0004"

REAL = sa.Double().with_variant(sqlite.REAL(), "sqlite")
LENGTH = {
    "sqlite": "(julianday(p.ended_at) - julianday(p.started_at)) * 86400.0",
    "postgresql": "CAST(extract(epoch FROM p.ended_at - p.started_at) AS DOUBLE PRECISION)",
}
COUNTED = """
metric IN ('pgfault', 'pgmajfault', 'oom_kills', 'cgroup_pgfault', 'cgroup_pgmajfault', 'cgroup_oom_kills',
  'pgscan_direct', 'agent_cpu_seconds')
OR metric LIKE 'compact~_%' ESCAPE '~' OR metric LIKE 'allocstall~_%' ESCAPE '~'
OR metric LIKE 'thp~_fault~_%' ESCAPE '~' OR metric LIKE 'thp~_collapse~_%' ESCAPE '~'
OR metric LIKE 'thp~_split~_p%' ESCAPE '~' OR metric LIKE 'thp~_%kB~_split%' ESCAPE '~'
OR metric LIKE 'thp~_%kB~_%~_alloc' ESCAPE '~' OR metric LIKE 'thp~_%kB~_%~_fallback%' ESCAPE '~'
"""


def upgrade() -> None:
    op.add_column("observation", sa.Column("rise", REAL, nullable=True))
    length = LENGTH[op.get_context().dialect.name]
    op.execute(
        f"UPDATE observation SET rise = mean * (SELECT {length} FROM period p "  # noqa: S608 - our own words
        f"WHERE p.period_id = observation.period_id) WHERE {COUNTED}"
    )
