"""`fleetexp report`: what a stored run showed, on the terminal, as HTML, Markdown or JSON."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleetexp.cli.options import json_option, store_option
from fleetexp.cli.output import emit_json, visible, wrapped

if TYPE_CHECKING:
    from analysis.retrospective.verdicts import RetrospectiveFindings
    from fleetexp.store.url import Database


@click.command(
    epilog="""
    \b
    Example:
      fleetexp report
      fleetexp report 3 --html run-3.html
      fleetexp report 3 --markdown > run-3.md
      fleetexp report 3 --as-of 2026-02-02T18:00
      fleetexp report 3 --as-of 1          as of the end of stage 1
      fleetexp report --compare 3 5 --html both.html
    """
)
@click.argument("run_id", metavar="[RUN]", required=False, type=click.IntRange(min=1))
@click.option("--html", metavar="PATH", type=click.Path(dir_okay=False, path_type=Path), help="Write one HTML file.")
@click.option("--force", is_flag=True, help="With --html: also over a file that is not a report.")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@click.option(
    "--as-of",
    "as_of",
    metavar="INSTANT|STAGE",
    help="Analyse what was known then: an instant (UTC unless it says otherwise), or the end of a stage, from 1.",
)
@click.option("--compare", nargs=2, metavar="RUN RUN", type=click.IntRange(min=1), help="Set two runs side by side.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of --json.")
@store_option
@json_option
def report(
    *,
    run_id: int | None,
    html: Path | None,
    force: bool,
    markdown: bool,
    as_of: str | None,
    compare: tuple[int, int] | None,
    schema: bool,
    store_url: Database,
    as_json: bool,
) -> None:
    """Show what RUN found; without a number, the newest.

    The HTML is one file that needs no network and no script to be read. It may
    take the place of an earlier report; no other file is written over.

    With --as-of, the analysis as it would have looked then, with the interval
    that an early look needs. Nothing is stored.
    """
    if schema:
        from fleetexp.reporting import report_schema

        emit_json(report_schema())
        return
    from fleetexp.cli.chosen_run import chosen_run
    from fleetexp.cli.result import print_decision, print_effects, print_questions, write_html
    from fleetexp.reporting import report_content
    from fleetexp.reporting.retrospective import retrospective_report
    from fleetexp.store.store import open_store

    if force and html is None:
        raise click.UsageError("--force is for the file that --html names")
    if markdown and as_json:
        raise click.UsageError("--markdown and --json exclude each other")
    if compare is not None:
        if run_id is not None:
            raise click.UsageError("--compare names its two runs itself: leave RUN out")
        _compare(compare, html, force=force, markdown=markdown, store_url=store_url, as_json=as_json)
        return
    with contextlib.closing(open_store(store_url, read_only=True)) as store:
        record = chosen_run(store, run_id)
        look = None
        if as_of is not None:
            from fleetexp.as_of import analysed_as_of

            look = analysed_as_of(store, record.run_id, _moment(as_of))
        if look is None and (verdict := retrospective_report(store, record.run_id)) is not None:
            _show_verdict(verdict, html, force=force, markdown=markdown, as_json=as_json)
            return
        content = report_content(store, record.run_id, look)
    if html is not None:
        write_html(content, html, force=force)
    if as_json:
        from fleetexp.reporting import report_document

        document = {**report_document(content), "html": str(html) if html else None}
        if look is not None:
            stage = None if look.stage is None else look.stage + 1
            document["as_of"] = {"at": look.at, "stage": stage, "planned": look.planned, "whole": look.whole}
        emit_json(document)
    elif markdown:
        from analysis.report import render_markdown

        click.echo(render_markdown(content), nl=False)
    elif html is not None:
        click.echo(f"report: {html}")
    else:
        if look is not None:
            click.echo(wrapped(visible(look.words)) + "\n")
        print_effects(content)
        print_decision(content)
        if look is None:
            print_questions(content, store_url)


def _show_verdict(
    found: RetrospectiveFindings, html: Path | None, *, force: bool, markdown: bool, as_json: bool
) -> None:
    """Show it in the forms that a run's report has."""
    from fleetexp.cli.output import plain
    from fleetexp.cli.result import write_page

    if html is not None:
        write_page(lambda: found.html, html, force=force)
    if as_json:
        emit_json({"retrospective": plain(found), "html": str(html) if html else None})
    elif markdown:
        click.echo(found.markdown, nl=False)
    else:
        click.echo(f"report: {html}" if html is not None else str(found).rstrip())


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
            f"{text!r} is neither an instant nor a stage: write '2026-02-02T18:00' (UTC), or the number of a stage",
            param_hint="--as-of",
        ) from None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    if at > datetime.now(UTC):
        raise click.BadParameter(f"{text} has not come yet", param_hint="--as-of")
    return at


def _compare(
    runs: tuple[int, int], html: Path | None, *, force: bool, markdown: bool, store_url: Database, as_json: bool
) -> None:
    """Show two runs beside each other: Markdown on the terminal, HTML, or both documents as JSON."""
    from analysis.report import render_comparison_html, render_comparison_markdown
    from fleetexp.cli.result import write_page
    from fleetexp.reporting import report_content
    from fleetexp.store.store import open_store

    with contextlib.closing(open_store(store_url, read_only=True)) as store:
        first, second = (report_content(store, run_id) for run_id in runs)
    if html is not None:
        write_page(lambda: render_comparison_html(first, second), html, force=force)
    if as_json:
        from fleetexp.reporting import report_document

        documents = [report_document(first), report_document(second)]
        emit_json({"runs": documents, "html": str(html) if html else None})
    elif markdown or html is None:
        click.echo(render_comparison_markdown(first, second), nl=False)
    else:
        click.echo(f"report: {html}")
