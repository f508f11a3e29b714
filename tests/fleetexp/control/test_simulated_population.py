"""Made-up hosts are those that a spec asks for: its pools, strata, kernels, memory, page sizes and names."""

from __future__ import annotations

from collections import Counter

import pytest

from fleetexp.control.prepare import PreparedRun, prepare
from fleetexp.errors import RunError
from fleetexp.experiment import Experiment, load_experiment, parse_experiment
from fleetexp.experiment.schedule import host_info, left_out_of
from fleetexp.fleets.simulated.inventory import SimulatedInventory
from fleetexp.fleets.simulated.simulation_spec import SimulationChoice
from tests.fleetexp.test_config import CONFIGS

SPEC = """
name: x
design: parallel
population: {{{population}}}
arms: {{control: {{}}, treatment: {{thp/2048kB/enabled: always}}}}
metrics: {{primary: memory_used_bytes}}
assignment: {{method: complete{assignment}}}
stages: [{{share: 100%, hold: 1h}}]
safety: {{{safety}}}
"""


def experiment(population: str = "", assignment: str = "", safety: str = "") -> Experiment:
    return parse_experiment(SPEC.format(population=population, assignment=assignment, safety=safety))


def prepared(spec: Experiment, hosts: int = 24) -> PreparedRun:
    """Prepare over the hosts that are made up for a spec; what the run's record keeps makes the same ones."""
    chosen = SimulationChoice.of(spec, hosts=hosts, seed=1)
    again = SimulationChoice.parse(str(chosen))
    assert again.simulation().labels == chosen.simulation().labels
    assert again.simulation().machine == chosen.simulation().machine
    return prepare(spec, "", SimulatedInventory(again.simulation()), "sqlite:///none.db")


def test_the_web_rollout_of_the_readme_finds_its_hosts() -> None:
    found = prepared(load_experiment(CONFIGS / "thp-1g-web.yaml"), hosts=60)
    assert len(found.plan.units) == 60
    assert found.hosts.by_condition == {}
    assert found.refusals == ()
    assert Counter(facts.labels["pool"] for facts in found.hosts.facts) == {"web-a": 30, "web-b": 30}
    assert len({(facts.labels["pool"], facts.labels["sku"]) for facts in found.hosts.facts}) == 4
    assert {facts.kernel for facts in found.hosts.facts} == {"6.19-simulated"}
    assert all("thp/1048576kB/enabled" in facts.knobs for facts in found.hosts.facts)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("hosts", [20, 60])
def test_every_spec_that_is_shipped_finds_hosts_of_its_own(path: object, hosts: int) -> None:
    found = prepared(load_experiment(path), hosts=hosts)  # type: ignore[arg-type]
    assert found.hosts.by_condition == {}
    assert found.refusals == ()


@pytest.mark.parametrize(
    "population",
    [
        'where: {kernel: ">6.12, <6.19"}',
        'where: {kernel: "==4.18.0-553.el8_10"}',
        'where: {kernel: ">=6.19-rc2"}',
        'where: {kernel: "<5.0"}',
        'where: {memory: ">200GiB, <=1TiB"}',
        'where: {memory: "<8GiB"}',
        'where: {cpus: ">=64", numa_nodes: "1"}',
        'where: {sku: "6226", rack: "!=r17"}',
        'where: {pool: "!=web-a"}',
        'where: {thp_1048576kB: "!=absent", thp_512kB: "!=absent"}',
        "where: {thp_4096kB: absent}",
        'where: {firmware: ">=1.2, <1.10"}',
        'where: {cpu_model: "Intel(R) Xeon(R) CPU"}',
        'pools: ["a pool", "b"], where: {sku: "its odd | or not"}',
        'hosts: ["web-*", "db-*"]',
        "hosts: [web-1, web-2, web-3, web-4]",
        'hosts: [web-1, "web-2*"], exclude: [web-29]',
    ],
)
def test_whatever_a_population_asks_for_is_met(population: str) -> None:
    spec = experiment(population)
    found = prepared(spec)
    assert len(found.plan.units) >= 4
    assert found.hosts.by_condition == {}
    assert left_out_of(spec, map(host_info, found.hosts.facts)) == {}


def test_what_the_hosts_are_compared_balanced_and_limited_by_is_there() -> None:
    found = prepared(experiment(assignment=", strata: [sku, zone]", safety="max_per: {rack: 2}"))
    assert len({unit.stratum for unit in found.plan.units}) == 4
    assert len(found.plan.units) == 24
    assert len({facts.labels["rack"] for facts in found.hosts.facts}) == 12
    balanced = parse_experiment(
        SPEC.format(population="", assignment=", balance: [shelf]", safety="").replace("complete", "matched_pairs")
    )
    assert len({unit.balance for unit in prepared(balanced).plan.units}) > 1


def test_what_no_host_can_meet_is_refused_by_name() -> None:
    with pytest.raises(RunError, match="no simulated host can meet cpus >=9, <9"):
        SimulationChoice.of(experiment('where: {cpus: ">=9, <9"}'), hosts=4, seed=1)
