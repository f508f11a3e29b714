"""The data dictionary: every view and table with its columns, and as a page for people: docs/DATA.md is that text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleetexp.store.column_types import Extra, Flag, Instant, JsonDocument, Real, Whole, Words
from fleetexp.store.table_base import Base
from fleetexp.store.tables import SCHEMA_VERSION
from fleetexp.store.values import ColumnKind
from fleetexp.store.views.all_views import VIEWS

_KINDS = (
    (Whole, ColumnKind.WHOLE),
    (Real, ColumnKind.REAL),
    (Flag, ColumnKind.FLAG),
    (Extra, ColumnKind.DOCUMENT),
)
_DECORATED = {Words: ColumnKind.TEXT, Instant: ColumnKind.INSTANT, JsonDocument: ColumnKind.DOCUMENT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A view or a table: what it answers or holds, its columns with their meanings, and what each holds."""

    name: str
    meaning: str
    columns: Mapping[str, str]
    kinds: Mapping[str, ColumnKind]
    key: tuple[str, ...]  # what tells its rows apart; empty for a view
    is_view: bool

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {
            "name": self.name,
            "question" if self.is_view else "meaning": self.meaning,
            "columns": dict(self.columns),
            "kinds": {name: kind.value for name, kind in self.kinds.items()},
        }


def relations() -> list[Relation]:
    """Return the views first, because they are what people ask; then the tables behind them."""
    views = [
        Relation(
            name=view.name,
            meaning=view.question,
            columns=view.columns,
            kinds={name: view.kind(name) for name in view.columns},
            key=(),
            is_view=True,
        )
        for view in VIEWS
    ]
    tables = [
        Relation(
            name=table.name,
            meaning=table.comment or "",
            columns={column.name: column.comment or "" for column in table.columns},
            kinds={column.name: _kind(column.type) for column in table.columns},
            key=tuple(column.name for column in table.primary_key.columns),
            is_view=False,
        )
        for table in Base.metadata.sorted_tables
    ]
    return [*views, *tables]


def _kind(of: object) -> ColumnKind:
    for known, kind in _KINDS:
        if of is known or type(of) is type(known):
            return kind
    return _DECORATED[type(of)]


def render_dictionary() -> str:
    """Return the page."""
    found = relations()
    parts = [
        "# Data dictionary",
        f"Schema {SCHEMA_VERSION}, the same on SQLite and PostgreSQL. Instants are UTC. NULL means unknown or "
        "unavailable, never zero. `fleetexp sql` takes questions, [COOKBOOK.md](COOKBOOK.md) has twenty with their "
        "answers. Write this page again with\n\n"
        "    python -c 'from fleetexp.store.dictionary import render_dictionary as r; print(r(), end=\"\")' "
        "> docs/DATA.md",
    ]
    for heading, is_view in (("## Views", True), ("## Tables", False)):
        parts.append(heading)
        for relation in found:
            if relation.is_view is is_view:
                parts += [f"### {relation.name}", relation.meaning, _columns(relation)]
    return "\n\n".join(parts) + "\n"


def _columns(relation: Relation) -> str:
    rows = (
        f"| `{name}` | {relation.kinds[name].value} | {meaning.replace('|', chr(92) + '|')} |"
        for name, meaning in relation.columns.items()
    )
    return "\n".join(("| column | holds | meaning |", "|---|---|---|", *rows))
