"""Samples and measurements by day on PostgreSQL, so that old ones can be dropped; events found by their instant.

What is there becomes the default partition, as it lies on the disk: no row is copied. The unique key of a partitioned
table must hold the partition key: a reading's instant is fixed by its host, so one that is sent again still meets
itself. SQLite has no partitions: its tables stay as they are.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.drop_index("ix_event_run_id", "event")
    op.create_index("ix_event_run_id_at", "event", ["run_id", "at"])
    if op.get_context().dialect.name == "postgresql":
        for table in ("sample", "measurement"):
            _partition(table)


def _partition(table: str) -> None:
    rest = f"{table}_default"
    op.execute(f"ALTER TABLE {table} RENAME TO {rest}")
    op.execute(f"ALTER TABLE {rest} RENAME CONSTRAINT fk_{table}_period_id_period TO fk_{rest}_period_id_period")
    op.execute(f"ALTER TABLE {rest} DROP CONSTRAINT pk_{table}")
    op.execute(f"ALTER TABLE {rest} ADD CONSTRAINT pk_{rest} PRIMARY KEY (period_id, sequence, taken_at)")
    op.execute(f"CREATE TABLE {table} (LIKE {rest} INCLUDING DEFAULTS) PARTITION BY RANGE (taken_at)")
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT pk_{table} PRIMARY KEY (period_id, sequence, taken_at)")
    op.execute(
        f"ALTER TABLE {table} ADD CONSTRAINT fk_{table}_period_id_period "
        "FOREIGN KEY (period_id) REFERENCES period (period_id)"
    )
    op.execute(f"ALTER TABLE {table} ATTACH PARTITION {rest} DEFAULT")
