"""`fleetexp plan`: everything that a run would do, before anything is touched."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from fleetexp.cli.options import fleet_options, json_option, root_option, store_option
from fleetexp.cli.output import emit_json, plain, width


@click.command(
    epilog="""
    \b
    Example:
      fleetexp plan configs/thp-2m-demo.yaml
      fleetexp plan my.yaml --fleet ray --hosts
    """
)
@click.argument("spec", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--hosts", "every_host", is_flag=True, help="Name every host, however many they are.")
@fleet_options
@root_option
@store_option
@json_option
def plan(*, spec: Path, every_host: bool, fleet: str, address: str, root: str, store_url: str, as_json: bool) -> None:
    """Show what running SPEC would do here. Touches nothing.

    The arms and the knobs that they write, what those hold now, who gets which
    arm at which stage, the schedule, the largest blast radius, how long it
    takes, and the smallest effect that it can show: from the spread in earlier
    runs of the store, or from a guess that is printed as one.
    """
    from agents.sysroot import FolderRoot
    from fleetexp.cli.plan_screen import blast_radius, blast_radius_by_pool, blast_radius_by_stage, plan_lines
    from fleetexp.config import load_experiment, warnings_of
    from fleetexp.orchestrator.fleets import FleetChoice, open_inventory
    from fleetexp.orchestrator.inventory import plan_over, sort_out
    from fleetexp.planned_power import planned_power

    experiment = load_experiment(spec)
    with contextlib.closing(open_inventory(FleetChoice(name=fleet, address=address), FolderRoot(root))) as inventory:
        seen = inventory.survey()
    usable, left_out = sort_out(seen, {}, one_machine=inventory.one_machine)
    made = plan_over(experiment, usable, left_out, store_url)
    power = planned_power(experiment, made, store_url)
    by_host = {one.host: one for one in usable}
    facts = [by_host[unit.host] for unit in made.units]
    if as_json:
        emit_json(
            {
                "experiment": experiment.name,
                "hypothesis": experiment.hypothesis,
                "warnings": warnings_of(experiment),
                "plan": made,
                "found": {knob: facts[0].knobs.get(knob) for knob in made.knobs},
                "writable": {knob: all(knob in one.writable_knobs for one in facts) for knob in made.knobs},
                "found_by_host": {one.host: {knob: one.knobs.get(knob) for knob in made.knobs} for one in facts},
                "left_out": left_out,
                "blast_radius": blast_radius(made),
                "blast_radius_by_stage": blast_radius_by_stage(made),
                "blast_radius_by_pool": {pool: off for pool, (off, _) in blast_radius_by_pool(made, facts).items()},
                "expected_seconds": made.seconds,
                "power": {**plain(power), "too_small": power.too_small},
            }
        )
        return
    for line in plan_lines(
        experiment.name,
        experiment.hypothesis,
        made,
        facts,
        columns=width(),
        every_host=every_host,
        power=power.text,
        warnings=warnings_of(experiment),
    ):
        click.echo(line)
