"""What is known of a run before it starts: who is left out by which condition, and why it would not start."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agents.facts import survey
from agents.messages import EventSupport, HostFacts
from agents.sysroot import FolderRoot
from fleetexp.control.launch import launch
from fleetexp.control.prepare import PreparedRun, prepare
from fleetexp.errors import RunError
from fleetexp.experiment import parse_experiment
from fleetexp.fleets.inline_fleet import InlineInventory
from fleetexp.fleets.inventory import FoundHost
from fleetexp.fleets.simulated.inventory import SimulatedInventory
from fleetexp.fleets.simulated.simulation_spec import SimulationChoice
from fleetexp.store.store import open_store

SPEC = """
name: x
design: {design}
population: {{{population}}}
arms: {{control: {{}}, treatment: {{{knob}: always}}}}
metrics: {{primary: memory_used_bytes}}
assignment: {{seed: 3}}
{stages}
"""
RAMP = "stages: [{hosts: 2, hold: 10m, approve: manual}, {share: 100%, hold: 24h}]\nperiods: {baseline: 30m}"
HostTree = Callable[..., FolderRoot]


class Found(InlineInventory):
    """An inventory whose survey is what the test says."""

    def __init__(self, facts: Sequence[HostFacts]) -> None:
        super().__init__({})
        self.one_machine = len(facts) == 1
        self.found = [FoundHost(host=one.host, labels=one.labels, facts=one) for one in facts]

    def survey(self) -> Sequence[FoundHost]:
        return self.found


@pytest.fixture
def facts(host_tree: HostTree) -> HostFacts:
    return survey(host_tree(), host="web-1")


def prepared(
    facts: Sequence[HostFacts], population: str = "", knob: str = "thp/2048kB/enabled", design: str = ""
) -> PreparedRun:
    design = design or ("switchback" if len(facts) == 1 else "parallel")
    stages = "" if design == "switchback" else RAMP
    spec = SPEC.format(design=design, population=population, knob=knob, stages=stages)
    return prepare(parse_experiment(spec), spec, Found(facts), "sqlite:///none.db")


def fleet(facts: HostFacts, count: int = 24) -> list[HostFacts]:
    skus = ("6226", "6226R", "7543")
    return [replace(facts, host=f"web-{n}", labels={"pool": "p", "sku": skus[n % 3]}) for n in range(count)]


def test_each_condition_says_how_many_hosts_it_took_away(facts: HostFacts) -> None:
    found = prepared(fleet(facts), population='exclude: [web-0], where: {sku: "6226", memory: ">=1GiB"}')
    assert found.hosts.by_condition == {"exclude": 1, "where sku ==6226": 16}
    assert {unit.host for unit in found.plan.units} == {f"web-{n}" for n in range(3, 24, 3)}
    assert found.refusals == ()


def test_a_knob_that_no_host_has_is_refused_before_anything_starts(facts: HostFacts) -> None:
    without = replace(facts, knobs={name: value for name, value in facts.knobs.items() if "2048kB" not in name})
    for hosts, words in (([without], "this host does not have"), (fleet(without), "none of 24 hosts has")):
        with pytest.raises(RunError, match=f"{words} the knob thp/2048kB/enabled") as caught:
            prepared(hosts).require()
        assert "fleetexp doctor" in caught.value.remedy


def test_a_knob_that_can_not_be_written_on_this_host_is_refused(facts: HostFacts) -> None:
    stuck = replace(facts, writable_knobs=(), not_writable_because="a container: read-only sysfs")
    with pytest.raises(RunError, match="a container: read-only sysfs") as caught:
        prepared([stuck]).require()
    assert "thp/2048kB/enabled" in caught.value.where
    assert "fleetexp doctor" in caught.value.remedy
    prepared([facts]).require()


def test_more_unfit_hosts_than_may_fail_are_refused_and_fewer_are_not(facts: HostFacts) -> None:
    hosts = fleet(facts)
    one = [replace(hosts[0], writable_knobs=(), not_writable_because="not root"), *hosts[1:]]
    prepared(one).require()
    two = [one[0], replace(hosts[1], knobs={}), *hosts[2:]]
    with pytest.raises(RunError, match=r"2 of 24 hosts can't be put on the arms, and at most 1 may fail") as caught:
        prepared(two).require()
    assert "web-0: thp/2048kB/enabled can't be written: not root" in caught.value.what
    assert "web-1: no thp/2048kB/enabled" in caught.value.what


def test_one_machine_is_no_fleet(facts: HostFacts) -> None:
    with pytest.raises(RunError, match="this is one machine"):
        prepared([facts], design="parallel")


def test_made_up_hosts_wait_for_nobody_and_are_sampled_less_in_a_long_run(facts: HostFacts) -> None:
    spec = parse_experiment(SPEC.format(design="parallel", population="", knob="thp/2048kB/enabled", stages=RAMP))
    inventory = SimulatedInventory(SimulationChoice.of(spec, hosts=8, seed=1).simulation())
    made = prepare(spec, "", inventory, "sqlite:///none.db").plan
    real = prepared(fleet(facts, 8)).plan
    assert [stage.approve for stage in real.stages] == ["manual", "auto"]
    assert [stage.approve for stage in made.stages] == ["auto", "auto"]
    assert real.sample_every_seconds == 10.0
    assert 60.0 < made.sample_every_seconds <= 300.0
    assert made.safety.lease_seconds >= 4 * made.sample_every_seconds
    assert made.seconds == real.seconds


def test_a_plan_too_small_for_what_is_expected_is_refused_unless_that_is_acknowledged(facts: HostFacts) -> None:
    text = SPEC.format(design="parallel", population="", knob="thp/2048kB/enabled", stages=RAMP)
    spec = parse_experiment(text.replace("memory_used_bytes}", "memory_used_bytes, expected: 1%}"))
    hosts, url = fleet(facts), "sqlite:///none.db"
    refused = prepare(spec, text, Found(hosts), url)
    assert [refusal.where for refusal in refused.refusals] == ["metrics.expected"]
    prepare(spec, text, Found(hosts), url, power_acknowledged=True).require()
    with pytest.raises(RunError, match="TOO SMALL TO BE SEEN"):  # also without the command line
        launch(refused, lambda _: None)


@pytest.mark.slow
def test_what_was_prepared_is_what_is_launched(facts: HostFacts, tmp_path: Path) -> None:
    text = SPEC.format(design="parallel", population="", knob="thp/2048kB/enabled", stages=RAMP)
    spec, url = parse_experiment(text), f"sqlite:///{tmp_path / 'runs.db'}"
    made = prepare(spec, text, SimulatedInventory(SimulationChoice.of(spec, hosts=8, seed=1).simulation()), url)
    turned = replace(made.plan, units=made.plan.units[::-1])  # what a second preparation would not give
    prepared = replace(made, hosts=replace(made.hosts, plan=turned))
    outcome = launch(prepared, lambda _: None)
    with contextlib.closing(open_store(url)) as store:
        assert store.run(outcome.run_id).plan == turned
    assert prepared.power.assumed  # what was known before the run: it is not its own earlier run
    assert not made.power.assumed


def counting(facts: HostFacts, *events: str) -> HostFacts:
    """A host that counts these of three events."""
    names = ("dtlb_load_misses", "instructions", "dtlb_walk_cycles")
    support = tuple(EventSupport(event=one, available=one in events, reason="no PMU in this guest") for one in names)
    return replace(facts, perf_events=support)


def prepared_for(facts: Sequence[HostFacts], metrics: str) -> PreparedRun:
    design, stages = ("switchback", "") if len(facts) == 1 else ("parallel", RAMP)
    spec = SPEC.format(design=design, population="", knob="thp/2048kB/enabled", stages=stages)
    text = spec.replace("{primary: memory_used_bytes}", metrics)
    return prepare(parse_experiment(text), text, Found(facts), "sqlite:///none.db")


@pytest.mark.parametrize(
    "metrics",
    [
        "{primary: dtlb_load_misses_per_kilo_instruction}",
        "{primary: memory_used_bytes, guardrails: [{metric: cgroup_dtlb_load_misses, worse: increase, margin: 5%}]}",
    ],
)
def test_a_primary_or_guardrail_that_is_not_counted_is_refused_with_the_reason(facts: HostFacts, metrics: str) -> None:
    none = counting(facts, "instructions")
    for hosts, words in (([none], "this host does not count"), (fleet(none), "none of 24 hosts counts")):
        with pytest.raises(RunError, match=f"{words} .*dtlb_load_misses.*: no PMU in this guest") as caught:
            prepared_for(hosts, metrics).require()
        assert "fleetexp doctor" in caught.value.remedy
    whole = counting(facts, "instructions", "dtlb_load_misses")
    prepared_for([whole], metrics).require()
    some = [*fleet(none, 2), *fleet(whole)[2:]]
    with pytest.raises(RunError, match="2 of 24 hosts can't be put on the arms") as caught:
        prepared_for(some, metrics).require()
    assert "dtlb_load_misses not counted: no PMU in this guest" in caught.value.what


def test_a_secondary_that_is_not_counted_is_a_warning(facts: HostFacts) -> None:
    whole = counting(facts, "instructions", "dtlb_load_misses")
    metrics = "{primary: dtlb_load_misses_per_kilo_instruction, secondary: [dtlb_walk_cycles]}"
    found = prepared_for(fleet(whole), metrics)
    assert found.refusals == ()
    missing, turns = found.warnings
    assert missing.startswith("dtlb_walk_cycles is not counted on 24 of 24 hosts: web-")
    assert missing.endswith(": no PMU in this guest")
    assert "3 wanted events" in turns
    assert "preflight" in turns
    assert prepared([facts]).warnings == ()


@pytest.mark.parametrize(
    ("source", "approve", "warned"),
    [
        ("{prometheus: 'http://127.0.0.1:9100/metrics', histogram: latency_seconds, quantile: 0.99}", "auto", True),
        ("{prometheus: 'http://127.0.0.1:9100/metrics', histogram: latency_seconds, quantile: 0.99}", "manual", False),
        ("{prometheus: 'http://127.0.0.1:9100/metrics', name: latency}", "auto", False),
    ],
)
def test_a_guardrail_that_no_stage_s_end_can_judge_is_told_before_the_run(
    facts: HostFacts, source: str, approve: str, warned: bool
) -> None:
    guarded = (
        "{primary: memory_used_bytes, guardrails: [{metric: p99, worse: increase, margin: 5%}],"
        f" sources: {{p99: {source}}}}}"
    )
    spec = SPEC.format(design="parallel", population="", knob="thp/2048kB/enabled", stages=RAMP)
    text = spec.replace("{primary: memory_used_bytes}", guarded).replace("manual", approve)
    said = prepare(parse_experiment(text), text, Found(fleet(facts)), "sqlite:///none.db").warnings
    assert any("the guardrail p99 is known only once a period has ended" in one for one in said) is warned
