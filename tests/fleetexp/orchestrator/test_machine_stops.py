"""The state machine where a run is paused, aborted or halted: every changed host is put back first."""

from __future__ import annotations

from collections import deque

import pytest

from fleetexp.domain import RunState
from fleetexp.orchestrator import messages as m
from fleetexp.orchestrator.machine import Machine
from tests.fleetexp.orchestrator.machine_world import World, crossing, make_plan


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


def test_a_halt_says_where_it_is_heading() -> None:
    world = World(Machine(plan=make_plan()))
    while not world.changed:
        world.step()
    assert m.Record(kind="halting_to", detail="paused: paused by ann") in world.machine.handle(
        m.PauseRequested(who="ann"), world.now
    )


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
