"""`fleetexp run` and `resume`: an experiment from its plan to its answer, watched while it goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleetexp.cli.errors import failure_lines
from fleetexp.cli.options import (
    address_option,
    json_option,
    metrics_page_options,
    preparing,
    root_option,
    store_option,
)
from fleetexp.cli.output import emit_json, width
from fleetexp.exit_codes import ExitCode

if TYPE_CHECKING:
    from fleetexp.control.prepare import PreparedRun
    from fleetexp.control.progress import Progress, RunOutcome
    from fleetexp.store.url import Database

REPORTS = Path("fleetexp-reports")

_require_decision = click.option(
    "--require-decision", is_flag=True, help="Exit with 6 where the data show too little to decide."
)
reports_option = click.option(
    "--reports",
    metavar="FOLDER",
    default=REPORTS,
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the HTML report goes.",
)


@click.command(
    epilog="""
    \b
    Example:
      fleetexp run thp-2m-demo.yaml
      fleetexp run my.yaml --store postgresql://fleet@db/fleetexp
      fleetexp run my.yaml --fleet ray --address 10.0.0.1:6379
      fleetexp run my.yaml --fleet simulated --effect throughput=+5.9%
      fleetexp run my.yaml --json --require-decision > result.json
    """
)
@preparing
@_require_decision
@reports_option
@metrics_page_options
def run(
    *,
    prepared: PreparedRun,
    require_decision: bool,
    reports: Path,
    metrics_port: int | None,
    metrics_address: str,
    as_json: bool,
) -> None:
    """Run the experiment in SPEC on this host or on a fleet.

    With --fleet ray it runs on the nodes of a cluster. With --fleet simulated
    nothing real is touched: hosts, kernels and time are a model's, and
    everything that is shown says so.

    The end is a table of effects with intervals, a decision and a report.

    Every knob is put back at the end, however the run ends. Ctrl-C stops it
    cleanly: the hosts are restored, what was measured is kept and marked.
    """
    drive(
        prepared,
        page=(metrics_address, metrics_port),
        reports=reports,
        require_decision=require_decision,
        as_json=as_json,
    )


def drive(
    prepared: PreparedRun, *, page: tuple[str, int | None], reports: Path, require_decision: bool, as_json: bool
) -> None:
    """Show what was prepared, run it, show its answer; leave with the exit code."""
    from fleetexp import api
    from fleetexp.experiment import analysis_plan

    prepared.require()
    if not as_json:
        _show_plan(prepared)
    _watched(
        lambda watch: api.run(prepared, watch=watch),
        metrics=tuple(metric.name for metric in analysis_plan(prepared.experiment).metrics),
        page=page,
        store_url=prepared.store,
        reports=reports,
        require_decision=require_decision,
        as_json=as_json,
    )


def _show_plan(prepared: PreparedRun) -> None:
    """Show what is about to happen."""
    from fleetexp.cli.plan_screen import plan_lines
    from fleetexp.experiment import warnings_of

    experiment = prepared.experiment
    for line in plan_lines(
        experiment.name,
        experiment.hypothesis,
        prepared.plan,
        prepared.hosts.facts,
        columns=width(),
        left_out=prepared.hosts.by_condition,
        power=prepared.power.text,
        warnings=[*warnings_of(experiment), *prepared.warnings],
    ):
        click.echo(line)
    click.echo()


@click.command(
    epilog="""
    \b
    Example:
      fleetexp resume 3
    """
)
@click.argument("run_id", metavar="RUN", type=click.IntRange(min=1))
@_require_decision
@reports_option
@metrics_page_options
@root_option
@address_option
@store_option
@json_option
def resume(
    *,
    run_id: int,
    require_decision: bool,
    reports: Path,
    metrics_port: int | None,
    metrics_address: str,
    root: str,
    address: str,
    store_url: Database,
    as_json: bool,
) -> None:
    """Go on with a run that was paused or interrupted.

    Blocks that were finished stay; the one that broke is marked and repeated.
    A run of a fleet is taken up where it was launched, or at --address where
    the head of its cluster has moved.
    """
    from fleetexp import api

    _watched(
        lambda watch: api.resume(run_id, store=store_url, address=address, root=root, watch=watch),
        metrics=(),
        page=(metrics_address, metrics_port),
        store_url=store_url,
        reports=reports,
        require_decision=require_decision,
        as_json=as_json,
    )


def _watched(
    start: Callable[[Callable[[Progress], None]], RunOutcome],
    *,
    metrics: Sequence[str],
    page: tuple[str, int | None],
    store_url: Database,
    reports: Path,
    require_decision: bool,
    as_json: bool,
) -> None:
    """Start or resume a run, show it while it goes on, then its answer; leave with the exit code of the outcome."""
    from fleetexp.cli.progress_view import progress_view
    from fleetexp.cli.result import RunResult, conclude

    with _served(*page) as tell, progress_view(metrics, to_stderr=as_json) as view:

        def show(progress: Progress) -> None:
            tell(progress)
            view.show(progress)

        outcome = start(show)
    code = exit_code(outcome, require_decision=require_decision)
    try:
        answer = conclude(outcome, store_url=store_url, reports=reports)
    except Exception as error:  # a full disk, say: how the hosts are must be told all the same
        for line in failure_lines(error):
            click.echo(line, err=True)
        click.echo(f"the run is stored: 'fleetexp report {outcome.run_id}' shows it again", err=True)
        answer = RunResult(outcome=outcome, content=None, html=None)
        code = code or ExitCode.ERROR
    if as_json:
        emit_json({**answer.as_json(), "store": store_url.name, "exit_code": int(code)})
    else:
        answer.print(store_url)
    click.get_current_context().exit(code)


@contextlib.contextmanager
def _served(address: str, port: int | None) -> Iterator[Callable[[Progress], None]]:
    """Serve the run's metrics where a port was given; yield what they are told by."""
    if port is None:
        yield lambda _: None
        return
    from fleetexp.control.metrics_page import MetricsPage

    with MetricsPage(address, port) as page:
        click.echo(f"metrics: {page.url}", err=True)
        yield page.show


def exit_code(outcome: RunOutcome, *, require_decision: bool) -> ExitCode:
    """Return the outcome's code, or INCONCLUSIVE where a decision was required and the run that ended well has none."""
    from analysis.results import Decision

    undecided = outcome.decision in {None, Decision.INCONCLUSIVE}
    if require_decision and outcome.exit_code is ExitCode.DONE and undecided:
        return ExitCode.INCONCLUSIVE
    return outcome.exit_code
