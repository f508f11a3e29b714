"""Column types that mean the same on SQLite (STRICT tables) and PostgreSQL: instants, numbers, documents, text."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, DateTime, Double, Text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from fleetexp.store.values import clean_text, document_text, instant_text


class Instant(TypeDecorator[datetime]):
    """An aware UTC datetime: TIMESTAMPTZ in PostgreSQL, ISO 8601 text in SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> object:
        if value is None:
            return None
        text = instant_text(value)
        return text if dialect.name == "sqlite" else value

    def process_result_value(self, value: object, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if isinstance(value, str):
            return datetime.fromisoformat(value)
        assert isinstance(value, datetime)  # noqa: S101 - what psycopg gives for TIMESTAMPTZ
        return value.astimezone(UTC)


class Words(TypeDecorator[str]):
    """Text of any length. What a host or a workload said may hold bytes that no database takes: they are replaced."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else clean_text(value)


class JsonDocument(TypeDecorator[Any]):
    """A JSON document whose keys keep their order: JSON in PostgreSQL, text in SQLite; `->>` reads both."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(postgresql.JSON(none_as_null=True) if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: object, dialect: Dialect) -> object:
        if value is None or dialect.name == "postgresql":
            return value
        return document_text(value)

    def process_result_value(self, value: object, dialect: Dialect) -> object:
        return json.loads(value) if isinstance(value, str) and dialect.name == "sqlite" else value


Real: Double[float] = Double().with_variant(sqlite.REAL(), "sqlite")  # 8 bytes everywhere
Whole = BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
Flag = Boolean().with_variant(sqlite.INTEGER(), "sqlite")  # 0 or 1
Extra = postgresql.JSONB().with_variant(sqlite.TEXT(), "sqlite")  # written by the bulk writers only
