"""The state machine of a ramp: stages, gates between them, approval, and how many hosts may be changed at once."""

from __future__ import annotations

import pytest

from fleetexp.control import messages as m
from fleetexp.control.run_machine import Gate, RunMachine
from fleetexp.domain import Approval, EventKind, PeriodKind, PeriodPlan, Plan, RunState, StagePlan, UnitPlan, UnitState
from tests.fleetexp.control.machine_world import World, make_plan, staged_plan


def test_stages_open_one_after_the_other_and_hold_back_their_periods() -> None:
    plan = make_plan(hosts=1, blocks=1)
    first, *rest = plan.units[0].periods
    later = tuple(
        PeriodPlan(index=p.index, kind=p.kind, arm=p.arm, block=p.block, stage=1, seconds=p.seconds) for p in rest
    )
    unit = UnitPlan(host="h0", stratum="", arm=None, stage=0, periods=(first, *later))
    stages = (StagePlan(index=0, hosts=1, hold_seconds=100.0), StagePlan(index=1, hosts=1, hold_seconds=10.0))
    staged = Plan(
        design=plan.design,
        seed=plan.seed,
        arms=plan.arms,
        control=plan.control,
        units=(unit,),
        stages=stages,
        sample_every_seconds=1.0,
        safety=plan.safety,
    )
    world = World(RunMachine(plan=staged))
    world.run()
    assert world.machine.state is RunState.COMPLETED
    opened = [i.detail for i in world.seen if isinstance(i, m.RecordFact) and i.kind is EventKind.STAGE_OPENED]
    assert opened == ["0", "1"]
    assert world.now >= 100.0


def test_the_guardrails_are_tested_before_each_next_stage_opens() -> None:
    world = World(RunMachine(plan=staged_plan()))
    world.run()
    assert world.machine.state is RunState.COMPLETED
    told = [i for i in world.seen if isinstance(i, m.TestGuardrails | m.Analyse | m.RecordFact)]
    kinds = [i.kind if isinstance(i, m.RecordFact) else type(i).__name__ for i in told]
    assert kinds == ["stage_opened", "TestGuardrails", "stage_opened", "TestGuardrails", "stage_opened", "Analyse"]
    assert [i.stage for i in world.seen if isinstance(i, m.Analyse)] == [2]


def test_a_breach_at_a_gate_reverts_every_host_and_the_analysis_is_the_look_it_was_found_at() -> None:
    world = World(RunMachine(plan=staged_plan()))
    while not any(isinstance(i, m.TestGuardrails) and i.stage == 1 for i in world.todo):
        world.step()
    world.breaches = ("latency: An increase of 0.1 or more is shown",)
    world.run()
    assert world.machine.state is RunState.HALTED
    assert world.reason == "guardrail latency: An increase of 0.1 or more is shown"
    assert not world.changed
    assert [i.stage for i in world.seen if isinstance(i, m.Analyse)] == [1]


def test_a_run_that_is_aborted_is_analysed_at_no_planned_look() -> None:
    world = World(RunMachine(plan=staged_plan()))
    while not world.changed:
        world.step()
    world.event(m.StopRequested(who="ann"))
    world.run()
    assert [i.stage for i in world.seen if isinstance(i, m.Analyse)] == [None]


def test_a_stage_waits_for_approval_as_long_as_it_takes_and_measures_as_long_as_planned_after_it() -> None:
    world = World(RunMachine(plan=staged_plan(approve=Approval.MANUAL)))
    while world.machine.gate is not Gate.WAITING:
        world.step()
    assert world.machine.state is RunState.RUNNING
    world.run()
    assert world.machine.gate is Gate.WAITING  # nothing more happens by itself
    assert world.reason.startswith("awaiting approval: stage 1 of 3")
    measuring = [u for u in world.machine.units.values() if u.state is UnitState.MEASURING]
    left = {u.host: u.remaining_seconds for u in measuring}
    world.now += 1e6
    assert world.machine.handle(m.TimePassed(), world.now) == []
    world.event(m.ApprovalGiven(who="ann"))
    assert m.RecordFact(kind=EventKind.APPROVED, detail="stage 2 by ann") in world.todo
    assert {u.host: u.deadline - world.now for u in measuring if u.deadline} == pytest.approx(left)


