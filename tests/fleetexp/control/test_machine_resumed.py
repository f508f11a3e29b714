"""The state machine of a run that goes on after it was interrupted."""

from __future__ import annotations

from collections import Counter

from fleetexp.control import messages as m
from fleetexp.control.resumption import INTERRUPTED, Past
from fleetexp.control.run_machine import RunMachine
from fleetexp.domain import (
    BrokenBy,
    EventKind,
    Goal,
    PeriodPlan,
    PeriodRecord,
    PeriodState,
    Plan,
    RunCause,
    RunState,
)
from tests.fleetexp.control.machine_world import World, make_plan


def _records(plan: Plan, states: dict[int, PeriodState]) -> list[PeriodRecord]:
    return [
        PeriodRecord(
            period_id=p.index + 1,
            host="h0",
            plan=p,
            state=states.get(p.index, PeriodState.PLANNED),
            reason="",
            started_at=None,
            ended_at=None,
        )
        for p in plan.units[0].periods
    ]


def test_resume_keeps_finished_blocks_and_repeats_the_one_that_was_interrupted() -> None:
    plan = make_plan(blocks=3)
    done = dict.fromkeys(range(5), PeriodState.COMPLETE) | {5: PeriodState.RUNNING}
    world = World(RunMachine.resumed(plan, _records(plan, done)))
    world.run()
    assert world.machine.state is RunState.COMPLETED
    started = Counter((i.period.block, i.period.attempt) for i in world.seen if isinstance(i, m.StartPeriod))
    assert started == {(1, 1): 4, (2, 0): 4}
    assert [i for i in world.seen if isinstance(i, m.InvalidateBlock)] == [
        m.InvalidateBlock(host="h0", block=1, attempt=0, reason=INTERRUPTED, broken_by=BrokenBy.RUN)
    ]


def test_resume_of_a_run_with_everything_measured_only_analyses() -> None:
    plan = make_plan(blocks=1)
    machine = RunMachine.resumed(plan, _records(plan, dict.fromkeys(range(4), PeriodState.COMPLETE)))
    world = World(machine)
    world.run()
    assert machine.state is RunState.COMPLETED
    assert world.count(m.StartPeriod) == 0
    assert world.count(m.Analyse) == 1


def test_resume_does_not_try_a_block_more_often_than_allowed() -> None:
    plan = make_plan(blocks=1)
    last_try = [
        PeriodRecord(
            period_id=i,
            host="h0",
            plan=PeriodPlan(index=p.index, kind=p.kind, arm=p.arm, block=0, stage=0, seconds=p.seconds, attempt=2),
            state=PeriodState.INVALID,
            reason="x",
            started_at=None,
            ended_at=None,
        )
        for i, p in enumerate(plan.units[0].periods)
    ]
    machine = RunMachine.resumed(plan, last_try)
    assert not machine.units["h0"].queue


def test_a_resumed_run_that_does_not_pass_its_preflight_can_be_resumed_again() -> None:
    plan = make_plan(blocks=2)
    machine = RunMachine.resumed(plan, _records(plan, dict.fromkeys(range(4), PeriodState.COMPLETE)))
    machine.start(0.0)
    machine.handle(m.PreflightDone(host="h0", problems=("held by run 7",)), 0.0)
    assert machine.state is RunState.PAUSED


def test_a_halt_that_was_interrupted_ends_as_a_halt_and_measures_nothing_more() -> None:
    plan = make_plan(blocks=2)
    states = dict.fromkeys(range(5), PeriodState.COMPLETE)
    goal = Goal(state=RunState.HALTED, cause=RunCause.GUARDRAIL, reason="guardrail oom_kills: 1")
    world = World(RunMachine.resumed(plan, _records(plan, states), Past(goal=goal)))
    world.run()
    assert world.machine.state is RunState.HALTED
    assert world.reason == "guardrail oom_kills: 1"
    assert m.RecordFact(kind=EventKind.HALTING_TO, goal=goal.state, cause=goal.cause, detail=goal.reason) in world.seen
    assert world.count(m.Snapshot) == world.count(m.RevertHost) == world.count(m.Analyse) == 1
    assert world.count(m.StartPeriod) == world.count(m.ApplyArm) == 0


def test_a_host_that_tripped_stays_out_of_the_run_that_is_resumed_and_is_put_back_once_more() -> None:
    plan = make_plan(hosts=2, blocks=1)
    world = World(RunMachine.resumed(plan, _records(plan, {}), Past(tripped={"h0": "oom_kills: 3"})))
    world.run()
    assert world.count(m.RevertHost) == 2
    assert {i.host for i in world.seen if isinstance(i, m.StartPeriod)} <= {"h1"}


def test_a_crash_does_not_make_the_cap_forget() -> None:
    plan = make_plan(hosts=3, blocks=1, max_failed=1)
    machine = RunMachine.resumed(plan, [], Past(troubled=frozenset({"h2"})))
    world = World(machine)
    world.event(m.StepFailed(host="h0", detail="refused"))
    world.run()
    assert machine.state is RunState.PAUSED
    assert "2 hosts failed or were lost, 1 allowed" in world.reason
