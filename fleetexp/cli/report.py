"""`fleetexp report`: what a stored run showed, on the terminal, as HTML, Markdown or JSON."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from fleetexp.cli.options import json_option, store_option
from fleetexp.cli.output import emit_json, visible, wrapped


@click.command(
    epilog="""
    \b
    Example:
      fleetexp report
      fleetexp report 3 --html run-3.html
      fleetexp report 3 --markdown > run-3.md
    """
)
@click.argument("run_id", metavar="[RUN]", required=False, type=click.IntRange(min=1))
@click.option("--html", metavar="PATH", type=click.Path(dir_okay=False, path_type=Path), help="Write one HTML file.")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@store_option
@json_option
def report(run_id: int | None, html: Path | None, markdown: bool, store_url: str, as_json: bool) -> None:
    """Show what RUN found; without a number, the newest.

    The HTML is one file that needs no network and no script to be read.
    """
    from fleetexp.cli.chosen_run import chosen_run
    from fleetexp.cli.result import print_effects, print_questions, write_html
    from fleetexp.errors import RunError
    from fleetexp.store.store import open_store

    if markdown and as_json:
        raise click.UsageError("--markdown and --json exclude each other")
    with contextlib.closing(open_store(store_url, create=False)) as store:
        record = chosen_run(store, run_id)
        if store.findings(record.run_id) is None:
            raise RunError(
                f"run {record.run_id} has no findings: it is {record.state.value.replace('_', ' ')}",
                where=f"run {record.run_id}",
                remedy=f"'fleetexp status {record.run_id}' says how far it is",
            )
        from fleetexp.reporting import report_content

        content = report_content(store, record.run_id)
    if html is not None:
        write_html(content, html)
    if as_json:
        emit_json({"run_id": record.run_id, "findings": content.findings, "html": str(html) if html else None})
    elif markdown:
        from analysis.report import render_markdown

        click.echo(render_markdown(content), nl=False)
    elif html is not None:
        click.echo(f"report: {html}")
    else:
        print_effects(content)
        click.echo(wrapped(visible(f"decision: {content.findings.decision} — {content.findings.reason}")))
        print_questions(content, store_url)
