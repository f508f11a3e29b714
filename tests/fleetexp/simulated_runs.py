"""Whole runs on simulated hosts, in virtual time: what the tests of faults and of scale are built on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from agents.simulated import Fault, MachineFiles, ModelParameters, Treatment
from agents.simulated.files import THP
from fleetexp.control.progress import Progress, RunOutcome
from fleetexp.domain import PeriodState
from fleetexp.experiment import parse_experiment
from fleetexp.fleets.simulated.hosts import Simulation
from fleetexp.fleets.simulated.inventory import SimulatedInventory
from fleetexp.fleets.simulated_fleet import SimulatedFleet
from fleetexp.store.schema import check
from fleetexp.store.store import Store, open_store
from tests.launching import launch

KNOB = "thp/1048576kB/enabled"
PATH = f"{THP}/hugepages-1048576kB/enabled"
LEASE = 20.0
EPOCH = datetime(2026, 2, 2, tzinfo=UTC)
EFFECTS = {"throughput": 0.2, "dtlb_load_misses": -0.26, "memory_used_bytes": 0.07}
RESPONSE = ModelParameters(treatments=(Treatment(when={PATH: "always"}, effects=EFFECTS),))

SPEC = """\
name: simulated
design: {design}
control: control
arms:
  control: {{}}
  big: {{thp/1048576kB/enabled: always}}
assignment: {{seed: 3}}
{stages}
periods: {{{baseline}washout: 10s, {blocks}sample_every: 10s}}
workload: {{command: {{argv: [work]}}}}
metrics:
  primary: throughput
  guardrails: {guardrails}
safety: {{lease: 20s, on_drift: {on_drift}, max_failed_hosts: {max_failed}}}
"""


def spec(
    *,
    design: str = "parallel",
    stages: str = "[{hosts: 4, hold: 1m}, {share: 100%, hold: 2m}]",
    baseline: str = "1m",
    blocks: str = "",
    guardrails: str = "[]",
    on_drift: str = "invalidate",
    max_failed: int = 3,
) -> str:
    """Write a spec: by default four hosts first, then all of them."""
    return SPEC.format(
        design=design,
        stages=f"stages: {stages}" if stages else "",
        baseline=f"baseline: {baseline}, " if baseline else "",
        blocks=blocks,
        guardrails=guardrails,
        on_drift=on_drift,
        max_failed=max_failed,
    )


class Watched(SimulatedInventory):
    """Keeps what the model knew at the end of the run, before its agents were closed."""

    changed_at_end: tuple[str, ...] = ()
    changed_after_the_lease: tuple[str, ...] = ()

    def open(self, hosts: Sequence[str], run: str) -> SimulatedFleet:
        fleet = super().open(hosts, run)
        close = fleet.close

        def look_and_close() -> None:
            self.changed_at_end = tuple(fleet.changed())
            fleet.clock.sleep(LEASE + 5.0)
            self.changed_after_the_lease = tuple(fleet.changed())
            close()

        fleet.close = look_and_close  # type: ignore[method-assign]
        return fleet


@dataclass
class Ran:
    """A run that is over."""

    outcome: RunOutcome
    url: str
    inventory: Watched
    seen: list[Progress] = field(default_factory=list)

    @contextlib.contextmanager
    def store(self) -> Store:  # type: ignore[misc]
        with contextlib.closing(open_store(self.url, create=False)) as store:
            yield store

    def events(self, kind: str) -> list[tuple[str | None, str]]:
        with self.store() as store:
            return [(event.host, event.detail) for event in store.events(self.outcome.run_id) if event.kind == kind]

    def periods(self, host: str) -> list[tuple[PeriodState, str]]:
        with self.store() as store:
            return [(p.state, p.reason) for p in store.periods(self.outcome.run_id) if p.host == host]

    def assert_safe(self, unreachable: Sequence[str] = ()) -> None:
        """Every host that could be reached reads as found; so does every other once its lease has run out."""
        assert set(self.inventory.changed_at_end) <= set(unreachable)
        assert self.inventory.changed_after_the_lease == ()
        assert check(self.url) == []
        with self.store() as store:
            assert all(p.state is not PeriodState.RUNNING for p in store.periods(self.outcome.run_id))


def run_simulated(
    folder: Path,
    text: str,
    *,
    hosts: int = 5,
    faults: Mapping[str, tuple[Fault, ...]] | None = None,
    response_model: ModelParameters = RESPONSE,
    machines: Mapping[str, MachineFiles] | None = None,
    observer: Callable[[Progress], None] = lambda _: None,
    store_url: str = "",
) -> Ran:
    """Run an experiment on so many simulated hosts to its end, into a new database unless told which."""
    simulation = Simulation.of(
        hosts, response_model=response_model, faults=faults or {}, machines=machines or {}, epoch=EPOCH
    )
    inventory, seen = Watched(simulation), list[Progress]()

    def watch(progress: Progress) -> None:
        seen.append(progress)
        assert progress.elapsed_seconds < 20_000, "the run does not come to an end"
        observer(progress)

    url = store_url or f"sqlite:///{folder / 'fleetexp.db'}"
    outcome = launch(parse_experiment(text), text, store_url=url, observer=watch, inventory=inventory)
    return Ran(outcome=outcome, url=url, inventory=inventory, seen=seen)
