"""`fleetexp pause` and `abort`: ask the process that drives a run to stop. It restores every host first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fleetexp.cli.options import json_option, store_option
from fleetexp.cli.output import emit_json
from fleetexp.store.url import Database

if TYPE_CHECKING:
    from fleetexp.domain import RunRequest


@click.command(
    epilog="""
    \b
    Example:
      fleetexp pause 3
      fleetexp resume 3
    """
)
@click.argument("run_id", metavar="RUN", type=click.IntRange(min=1))
@store_option
@json_option
def pause(run_id: int, store_url: Database, as_json: bool) -> None:
    """Stop RUN so that it can be resumed.

    Every host is put back as it was found; finished blocks are kept.
    """
    from fleetexp.domain import RunRequest

    _ask(run_id, RunRequest.PAUSE, store_url, as_json)


@click.command(
    epilog="""
    \b
    Example:
      fleetexp abort 3
    """
)
@click.argument("run_id", metavar="RUN", type=click.IntRange(min=1))
@store_option
@json_option
def abort(run_id: int, store_url: Database, as_json: bool) -> None:
    """End RUN for good.

    Every host is put back as it was found; what was measured is kept and
    marked. Where no process drives the run any more, that is said: the hosts
    undo themselves, and 'fleetexp resume' then ends the run.
    """
    from fleetexp.domain import RunRequest

    _ask(run_id, RunRequest.ABORT, store_url, as_json)


def _ask(run_id: int, how: RunRequest, store_url: Database, as_json: bool) -> None:
    from fleetexp.control.run_requests import ON_RESUME, stop
    from fleetexp.process_identity import this_process

    heard = stop(store_url, run_id, how, this_process())
    if as_json:
        emit_json({"run_id": run_id, "asked": how, "heard": heard})
    elif heard:
        click.echo(f"asked run {run_id} to {how}, and it does; watch it with: fleetexp status {run_id} --watch")
    else:
        resumed = f"'fleetexp resume {run_id}' {ON_RESUME[how]}"
        click.echo(f"run {run_id} is paused, and every host is as it was found: {resumed}")
