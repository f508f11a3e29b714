"""`fleetexp survey`: would huge pages of each size be used here, and what would they cost? Reads only."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from fleetexp.cli.options import fleet_options, json_option, root_option, unread_store_option
from fleetexp.cli.output import emit_json, width

if TYPE_CHECKING:
    from agents.survey.figures import SurveyPages
    from fleetexp.fleets.page_surveys import FleetSurvey
    from fleetexp.secret import Secret

_GIB = 2**30


@click.command(
    epilog="""
    \b
    Example:
      fleetexp survey
      fleetexp survey --json | jq .surveys[0].totals
      fleetexp survey --fleet ray --address 10.0.0.1:6379 --pool web-a
    """
)
@click.option("--pid", "pids", metavar="PID", type=click.IntRange(min=1), multiple=True, help="Only this process.")
@click.option("--pool", "pools", metavar="POOL", multiple=True, help="Only hosts of this pool; may be given again.")
@click.option(
    "--top", metavar="N", type=click.IntRange(min=0), default=8, show_default=True, help="Processes and hosts shown."
)
@click.option(
    "--cpu-percent",
    metavar="N",
    type=click.FloatRange(min=0.1, max=100.0),
    default=10.0,
    show_default=True,
    help="Most of one CPU that looking takes, on average.",
)
@click.option(
    "--seconds",
    metavar="N",
    type=click.FloatRange(min=0.0),
    default=300.0,
    show_default=True,
    help="When to stop looking at residency; what is left is named.",
)
@click.option(
    "--sample-above",
    metavar="GIB",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Of a process with more than so many GiB, look at a random sample of that size.",
)
@click.option("--keep", is_flag=True, help="Keep it in the store, for SQL: the views survey_sizes and survey_programs.")
@fleet_options
@root_option
@unread_store_option
@json_option
def survey(
    *,
    pids: tuple[int, ...],
    pools: tuple[str, ...],
    top: int,
    cpu_percent: float,
    seconds: float,
    sample_above: int,
    keep: bool,
    fleet: str,
    address: str,
    root: str,
    store_url: Secret,
    as_json: bool,
) -> None:
    """Say what huge pages would back here, and add.

    Aligned extents of every page size by how much of them is resident, the
    growth that 'always' would cause, page tables, forks. Nothing is changed.
    Where looking would split pages, only what needs no look is said.
    """
    from agents.survey.figures import SurveyPages
    from fleetexp.cli.survey_screen import fleet_lines, host_lines
    from fleetexp.store.url import parse_url

    asked = SurveyPages(
        cpu_share=cpu_percent / 100,
        at_most_seconds=seconds,
        sample_above_bytes=sample_above * _GIB,
        pids=pids,
    )
    database = parse_url(store_url.reveal()) if keep else None  # before anything is looked at for nothing
    found = _survey(asked, pools, fleet, address, root)
    if database is not None:
        from fleetexp.store.store import open_store

        with contextlib.closing(open_store(database)) as store:
            store.record_page_surveys(found.surveys)
    if as_json:
        emit_json({"surveys": found.surveys, "without": found.without})
    elif len(found.surveys) == 1 and not found.without:
        lines = host_lines(found.surveys[0], columns=width(), top=top)
        click.echo("\n".join(lines))
    else:
        click.echo("\n".join(fleet_lines(found, columns=width(), top=top)))


def _survey(asked: SurveyPages, pools: tuple[str, ...], fleet: str, address: str, root: str) -> FleetSurvey:
    from agents.sysroot import FolderRoot
    from fleetexp.fleets.by_name import FleetChoice, open_inventory
    from fleetexp.fleets.page_surveys import survey_fleet

    # A look needs no agent that outlives this process: this host is looked over by it, without Ray.
    choice = FleetChoice(name="inline" if fleet == "local" else fleet, address=address)
    with contextlib.closing(open_inventory(choice, FolderRoot(root))) as inventory:
        return survey_fleet(inventory, asked, pools)
