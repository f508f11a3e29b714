"""Whatever happens, in whatever order: the run ends, and no host that can be reached is left changed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fleetexp.domain import RunState, UnitState
from fleetexp.orchestrator import messages as m
from fleetexp.orchestrator.machine import Machine
from tests.fleetexp.orchestrator.machine_world import World, crossing, make_plan, staged_plan

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
