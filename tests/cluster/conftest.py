"""One Ray cluster and one PostgreSQL server for the session; each test finds it whole, and leaves hosts as found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agents.claim import closed_journals
from agents.journal import Journal
from agents.messages import KnobReason
from fleetexp.store.store import Store, check, open_store
from tests.postgresql_server import Server
from tests.ray_cluster import KNOB, Cluster, Node, until, why_not

LEASE_SECONDS = 6.0
PROMISE_SECONDS = LEASE_SECONDS + 5

SPEC = """\
name: {name}
design: parallel
population: {{pools: [web]}}
control: small
arms:
  small: {{thp/2048kB/enabled: never}}
  big: {{thp/2048kB/enabled: always}}
assignment: {{seed: {seed}, strata: [pool]}}
stages: {stages}
periods: {{baseline: 1s, washout: 200ms, sample_every: 500ms}}
workload: {{command: {{argv: [{python}, -c, {work}]}}}}
metrics:
  primary: latency
  better: {{latency: decrease}}
safety: {{lease: {lease}s, max_failed_hosts: {cap}, on_drift: {on_drift}}}
"""
STAGES = "[{hosts: 2, hold: 2s}, {hosts: 3, hold: 2s}, {share: 100%, hold: 4s}]"
LONG = "[{share: 100%, hold: 10s}]"
# Reads the knob of its own host, found by the machine's name: so a treatment has an effect, as on a real kernel.
WORK = """\
import pathlib, platform, time
knob = pathlib.Path({folder!r}, platform.node(), {knob!r})
while True:
    print("latency", 2.0 if knob.read_text().strip() == "always" else 3.0, flush=True)
    time.sleep(0.2)
"""


def spec(folder: Path, *, seed: int, stages: str = STAGES, cap: int = 1, on_drift: str = "invalidate") -> str:
    """Return the YAML of a parallel experiment over the pool `web`, whose hosts are in this folder."""
    return SPEC.format(
        name="rays",
        seed=seed,
        stages=stages,
        python=json.dumps(sys.executable),
        work=json.dumps(WORK.format(folder=str(folder), knob=KNOB)),
        lease=f"{LEASE_SECONDS:g}",
        cap=cap,
        on_drift=on_drift,
    )


@dataclass
class Fleet:
    """The cluster with a database of this test's own, and the commands run on it."""

    cluster: Cluster
    store: str
    folder: Path
    found: dict[str, str]
    seed: int
    drivers: list[subprocess.Popen[str]] = field(default_factory=list)

    def spec(self, **changes: Any) -> Path:  # noqa: ANN401 - as `spec` takes them
        path = self.folder / "spec.yaml"
        path.write_text(spec(self.cluster.folder, seed=self.seed, **changes))
        return path

    def launch(self, **changes: Any) -> subprocess.Popen[str]:  # noqa: ANN401
        """Start `fleetexp run` on the head."""
        path = self.spec(**changes)
        reports = ["--reports", str(self.folder / "reports")]
        driver = self.cluster.fleetexp("run", str(path), *self.where, *self.database, *reports, "--json")
        self.drivers.append(driver)
        return driver

    @property
    def where(self) -> Sequence[str]:
        return ("--fleet", "ray", "--address", self.cluster.address)

    @property
    def database(self) -> Sequence[str]:
        return ("--store", self.store)

    def finish(self, driver: subprocess.Popen[str], within: float = 240.0) -> tuple[int, dict[str, Any]]:
        """Wait for a driver to end; returns its exit code and the object it printed."""
        out, err = driver.communicate(timeout=within)
        assert out.strip(), err[-3000:]
        return driver.returncode, json.loads(out)

    def resume(self, within: float = 240.0) -> tuple[int, dict[str, Any]]:
        reports = ["--reports", str(self.folder / "reports")]
        driver = self.cluster.fleetexp("resume", "1", *self.database, *reports, "--json")
        self.drivers.append(driver)
        return self.finish(driver, within)

    def opened(self) -> Store:
        return open_store(self.store, create=False)

    def events(self, kind: str) -> list[tuple[str, str]]:
        store = self.opened()
        try:
            return [(event.host, event.detail) for event in store.events(1) if event.kind == kind]
        finally:
            store.close()

    def story(self) -> str:
        """What happened, for the message of an assertion."""
        store = self.opened()
        try:
            events = [f"{event.at:%H:%M:%S} {event.host} {event.kind}: {event.detail}" for event in store.events(1)]
            broken = [f"{p.host} {p.plan.kind} {p.reason}" for p in store.periods(1) if p.state.value == "invalid"]
        finally:
            store.close()
        return "\n".join([*events, *broken])

    def treated(self) -> list[Node]:
        """The nodes whose host holds the treatment now."""
        return [node for node in self.cluster.nodes if node.holds() == "always"]

    def until_measuring(self, driver: subprocess.Popen[str], treated: int = 1) -> None:
        """Wait until hosts are treated and every host is being measured."""

        def so() -> bool:
            assert driver.poll() is None, driver.communicate()
            if len(self.treated()) < treated:
                return False
            store = self.opened()
            try:
                running = {p.host for p in store.periods(1) if p.state.value == "running" and p.plan.kind == "measure"}
            finally:
                store.close()
            return len(running) == len(self.cluster.nodes)

        until(so, 120, "every host is being measured")

    def states(self) -> dict[str, str]:
        """Host -> the last thing that the trail says of it."""
        store = self.opened()
        try:
            return {event.host: event.kind for event in store.events(1) if event.host}
        finally:
            store.close()

    def is_as_found(self, nodes: Sequence[Node] | None = None) -> bool:
        return all(node.holds() == self.found[node.name] for node in nodes or self.cluster.nodes)

    def undone_by_guardians(self, nodes: Sequence[Node]) -> bool:
        """Whether a guardian has written to each of these hosts, and ended the claim with that."""
        journals = [closed_journals(node.root) for node in nodes if node.root is not None]
        return all(any(c.reason is KnobReason.GUARDIAN for j in closed[-1:] for c in j.changes) for closed in journals)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := why_not():
        pytest.skip(f"no cluster can be made here: {reason}")
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def seed(cluster: Cluster) -> int:
    """A seed that gives each arm two of the four hosts."""
    from agents.facts import survey
    from fleetexp.errors import ConfigError
    from fleetexp.experiment import parse_experiment
    from fleetexp.experiment.schedule import host_info, make_plan

    facts = [survey(node.root, host=node.name, labels=node.labels) for node in cluster.nodes if node.root]
    for seed in range(100):
        try:
            plan = make_plan(parse_experiment(spec(cluster.folder, seed=seed)), [host_info(one) for one in facts])
        except ConfigError:
            continue
        if [unit.arm for unit in plan.units].count("big") == 2:
            return seed
    raise AssertionError("no seed splits the hosts evenly")


@pytest.fixture
def fleet(cluster: Cluster, seed: int, postgresql: Server, tmp_path: Path) -> Iterator[Fleet]:
    cluster.heal()
    found = {node.name: node.holds() for node in cluster.nodes}
    made = Fleet(cluster, postgresql.by_socket(postgresql.new_database()), tmp_path, found, seed)
    try:
        yield made
    finally:
        for driver in made.drivers:
            driver.kill()
            driver.communicate()
        cluster.heal()
    until(made.is_as_found, LEASE_SECONDS + 15, "every host reads as it was found")
    for node in cluster.nodes:
        assert node.root is not None
        until(lambda root=node.root: Journal.open(root.state_dir, read_only=True) is None, 20, f"{node.name} is free")
    if made.drivers:
        problems = check(made.store)
        assert not problems, problems
