"""`fleetexp plan`: everything that a run would do, before anything is touched."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from fleetexp.cli.options import fleet_options, json_option, root_option
from fleetexp.cli.output import emit_json, width


@click.command(
    epilog="""
    \b
    Example:
      fleetexp plan configs/thp-2m-demo.yaml
    """
)
@click.argument("spec", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@fleet_options
@root_option
@json_option
def plan(*, spec: Path, fleet: str, address: str, root: str, as_json: bool) -> None:
    """Show what running SPEC would do here. Touches nothing.

    The arms and the knobs that they write, what those hold now, the schedule,
    the largest blast radius, and how long it takes.
    """
    from agents.sysroot import FolderRoot
    from fleetexp.cli.plan_screen import blast_radius, plan_lines
    from fleetexp.config import load_experiment
    from fleetexp.orchestrator.fleets import FleetChoice, open_inventory
    from fleetexp.orchestrator.inventory import plan_over, sort_out

    experiment = load_experiment(spec)
    with contextlib.closing(open_inventory(FleetChoice(name=fleet, address=address), FolderRoot(root))) as inventory:
        seen = inventory.survey()
    usable, left_out = sort_out(seen, {}, one_machine=inventory.one_machine)
    made = plan_over(experiment, usable, left_out)
    facts = next(one for one in usable if one.host == made.units[0].host)
    if as_json:
        found = {knob: facts.knobs.get(knob) for knob in made.knobs}
        emit_json(
            {
                "experiment": experiment.name,
                "hypothesis": experiment.hypothesis,
                "plan": made,
                "found": found,
                "writable": {knob: knob in facts.writable_knobs for knob in made.knobs},
                "blast_radius": blast_radius(made),
                "expected_seconds": made.seconds,
            }
        )
        return
    for line in plan_lines(experiment.name, experiment.hypothesis, made, facts, columns=width()):
        click.echo(line)
