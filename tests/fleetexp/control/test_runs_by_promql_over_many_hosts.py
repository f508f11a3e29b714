"""Runs over as many as 1,000 hosts whose primary metric comes from a real Prometheus by one query for all of them."""

from __future__ import annotations

import contextlib
import functools
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import urllib3

from agents.simulated.files import THP, MachineFiles
from agents.simulated.host import SimulatedHost
from fleetexp.control import central_readings
from fleetexp.control.progress import Progress, RunOutcome
from fleetexp.domain import CentralGap, EventKind, PeriodKind, RunRequest, RunState
from fleetexp.experiment import parse_experiment
from fleetexp.fleets.base import HostReply
from fleetexp.fleets.simulated.hosts import HostPool, Simulation
from fleetexp.fleets.simulated.inventory import SimulatedInventory
from fleetexp.fleets.simulated_fleet import SimulatedFleet
from fleetexp.store.store import Store, open_store
from tests.launching import launch
from tests.prometheus_server import Gate, exporter, prometheus, proxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

KNOB = f"{THP}/hugepages-1048576kB/enabled"
MACHINE = MachineFiles(thp_sizes_kib=(2048, 1048576), hugetlb_kib=())
LIFT = -0.1  # of latency, under 1 GB pages; errors double
# Read when a period has ended, at the longest interval between readings, and once at the very beginning.
SPEC = """\
name: by-promql-over-many-hosts
design: parallel
control: small
arms:
  small: {{}}
  big: {{thp/1048576kB/enabled: always}}
assignment: {{seed: 3}}
stages: {stages}
periods: {{baseline: 6s, washout: 2s, sample_every: 5s}}
metrics:
  primary: latency
  guardrails: {guardrails}
  server: {{url: "{server}"}}
  sources:
    latency: {{promql: latency_seconds, by: instance, unit: seconds, step: 1s, settle: 6s, every: 10m}}
    errors: {{promql: errors_per_second, by: instance, unit: errors per second, step: 1s, settle: 6s, every: 10m}}
  better: {{latency: decrease, errors: decrease}}
safety: {{lease: 10m, max_failed_hosts: 1}}
"""


class RealTimeFleet(SimulatedFleet):
    """Simulated hosts whose time is that of this machine: a server can scrape what they do."""

    name = "in-real-time"

    def __init__(self, pool: HostPool, hosts: Sequence[str], *, epoch: datetime) -> None:
        super().__init__(pool, hosts, epoch=epoch)
        self._began = time.monotonic()

    def receive(self, timeout_seconds: float) -> list[HostReply]:
        self.clock.reach(time.monotonic() - self._began)
        replies = super().receive(timeout_seconds)
        time.sleep(max(0.0, self.clock.monotonic() - (time.monotonic() - self._began)))
        return replies


@functools.cache
def varied(host: str, *, big: bool) -> float:
    """By what a host differs under an arm, the same at every instant: so the estimate is the same in every run."""
    return random.Random(f"{host} {big}").gauss(1, 0.02)


@dataclass
class Service:
    """What runs on all the hosts: each has a latency of its own, which falls with 1 GB pages, on one page for all."""

    names: Sequence[str]
    hosts: Mapping[str, SimulatedHost] = field(default_factory=dict)  # while a run has them open

    def page(self) -> bytes:
        lines: dict[str, list[str]] = {"latency_seconds": [], "errors_per_second": []}
        for number, host in enumerate(self.names):
            big = host in self.hosts and self.hosts[host].root.values[KNOB] == "always"
            seconds = 0.02 * (1 + number % 7 / 20) * (1 + LIFT * big) * varied(host, big=big)
            lines["latency_seconds"].append(f'{{instance="{host}:9100"}} {seconds}')
            lines["errors_per_second"].append(f'{{instance="{host}:9100"}} {(1 + big) * varied(host, big=big)}')
        return "".join(f"{name}{line}\n" for name, own in lines.items() for line in own).encode()


class Inventory(SimulatedInventory):
    name = "in-real-time"

    def __init__(self, service: Service) -> None:
        super().__init__(Simulation(hosts=tuple(service.names), machine=MACHINE))
        self._service = service

    def open(self, hosts: Sequence[str], run: str) -> RealTimeFleet:
        simulation = replace(self.simulation, epoch=datetime.now(UTC))
        pool = HostPool(simulation, hosts, run)
        self._service.hosts = pool.hosts
        return RealTimeFleet(pool, hosts, epoch=simulation.epoch)


@dataclass(frozen=True)
class Ran:
    outcome: RunOutcome
    url: str
    answered: int  # range queries, as the server itself counts them

    @contextlib.contextmanager
    def store(self) -> Iterator[Store]:
        with contextlib.closing(open_store(self.url, create=False)) as store:
            yield store


