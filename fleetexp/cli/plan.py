"""`fleetexp plan`: everything that a run would do, before anything is touched."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleetexp.cli.failures import failure_lines, problem_of
from fleetexp.cli.options import (
    fleet_options,
    json_option,
    power_option,
    refuse_simulation_options,
    root_option,
    simulated_address,
    simulation_options,
    store_option,
)
from fleetexp.cli.output import emit_json, plain, width
from fleetexp.exit_codes import ExitCode

if TYPE_CHECKING:
    from agents.messages import Problem
    from fleetexp.orchestrator.inventory import FoundHost
    from fleetexp.orchestrator.prepare import Prepared
    from fleetexp.store.url import Database


@click.command(
    epilog="""
    \b
    Example:
      fleetexp plan thp-2m-demo.yaml
      fleetexp plan my.yaml --fleet ray --hosts
      fleetexp plan my.yaml --fleet simulated --simulated-hosts 60
    """
)
@click.argument("spec", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--hosts", "every_host", is_flag=True, help="Name every host, however many they are.")
@fleet_options
@power_option
@partial(simulation_options, hosts="--simulated-hosts")
@root_option
@store_option
@json_option
def plan(
    *,
    spec: Path,
    every_host: bool,
    fleet: str,
    address: str,
    acknowledge_power: bool,
    host_count: int,
    seed: int,
    effects: tuple[str, ...],
    actors: int,
    root: str,
    store_url: Database,
    as_json: bool,
) -> None:
    """Show what running SPEC would do here. Touches nothing.

    The arms and the knobs that they write, what those hold now, who gets which
    arm at which stage, the schedule, the largest blast radius, how long it
    takes, and the smallest effect that it can show: from the spread in earlier
    runs of the store, or from a guess that is printed as one.

    It ends as a run would: where that would be refused, with the reasons and
    the exit code of the refusal.
    """
    from agents.messages import Severity
    from agents.sysroot import FolderRoot
    from fleetexp.cli.plan_screen import blast_radius, blast_radius_by_pool, blast_radius_by_stage, plan_lines
    from fleetexp.config import load_experiment, warnings_of
    from fleetexp.errors import RunError
    from fleetexp.orchestrator.fleets import FleetChoice, open_inventory
    from fleetexp.orchestrator.prepare import prepare
    from fleetexp.planned_power import planned_power, require_power

    refuse_simulation_options(fleet)
    experiment = load_experiment(spec)
    if fleet == "simulated":
        address = simulated_address(experiment, host_count, seed, effects, actors, as_json=as_json)
    with contextlib.closing(open_inventory(FleetChoice(name=fleet, address=address), FolderRoot(root))) as inventory:
        seen = inventory.survey()
    prepared = prepare(experiment, inventory, seen, store_url)
    made, facts = prepared.plan, prepared.facts
    power = planned_power(experiment, made, store_url)
    refusals, warnings = [*prepared.refusals], list(prepared.warnings)
    if inventory.one_machine and not refusals:
        here = _of_this_host(prepared, seen, root)
        refusals = [RunError(one.what, one.where, one.remedy) for one in here if one.severity is Severity.ERROR]
        warnings = [f"{one.what} — {one.remedy}" for one in here if one.severity is Severity.WARNING]
    try:
        require_power(power, acknowledged=acknowledge_power)
    except RunError as error:
        refusals.append(error)
    if as_json:
        emit_json(
            {
                "experiment": experiment.name,
                "hypothesis": experiment.hypothesis,
                "warnings": [*warnings_of(experiment), *warnings],
                "plan": made,
                "found": {knob: facts[0].knobs.get(knob) for knob in made.knobs},
                "writable": {knob: all(knob in one.writable_knobs for one in facts) for knob in made.knobs},
                "found_by_host": {one.host: {knob: one.knobs.get(knob) for knob in made.knobs} for one in facts},
                "left_out": prepared.left_out,
                "left_out_by_condition": prepared.by_condition,
                "blast_radius": blast_radius(made),
                "blast_radius_by_stage": blast_radius_by_stage(made),
                "blast_radius_by_pool": {pool: off for pool, (off, _) in blast_radius_by_pool(made, facts).items()},
                "expected_seconds": made.seconds,
                "power": {**plain(power), "too_small": power.too_small},
                "refusals": [problem_of(refusal) for refusal in refusals],
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
            left_out=prepared.by_condition,
            power=power.text,
            warnings=[*warnings_of(experiment), *warnings],
        ):
            click.echo(line)
        for refusal in refusals:
            for line in failure_lines(refusal):
                click.echo(line, err=True)
    if refusals:
        click.get_current_context().exit(ExitCode.ERROR)


def _of_this_host(prepared: Prepared, found: Sequence[FoundHost], root: str) -> tuple[Problem, ...]:
    """Return what a run's preflight would find on this machine; hosts of a fleet look later."""
    from agents.perf import probe_own_events
    from agents.preflight import preflight
    from agents.sysroot import FolderRoot

    plan, (facts,), here = prepared.plan, prepared.facts, FolderRoot(root)
    # A copied tree tells of a host's knobs; what runs there, and what its pages say, is not to be found here.
    workloads, sources = (list(plan.workloads.values()), plan.sources) if here.real else ([], ())
    return preflight(
        here,
        facts,
        plan.arms,
        workloads,
        found[0].claim,
        sources=sources,
        events=plan.events,
        needed_events=plan.needed_events,
        own_events=probe_own_events(here, sources),
    )
