"""What code acts on gets columns of its own beside the sentences: where a run is heading and why, stage, metric.

Rows of before are translated, once, from the sentences that they were told in.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0009"
down_revision = "0008"

TEXT = sa.Text()
WHOLE = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
CAUSE = """CASE
  WHEN {reason} = '' THEN NULL
  WHEN {state} = 'running' THEN 'approval'
  WHEN {state} = 'restore_incomplete' THEN 'restore'
  WHEN {state} IN ('paused', 'halting') AND {reason} LIKE 'paused by %' THEN 'request'
  WHEN {state} IN ('paused', 'failed') THEN 'hosts'
  WHEN {reason} LIKE 'aborted by %: the store refuses writes%' THEN 'store'
  WHEN {reason} LIKE 'aborted by %' THEN 'request'
  WHEN {reason} LIKE 'guardrail %' THEN 'guardrail'
  WHEN {reason} LIKE '%: a knob was changed from outside: %' THEN 'drift'
  WHEN {reason} LIKE 'every host restored: %' THEN 'restore'
  WHEN {state} = 'halting' THEN 'hosts'
END"""


def upgrade() -> None:
    op.add_column("run", sa.Column("cause", TEXT, nullable=True))
    for name, kind in (("state", TEXT), ("cause", TEXT), ("stage", WHOLE), ("metric", TEXT)):
        op.add_column("event", sa.Column(name, kind, nullable=True))
    if op.get_context().dialect.name == "sqlite":
        colon, is_number = "instr(detail, ': ')", "detail NOT GLOB '*[^0-9]*' AND detail <> ''"
    else:
        colon, is_number = "strpos(detail, ': ')", "detail ~ '^[0-9]+$'"
    head = f"CASE WHEN {colon} > 0 THEN substr(detail, 1, {colon} - 1) ELSE detail END"
    rest = f"CASE WHEN {colon} > 0 THEN substr(detail, {colon} + 2) ELSE '' END"
    told = "kind IN ('state', 'halting_to')"
    for statement in (
        f"UPDATE run SET cause = {CAUSE.format(state='state', reason='reason')}",  # noqa: S608 - our own words
        f"UPDATE event SET state = {head} WHERE {told}",  # noqa: S608
        f"UPDATE event SET cause = {CAUSE.format(state='state', reason=f'({rest})')} WHERE {told}",  # noqa: S608
        f"UPDATE event SET detail = {rest} WHERE kind = 'halting_to'",  # noqa: S608
        f"UPDATE event SET stage = CAST(detail AS INTEGER) WHERE kind = 'stage_opened' AND {is_number}",  # noqa: S608
        f"UPDATE event SET metric = {head} WHERE kind = 'source_lost' AND {colon} > 0 AND NOT {head} LIKE '% %'",  # noqa: S608
    ):
        op.execute(sa.text(statement.replace(":", "\\:")))
