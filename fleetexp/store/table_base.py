"""What every table of the store has in common: names of constraints, types of columns, strictness."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from sqlalchemy import MetaData, Table
from sqlalchemy.orm import DeclarativeBase, mapped_column

from fleetexp.store.column_types import Flag, Instant, JsonDocument, Real, Whole, Words

Json = Annotated[Any, mapped_column(JsonDocument())]


class Base(DeclarativeBase):
    """Base of every table: names of constraints are said, not made up by the database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {int: Whole, float: Real, str: Words(), datetime: Instant(), bool: Flag}


STRICT = {"sqlite_strict": True}
NUMBERED = {"sqlite_strict": True, "sqlite_autoincrement": True}  # a number is never given twice


def table(model: type[Base]) -> Table:
    """Return the Core table of a mapping."""
    found = model.__table__
    assert isinstance(found, Table)  # noqa: S101 - narrows SQLAlchemy's FromClause
    return found
