"""The state machine, without I/O: what a host goes through, period by period."""

from __future__ import annotations

from collections import Counter, deque

import pytest

from fleetexp.control import messages as m
from fleetexp.control.resumption import INTERRUPTED
from fleetexp.control.run_machine import RunMachine
from fleetexp.domain import (
    BrokenBy,
    DriftPolicy,
    EventKind,
    PeriodKind,
    PeriodPlan,
    PeriodRecord,
    PeriodState,
    Plan,
    RunState,
    UnitPlan,
)
from tests.fleetexp.control.machine_world import World, make_plan


def test_a_healthy_run_goes_through_every_period_and_reverts_before_it_is_analysed() -> None:
    world = World(RunMachine(plan=make_plan(blocks=2)))
    world.run()
    assert world.machine.state is RunState.COMPLETED
    assert world.count(m.StartPeriod) == 8
    assert not world.changed
    kinds = [type(i) for i in world.seen]
    assert kinds.index(m.RevertHost) < kinds.index(m.Analyse)
    states = [i.state for i in world.seen if isinstance(i, m.EnterState)]
    assert states == [RunState.PREFLIGHT, RunState.RUNNING, RunState.ANALYSING, RunState.COMPLETED]


def test_nothing_is_claimed_before_every_host_passed_its_preflight() -> None:
    world = World(RunMachine(plan=make_plan(hosts=2)))
    world.step()
    assert world.machine.handle(m.PreflightDone(host="h0"), 0.0) == []
    out = world.machine.handle(m.PreflightDone(host="h1"), 0.0)
    assert out[:3] == [m.EnterState(state=RunState.RUNNING), m.Snapshot(host="h0"), m.Snapshot(host="h1")]


def test_the_arm_is_written_at_each_change_of_arm_or_block_and_not_between_washout_and_measure() -> None:
    world = World(RunMachine(plan=make_plan(blocks=2)))
    world.run()
    assert [i.arm for i in world.seen if isinstance(i, m.ApplyArm)] == ["control", "treatment"] * 2


def test_the_clock_ends_a_period_and_not_sooner() -> None:
    world = World(RunMachine(plan=make_plan()))
    world.run(until=m.WakeAt)
    world.run(until=m.WakeAt) if not world.machine.units["h0"].deadline else None
    deadline = world.machine.units["h0"].deadline
    assert deadline is not None
    assert world.machine.handle(m.TimePassed(), deadline - 0.001) == []
    assert [type(i) for i in world.machine.handle(m.TimePassed(), deadline)] == [m.Collect]


def test_a_workload_that_finishes_ends_its_period_once() -> None:
    world = World(RunMachine(plan=make_plan()))
    while world.machine.units["h0"].deadline is None:
        world.step()
    assert [type(i) for i in world.machine.handle(m.WorkloadFinished(host="h0"), 0.5)] == [m.Collect]
    assert world.machine.handle(m.WorkloadFinished(host="h0"), 0.6) == []
    assert world.machine.handle(m.TimePassed(), 1e6) == []


def test_a_broken_period_repeats_its_whole_block_in_the_same_order() -> None:
    world = World(RunMachine(plan=make_plan(blocks=2)))
    while world.machine.units["h0"].plan.periods[3] != world.machine.units["h0"].current:
        world.step()  # the measure period of the second arm in block 0
    world.todo = deque(i for i in world.todo if not isinstance(i, m.Collect))
    world.event(m.PeriodClosed(host="h0", invalid="workload failed"))
    world.run()
    assert world.machine.state is RunState.COMPLETED
    void = [i for i in world.seen if isinstance(i, m.InvalidateBlock)]
    assert void == [m.InvalidateBlock(host="h0", block=0, attempt=0, reason="workload failed", broken_by=BrokenBy.HOST)]
    added = next(i for i in world.seen if isinstance(i, m.AddPeriods))
    assert [(p.arm, p.kind.value, p.attempt) for p in added.periods] == [
        ("control", "washout", 1),
        ("control", "measure", 1),
        ("treatment", "washout", 1),
        ("treatment", "measure", 1),
    ]
    started = [(i.period.block, i.period.attempt) for i in world.seen if isinstance(i, m.StartPeriod)]
    assert started[-8:] == [(0, 1)] * 4 + [(1, 0)] * 4


