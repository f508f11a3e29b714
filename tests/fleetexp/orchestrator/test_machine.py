"""The state machine, without I/O: events in, instructions out."""

from __future__ import annotations

from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.messages import Arm
from analysis.plan import Direction, GuardrailPlan
from fleetexp.domain import (
    Design,
    PeriodKind,
    PeriodPlan,
    PeriodRecord,
    PeriodState,
    Plan,
    RunState,
    Safety,
    StagePlan,
    UnitPlan,
    UnitState,
)
from fleetexp.orchestrator import hosts as hosts_module
from fleetexp.orchestrator import messages as m
from fleetexp.orchestrator.machine import Gate, Machine
from fleetexp.orchestrator.resumption import Past
from fleetexp.orchestrator.roll import Standing


def make_plan(hosts: int = 1, blocks: int = 2, *, max_failed: int = 3, on_drift: str = "invalidate") -> Plan:
    units = []
    for number in range(hosts):
        periods = []
        for block in range(blocks):
            for arm in ("control", "treatment"):
                for kind, seconds in ((PeriodKind.WASHOUT, 1.0), (PeriodKind.MEASURE, 5.0)):
                    index = len(periods)
                    periods.append(PeriodPlan(index=index, kind=kind, arm=arm, block=block, stage=0, seconds=seconds))
        units.append(UnitPlan(host=f"h{number}", stratum="", arm=None, stage=0, periods=tuple(periods)))
    return Plan(
        design=Design.SWITCHBACK,
        seed=1,
        arms=(Arm(name="control", knobs={}), Arm(name="treatment", knobs={"thp/enabled": "always"})),
        control="control",
        units=tuple(units),
        stages=(StagePlan(index=0, hosts=hosts, hold_seconds=1e9),),
        sample_every_seconds=1.0,
        safety=Safety(max_failed_hosts=max_failed, lease_seconds=15.0, on_drift=on_drift),
    )


def assert_counted(machine: Machine) -> None:
    """Compare the roll's counts with what a look at every unit says."""
    units, roll = list(machine.units.values()), machine.roll
    assert roll.counts == Standing(*map(sum, zip(*(unit.standing for unit in units), strict=True)))
    assert +roll.states == Counter(unit.state for unit in units)
    assert +roll.awaited == Counter(unit.plan.stage for unit in units if unit.awaited)


def staged_plan(hosts: int = 4, *, approve: str = "auto", max_failed: int = 3, max_changing: int | None = None) -> Plan:
    """A parallel ramp: one host, two, all; half of them treated."""
    sizes = (1, 2, hosts)
    stages = tuple(StagePlan(index=k, hosts=n, hold_seconds=10.0 + 3.0, approve=approve) for k, n in enumerate(sizes))
    units = []
    for number in range(hosts):
        arm, stage = ("treatment", "control")[number % 2], next(k for k, n in enumerate(sizes) if number < n)
        seconds = sum(one.hold_seconds for one in stages[stage:]) - 3.0
        periods = (
            PeriodPlan(index=0, kind=PeriodKind.BASELINE, arm="control", block=-1, stage=0, seconds=2.0),
            PeriodPlan(index=1, kind=PeriodKind.WASHOUT, arm=arm, block=0, stage=stage, seconds=1.0),
            PeriodPlan(index=2, kind=PeriodKind.MEASURE, arm=arm, block=0, stage=stage, seconds=seconds),
        )
        units.append(UnitPlan(host=f"h{number}", stratum="", arm=arm, stage=stage, periods=periods))
    return Plan(
        design=Design.PARALLEL,
        seed=1,
        arms=(Arm(name="control", knobs={}), Arm(name="treatment", knobs={"thp/enabled": "always"})),
        control="control",
        units=tuple(units),
        stages=stages,
        sample_every_seconds=1.0,
        safety=Safety(
            max_failed_hosts=max_failed, lease_seconds=15.0, on_drift="invalidate", max_changing=max_changing
        ),
    )


def crossing(host: str) -> m.TripwireCrossed:
    rail = GuardrailPlan(metric="oom_kills", worse=Direction.INCREASE, tripwire=1.0)
    return m.TripwireCrossed(host=host, guardrail=rail, value=3.0)


ASKED = (m.CheckHost, m.Snapshot, m.ApplyArm, m.StartPeriod, m.Collect, m.Revert, m.Reconnect)  # of a host


