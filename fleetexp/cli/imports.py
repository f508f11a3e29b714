"""`fleetexp import`: measurements that somebody brings, as a run of the store."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleetexp.cli.options import json_option, store_option
from fleetexp.cli.output import emit_json, plain, visible, wrapped

if TYPE_CHECKING:
    from fleetexp.store.url import Database

_NAMED = 5  # metrics that are left out, in the answer


@click.command(
    "import",
    epilog="""
    \b
    Example:
      fleetexp import measured.csv --as mapping.yaml
      fleetexp import week-1.parquet week-2.parquet --as mapping.yaml --json
      fleetexp import --query postgresql:///metrics 'select * from latency' \\
        --as mapping.yaml
    """,
)
@click.argument("sources", metavar="FILE... | SELECT", nargs=-1, required=True)
@click.option(
    "--as",
    "mapping",
    metavar="MAPPING.yaml",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="What the columns are, which hosts had which arm, since when.",
)
@click.option("--query", metavar="URL", help="Read the rows of a SELECT from this PostgreSQL or SQLite database.")
@store_option
@json_option
def import_(sources: tuple[str, ...], mapping: Path, query: str | None, store_url: Database, as_json: bool) -> None:
    """Enter measurements of your own as a run, and analyse it.

    They come from CSV, Parquet or a query.

    Sums of each host, metric and period are kept, not the values themselves; a
    report, views and exports are those of a run. Nothing is stored unless all of
    it is right. Where chance did not decide who got which arm, the report only
    describes.
    """
    from fleetexp.experiment.mapping import read_mapping
    from fleetexp.imports.importer import import_tables
    from fleetexp.imports.tables import QueryTable, SourceTable, open_file
    from fleetexp.store.store import open_store
    from fleetexp.store.url import parse_url

    written = read_mapping(mapping)
    tables: list[SourceTable]
    if query is None:
        tables = [open_file(Path(name), written.mapping.read) for name in sources]
    elif len(sources) == 1:
        tables = [QueryTable(parse_url(query), sources[0])]
    else:
        raise click.UsageError("--query takes one SELECT: quote it")
    with contextlib.closing(open_store(store_url)) as store:
        outcome = import_tables(tables, written, store)
    if as_json:
        emit_json(plain(outcome))
        return
    read = f"{outcome.rows:,} rows, {outcome.values:,} values of {outcome.hosts} hosts"
    click.echo(wrapped(visible(f"run {outcome.run_id}: {read}; kept as {outcome.sums:,} sums")))
    if outcome.skipped:
        more = len(outcome.skipped) - _NAMED
        named = ", ".join(outcome.skipped[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        click.echo(wrapped(visible(f"left out, the mapping does not name them: {named}"), indent="  "))
    click.echo(wrapped(visible(f"decision: {outcome.findings.decision.value} — {outcome.findings.reason}")))
    for warning in outcome.findings.warnings:
        click.echo(wrapped(visible(f"note: {warning}"), indent="  "))
    click.echo(f"\nask next:\n  fleetexp report {outcome.run_id}")
