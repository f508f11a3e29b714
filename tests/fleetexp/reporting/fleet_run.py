"""A rollout over pools of servers, written into a store as the orchestrator would: for reports, SQL and live pages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np

from agents.messages import HostEvent, HostEventKind, HostFacts, KnobChange, KnobReason, Measurement, Reading, Sample
from analysis import analyze
from fleetexp.control.observations import observe
from fleetexp.domain import BrokenBy, EventKind, PeriodKind, PeriodRecord, PeriodState, RunState
from fleetexp.experiment import analysis_plan, parse_experiment
from fleetexp.experiment.schedule import assigned_units, host_info, make_plan
from fleetexp.store.store import Store
from tests.fleetexp.store.rows import NOW, facts
from tests.fleetexp.store.single import end_period, record_host_facts, start_period

KNOB = "thp/1048576kB/enabled"
GIB = 2.0**30
SPEC = """\
name: thp-1g-web
hypothesis: 1 GB pages raise the throughput of the web tier
design: parallel
population: {pools: [web-a, web-b]}
arms:
  control: {}
  treatment: {thp/1048576kB/enabled: always}
assignment: {strata: [pool], seed: 7}
stages:
  - {hosts: 4, hold: 10m}
  - {share: 50%, hold: 10m}
  - {share: 100%, hold: 20m}
periods: {baseline: 10m, washout: 2m, sample_every: 30s}
workload: {command: {argv: [/usr/bin/serve]}}
metrics:
  primary: throughput
  secondary: [dtlb_load_misses_per_kilo_instruction, page_table_bytes]
  guardrails:
    - {metric: memory_used_bytes, worse: increase, margin: 12%}
    - {metric: oom_kills, tripwire: 1}
  better: {throughput: increase}