class World:
    """Answers every instruction at once, the way a healthy fleet would; keeps what the machine asked for."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.now = 0.0
        self.wakes: list[float] = []
        self.seen: list[m.Instruction] = []
        self.changed: set[str] = set()  # hosts whose knobs may differ from what was found
        self.dead: set[str] = set()
        self.breaches: tuple[str, ...] = ()  # what the next test of the guardrails finds
        self.most_changing = 0
        self.todo: deque[m.Instruction] = deque(machine.start(0.0))

    def event(self, event: m.Event) -> None:
        self.todo.extend(self.machine.handle(event, self.now))
        assert_counted(self.machine)
        if self.machine.goal is None:
            self.most_changing = max(self.most_changing, self.machine.roll.counts.changing)

    def step(self) -> bool:
        """Carry out one instruction, or let time pass to the next wake; False when nothing is left."""
        if self.todo:
            instruction = self.todo.popleft()
            self.seen.append(instruction)
            self._answer(instruction)
            return True
        if not self.wakes:
            return False
        self.now = max(self.now, self.wakes.pop(self.wakes.index(min(self.wakes))))
        self.event(m.TimePassed())
        return True

    def run(self, until: type | None = None, limit: int = 2000) -> None:
        for _ in range(limit):
            if until is not None and self.todo and isinstance(self.todo[0], until):
                return
            if not self.step():
                return
        raise AssertionError("the machine does not come to an end")

    def _answer(self, instruction: m.Instruction) -> None:
        host = getattr(instruction, "host", "")
        if isinstance(instruction, m.WakeAt):
            self.wakes.append(instruction.at)
        elif isinstance(instruction, m.Analyse):
            self.event(m.Analysed())
        elif isinstance(instruction, m.TestGuardrails):
            self.event(m.GuardrailsTested(stage=instruction.stage, breaches=self.breaches))
        elif isinstance(instruction, m.ApplyArm) and host not in self.dead:
            self.changed.add(host)
            self.event(m.KnobsVerified(host=host, arm=instruction.arm))
        elif isinstance(instruction, ASKED):
            if host in self.dead:
                self.event(m.HostLost(host=host, detail="no answer"))
                return
            if isinstance(instruction, m.Revert):
                self.changed.discard(host)
            answers: dict[type, m.Event] = {
                m.CheckHost: m.PreflightDone(host=host),
                m.Snapshot: m.KnobsSnapshotted(host=host),
                m.StartPeriod: m.PeriodBegun(host=host),
                m.Collect: m.PeriodClosed(host=host, invalid=getattr(instruction, "invalid", "")),
                m.Revert: m.HostReverted(host=host),
                m.Reconnect: m.HostBack(host=host),
            }
            self.event(answers[type(instruction)])

    def lose(self, host: str) -> None:
        """No answer comes to what the host was asked; what goes into the store for it goes there all the same."""
        self.todo = deque(i for i in self.todo if not (isinstance(i, ASKED) and i.host == host))
        self.event(m.HostLost(host=host, detail="gone"))

    def count(self, kind: type) -> int:
        return sum(isinstance(i, kind) for i in self.seen)

    @property
    def reason(self) -> str:
        return [i for i in self.seen if isinstance(i, m.EnterState)][-1].reason


def test_a_healthy_run_goes_through_every_period_and_reverts_before_it_is_analysed() -> None:
    world = World(Machine(plan=make_plan(blocks=2)))
    world.run()
    assert world.machine.state is RunState.COMPLETED
    assert world.count(m.StartPeriod) == 8
    assert not world.changed
    kinds = [type(i) for i in world.seen]
    assert kinds.index(m.Revert) < kinds.index(m.Analyse)
    states = [i.state for i in world.seen if isinstance(i, m.EnterState)]
    assert states == [RunState.PREFLIGHT, RunState.RUNNING, RunState.ANALYSING, RunState.COMPLETED]


def test_nothing_is_claimed_before_every_host_passed_its_preflight() -> None:
    world = World(Machine(plan=make_plan(hosts=2)))
    world.step()
    assert world.machine.handle(m.PreflightDone(host="h0"), 0.0) == []
    out = world.machine.handle(m.PreflightDone(host="h1"), 0.0)
    assert out[:3] == [m.EnterState(state=RunState.RUNNING), m.Snapshot(host="h0"), m.Snapshot(host="h1")]


def test_the_arm_is_written_at_each_change_of_arm_or_block_and_not_between_washout_and_measure() -> None:
    world = World(Machine(plan=make_plan(blocks=2)))
    world.run()
    assert [i.arm for i in world.seen if isinstance(i, m.ApplyArm)] == ["control", "treatment"] * 2


def test_the_clock_ends_a_period_and_not_sooner() -> None:
    world = World(Machine(plan=make_plan()))
    world.run(until=m.WakeAt)
    world.run(until=m.WakeAt) if not world.machine.units["h0"].deadline else None
    deadline = world.machine.units["h0"].deadline
    assert deadline is not None
    assert world.machine.handle(m.TimePassed(), deadline - 0.001) == []
    assert [type(i) for i in world.machine.handle(m.TimePassed(), deadline)] == [m.Collect]


def test_a_workload_that_finishes_ends_its_period_once() -> None:
    world = World(Machine(plan=make_plan()))
    while world.machine.units["h0"].deadline is None:
        world.step()
    assert [type(i) for i in world.machine.handle(m.WorkloadFinished(host="h0"), 0.5)] == [m.Collect]
    assert world.machine.handle(m.WorkloadFinished(host="h0"), 0.6) == []
    assert world.machine.handle(m.TimePassed(), 1e6) == []


def test_a_broken_period_repeats_its_whole_block_in_the_same_order() -> None:
    world = World(Machine(plan=make_plan(blocks=2)))
    while world.machine.units["h0"].plan.periods[3] != world.machine.units["h0"].current:
        world.step()  # the measure period of the second arm in block 0
    world.todo = deque(i for i in world.todo if not isinstance(i, m.Collect))
    world.event(m.PeriodClosed(host="h0", invalid="workload failed"))
    world.run()
    assert world.machine.state is RunState.COMPLETED
    void = [i for i in world.seen if isinstance(i, m.InvalidateBlock)]
    assert void == [m.InvalidateBlock(host="h0", block=0, attempt=0, reason="workload failed")]
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
    world = World(Machine(plan=make_plan(blocks=3)))
    for _ in range(500):
        if world.todo and isinstance(world.todo[0], m.Collect):
            world.seen.append(world.todo.popleft())
            world.event(m.PeriodClosed(host="h0", invalid="garbage"))
        elif not world.step():
            break
    assert world.machine.state is RunState.PAUSED
    assert "broken 3 times" in world.reason
    assert not world.changed
    assert world.count(m.Revert) == 1


def test_preflight_errors_on_the_only_host_fail_the_run_and_touch_nothing() -> None:
    machine = Machine(plan=make_plan())
    world = World(machine)
    world.step()
    world.todo.clear()
    world.event(m.PreflightDone(host="h0", problems=("no such size",)))
    world.run()
    assert machine.state is RunState.FAILED
    assert world.reason == "no such size"
    assert world.count(m.Snapshot) == world.count(m.Revert) == 0


def test_a_host_that_fails_preflight_is_left_out_and_the_others_go_on() -> None:
    machine = Machine(plan=make_plan(hosts=2))
    world = World(machine)
    world.step()
    world.todo.clear()
    world.event(m.PreflightDone(host="h0", problems=("no such size",)))
    world.event(m.PreflightDone(host="h1"))
    world.run()
    assert machine.state is RunState.COMPLETED
    assert {i.host for i in world.seen if isinstance(i, m.Snapshot)} == {"h1"}


def test_a_host_lost_before_it_was_claimed_needs_no_restoring() -> None:
    world = World(Machine(plan=make_plan(hosts=2)))
    world.dead = {"h0"}
    world.run()
    assert world.machine.state is RunState.COMPLETED
    assert world.count(m.Reconnect) == 0


@pytest.mark.parametrize("how", ["pause", "abort", "guardrail"])
def test_a_stop_at_any_moment_reverts_every_changed_host(how: str) -> None:
    steps_of_a_whole_run = World(Machine(plan=make_plan(hosts=2, blocks=1)))
    steps_of_a_whole_run.run()
    for moment in range(len(steps_of_a_whole_run.seen)):
        world = World(Machine(plan=make_plan(hosts=2, blocks=1)))
        for _ in range(moment):
            world.step()
        stop: m.Event = {
            "pause": m.PauseRequested(who="me"),
            "abort": m.StopRequested(who="me"),
            "guardrail": m.GuardrailBreached(metric="oom_kills", detail="1"),
        }[how]
        world.event(stop)
        world.run()
        assert not world.changed, moment
        expected = {RunState.PAUSED} if how == "pause" else {RunState.HALTED}
        assert world.machine.state in expected | {RunState.COMPLETED}, moment


def test_an_abort_overrides_a_pause_and_a_pause_never_weakens_an_abort() -> None:
    world = World(Machine(plan=make_plan()))
    while world.machine.state is not RunState.RUNNING or not world.changed:
        world.step()
    world.event(m.PauseRequested(who="a"))
    world.event(m.StopRequested(who="b"))
    world.event(m.PauseRequested(who="c"))
    world.run()
    assert world.machine.state is RunState.HALTED
    assert world.reason == "aborted by b"
    assert world.count(m.Revert) == 1


def test_answers_that_come_after_a_stop_start_nothing_again() -> None:
    world = World(Machine(plan=make_plan()))
    while not world.changed:
        world.step()
    world.event(m.StopRequested(who="me"))
    late = (
        m.KnobsSnapshotted(host="h0"),
        m.KnobsVerified(host="h0", arm="treatment"),
        m.PeriodBegun(host="h0"),
        m.WorkloadFinished(host="h0"),
        m.PeriodClosed(host="h0"),
        m.DriftSeen(host="h0", detail="x"),
    )
    for event in late:
        out = world.machine.handle(event, 1.0)
        assert not [i for i in out if isinstance(i, m.ApplyArm | m.StartPeriod | m.Snapshot)], event


def test_a_lost_host_is_reverted_first_when_it_is_back_and_repeats_its_block() -> None:
    world = World(Machine(plan=make_plan(blocks=2)))
    while world.count(m.StartPeriod) < 3:
        world.step()
    world.event(m.HostLost(host="h0", detail="actor died"))
    world.run()
    assert world.machine.state is RunState.COMPLETED
    after = world.seen[[type(i) for i in world.seen].index(m.Reconnect) :]
    assert [type(i) for i in after if isinstance(i, m.Revert | m.Snapshot | m.ApplyArm)][:3] == [
        m.Revert,
        m.Snapshot,
        m.ApplyArm,
    ]
    assert any(isinstance(i, m.Abandon) and "actor died" in i.reason for i in world.seen)
    assert any(isinstance(i, m.AddPeriods) and i.periods[0].attempt == 1 for i in world.seen)


def test_a_host_that_never_comes_back_is_the_loudest_outcome() -> None:
    world = World(Machine(plan=make_plan(hosts=2)))
    while world.count(m.StartPeriod) < 3:
        world.step()
    world.dead = {"h0"}
    world.event(m.HostLost(host="h0", detail="link cut"))
    world.run()
    assert world.machine.state is RunState.RESTORE_INCOMPLETE
    assert "h0 (unreachable" in world.reason
    assert world.count(m.Reconnect) == hosts_module.RECONNECT_AT_MOST
    assert world.changed == {"h0"}  # its guardian's business now; the machine says that it does not know


def test_more_lost_hosts_than_allowed_halt_the_run_wherever_they_were_lost() -> None:
    world = World(Machine(plan=make_plan(hosts=4, max_failed=1)))
    while world.count(m.StartPeriod) < 4:
        world.step()
    world.event(m.HostLost(host="h0", detail="gone"))
    assert world.machine.state is RunState.RUNNING
    world.event(m.StepFailed(host="h1", detail="refused"))
    world.run()
    assert world.machine.state is RunState.PAUSED
    assert "2 hosts failed or were lost, 1 allowed" in world.reason
    assert not world.changed


def test_a_knob_that_cannot_be_put_back_is_restore_incomplete_also_after_an_abort() -> None:
    world = World(Machine(plan=make_plan(hosts=2)))
    while world.count(m.StartPeriod) < 2:
        world.step()
    world.event(m.StopRequested(who="me"))
    world.todo = deque(i for i in world.todo if not (isinstance(i, m.Revert) and i.host == "h1"))
    world.event(m.RevertFailed(host="h1", detail="thp/enabled reads 'always'"))
    world.run()
    assert world.machine.state is RunState.RESTORE_INCOMPLETE
    assert "thp/enabled" in world.reason


@pytest.mark.parametrize(
    ("policy", "state", "applied_again"),
    [("halt", RunState.HALTED, 0), ("invalidate", RunState.COMPLETED, 0), ("reapply", RunState.COMPLETED, 1)],
)
def test_drift_is_recorded_and_handled_as_the_spec_says(policy: str, state: RunState, applied_again: int) -> None:
    world = World(Machine(plan=make_plan(on_drift=policy)))
    while world.machine.units["h0"].deadline is None:
        world.step()
    out = world.machine.handle(m.DriftSeen(host="h0", detail="thp/enabled"), world.now)
    assert sum(isinstance(i, m.ApplyArm) for i in out) == applied_again
    assert m.Record(kind="drift", detail="thp/enabled", host="h0") in out
    world.todo.extend(out)
    world.run()
    assert world.machine.state is state
    if state is RunState.COMPLETED:
        assert any(isinstance(i, m.AddPeriods) for i in world.seen)


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
    world = World(Machine(plan=staged))
    world.run()
    assert world.machine.state is RunState.COMPLETED
    opened = [i.detail for i in world.seen if isinstance(i, m.Record) and i.kind == "stage_opened"]
    assert opened == ["0", "1"]
    assert world.now >= 100.0


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
    world = World(Machine.resumed(plan, _records(plan, done)))
    world.run()
    assert world.machine.state is RunState.COMPLETED
    started = Counter((i.period.block, i.period.attempt) for i in world.seen if isinstance(i, m.StartPeriod))
    assert started == {(1, 1): 4, (2, 0): 4}
    assert [i.block for i in world.seen if isinstance(i, m.InvalidateBlock)] == [1]


def test_resume_of_a_run_with_everything_measured_only_analyses() -> None:
    plan = make_plan(blocks=1)
    machine = Machine.resumed(plan, _records(plan, dict.fromkeys(range(4), PeriodState.COMPLETE)))
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
    machine = Machine.resumed(plan, last_try)
    assert not machine.units["h0"].queue


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
    world = World(Machine(plan=plan))
    while world.machine.units["h0"].deadline is None:
        world.step()
    world.event(m.WorkloadFinished(host="h0"))
    world.todo.clear()
    world.event(m.PeriodClosed(host="h0", invalid="reboot"))
    world.run()
    assert world.machine.state is RunState.COMPLETED
    added = [i.periods for i in world.seen if isinstance(i, m.AddPeriods)]
    assert [(len(p), p[0].block, p[0].attempt) for p in added] == [(1, -1, 1)]
    records = [
        PeriodRecord(
            period_id=1, host="h0", plan=baseline, state=PeriodState.RUNNING, reason="", started_at=None, ended_at=None
        )
    ]
    resumed = Machine.resumed(plan, records)
    assert [(p.kind, p.attempt) for p in resumed.units["h0"].queue] == [(PeriodKind.BASELINE, 1)]


_DISTURBANCES = st.sampled_from(
    ["lost", "drift", "finished", "pause", "abort", "breach", "dead", "alive", "refused", "not restored"]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), _DISTURBANCES, st.integers(0, 2)), max_size=12))
def test_whatever_happens_no_reachable_host_is_left_changed(story: list[tuple[int, str, int]]) -> None:
    world = World(Machine(plan=make_plan(hosts=3, blocks=2, max_failed=1)))
    for steps, what, number in story:
        for _ in range(steps):
            world.step()
        host = f"h{number}"
        if what in {"lost", "dead"}:
            if what == "dead":
                world.dead.add(host)
            world.lose(host)
        elif what == "alive":
            world.dead.discard(host)
        elif what == "not restored":
            asked = next((i for i in world.todo if isinstance(i, m.Revert) and i.host == host), None)
            if asked is not None:
                world.todo.remove(asked)
                world.event(m.RevertFailed(host=host, detail="y"))
        else:
            events: dict[str, m.Event] = {
                "drift": m.DriftSeen(host=host, detail="x"),
                "finished": m.WorkloadFinished(host=host),
                "pause": m.PauseRequested(who="p"),
                "abort": m.StopRequested(who="p"),
                "breach": m.GuardrailBreached(metric="x", detail="y"),
                "refused": m.StepFailed(host=host, detail="z"),
            }
            world.event(events[what])
    world.run(limit=5000)
    machine = world.machine
    assert machine.state.is_terminal or machine.state is RunState.PAUSED
    left = world.changed - {u.host for u in machine.units.values() if u.unrestored}
    assert not left
    if machine.state is not RunState.RESTORE_INCOMPLETE:
        assert all(u.state is UnitState.REVERTED for u in machine.units.values())


def test_the_last_host_to_be_heard_of_in_preflight_may_be_a_lost_one() -> None:
    machine = Machine(plan=make_plan(hosts=2))
    machine.start(0.0)
    machine.handle(m.PreflightDone(host="h0"), 0.0)
    out = machine.handle(m.HostLost(host="h1", detail="no answer"), 0.0)
    assert m.Snapshot(host="h0") in out
    assert m.Snapshot(host="h1") not in out


def test_a_host_that_came_back_and_can_not_be_put_back_ends_the_run() -> None:
    world = World(Machine(plan=make_plan()))
    while world.machine.units["h0"].deadline is None:
        world.step()
    world.event(m.HostLost(host="h0", detail="actor died"))
    world.run(until=m.Revert)
    world.todo.popleft()
    world.event(m.RevertFailed(host="h0", detail="thp/enabled reads 'always'"))
    world.run()
    assert world.machine.state is RunState.RESTORE_INCOMPLETE
    assert "thp/enabled" in world.reason


def test_a_reapplied_arm_does_not_start_its_period_a_second_time() -> None:
    world = World(Machine(plan=make_plan(on_drift="reapply")))
    while world.machine.units["h0"].deadline is None:
        world.step()
    world.event(m.DriftSeen(host="h0", detail="thp/enabled"))
    assert world.machine.handle(m.DriftSeen(host="h0", detail="thp/enabled"), world.now) == [
        m.Record(kind="drift", detail="thp/enabled", host="h0")  # the same drift, seen again before the period ended
    ]
    world.run()
    started = [(i.period.index, i.period.attempt) for i in world.seen if isinstance(i, m.StartPeriod)]
    assert max(Counter(started).values()) == 1


def test_a_loss_that_is_told_twice_counts_once() -> None:
    world = World(Machine(plan=make_plan()))
    while world.machine.units["h0"].deadline is None:
        world.step()
    world.event(m.HostLost(host="h0", detail="actor died"))
    assert world.machine.handle(m.HostLost(host="h0", detail="actor died"), world.now) == []
    assert world.machine.units["h0"].reconnects == 1


def test_a_host_that_works_again_may_be_lost_as_often_as_at_first() -> None:
    world = World(Machine(plan=make_plan(blocks=8)))
    for block in range(7):
        while world.machine.units["h0"].current is None or world.machine.units["h0"].current.block != block:
            assert world.step()
        while world.machine.units["h0"].state is not UnitState.MEASURING:
            assert world.step()
        world.todo.clear()
        world.event(m.HostLost(host="h0", detail="link cut"))
    world.run()
    assert world.machine.state is RunState.COMPLETED


def test_a_resumed_run_that_does_not_pass_its_preflight_can_be_resumed_again() -> None:
    plan = make_plan(blocks=2)
    machine = Machine.resumed(plan, _records(plan, dict.fromkeys(range(4), PeriodState.COMPLETE)))
    machine.start(0.0)
    machine.handle(m.PreflightDone(host="h0", problems=("held by run 7",)), 0.0)
    assert machine.state is RunState.PAUSED


def test_a_halt_that_was_interrupted_ends_as_a_halt_and_measures_nothing_more() -> None:
    plan = make_plan(blocks=2)
    states = dict.fromkeys(range(5), PeriodState.COMPLETE)
    world = World(Machine.resumed(plan, _records(plan, states), Past(goal=(RunState.HALTED, "guardrail oom_kills: 1"))))
    world.run()
    assert world.machine.state is RunState.HALTED
    assert world.reason == "guardrail oom_kills: 1"
    assert m.Record(kind="halting_to", detail="halted: guardrail oom_kills: 1") in world.seen
    assert world.count(m.Snapshot) == world.count(m.Revert) == world.count(m.Analyse) == 1
    assert world.count(m.StartPeriod) == world.count(m.ApplyArm) == 0


def test_a_halt_says_where_it_is_heading() -> None:
    world = World(Machine(plan=make_plan()))
    while not world.changed:
        world.step()
    assert m.Record(kind="halting_to", detail="paused: paused by ann") in world.machine.handle(
        m.PauseRequested(who="ann"), world.now
    )


# ---------------------------------------------------------------------- tripwires
def test_a_tripwire_reverts_its_host_at_once_and_the_run_goes_on_without_it() -> None:
    world = World(Machine(plan=make_plan(hosts=3, blocks=2)))
    while world.count(m.StartPeriod) < 3:
        world.step()
    out = world.machine.handle(crossing("h1"), world.now)
    assert [type(i) for i in out] == [m.NoteCrossing, m.Record, m.Abandon, m.Revert]
    assert m.Record(kind="tripwire", detail="oom_kills: 3 reached the tripwire 1", host="h1") in out
    assert world.machine.handle(crossing("h1"), world.now) == []
    world.todo = deque(i for i in world.todo if getattr(i, "host", "") != "h1")
    world.todo.extend(out)
    world.run()
    assert world.machine.state is RunState.COMPLETED
    assert not world.changed
    assert world.machine.roll.counts.troubled == 1


def test_a_tripwire_on_the_last_host_halts_the_run_with_the_guardrail_as_the_reason() -> None:
    world = World(Machine(plan=make_plan()))
    while world.count(m.StartPeriod) < 1:
        world.step()
    world.event(crossing("h0"))
    world.run()
    assert world.machine.state is RunState.HALTED
    assert world.reason == "guardrail oom_kills: 3 reached the tripwire 1"


def test_hosts_that_trip_count_in_the_cap_over_the_whole_run() -> None:
    world = World(Machine(plan=make_plan(hosts=4, max_failed=1)))
    while world.count(m.StartPeriod) < 4:
        world.step()
    world.event(m.HostLost(host="h0", detail="gone"))
    world.event(crossing("h1"))
    world.run()
    assert world.machine.state is RunState.PAUSED
    assert world.reason == "2 hosts failed or were lost, 1 allowed"
    assert not world.changed


def test_a_host_that_tripped_stays_out_of_the_run_that_is_resumed_and_is_put_back_once_more() -> None:
    plan = make_plan(hosts=2, blocks=1)
    world = World(Machine.resumed(plan, _records(plan, {}), Past(tripped={"h0": "oom_kills: 3"})))
    world.run()
    assert world.count(m.Revert) == 2
    assert {i.host for i in world.seen if isinstance(i, m.StartPeriod)} <= {"h1"}


# ---------------------------------------------------------------------- stages, gates, approval
def test_the_guardrails_are_tested_before_each_next_stage_opens() -> None:
    world = World(Machine(plan=staged_plan()))
    world.run()
    assert world.machine.state is RunState.COMPLETED
    told = [i for i in world.seen if isinstance(i, m.TestGuardrails | m.Analyse | m.Record)]
    kinds = [i.kind if isinstance(i, m.Record) else type(i).__name__ for i in told]
    assert kinds == ["stage_opened", "TestGuardrails", "stage_opened", "TestGuardrails", "stage_opened", "Analyse"]
    assert [i.stage for i in world.seen if isinstance(i, m.Analyse)] == [2]


def test_a_breach_at_a_gate_reverts_every_host_and_the_analysis_is_the_look_it_was_found_at() -> None:
    world = World(Machine(plan=staged_plan()))
    while not any(isinstance(i, m.TestGuardrails) and i.stage == 1 for i in world.todo):
        world.step()
    world.breaches = ("latency: An increase of 0.1 or more is shown",)
    world.run()
    assert world.machine.state is RunState.HALTED
    assert world.reason == "guardrail latency: An increase of 0.1 or more is shown"
    assert not world.changed
    assert [i.stage for i in world.seen if isinstance(i, m.Analyse)] == [1]


def test_a_run_that_is_aborted_is_analysed_at_no_planned_look() -> None:
    world = World(Machine(plan=staged_plan()))
    while not world.changed:
        world.step()
    world.event(m.StopRequested(who="ann"))
    world.run()
    assert [i.stage for i in world.seen if isinstance(i, m.Analyse)] == [None]


def test_a_stage_waits_for_approval_as_long_as_it_takes_and_measures_as_long_as_planned_after_it() -> None:
    world = World(Machine(plan=staged_plan(approve="manual")))
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
    assert m.Record(kind="approved", detail="stage 2 by ann") in world.todo
    assert {u.host: u.deadline - world.now for u in measuring if u.deadline} == pytest.approx(left)


def test_an_approval_that_nobody_waits_for_opens_nothing() -> None:
    world = World(Machine(plan=staged_plan(approve="manual")))
    while not world.changed:
        world.step()
    assert world.machine.handle(m.ApprovalGiven(who="ann"), world.now) == []


def test_a_pause_wins_over_a_wait_for_approval() -> None:
    world = World(Machine(plan=staged_plan(approve="manual")))
    while world.machine.gate is not Gate.WAITING:
        world.step()
    world.event(m.PauseRequested(who="ann"))
    world.event(m.ApprovalGiven(who="bob"))
    world.run()
    assert world.machine.state is RunState.PAUSED
    assert not world.changed


def test_a_stage_holds_from_when_the_last_of_its_hosts_measures() -> None:
    machine = Machine(plan=staged_plan())
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


# ---------------------------------------------------------------------- caps
def test_no_more_hosts_are_changed_at_once_than_allowed() -> None:
    world = World(Machine(plan=staged_plan(hosts=8, max_changing=2)))
    world.run()
    assert world.machine.state is RunState.COMPLETED
    assert world.most_changing == 2
    assert world.count(m.Revert) == 8


def test_reverts_on_a_halt_are_never_throttled() -> None:
    world = World(Machine(plan=staged_plan(hosts=8, max_changing=1)))
    while world.count(m.StartPeriod) < 8:
        world.step()
    out = world.machine.handle(m.StopRequested(who="ann"), world.now)
    assert sum(isinstance(i, m.Revert) for i in out) == 8


def test_a_crash_does_not_make_the_cap_forget() -> None:
    plan = make_plan(hosts=3, blocks=1, max_failed=1)
    machine = Machine.resumed(plan, [], Past(troubled=frozenset({"h2"})))
    world = World(machine)
    world.event(m.StepFailed(host="h0", detail="refused"))
    world.run()
    assert machine.state is RunState.PAUSED
    assert "2 hosts failed or were lost, 1 allowed" in world.reason


_MORE = st.sampled_from(
    ["lost", "drift", "pause", "abort", "breach", "dead", "alive", "refused", "tripwire", "approve", "fails the test"]
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), _MORE, st.integers(0, 3)), max_size=10),
    st.sampled_from(["auto", "manual"]),
    st.sampled_from([None, 1, 2]),
)
def test_whatever_happens_in_a_ramp_no_reachable_host_is_left_changed(
    story: list[tuple[int, str, int]], approve: str, most: int | None
) -> None:
    world = World(Machine(plan=staged_plan(approve=approve, max_failed=1, max_changing=most)))
    for steps, what, number in story:
        for _ in range(steps):
            world.step()
        host = f"h{number}"
        if what in {"lost", "dead"}:
            if what == "dead":
                world.dead.add(host)
            world.lose(host)
        elif what == "alive":
            world.dead.discard(host)
        elif what == "fails the test":
            world.breaches = ("latency: harm is shown",)
        else:
            events: dict[str, m.Event] = {
                "drift": m.DriftSeen(host=host, detail="x"),
                "pause": m.PauseRequested(who="p"),
                "abort": m.StopRequested(who="p"),
                "breach": m.GuardrailBreached(metric="x", detail="y"),
                "refused": m.StepFailed(host=host, detail="z"),
                "tripwire": crossing(host),
                "approve": m.ApprovalGiven(who="p"),
            }
            world.event(events[what])
    for _ in range(4):
        world.run(limit=5000)
        world.event(m.ApprovalGiven(who="at last"))
    machine = world.machine
    assert machine.state.is_terminal or machine.state is RunState.PAUSED
    assert not world.changed - {u.host for u in machine.units.values() if u.unrestored}
    if machine.state is not RunState.RESTORE_INCOMPLETE:
        assert all(u.state is UnitState.REVERTED for u in machine.units.values())
    unrestored = {i.host for i in world.seen if isinstance(i, m.Record) and i.kind == "not_restored"}
    assert unrestored == {u.host for u in machine.units.values() if u.unrestored}
