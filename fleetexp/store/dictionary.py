"""The data dictionary as a page for people: docs/DATA.md is this text."""

from __future__ import annotations

from collections.abc import Iterable

from fleetexp.store.tables import SCHEMA_VERSION, Base
from fleetexp.store.views import VIEWS


def render_dictionary() -> str:
    """Return the page: the views first, because they are what people ask; then the tables behind them."""
    parts = [
        "# Data dictionary",
        f"Schema {SCHEMA_VERSION}, the same on SQLite and PostgreSQL. Instants are UTC. NULL means unknown or "
        "unavailable, never zero. `fleetexp sql` takes questions. Write this page again with\n\n"
        "    python -c 'from fleetexp.store.dictionary import render_dictionary as r; print(r(), end=\"\")' "
        "> docs/DATA.md",
        "## Views",
    ]
    for view in VIEWS:
        parts += [f"### {view.name}", view.question, _columns(view.columns.items())]
    parts.append("## Tables")
    for table in Base.metadata.sorted_tables:
        described = ((column.name, column.comment or "") for column in table.columns)
        parts += [f"### {table.name}", table.comment or "", _columns(described)]
    return "\n\n".join(parts) + "\n"


def _columns(columns: Iterable[tuple[str, str]]) -> str:
    rows = (f"| `{name}` | {meaning.replace('|', chr(92) + '|')} |" for name, meaning in columns)
    return "\n".join(("| column | meaning |", "|---|---|", *rows))