def ran(
    count: int,
    folder: Path,
    *,
    stages: str,
    guardrails: str = "[]",
    watch: Callable[[Gate, str, Progress], None] | None = None,
) -> Ran:
    """Run the experiment on so many hosts to its end; `watch` stands between it and the server, and sees the store."""
    service = Service(Simulation.of(count).hosts)
    url = f"sqlite:///{folder / 'fleetexp.db'}"
    with exporter() as web:
        web.body = service.page
        with prometheus({"own": [web.url.split("/")[2]]}) as server, proxy(server) as gate:
            server.wait_for("latency_seconds offset 9s", count)
            asked = server.url if watch is None else gate.url
            text = SPEC.format(server=asked, stages=stages, guardrails=guardrails)
            experiment, inventory = parse_experiment(text), Inventory(service)

            def observer(progress: Progress) -> None:
                if watch is not None:
                    watch(gate, url, progress)

            outcome = launch(experiment, text, store_url=url, observer=observer, inventory=inventory)
            page = urllib3.request("GET", f"{server.url}/metrics", timeout=10).data.decode()
    answered = re.findall(r'prometheus_http_requests_total\{code="\d+",handler="/api/v1/query_range"\} (\d+)', page)
    return Ran(outcome=outcome, url=url, answered=sum(map(int, answered)))


@pytest.mark.parametrize("count", [10, 1_000])
def test_one_request_reads_a_period_of_all_hosts_whatever_their_number(count: int, tmp_path: Path) -> None:
    run = ran(count, tmp_path, stages="[{share: 100%, hold: 8s}]", guardrails="[{metric: errors, margin: 150%}]")
    assert run.outcome.state is RunState.COMPLETED, run.outcome.reason
    with run.store() as store:
        measured = {one.period_id: one for one in store.periods(1) if one.plan.kind is PeriodKind.MEASURE}
        values = store.central_values(1)
        assert len(measured) == count
        assert len(values) == 2 * 2 * count, "two metrics of a baseline and a measured period"
        assert {one.gap for one in values} == {CentralGap.NONE}
        began = min(one.started_at for one in measured.values() if one.started_at)
        asked = Counter(one.metric for one in store.central_requests(1) if one.metric)
        after = Counter(one.metric for one in store.central_requests(1) if one.metric and one.end_at >= began)
        assert after == {"latency": 1, "errors": 1}
        assert asked.total() <= 6, "and two at most of the baseline"
        assert run.answered == asked.total() + 2, "the server counts no other, but the one of each before the run"
        found = store.findings(1)
        (latency,) = (one for one in found.estimates if one.metric == "latency" and one.headline)
        assert (latency.n_control + latency.n_treatment) == count
        assert latency.lift_interval is not None
        assert latency.lift_interval.low < LIFT < latency.lift_interval.high
        assert latency.lift_interval.high < LIFT / 2


def test_a_guardrail_by_promql_holds_a_rollout_up_after_its_first_stage(tmp_path: Path) -> None:
    stages = "[{hosts: 20, hold: 8s}, {share: 100%, hold: 8s}]"
    run = ran(40, tmp_path, stages=stages, guardrails="[{metric: errors, margin: 20%}]")
    assert run.outcome.state is RunState.HALTED
    assert "errors" in run.outcome.reason
    with run.store() as store:
        measured = [one for one in store.periods(1) if one.plan.kind is PeriodKind.MEASURE and one.started_at]
        big = {one.host for one in measured if one.plan.arm == "big"}
        assert 0 < len(big) < 20, "the others never got there"


def test_no_stage_opens_by_itself_while_the_server_of_a_guardrail_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(central_readings, "WAIT_SECONDS", 1.0)
    seen: list[str] = []

    def watch(gate: Gate, url: str, progress: Progress) -> None:
        gate.fail = 0 if seen else 1_000_000  # away from when the run has begun until somebody has looked
        if not seen and "awaiting approval" in progress.current:
            with contextlib.closing(open_store(url, create=False)) as store:
                seen.append(store.run(1).reason)
                assert not [
                    one for one in store.periods(1) if one.plan.stage == 1 and one.plan.arm == "big" and one.started_at
                ]
                store.request(1, RunRequest.APPROVE, "ann")

    stages = "[{hosts: 20, hold: 8s}, {share: 100%, hold: 8s}]"
    run = ran(40, tmp_path, stages=stages, guardrails="[{metric: errors, margin: 150%}]", watch=watch)
    assert run.outcome.state is RunState.COMPLETED, run.outcome.reason
    assert len(seen) == 1
    assert "guardrail errors is not judged: the metrics' server gave no answer" in seen[0]
    with run.store() as store:
        told = [(one.kind, one.metric) for one in store.events(1, kinds=[EventKind.GUARDRAIL_UNREAD])]
        assert told == [(EventKind.GUARDRAIL_UNREAD, "errors")]