@pytest.mark.parametrize(
    ("which", "why"),
    [("unread", "the metrics' server gave no answer"), ("silent", "it was read on less than half of an arm's hosts")],
)
def test_a_stage_whose_guardrail_could_not_be_read_waits_for_approval_and_says_why(which: str, why: str) -> None:
    world = World(RunMachine(plan=staged_plan()))
    setattr(world, which, ("errors",))
    world.run()
    assert (world.machine.gate, world.machine.state, world.machine.stage) == (Gate.WAITING, RunState.RUNNING, 0)
    assert f"guardrail errors is not judged: {why}. Once it is back" in world.reason
    assert "'fleetexp resume'" in world.reason
    assert m.RecordFact(kind=EventKind.GUARDRAIL_UNREAD, metric="errors", stage=0) in world.seen
    setattr(world, which, ())
    world.event(m.ApprovalGiven(who="ann"))
    world.run()
    assert world.machine.state is RunState.COMPLETED


def test_a_breach_halts_whatever_else_could_not_be_read() -> None:
    world = World(RunMachine(plan=staged_plan()))
    world.breaches, world.unread = ("latency: harm is shown",), ("errors",)
    world.run()
    assert world.machine.state is RunState.HALTED


def test_an_approval_that_nobody_waits_for_opens_nothing() -> None:
    world = World(RunMachine(plan=staged_plan(approve=Approval.MANUAL)))
    while not world.changed:
        world.step()
    assert world.machine.handle(m.ApprovalGiven(who="ann"), world.now) == []


def test_a_pause_wins_over_a_wait_for_approval() -> None:
    world = World(RunMachine(plan=staged_plan(approve=Approval.MANUAL)))
    while world.machine.gate is not Gate.WAITING:
        world.step()
    world.event(m.PauseRequested(who="ann"))
    world.event(m.ApprovalGiven(who="bob"))
    world.run()
    assert world.machine.state is RunState.PAUSED
    assert not world.changed


def test_a_stage_holds_from_when_the_last_of_its_hosts_measures() -> None:
    machine = RunMachine(plan=staged_plan())
    world = World(machine)
    while not any(isinstance(i, m.StartPeriod) and i.period.kind is PeriodKind.MEASURE for i in world.todo):
        world.step()
    start = next(i for i in world.todo if isinstance(i, m.StartPeriod) and i.period.kind is PeriodKind.MEASURE)
    world.todo.remove(start)  # a workload that takes long to get ready
    world.now = 100.0
    assert not [i for i in machine.handle(m.TimePassed(), 100.0) if isinstance(i, m.TestGuardrails)]
    out = machine.handle(m.PeriodBegun(host=start.host), 100.0)
    assert m.WakeAt(at=110.0) in out
    assert not [i for i in machine.handle(m.TimePassed(), 109.9) if isinstance(i, m.TestGuardrails)]
    assert m.TestGuardrails(stage=0) in machine.handle(m.TimePassed(), 110.0)


def test_no_more_hosts_are_changed_at_once_than_allowed() -> None:
    world = World(RunMachine(plan=staged_plan(hosts=8, max_changing=2)))
    world.run()
    assert world.machine.state is RunState.COMPLETED
    assert world.most_changing == 2
    assert world.count(m.RevertHost) == 8


def test_reverts_on_a_halt_are_never_throttled() -> None:
    world = World(RunMachine(plan=staged_plan(hosts=8, max_changing=1)))
    while world.count(m.StartPeriod) < 8:
        world.step()
    out = world.machine.handle(m.StopRequested(who="ann"), world.now)
    assert sum(isinstance(i, m.RevertHost) for i in out) == 8
