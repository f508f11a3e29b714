"""Whatever happens, in whatever order: the run ends, and no host that can be reached is left changed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fleetexp.control import messages as m
from fleetexp.control.run_machine import RunMachine
from fleetexp.domain import Approval, RunState, UnitState
from tests.fleetexp.control.machine_world import World, crossing, make_plan, staged_plan

Story = list[tuple[int, str, int]]  # after so many steps, this happens to the host of this number


def happen(world: World, what: str, host: str) -> None:
    match what:
        case "lost":
            world.lose(host)
        case "dead":
            world.dead.add(host)
            world.lose(host)
        case "alive":
            world.dead.discard(host)
        case "fails the test":
            world.breaches = ("latency: harm is shown",)
        case "not restored":
            asked = next((i for i in world.todo if isinstance(i, m.RevertHost) and i.host == host), None)
            if asked is not None:
                world.todo.remove(asked)
                world.event(m.RevertFailed(host=host, detail="y"))
        case _:
            events: dict[str, m.Event] = {
                "drift": m.DriftSeen(host=host, detail="x"),
                "finished": m.WorkloadFinished(host=host),
                "pause": m.PauseRequested(who="p"),
                "abort": m.StopRequested(who="p"),
                "breach": m.GuardrailBreached(metric="x", detail="y"),
                "refused": m.StepFailed(host=host, detail="z"),
                "tripwire": crossing(host),
                "approve": m.ApprovalGiven(who="p"),
            }
            world.event(events[what])


def tell(world: World, story: Story) -> None:
    for steps, what, number in story:
        for _ in range(steps):
            world.step()
        happen(world, what, f"h{number}")


def assert_nothing_left(world: World) -> None:
    """The run is over or paused, and who is not as found is known to the machine and in the trail."""
    machine = world.machine
    assert machine.state.is_terminal or machine.state is RunState.PAUSED
    known = {unit.host for unit in machine.units.values() if unit.unrestored}
    assert not world.changed - known
    if machine.state is not RunState.RESTORE_INCOMPLETE:
        assert all(unit.state is UnitState.REVERTED for unit in machine.units.values())
    assert {i.host for i in world.seen if isinstance(i, m.RecordFact) and i.kind == "not_restored"} == known


_ALWAYS = ["lost", "drift", "pause", "abort", "breach", "dead", "alive", "refused"]
_IN_TURN = st.sampled_from([*_ALWAYS, "finished", "not restored"])
_IN_A_RAMP = st.sampled_from([*_ALWAYS, "tripwire", "approve", "fails the test"])


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 12), _IN_TURN, st.integers(0, 2)), max_size=12))
def test_whatever_happens_no_reachable_host_is_left_changed(story: Story) -> None:
    world = World(RunMachine(plan=make_plan(hosts=3, blocks=2, max_failed=1)))
    tell(world, story)
    world.run(limit=5000)
    assert_nothing_left(world)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.integers(0, 12), _IN_A_RAMP, st.integers(0, 3)), max_size=10),
    st.sampled_from(Approval),
    st.sampled_from([None, 1, 2]),
)
def test_whatever_happens_in_a_ramp_no_reachable_host_is_left_changed(
    story: Story, approve: Approval, most: int | None
) -> None:
    world = World(RunMachine(plan=staged_plan(approve=approve, max_failed=1, max_changing=most)))
    tell(world, story)
    for _ in range(4):
        world.run(limit=5000)
        world.event(m.ApprovalGiven(who="at last"))
    assert_nothing_left(world)
