"""`fleetexp report`: what a stored run showed, on the terminal, as HTML, Markdown or JSON."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
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
      fleetexp report 3 --as-of 2026-02-02T18:00
      fleetexp report 3 --as-of 1          as of the end of stage 1
    """
)
@click.argument("run_id", metavar="[RUN]", required=False, type=click.IntRange(min=1))
@click.option("--html", metavar="PATH", type=click.Path(dir_okay=False, path_type=Path), help="Write one HTML file.")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@click.option(
    "--as-of",
    "as_of",
    metavar="INSTANT|STAGE",
    help="Analyse what was known then: an instant (UTC unless it says otherwise), or the end of a stage, from 1.",
)
@store_option
@json_option
def report(
    *, run_id: int | None, html: Path | None, markdown: bool, as_of: str | None, store_url: str, as_json: bool
) -> None:
    """Show what RUN found; without a number, the newest.

    The HTML is one file that needs no network and no script to be read.

    With --as-of, the analysis as it would have looked then, with the interval
    that an early look needs. Nothing is stored.
    """
    from fleetexp.cli.chosen_run import chosen_run
    from fleetexp.cli.result import print_effects, print_questions, write_html
    from fleetexp.errors import RunError
    from fleetexp.store.store import open_store

    if markdown and as_json:
        raise click.UsageError("--markdown and --json exclude each other")
    with contextlib.closing(open_store(store_url, create=False)) as store:
        record = chosen_run(store, run_id)
        look = None
        if as_of is not None:
            from fleetexp.look_back import look_back

            look = look_back(store, record.run_id, _moment(as_of))
        elif store.findings(record.run_id) is None:
            raise RunError(
                f"run {record.run_id} has no findings: it is {record.state.value.replace('_', ' ')}",
                where=f"run {record.run_id}",
                remedy=f"'fleetexp status {record.run_id}' says how far it is",
            )
        from fleetexp.reporting import report_content

        content = report_content(store, record.run_id, look)
    if html is not None:
        write_html(content, html)
    if as_json:
        found = {"run_id": record.run_id, "findings": content.findings, "html": str(html) if html else None}
        if look is not None:
            stage = None if look.stage is None else look.stage + 1
            found["look_back"] = {"as_of": look.at, "stage": stage, "planned": look.planned, "whole": look.whole}
        emit_json(found)
    elif markdown:
        from analysis.report import render_markdown

        click.echo(render_markdown(content), nl=False)
    elif html is not None:
        click.echo(f"report: {html}")
    else:
        if look is not None:
            click.echo(wrapped(visible(look.words)) + "\n")
        print_effects(content)
        click.echo(wrapped(visible(f"decision: {content.findings.decision} — {content.findings.reason}")))
        if look is None:
            print_questions(content, store_url)


def _moment(text: str) -> datetime | int:
    """Read '2' or 'stage 2' as a stage (from 0), anything else as an instant that has passed."""
    word = text.strip().removeprefix("stage").strip()
    if word.isdigit():
        if int(word) == 0:
            raise click.BadParameter("stages are counted from 1", param_hint="--as-of")
        return int(word) - 1
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no instant and no stage: write '2026-02-02T18:00' (UTC), or the number of a stage",
            param_hint="--as-of",
        ) from None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    if at > datetime.now(UTC):
        raise click.BadParameter(f"{text} has not come yet", param_hint="--as-of")
    return at