"""
HOSTILE = "web-<b>&'\"; DROP TABLE run;--\x1b[31m\u202e"


def fleet_run(store: Store, hosts: int = 24, *, seed: int = 7, hostile: bool = False, samples: int = 8) -> int:
    """Store a finished run of so many hosts with readings, writes, events and findings; returns its number."""
    draw = np.random.default_rng(seed)
    surveyed = surveyed_hosts(hosts, draw, hostile=hostile)
    names = [one.host for one in surveyed]
    text = SPEC
    experiment = parse_experiment(text, source="spec.yaml")
    plan = make_plan(experiment, [host_info(one) for one in surveyed])
    run_id = store.create_run(
        experiment_name=experiment.name,
        hypothesis=experiment.hypothesis,
        spec_text=text,
        spec_json={"name": experiment.name},
        plan=plan,
        launched_by="asha@ops-1 pid 4242",
        versions={"fleetexp": "0.1.0", "python": "3.11.7"},
        fleet="ray",
    )
    for one in surveyed:
        record_host_facts(store, run_id, one)
    store.set_run_state(run_id, RunState.RUNNING)
    load = {name: float(np.exp(draw.normal(7, 0.1))) for name in names}
    arms = {unit.host: str(unit.arm) for unit in plan.units}
    start = {unit.host: NOW + timedelta(minutes=12 * unit.stage) for unit in plan.units}
    for stage in range(len(plan.stages)):
        store.record_event(run_id, EventKind.STAGE_OPENED, stage=stage, at=NOW + timedelta(minutes=12 * stage))
    broken = names[-1]
    for record in store.periods(run_id):
        begun = start[record.host]
        ended = begun + timedelta(seconds=30 * samples)
        start[record.host] = ended
        treated = record.plan.arm == "treatment" and record.plan.kind is PeriodKind.MEASURE
        _written(store, run_id, record, arms[record.host], begun)
        readings = list(_readings(record, draw, load[record.host], treated=treated, samples=samples))
        store.append(record.host, readings)
        start_period(store, record.period_id, begun, f"boot-{record.host}")
        if record.host == broken and treated:
            reason = "drift: somebody wrote it"
            end_period(store, record.period_id, ended, PeriodState.INVALID, reason, BrokenBy.HOST)
        else:
            end_period(store, record.period_id, ended, PeriodState.COMPLETE)
        observe(store, [record.period_id])
    for name in names:
        _restored(store, run_id, name, start[name])
    findings = analyze(
        store.observations(run_id), analysis_plan(experiment, assigned_units(plan)), store.periods_frame(run_id)
    )
    store.save_findings(run_id, findings)
    store.set_run_state(run_id, RunState.COMPLETED)
    return run_id


def unfinished_run(store: Store, hosts: int = 12) -> int:
    """Store a run in its second stage: some hosts measuring, some waiting, one lost; returns its number."""
    draw = np.random.default_rng(1)
    surveyed = surveyed_hosts(hosts, draw)
    experiment = parse_experiment(SPEC)
    plan = make_plan(experiment, [host_info(one) for one in surveyed])
    run_id = store.create_run(
        experiment_name="thp-1g-web-again",
        hypothesis=experiment.hypothesis,
        spec_text=SPEC,
        spec_json={"name": experiment.name},
        plan=plan,
        launched_by="asha@ops-1 pid 4242",
        versions={"fleetexp": "0.1.0"},
        fleet="ray",
    )
    for one in surveyed:
        record_host_facts(store, run_id, one)
    store.set_run_state(run_id, RunState.RUNNING)
    for stage in (0, 1):
        store.record_event(run_id, EventKind.STAGE_OPENED, stage=stage, at=NOW + timedelta(minutes=12 * stage))
    joined = {unit.host for unit in plan.units if unit.stage <= 1}
    for record in store.periods(run_id):
        if record.host not in joined:
            continue
        store.append(record.host, list(_readings(record, draw, 1000.0, treated=False, samples=4)))
        start_period(store, record.period_id, NOW, "boot")
        if record.plan.kind is not PeriodKind.MEASURE:
            end_period(store, record.period_id, NOW + timedelta(minutes=5), PeriodState.COMPLETE)
            observe(store, [record.period_id])
    store.record_event(run_id, EventKind.HOST_LOST, "no answer to Poll in time", host=plan.units[0].host)
    return run_id


def surveyed_hosts(hosts: int, draw: np.random.Generator, *, hostile: bool = False) -> list[HostFacts]:
    """Survey so many hosts of two pools; with `hostile` the first has a name full of markup, SQL and control codes."""
    names = [f"web-{place:04d}" for place in range(hosts)]
    if hostile:
        names[0] = HOSTILE
    return [_facts(name, place, draw) for place, name in enumerate(names)]


def _facts(name: str, place: int, draw: np.random.Generator) -> HostFacts:
    labels = {"pool": ("web-a", "web-b")[place % 2], "sku": "xl"}
    return replace(
        facts(name), labels=labels, uptime_seconds=float(draw.integers(3600, 900_000)), boot_id=f"boot-{name}"
    )


def _readings(
    record: PeriodRecord, draw: np.random.Generator, load: float, *, treated: bool, samples: int
) -> Iterator[Reading]:
    """Readings 30 s apart: counters that rise, gauges that wander, the workload's own figures."""
    free = float(draw.uniform(6, 90)) * GIB
    pages = float(draw.integers(20, 70)) if treated else 0.0
    base = float(draw.integers(1_000, 9_000))
    sequence = 0
    started = NOW + timedelta(minutes=12 * record.plan.stage + record.plan.index)
    for tick in range(samples):
        at = started + timedelta(seconds=30 * tick)
        sequence += 1
        done = tick / max(1, samples - 1)
        yield Sample(
            position=sequence,
            period_id=record.period_id,
            sequence=sequence,
            taken_at=at,
            boottime_seconds=1000.0 + 30 * tick,
            values={
                "pgfault": base + 5000 * tick,
                "oom_kills": 0.0,
                "memory_total_bytes": 256 * GIB,
                "memory_available_bytes": 39 * GIB - (8 * GIB if treated else 0) + float(draw.normal(0, 0.3)) * GIB,
                "memory_free_bytes": free,
                "anon_bytes": 180 * GIB,
                "page_table_bytes": (0.5 if treated else 0.9) * GIB * float(draw.uniform(0.95, 1.05)),
                "instructions": 1e9 * (tick + 1),
                "dtlb_load_misses": (3.1e6 if treated else 4.2e6) * (tick + 1) * float(draw.uniform(0.999, 1.001)),
                "free_huge_bytes": float(draw.integers(100, 4000)) * 2**21,
                "thp_1048576kB_nr_anon": pages,
                "thp_1048576kB_anon_fault_alloc": base + round(pages * done),
                "thp_1048576kB_anon_fault_fallback": base + round(9 * done if treated else 0),
                "thp_1048576kB_split": base + round(3 * done if treated else 0),
                "thp_split_pud": base + round(5 * done if treated else 0),
                "agent_cpu_seconds": 0.03 * (tick + 1) * float(draw.uniform(0.99, 1.01)),
            },
        )
        sequence += 1
        yield Measurement(
            position=sequence,
            period_id=record.period_id,
            sequence=sequence,
            taken_at=at,
            metric="throughput",
            value=load * (1.06 if treated else 1.0) * float(draw.normal(1, 0.01)),
        )
        if treated:
            sequence += 1
            yield Measurement(
                position=sequence,
                period_id=record.period_id,
                sequence=sequence,
                taken_at=at,
                metric="fault_latency_seconds",
                value=float(draw.lognormal(-1.5, 0.4)),
            )
    if treated and record.plan.index == 1:
        yield HostEvent(
            position=sequence + 1,
            period_id=record.period_id,
            sequence=sequence + 1,
            taken_at=started,
            kind=HostEventKind.DRIFT,
            detail=f"{KNOB}: wanted 'always', reads 'never'",
        )


def _written(store: Store, run_id: int, record: PeriodRecord, arm: str, at: datetime) -> None:
    if record.plan.kind is not PeriodKind.WASHOUT or arm == "control":
        return
    store.record_knob_changes(run_id, record.host, (_change("never", "always", KnobReason.APPLY, at),))


def _restored(store: Store, run_id: int, host: str, at: datetime) -> None:
    if any(name == host for name, _ in store.knob_changes(run_id)):
        store.record_knob_changes(run_id, host, (_change("always", "never", KnobReason.REVERT, at),))


def _change(before: str, wanted: str, reason: KnobReason, at: datetime) -> KnobChange:
    return KnobChange(knob=KNOB, before=before, wanted=wanted, after=wanted, reason=reason, changed_at=at)
