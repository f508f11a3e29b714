"""What earlier runs in a store say before a new one starts: how a metric spreads, and each host's value of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from analysis.errors import NotEnoughData
from analysis.plan import MetricPlan
from analysis.power import Spread
from fleetexp.domain import Design
from fleetexp.errors import ConfigError, StoreUnreachable, WrongSchema
from fleetexp.experiment import Experiment
from fleetexp.experiment.population import HostInfo
from fleetexp.simulated import WORDS, is_simulated
from fleetexp.store.records import RunRecord
from fleetexp.store.store import Store, open_store, schema_version
from fleetexp.store.url import StoreUrl, parse_url

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSpread:
    """A spread and where it is from: `simulated` says that no real host has shown it."""

    spread: Spread
    source: str
    run_id: int
    simulated: bool

    @property
    def doubt(self) -> str:
        """How much larger it may well be, in words, where few have shown it; '' else."""
        from analysis.rule_power import FEWEST_VALUES, largest_sd  # noqa: PLC0415 - SciPy takes half a second

        if self.spread.hosts >= FEWEST_VALUES:
            return ""
        return f" (few show it: it may well be {largest_sd(self.spread.hosts):.1f} times as large)"


def newest_spread(
    store: Store, metric: MetricPlan, *, contrasts: bool = False, by_host: bool = False, run_id: int | None = None
) -> KnownSpread | None:
    """Return how the metric spread in the newest run that shows it (or in `run_id`), None where none does.

    Any real run goes before a simulated one, as a rehearsal is. `contrasts` asks for the contrasts of a switchback:
    only such a run shows them.
    """
    from analysis.pre_period import block_spread, host_spread  # noqa: PLC0415 - pandas takes half a second

    for record, rows in _runs_with(store, metric.name, run_id):
        control = record.plan.control
        switchback = record.plan.design is Design.SWITCHBACK
        if contrasts and not switchback:
            continue
        try:
            found = (
                block_spread(rows, metric, control, by_host=by_host)
                if contrasts
                else host_spread(rows, metric, control)
            )
        except NotEnoughData:
            continue
        what = "host" if by_host or not contrasts else "block"
        of = f"{found.hosts} {what}s' contrasts" if contrasts else f"{found.hosts} hosts"
        simulated = is_simulated(record.fleet)
        return KnownSpread(
            spread=found,
            source=f"run {record.run_id} ({record.experiment}){f', {WORDS}' if simulated else ''}: {of}",
            run_id=record.run_id,
            simulated=simulated,
        )
    return None


def with_measures(experiment: Experiment, hosts: Sequence[HostInfo], store_url: StoreUrl) -> list[HostInfo]:
    """Give hosts their values of the metrics that the assignment balances, from the newest run that has each.

    Hosts come back as they are where nothing is balanced on a metric. ConfigError where a metric has no values.
    """
    wanted = [name for name in experiment.assignment.balance if is_metric(experiment, name, hosts)]
    if not wanted:
        return list(hosts)
    values: dict[str, dict[str, float]] = {host.name: {} for host in hosts}
    with reading_store(store_url) as store:
        for name in wanted:
            found = _newest_values(store, name) if store is not None else {}
            if not set(values) & set(found):
                raise ConfigError(
                    f"no earlier run in the store has {name} of these hosts",
                    "assignment.balance",
                    "balance on a label such as memory, or name the store of an earlier run with --store",
                )
            for host, value in found.items():
                if host in values:
                    values[host][name] = value
    return [replace(host, measures=values[host.name]) for host in hosts]


def is_metric(experiment: Experiment, name: str, hosts: Sequence[HostInfo]) -> bool:
    """Whether a name that is balanced on is a metric: some host that takes part has no label of that name."""
    taking_part = [host for host in hosts if not experiment.population.why_not(host)]
    return any(name not in host.labels for host in taking_part)


@contextlib.contextmanager
def reading_store(url: StoreUrl) -> Iterator[Store | None]:
    """Open a store without writing anything, None where there is none yet, or an empty database."""
    try:
        store = open_store(url, read_only=True)
    except (StoreUnreachable, WrongSchema) as error:
        file = parse_url(url).is_sqlite
        new_file = file and isinstance(error, StoreUnreachable)
        # A server's new database is there, and empty: the first run brings the schema.
        new_database = not file and isinstance(error, WrongSchema) and schema_version(url) is None
        if not (new_file or new_database):
            raise
        yield None
        return
    with contextlib.closing(store):
        yield store


def _newest_values(store: Store, metric: str) -> dict[str, float]:
    """One value per host: of the newest run's baseline, else of its control arm."""
    for record, rows in _runs_with(store, metric, None):
        own = rows[rows["kind"] == "baseline"]
        if own.empty:
            own = rows[(rows["kind"] == "measure") & (rows["arm"] == record.plan.control)]
        if not own.empty:
            sums = own.assign(sum=own["mean"] * own["seconds"]).groupby("host")[["sum", "seconds"]].sum()
            return {str(host): float(value) for host, value in (sums["sum"] / sums["seconds"]).items()}
    return {}


def _runs_with(store: Store, metric: str, run_id: int | None) -> Iterator[tuple[RunRecord, DataFrame]]:
    """Runs that observed a metric, real ones before simulated ones, the newest first, with its rows."""
    records = [store.run(run_id)] if run_id is not None else sorted(store.runs(), key=_real_and_new, reverse=True)
    for record in records:
        rows = store.observations(record.run_id, metrics=[metric])
        if not rows.empty:
            yield record, rows


def _real_and_new(record: RunRecord) -> tuple[bool, int]:
    return not is_simulated(record.fleet), record.run_id
