"""The state machine where a run is paused, aborted or halted: every changed host is put back first."""

from __future__ import annotations

from collections import deque

import pytest

from fleetexp.control import messages as m
from fleetexp.control.run_machine import RunMachine
from fleetexp.domain import BrokenBy, DriftPolicy, EventKind, RunCause, RunState, UnitState
from tests.fleetexp.control.machine_world import World, crossing, make_plan


@pytest.mark.parametrize("how", ["pause", "abort", "guardrail"])
def test_a_stop_at_any_moment_reverts_every_changed_host(how: str) -> None:
    steps_of_a_whole_run = World(RunMachine(plan=make_plan(hosts=2, blocks=1)))
    steps_of_a_whole_run.run()
    for moment in range(len(steps_of_a_whole_run.seen)):
        world = World(RunMachine(plan=make_plan(hosts=2, blocks=1)))
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


@pytest.mark.parametrize(
    ("stop", "broken_by"),
    [
        (m.PauseRequested(who="me"), (BrokenBy.RUN, BrokenBy.RUN)),
        (m.StopRequested(who="me"), (BrokenBy.RUN, BrokenBy.RUN)),
        (m.GuardrailBreached(metric="oom_kills", detail="1"), (BrokenBy.RUN, BrokenBy.RUN)),
        (m.GuardrailBreached(metric="kernel", detail="an oops", host="h1"), (BrokenBy.RUN, BrokenBy.HOST)),
        (m.DriftSeen(host="h0", detail="thp/enabled"), (BrokenBy.HOST, BrokenBy.RUN)),
        (m.StepFailed(host="h0", detail="refused"), (BrokenBy.HOST, BrokenBy.RUN)),
    ],
    ids=["pause", "abort", "breach", "breach on a host", "drift", "one failure too many"],
)
def test_what_stops_a_run_broke_the_period_of_the_host_where_it_happened_and_of_no_other(
    stop: m.Event, broken_by: tuple[BrokenBy, BrokenBy]
) -> None:
    world = World(RunMachine(plan=make_plan(hosts=2, max_failed=0, on_drift=DriftPolicy.HALT)))
    while world.machine.registry.states[UnitState.WASHING_OUT] < 2:
        world.step()
    periods = {host: unit.current for host, unit in world.machine.units.items()}
    out = world.machine.handle(stop, world.now)
    assert world.machine.state is RunState.HALTING
    given_up = {i.host: i for i in out if isinstance(i, m.Abandon)}
    assert [given_up[host].broken_by for host in ("h0", "h1")] == list(broken_by)
    assert {host: i.period for host, i in given_up.items()} == periods


def test_an_abort_overrides_a_pause_and_a_pause_never_weakens_an_abort() -> None:
    world = World(RunMachine(plan=make_plan()))
    while world.machine.state is not RunState.RUNNING or not world.changed:
        world.step()
    world.event(m.PauseRequested(who="a"))
    world.event(m.StopRequested(who="b"))
    world.event(m.PauseRequested(who="c"))
    world.run()
    assert world.machine.state is RunState.HALTED
    assert world.reason == "aborted by b"
    assert world.count(m.RevertHost) == 1


def test_answers_that_come_after_a_stop_start_nothing_again() -> None:
    world = World(RunMachine(plan=make_plan()))
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
    world = World(RunMachine(plan=make_plan()))
    while not world.changed:
        world.step()
    assert m.RecordFact(
        kind=EventKind.HALTING_TO, goal=RunState.PAUSED, cause=RunCause.REQUEST, detail="paused by ann"
    ) in world.machine.handle(m.PauseRequested(who="ann"), world.now)


def test_a_tripwire_reverts_its_host_at_once_and_the_run_goes_on_without_it() -> None:
    world = World(RunMachine(plan=make_plan(hosts=3, blocks=2)))
    while world.count(m.StartPeriod) < 3:
        world.step()
    out = world.machine.handle(crossing("h1"), world.now)
    assert [type(i) for i in out] == [m.NoteCrossing, m.RecordFact, m.Abandon, m.RevertHost]
    assert m.RecordFact(kind=EventKind.TRIPWIRE, detail="oom_kills: 3 reached the tripwire 1", host="h1") in out
    assert [i.broken_by for i in out if isinstance(i, m.Abandon)] == [BrokenBy.HOST]
    assert world.machine.handle(crossing("h1"), world.now) == []
    world.todo = deque(i for i in world.todo if getattr(i, "host", "") != "h1")
    world.todo.extend(out)
    world.run()
    assert world.machine.state is RunState.COMPLETED
    assert not world.changed
    assert world.machine.registry.counts.troubled == 1


def test_a_tripwire_on_the_last_host_halts_the_run_with_the_guardrail_as_the_reason() -> None:
    world = World(RunMachine(plan=make_plan()))
    while world.count(m.StartPeriod) < 1:
        world.step()
    world.event(crossing("h0"))
    world.run()
    assert world.machine.state is RunState.HALTED
    assert world.reason == "guardrail oom_kills: 3 reached the tripwire 1"


def test_hosts_that_trip_count_in_the_cap_over_the_whole_run() -> None:
    world = World(RunMachine(plan=make_plan(hosts=4, max_failed=1)))
    while world.count(m.StartPeriod) < 4:
        world.step()
    world.event(m.HostLost(host="h0", detail="gone"))
    world.event(crossing("h1"))
    world.run()
    assert world.machine.state is RunState.PAUSED
    assert world.reason == "2 hosts failed or were lost, 1 allowed"
    assert not world.changed
