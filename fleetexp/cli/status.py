"""`fleetexp status` and `runs`: how a run is doing, and which runs there are."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from fleetexp.cli.options import json_option, store_option
from fleetexp.cli.output import duration, emit_json, instant, labelled, print_table, visible

if TYPE_CHECKING:
    from fleetexp.store.records import RunRecord
    from fleetexp.store.store import Store
    from fleetexp.store.url import Database

_WATCH_SECONDS = 1.0


@click.command(
    epilog="""
    \b
    Example:
      fleetexp status
      fleetexp status 3 --watch
    """
)
@click.argument("run_id", metavar="[RUN]", required=False, type=click.IntRange(min=1))
@click.option("--watch", is_flag=True, help="Look again every second until the run is over.")
@store_option
@json_option
def status(run_id: int | None, watch: bool, store_url: Database, as_json: bool) -> None:
    """Show how RUN is doing; without a number, the newest."""
    from fleetexp.cli.chosen_run import chosen_run
    from fleetexp.cli.status_screen import look, status_rows
    from fleetexp.store.store import open_store

    if watch and as_json:
        raise click.UsageError("--watch and --json exclude each other: --json prints one object")
    with contextlib.closing(open_store(store_url, read_only=True)) as store:
        record = chosen_run(store, run_id)
        if as_json:
            emit_json({**run_as_json(store, record), **look(store, store_url, record, datetime.now(UTC)).as_json()})
        elif watch:
            _watch(store, store_url, record)
        else:
            shown = status_rows(look(store, store_url, record, datetime.now(UTC)))
            click.echo("\n".join(labelled(label, visible(text)) for label, text in shown))


def _watch(store: Store, store_url: Database, record: RunRecord) -> None:
    """Show the run anew every second until it is over; a store that is away for a while is waited for."""
    from fleetexp.cli.status_screen import away, look, status_rows, watch_view
    from fleetexp.control.write_queue import PASSING

    rows: list[tuple[str, str]] = []
    with watch_view() as view:
        while True:
            try:
                record = store.run(record.run_id)
                rows = status_rows(look(store, store_url, record, datetime.now(UTC)))
                view.show(rows)
            except PASSING as error:
                view.show([*rows, away(error)])
            if record.state.is_terminal:
                return
            time.sleep(_WATCH_SECONDS)


def run_as_json(store: Store, record: RunRecord) -> dict[str, Any]:
    """Return a run with its periods counted by state."""
    counts = Counter(period.state.value for period in store.periods(record.run_id))
    return {
        "run_id": record.run_id,
        "experiment": record.experiment,
        "state": record.state,
        "reason": record.reason,
        "decision": record.decision,
        "decision_reason": record.decision_reason,
        "origin": record.origin,
        "launched_by": record.launched_by,
        "fleet": record.fleet,
        "created_at": record.created_at,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "periods": dict(counts),
    }


@click.command(
    epilog="""
    \b
    Example:
      fleetexp runs
      fleetexp runs --json | jq '.runs[] | select(.state == "halted")'
    """
)
@store_option
@json_option
def runs(store_url: Database, as_json: bool) -> None:
    """List the runs in the store, the newest first."""
    from fleetexp.domain import Origin
    from fleetexp.store.store import open_store

    with contextlib.closing(open_store(store_url, read_only=True)) as store:
        records = sorted(store.runs(), key=lambda run: run.run_id, reverse=True)
        if as_json:
            emit_json({"runs": [run_as_json(store, record) for record in records]})
            return
    if not records:
        click.echo("no runs yet: start one with 'fleetexp run SPEC.yaml'")
        return
    print_table(
        ["run", "experiment", "state", "started (UTC)", "took"],
        [
            [
                str(record.run_id),
                record.experiment if record.origin is Origin.FLEET else f"{record.experiment} (imported)",
                record.state.value.replace("_", " "),
                instant(record.started_at),
                duration((record.ended_at - record.started_at).total_seconds())
                if record.started_at and record.ended_at
                else "",
            ]
            for record in records
        ],
        right=frozenset({0}),
    )
