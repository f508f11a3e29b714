"""Write the outputs in docs/COOKBOOK.md anew: python -m tests.fleetexp.store.cookbook."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from fleetexp.cli.sql import table_lines
from fleetexp.store.store import open_store, query
from tests.fleetexp.store.example_run import fill

PAGE = Path(__file__).parents[3] / "docs" / "COOKBOOK.md"
WIDTH = 100
RECIPE = re.compile(
    r"^## (?P<title>[^\n]+)\n(?P<before>.*?```sql\n)(?P<sql>.*?)(?P<between>\n```\n+```text\n)(?P<output>.*?)```",
    re.M | re.S,
)


def recipes() -> dict[str, tuple[str, str]]:
    """Return the questions of the page, each with its SQL and the output that is printed there."""
    return {found["title"]: (found["sql"], found["output"]) for found in RECIPE.finditer(PAGE.read_text())}


def answer(url: str, sql: str) -> str:
    """Ask a store, and lay the answer out as the page does."""
    columns, rows = query(url, sql, 100)
    return "".join(f"{line}\n" for line in table_lines(columns, rows, WIDTH))


def rewrite(url: str) -> str:
    """Return the page with the outputs that the store gives."""
    return RECIPE.sub(
        lambda found: (
            f"## {found['title']}\n{found['before']}{found['sql']}{found['between']}{answer(url, found['sql'])}```"
        ),
        PAGE.read_text(),
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        example = f"sqlite:///{folder}/example.db"
        open_store(example).close()
        fill(example)
        PAGE.write_text(rewrite(example))
