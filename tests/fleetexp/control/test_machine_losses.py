"""The state machine where hosts fail, are lost, come back, or can't be put back."""

from __future__ import annotations

from collections import deque

from fleetexp.control import host_machine as hosts_module
from fleetexp.control import messages as m
from fleetexp.control.run_machine import RunMachine
from fleetexp.domain import BrokenBy, RunState, UnitState
from tests.fleetexp.control.machine_world import World, make_plan


def test_preflight_errors_on_the_only_host_fail_the_run_and_touch_nothing() -> None:
    machine = RunMachine(plan=make_plan())
    world = World(machine)
    world.step()
    world.todo.clear()
    world.event(m.PreflightDone(host="h0", problems=("no such size",)))
    world.run()
    assert machine.state is RunState.FAILED
    assert world.reason == "no such size"
    assert world.count(m.Snapshot) == world.count(m.RevertHost) == 0


def test_a_host_that_fails_preflight_is_left_out_and_the_others_go_on() -> None:
    machine = RunMachine(plan=make_plan(hosts=2))
    world = World(machine)
    world.step()
    world.todo.clear()
    world.event(m.PreflightDone(host="h0", problems=("no such size",)))
    world.event(m.PreflightDone(host="h1"))
    world.run()
    assert machine.state is RunState.COMPLETED
    assert {i.host for i in world.seen if isinstance(i, m.Snapshot)} == {"h1"}


def test_a_host_lost_before_it_was_claimed_needs_no_restoring() -> None:
    world = World(RunMachine(plan=make_plan(hosts=2)))
    world.dead = {"h0"}
    world.run()
    assert world.machine.state is RunState.COMPLETED
    assert world.count(m.Reconnect) == 0


def test_a_lost_host_is_reverted_first_when_it_is_back_and_repeats_its_block() -> None:
    world = World(RunMachine(plan=make_plan(blocks=2)))
    while world.count(m.StartPeriod) < 3:
        world.step()
    period = world.machine.units["h0"].current
    assert period is not None
    world.event(m.HostLost(host="h0", detail="actor died"))
    world.run()
    assert world.machine.state is RunState.COMPLETED
    after = world.seen[[type(i) for i in world.seen].index(m.Reconnect) :]
    assert [type(i) for i in after if isinstance(i, m.RevertHost | m.Snapshot | m.ApplyArm)][:3] == [
        m.RevertHost,
        m.Snapshot,
        m.ApplyArm,
    ]
    struck_out = [i for i in world.seen if isinstance(i, m.Abandon | m.InvalidateBlock)]
    assert struck_out == [
        m.Abandon(host="h0", period=period, reason="host lost: actor died", broken_by=BrokenBy.HOST),
        m.InvalidateBlock(
            host="h0", block=period.block, attempt=0, reason="host lost: actor died", broken_by=BrokenBy.HOST
        ),
    ]
    assert any(isinstance(i, m.AddPeriods) and i.periods[0].attempt == 1 for i in world.seen)


def test_a_host_that_never_comes_back_is_the_loudest_outcome() -> None:
    world = World(RunMachine(plan=make_plan(hosts=2)))
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
    world = World(RunMachine(plan=make_plan(hosts=4, max_failed=1)))
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
    world = World(RunMachine(plan=make_plan(hosts=2)))
    while world.count(m.StartPeriod) < 2:
        world.step()
    world.event(m.StopRequested(who="me"))
    world.todo = deque(i for i in world.todo if not (isinstance(i, m.RevertHost) and i.host == "h1"))
    world.event(m.RevertFailed(host="h1", detail="thp/enabled reads 'always'"))
    world.run()
    assert world.machine.state is RunState.RESTORE_INCOMPLETE
    assert "thp/enabled" in world.reason


def test_the_last_host_to_be_heard_of_in_preflight_may_be_a_lost_one() -> None:
    machine = RunMachine(plan=make_plan(hosts=2))
    machine.start(0.0)
    machine.handle(m.PreflightDone(host="h0"), 0.0)
    out = machine.handle(m.HostLost(host="h1", detail="no answer"), 0.0)
    assert m.Snapshot(host="h0") in out
    assert m.Snapshot(host="h1") not in out


def test_a_host_that_came_back_and_can_not_be_put_back_ends_the_run() -> None:
    world = World(RunMachine(plan=make_plan()))
    while world.machine.units["h0"].deadline is None:
        world.step()
    world.event(m.HostLost(host="h0", detail="actor died"))
    world.run(until=m.RevertHost)
    world.todo.popleft()
    world.event(m.RevertFailed(host="h0", detail="thp/enabled reads 'always'"))
    world.run()
    assert world.machine.state is RunState.RESTORE_INCOMPLETE
    assert "thp/enabled" in world.reason


def test_a_loss_that_is_told_twice_counts_once() -> None:
    world = World(RunMachine(plan=make_plan()))
    while world.machine.units["h0"].deadline is None:
        world.step()
    world.event(m.HostLost(host="h0", detail="actor died"))
    assert world.machine.handle(m.HostLost(host="h0", detail="actor died"), world.now) == []
    assert world.machine.units["h0"].reconnects == 1


def test_a_host_that_works_again_may_be_lost_as_often_as_at_first() -> None:
    world = World(RunMachine(plan=make_plan(blocks=8)))
    for block in range(7):
        while world.machine.units["h0"].current is None or world.machine.units["h0"].current.block != block:
            assert world.step()
        while world.machine.units["h0"].state is not UnitState.MEASURING:
            assert world.step()
        world.todo.clear()
        world.event(m.HostLost(host="h0", detail="link cut"))
    world.run()
    assert world.machine.state is RunState.COMPLETED
