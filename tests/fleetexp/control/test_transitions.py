"""The table of a run's and a host's life: it is whole, the machine keeps to it, and tests reach every cell of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from fleetexp.control import host_machine, run_machine
from fleetexp.control import messages as m
from fleetexp.control.host_machine import Hosts
from fleetexp.control.resumption import Past
from fleetexp.control.run_machine import RunMachine
from fleetexp.control.states_page import render_states
from fleetexp.control.transitions import HOST, HOST_EVENTS, RUN, RUN_EVENTS, Ignored, unlisted
from fleetexp.domain import Approval, DriftPolicy, EventKind, Goal, RunState, UnitState
from tests.fleetexp.control.machine_world import World, crossing, make_plan, staged_plan
from tests.fleetexp.control.test_machine_whatever_happens import assert_nothing_left, happen
from tests.strict_machine import CELLS, REACHED

PAGE = Path(__file__).parents[3] / "docs" / "STATES.md"
TROUBLE = ["lost", "drift", "pause", "abort", "breach", "dead", "alive", "refused", "tripwire", "approve", "finished"]


def an_event(kind: type, host: str) -> m.Event:
    """One event of this type, of this host where it is a host's."""
    of_host: dict[type, m.Event] = {
        m.PreflightDone: m.PreflightDone(host=host),
        m.KnobsSnapshotted: m.KnobsSnapshotted(host=host),
        m.KnobsVerified: m.KnobsVerified(host=host, arm="treatment"),
        m.PeriodBegun: m.PeriodBegun(host=host),
        m.WorkloadFinished: m.WorkloadFinished(host=host),
        m.PeriodClosed: m.PeriodClosed(host=host),
        m.DriftSeen: m.DriftSeen(host=host, detail="x"),
        m.TripwireCrossed: crossing(host),
        m.StepFailed: m.StepFailed(host=host, detail="x"),
        m.HostLost: m.HostLost(host=host, detail="x"),
        m.HostBack: m.HostBack(host=host),
        m.HostReverted: m.HostReverted(host=host),
        m.RevertFailed: m.RevertFailed(host=host, detail="x"),
        m.PauseRequested: m.PauseRequested(who="p"),
        m.StopRequested: m.StopRequested(who="p"),
        m.GuardrailBreached: m.GuardrailBreached(metric="x", detail="y"),
        m.GuardrailsTested: m.GuardrailsTested(stage=0),
        m.ApprovalGiven: m.ApprovalGiven(who="p"),
        m.TimePassed: m.TimePassed(),
        m.Analysed: m.Analysed(),
    }
    return of_host[kind]


def test_the_table_has_every_state_and_names_events_and_handlers_that_there_are() -> None:
    assert {*RUN_EVENTS, *HOST_EVENTS} == set(get_args(m.Event))
    assert set(RUN) == set(RunState)
    assert set(HOST) == set(UnitState)
    for table, events, owner in ((RUN, {*RUN_EVENTS, *HOST_EVENTS}, RunMachine), (HOST, set(HOST_EVENTS), Hosts)):
        for row in table.values():
            assert set(row) <= events
            steps = [cell for cell in row.values() if not isinstance(cell, Ignored)]
            assert all(callable(getattr(owner, step.handler, None)) and step.next for step in steps)
            assert all(cell.why for cell in row.values() if isinstance(cell, Ignored))


def test_an_event_that_can_not_come_raises_here_and_is_recorded_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(RunMachine(plan=make_plan()))
    while world.machine.state is not RunState.RUNNING:
        world.step()
    with pytest.raises(AssertionError, match="Analysed"):
        world.machine.handle(m.Analysed(), 1.0)
    with pytest.raises(AssertionError, match="HostBack"):
        world.machine.handle(m.HostBack(host="h0"), 1.0)
    for module in (run_machine, host_machine):
        monkeypatch.setattr(module, "unlisted", unlisted)
    before = world.machine.state, world.machine.units["h0"].state
    assert world.machine.handle(m.Analysed(), 1.0) == [
        m.RecordFact(kind=EventKind.UNEXPECTED_EVENT, detail="Analysed while running"),
    ]
    assert world.machine.handle(m.HostBack(host="h0"), 1.0) == [
        m.RecordFact(kind=EventKind.UNEXPECTED_EVENT, detail="HostBack while idle", host="h0")
    ]
    assert (world.machine.state, world.machine.units["h0"].state) == before


def _machine(number: random.Random) -> RunMachine:
    """A run of either design, with every policy; some are resumed while they were being halted."""
    if number.random() < 0.5:
        approve, most = number.choice(list(Approval)), number.choice([None, 1, 2])
        plan = staged_plan(approve=approve, max_failed=number.choice([0, 1, 3]), max_changing=most)
    else:
        drift, count = number.choice(list(DriftPolicy)), number.choice([1, 2, 3])
        plan = make_plan(hosts=count, blocks=2, max_failed=number.choice([0, 1, 3]), on_drift=drift)
        if number.random() < 0.2:
            plan = replace(plan, units=tuple(replace(u, periods=u.periods[1::2]) for u in plan.units))  # no washout
    if number.random() < 0.15:
        return RunMachine.resumed(plan, [], Past(goal=Goal(state=RunState.HALTED, reason="it was being halted")))
    return RunMachine(plan=plan)


