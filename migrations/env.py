"""What alembic runs: the steps that are missing, on the connection and in the transaction of whoever asked."""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    transactional_ddl=True,  # SQLite too: the caller has begun a transaction that takes in the schema
)
context.run_migrations()
