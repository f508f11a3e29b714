"""`fleetexp rehearse`: a whole run on simulated hosts that are like the real ones. The real ones are only looked at."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from fleetexp.cli.options import fleet_options, json_option, root_option, store_option
from fleetexp.cli.run import drive, reports_option
from fleetexp.store.url import Database


@click.command(
    epilog="""
    \b
    Example:
      fleetexp rehearse my.yaml --fleet ray --effect throughput=+5.9%
    """
)
@click.argument("spec", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@fleet_options
@click.option("--seed", metavar="N", type=click.IntRange(min=0), default=1, help="Of the simulation.")
@click.option(
    "--effect",
    "effects",
    metavar="METRIC=PERCENT",
    multiple=True,
    help="Plant an effect of the treatment, as 'throughput=+5.9%'. May be repeated.",
)
@reports_option
@root_option
@store_option
@json_option
def rehearse(
    *,
    spec: Path,
    fleet: str,
    address: str,
    seed: int,
    effects: tuple[str, ...],
    reports: Path,
    root: str,
    store_url: Database,
    as_json: bool,
) -> None:
    """Rehearse SPEC on models of the hosts, in virtual time.

    It is the same run, by the same agents, on a model of each host.
    The hosts are surveyed and nothing on them is changed. Their models have
    'sim-' before the name, and everything that is shown says SIMULATED.
    """
    from agents.sysroot import FolderRoot
    from fleetexp.api import prepare
    from fleetexp.experiment import load_experiment
    from fleetexp.fleets.by_name import FleetChoice, open_inventory
    from fleetexp.fleets.inventory import sort_out
    from fleetexp.fleets.simulated.inventory import SimulatedInventory
    from fleetexp.fleets.simulated.simulation_spec import SimulationChoice
    from fleetexp.simulated import WORDS

    experiment = load_experiment(spec)
    with contextlib.closing(open_inventory(FleetChoice(name=fleet, address=address), FolderRoot(root))) as real:
        usable, _ = sort_out(real.survey(), {}, one_machine=real.one_machine)
    chosen = SimulationChoice.of(experiment, hosts=max(1, len(usable)), seed=seed, effects=effects)
    click.echo(f"{WORDS}: nothing real is changed, and no number below tells of a real host\n", err=as_json)
    models = SimulatedInventory(chosen.simulation(usable), address=str(chosen))
    drive(
        prepare(spec, store=store_url, fleet=models, acknowledge_power=True),
        page=("", None),
        reports=reports,
        require_decision=False,
        as_json=as_json,
    )
