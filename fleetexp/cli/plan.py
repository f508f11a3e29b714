"""`fleetexp plan`: everything that a run would do, before anything is touched."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from fleetexp.cli.errors import failure_lines, problem_of
from fleetexp.cli.options import preparing
from fleetexp.cli.output import emit_json, plain, width
from fleetexp.exit_codes import ExitCode

if TYPE_CHECKING:
    from fleetexp.control.prepare import PreparedRun


@click.command(
    epilog="""
    \b
    Example:
      fleetexp plan thp-2m-demo.yaml
      fleetexp plan my.yaml --fleet ray --hosts
      fleetexp plan my.yaml --fleet simulated --simulated-hosts 60
    """
)
@partial(preparing, hosts="--simulated-hosts", preflight=True)
@click.option("--hosts", "every_host", is_flag=True, help="Name every host, however many they are.")
def plan(*, prepared: PreparedRun, every_host: bool, as_json: bool) -> None:
    """Show what running SPEC would do here. Touches nothing.

    The arms and the knobs that they write, what those hold now, who gets which
    arm at which stage, the schedule, the largest blast radius, how long it
    takes, and the smallest effect that it can show: from the spread in earlier
    runs of the store, or from a guess that is printed as one.

    It ends as a run would: where that would be refused, with the reasons and
    the exit code of the refusal.
    """
    from fleetexp.cli.plan_screen import blast_radius, blast_radius_by_pool, blast_radius_by_stage, plan_lines
    from fleetexp.experiment import warnings_of

    experiment, made, facts, power = prepared.experiment, prepared.plan, prepared.hosts.facts, prepared.power
    if as_json:
        emit_json(
            {
                "experiment": experiment.name,
                "hypothesis": experiment.hypothesis,
                "warnings": [*warnings_of(experiment), *prepared.warnings],
                "plan": made,
                "found": {knob: facts[0].knobs.get(knob) for knob in made.knobs},
                "writable": {knob: all(knob in one.writable_knobs for one in facts) for knob in made.knobs},
                "found_by_host": {one.host: {knob: one.knobs.get(knob) for knob in made.knobs} for one in facts},
                "left_out": prepared.hosts.left_out,
                "left_out_by_condition": prepared.hosts.by_condition,
                "blast_radius": blast_radius(made),
                "blast_radius_by_stage": blast_radius_by_stage(made),
                "blast_radius_by_pool": {pool: off for pool, (off, _) in blast_radius_by_pool(made, facts).items()},
                "central": [
                    {
                        "metric": trial.metric,
                        "promql": trial.promql,
                        "tried": trial.tried,
                        "matched": trial.matched,
                        "unmatched": trial.unmatched,
                        "strangers": trial.strangers,
                        "buckets": trial.buckets,
                        "warnings": trial.warnings,
                        "outcome": "answered" if trial.failure is None else trial.failure.outcome.value,
                        "detail": "" if trial.failure is None else str(trial.failure),
                        "took_seconds": trial.took_seconds,
                    }
                    for trial in prepared.central
                ],
                "expected_seconds": made.seconds,
                "power": {**plain(power), "too_small": power.too_small},
                "refusals": [problem_of(refusal) for refusal in prepared.refusals],
            }
        )
    else:
        for line in plan_lines(
            experiment.name,
            experiment.hypothesis,
            made,
            facts,
            columns=width(),
            every_host=every_host,
            left_out=prepared.hosts.by_condition,
            power=power.text,
            warnings=[*warnings_of(experiment), *prepared.warnings],
            central=prepared.central,
        ):
            click.echo(line)
        for refusal in prepared.refusals:
            for line in failure_lines(refusal):
                click.echo(line, err=True)
    if prepared.refusals:
        click.get_current_context().exit(ExitCode.ERROR)
