"""`fleetexp sql`: ask the store anything; read-only."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence

import click

from fleetexp.cli.options import json_option, store_option
from fleetexp.cli.output import emit_json, plain, print_table, visible, wrapped


@click.command(
    epilog="""
    \b
    Example:
      fleetexp sql
      fleetexp sql "select * from effects" --format csv
      fleetexp sql - < question.sql
    """
)
@click.argument("query", required=False)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="How the rows are printed.",
)
@click.option("--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="Most rows to print.")
@store_option
@json_option
def sql(query: str | None, output_format: str, limit: int, store_url: str, as_json: bool) -> None:
    """Ask the store a QUERY ('-': read it from stdin). Nothing can be changed.

    Without a query: the views there are, their columns and units.
    """
    as_json = as_json or output_format == "json"
    if query is None:
        _list_views(as_json)
        return
    from fleetexp.store.store import query as ask

    text = sys.stdin.read() if query == "-" else query
    columns, rows = ask(store_url, text, limit + 1)
    truncated, rows = len(rows) > limit, rows[:limit]
    if as_json:
        emit_json({"columns": columns, "rows": [list(row) for row in rows], "truncated": truncated})
    elif output_format == "csv":
        _print_csv(columns, rows)
    else:
        print_table(columns, [[cell(value) for value in row] for row in rows], right=_numeric(rows))
    if truncated:
        click.echo(f"only the first {limit} rows are shown; ask for more with --limit", err=True)


def cell(value: object) -> str:
    """Show one value of a row; NULL is empty, floats to six significant digits."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(plain(value))


def _numeric(rows: Sequence[Sequence[object]]) -> frozenset[int]:
    """Return the columns that hold nothing but numbers and NULL."""
    if not rows:
        return frozenset()
    return frozenset(
        place
        for place in range(len(rows[0]))
        if all(row[place] is None or isinstance(row[place], (int, float)) for row in rows)
    )


def _print_csv(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([["" if value is None else plain(value) for value in row] for row in rows])
    click.echo(out.getvalue(), nl=False)


def _list_views(as_json: bool) -> None:
    from fleetexp.store.views import VIEWS

    if as_json:
        emit_json(
            {"views": [{"name": view.name, "question": view.question, "columns": view.columns} for view in VIEWS]}
        )
        return
    for view in VIEWS:
        click.echo(wrapped(f"{view.name}: {view.question}"))
        for name, meaning in view.columns.items():
            click.echo(wrapped(visible(f"{name}: {meaning}"), indent="    "))
        click.echo()
    click.echo("try: fleetexp sql 'select * from run_summary'")