def test_a_block_that_keeps_breaking_takes_its_host_out_and_the_host_is_restored() -> None:
    world = World(RunMachine(plan=make_plan(blocks=3)))
    for _ in range(500):
        if world.todo and isinstance(world.todo[0], m.Collect):
            world.seen.append(world.todo.popleft())
            world.event(m.PeriodClosed(host="h0", invalid="garbage"))
        elif not world.step():
            break
    assert world.machine.state is RunState.PAUSED
    assert "broken 3 times" in world.reason
    assert not world.changed
    assert world.count(m.RevertHost) == 1


@pytest.mark.parametrize(
    ("policy", "state", "applied_again"),
    [
        (DriftPolicy.HALT, RunState.HALTED, 0),
        (DriftPolicy.INVALIDATE, RunState.COMPLETED, 0),
        (DriftPolicy.REAPPLY, RunState.COMPLETED, 1),
    ],
)
def test_drift_is_recorded_and_handled_as_the_spec_says(
    policy: DriftPolicy, state: RunState, applied_again: int
) -> None:
    world = World(RunMachine(plan=make_plan(on_drift=policy)))
    while world.machine.units["h0"].deadline is None:
        world.step()
    out = world.machine.handle(m.DriftSeen(host="h0", detail="thp/enabled"), world.now)
    assert sum(isinstance(i, m.ApplyArm) for i in out) == applied_again
    assert m.RecordFact(kind=EventKind.DRIFT, detail="thp/enabled", host="h0") in out
    world.todo.extend(out)
    world.run()
    assert world.machine.state is state
    if state is RunState.COMPLETED:
        assert any(isinstance(i, m.AddPeriods) for i in world.seen)


def test_a_broken_period_outside_any_block_is_repeated_alone() -> None:
    plan = make_plan(blocks=1)
    baseline = PeriodPlan(index=0, kind=PeriodKind.BASELINE, arm="control", block=-1, stage=0, seconds=3.0)
    unit = UnitPlan(host="h0", stratum="", arm=None, stage=0, periods=(baseline, *plan.units[0].periods))
    plan = Plan(
        design=plan.design,
        seed=1,
        arms=plan.arms,
        control="control",
        units=(unit,),
        stages=plan.stages,
        sample_every_seconds=1.0,
        safety=plan.safety,
    )
    world = World(RunMachine(plan=plan))
    while world.machine.units["h0"].deadline is None:
        world.step()
    world.event(m.WorkloadFinished(host="h0"))
    world.todo.clear()
    world.event(m.PeriodClosed(host="h0", invalid="reboot"))
    world.run()
    assert world.machine.state is RunState.COMPLETED
    added = [i.periods for i in world.seen if isinstance(i, m.AddPeriods)]
    assert [(len(p), p[0].block, p[0].attempt) for p in added] == [(1, -1, 1)]
    assert [i for i in world.seen if isinstance(i, m.Abandon)] == [
        m.Abandon(host="h0", period=baseline, reason="reboot", broken_by=BrokenBy.HOST)
    ]
    records = [
        PeriodRecord(
            period_id=1, host="h0", plan=baseline, state=PeriodState.RUNNING, reason="", started_at=None, ended_at=None
        )
    ]
    resumed = RunMachine.resumed(plan, records)
    assert [(p.kind, p.attempt) for p in resumed.units["h0"].queue] == [(PeriodKind.BASELINE, 1)]
    told = [i for i in resumed.start(0.0) if isinstance(i, m.Abandon)]
    assert told == [m.Abandon(host="h0", period=baseline, reason=INTERRUPTED, broken_by=BrokenBy.RUN)]


def test_a_reapplied_arm_does_not_start_its_period_a_second_time() -> None:
    world = World(RunMachine(plan=make_plan(on_drift=DriftPolicy.REAPPLY)))
    while world.machine.units["h0"].deadline is None:
        world.step()
    world.event(m.DriftSeen(host="h0", detail="thp/enabled"))
    assert world.machine.handle(m.DriftSeen(host="h0", detail="thp/enabled"), world.now) == [
        m.RecordFact(
            kind=EventKind.DRIFT, detail="thp/enabled", host="h0"
        )  # the same drift, seen again before the period ended
    ]
    world.run()
    started = [(i.period.index, i.period.attempt) for i in world.seen if isinstance(i, m.StartPeriod)]
    assert max(Counter(started).values()) == 1