def _ignored(world: World) -> list[m.Event]:
    """What may come now and is to change nothing."""
    run = RUN[world.machine.state]
    found = [an_event(kind, "h0") for kind, cell in run.items() if isinstance(cell, Ignored)]
    for unit in world.machine.units.values():
        row = HOST[unit.state]
        found += [an_event(kind, unit.host) for kind, cell in row.items() if isinstance(cell, Ignored) and kind in run]
    return found


def _answer_badly(world: World, number: random.Random) -> None:
    """Let the host that is asked next say no, or nothing."""
    asked = world.todo[0]
    bad: dict[type, tuple[str, ...]] = {
        m.CheckHost: ("unfit", "lost", "refused", "tripwire"),
        m.StartPeriod: ("broken",),
        m.Collect: ("broken",),
        m.RevertHost: ("not restored", "lost"),
    }
    if (ways := bad.get(type(asked))) is None:
        return
    host = getattr(asked, "host", "")
    match number.choice(ways):
        case "unfit":
            world.todo.popleft()
            world.event(m.PreflightDone(host=host, problems=("no such size",)))
        case "broken":
            world.todo.popleft()
            world.event(m.PeriodClosed(host=host, invalid="it broke"))
        case way:
            happen(world, way, host)


def _walk(seed: int) -> None:
    """One run to its end: at each step the next answer, or trouble, or an event that is to change nothing."""
    number = random.Random(seed)
    world, rate, bad = World(_machine(number)), number.choice([0.02, 0.1]), number.choice([0.0, 0.05, 0.8])
    for _ in range(5000):
        units = world.machine.units
        if number.random() < 0.3:
            for event in number.sample(found := _ignored(world), min(2, len(found))):
                states = world.machine.state, {host: unit.state for host, unit in units.items()}
                assert world.machine.handle(event, world.now) == [], event
                assert states == (world.machine.state, {host: unit.state for host, unit in units.items()})
        if number.random() < rate:
            happen(world, number.choice([*TROUBLE, "fails the test", "not restored"]), number.choice([*units]))
        if world.todo and number.random() < bad:
            _answer_badly(world, number)
        if not world.step():
            if world.machine.state.is_terminal or world.machine.state is RunState.PAUSED:
                break
            world.event(m.ApprovalGiven(who="at last"))
    for event in _ignored(world):
        assert world.machine.handle(event, world.now) == [], event
    assert_nothing_left(world)


def _a_drift_that_is_written_over(state: UnitState) -> None:
    world = World(RunMachine(plan=make_plan(on_drift=DriftPolicy.REAPPLY)))
    while world.machine.units["h0"].state is not state or world.machine.units["h0"].deadline is None:
        world.step()
    world.event(m.DriftSeen(host="h0", detail="x"))
    world.run()
    assert world.machine.state is RunState.COMPLETED


def _a_host_that_can_not_be_put_back_and_is_lost_then() -> None:
    world = World(RunMachine(plan=make_plan(hosts=2, max_failed=0)))
    while not (world.todo and isinstance(world.todo[0], m.RevertHost)):
        world.step()
    lost = world.machine.units[world.todo.popleft().host]  # type: ignore[union-attr]
    world.event(m.RevertFailed(host=lost.host, detail="x"))
    assert world.machine.state is RunState.HALTING
    world.event(m.HostLost(host=lost.host, detail="gone"))
    world.run()
    assert world.machine.state is RunState.RESTORE_INCOMPLETE


def test_every_cell_of_the_table_is_reached_and_every_next_state_follows(
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    REACHED.clear()
    for seed in range(600):
        _walk(seed)
    _a_drift_that_is_written_over(UnitState.WASHING_OUT)
    _a_drift_that_is_written_over(UnitState.MEASURING)
    _a_host_that_can_not_be_put_back_and_is_lost_then()
    missing = sorted(f"{state.value}: {kind.__name__}" for state, kind in CELLS - REACHED.keys())
    record_testsuite_property("cells of the table reached", f"{len(REACHED)} of {len(CELLS)}")
    assert not missing, f"{len(REACHED)} of {len(CELLS)} cells reached"
    never = [
        f"{state.value}: {kind.__name__} never led to {', '.join(sorted(cell.next - REACHED[state, kind]))}"
        for table in (RUN, HOST)
        for state, row in table.items()
        for kind, cell in row.items()
        if not isinstance(cell, Ignored) and cell.next - REACHED[state, kind]
    ]
    assert not never, "\n".join(never)


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == render_states(), "write it again: see docs/STATES.md, first lines"
