"""The front door for Python: prepare a run, run it, resume it, open the store. The command line goes through it too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from agents.sysroot import FolderRoot
from fleetexp.control.prepare import PreparedRun
from fleetexp.control.prepare import prepare as prepare_over
from fleetexp.control.progress import Progress, RunOutcome
from fleetexp.errors import RunError
from fleetexp.experiment import Experiment, experiment_to_json, parse_experiment, read_spec
from fleetexp.fleets.by_name import FleetChoice, open_inventory
from fleetexp.fleets.inventory import Inventory
from fleetexp.fleets.simulated.simulation_spec import HOSTS, SimulationChoice
from fleetexp.store import store as stores
from fleetexp.store.store import DEFAULT_URL, Store
from fleetexp.store.url import StoreUrl

if TYPE_CHECKING:
    from pandas import DataFrame

    from fleetexp.imports.importer import ImportOutcome

__all__ = ["import_data", "open_store", "prepare", "resume", "run"]


def _unwatched(_: Progress) -> None:
    """Let a run go on without looking."""


def prepare(
    spec: Experiment | Path | str,
    *,
    store: StoreUrl = DEFAULT_URL,
    fleet: Inventory | str = "local",
    address: str = "",
    hosts: int | None = None,
    seed: int | None = None,
    effects: Sequence[str] = (),
    actors: int = 0,
    root: str = "/",
    acknowledge_power: bool = False,
    preflight: bool = True,
) -> PreparedRun:
    """Plan an experiment over the hosts of a fleet, with every reason why it would be refused; touches nothing.

    `spec` is a file's path, or an experiment. `fleet` is 'local' or 'inline' (this machine, its files below `root`),
    'ray' (the cluster whose head is at `address`) or 'simulated': so many `hosts` that are made up from a `seed`, in
    this process or in Ray `actors`, with effects like 'throughput=+5.9%' planted on them. What is found of other runs
    is read from the `store`. `preflight` also looks, on one machine, for what the run itself would stumble over.

    RunError, ConfigError where there is no plan to be shown. `run` takes what this returns, or `close` it.
    """
    text = "" if isinstance(spec, Experiment) else read_spec(spec)
    experiment = spec if isinstance(spec, Experiment) else parse_experiment(text, str(spec))
    if fleet == "simulated":
        hosts, seed = HOSTS if hosts is None else hosts, 1 if seed is None else seed
        address = str(SimulationChoice.of(experiment, hosts=hosts, seed=seed, effects=effects, actors=actors))
    elif hosts is not None or seed is not None or effects or actors:
        raise RunError(
            "hosts, seed, effects and actors make up a simulated fleet, and this one is real",
            where="prepare",
            remedy="leave them out, or say fleet='simulated'",
        )
    if isinstance(fleet, str):
        fleet = open_inventory(FleetChoice(name=fleet, address=address), FolderRoot(root))
    try:
        return prepare_over(
            experiment,
            text or experiment_to_json(experiment),
            fleet,
            store,
            power_acknowledged=acknowledge_power,
            preflight_root=root if preflight else "",
        )
    except BaseException:
        fleet.close()
        raise


def run(prepared: PreparedRun, *, watch: Callable[[Progress], None] = _unwatched) -> RunOutcome:
    """Run exactly what was prepared; returns when every host is restored. Ctrl-C restores the hosts first.

    `watch` is told how far it is, several times a second. RunError with the first refusal where it is refused, or
    where another run has taken one of its hosts since.
    """
    from fleetexp.control.launch import launch  # noqa: PLC0415 - a second: the analysis

    return launch(prepared, watch)


def resume(
    run_id: int,
    *,
    store: StoreUrl = DEFAULT_URL,
    address: str = "",
    root: str = "/",
    watch: Callable[[Progress], None] = _unwatched,
) -> RunOutcome:
    """Go on with a run that was paused or interrupted: finished blocks stay, the broken one is repeated.

    Where a stage waits for approval, this is the approval. `address`: of the cluster's head, where that has moved.
    """
    from fleetexp.control import launch  # noqa: PLC0415 - a second: the analysis

    return launch.resume(run_id, store_url=store, observer=watch, root=FolderRoot(root), address=address)


def import_data(
    source: DataFrame | Path | str | Sequence[Path | str], *, mapping: Path | str, store: StoreUrl = DEFAULT_URL
) -> ImportOutcome:
    """Enter measurements of your own as a run, and analyse it: a frame, a file of CSV or Parquet, or several files.

    `mapping` is the path of a YAML file that says what the columns are (docs/IMPORT.md). DataRefused and ConfigError
    name the place and the remedy, and nothing is stored; StoreError where the same was imported before.
    """
    from fleetexp.experiment.mapping import read_mapping  # noqa: PLC0415 - pyarrow and pandas, for this alone
    from fleetexp.imports.importer import import_tables  # noqa: PLC0415
    from fleetexp.imports.tables import FrameTable, SourceTable, open_file  # noqa: PLC0415

    written = read_mapping(mapping)
    tables: list[SourceTable]
    if isinstance(source, Path | str):
        tables = [open_file(Path(source), written.mapping.read)]
    elif isinstance(source, Sequence):
        tables = [open_file(Path(path), written.mapping.read) for path in source]
    else:
        tables = [FrameTable(source)]
    with closing(stores.open_store(store)) as opened:
        return import_tables(tables, written, opened)


def open_store(url: StoreUrl = DEFAULT_URL, *, read_only: bool = True) -> Store:
    """Open the database of runs, to be read unless told otherwise; StoreError where there is none."""
    return stores.open_store(url, create=not read_only, read_only=read_only)
