"""In tests the machine keeps to its table: an event that is not listed raises, and so does a next state that is not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from fleetexp.control import host_machine, run_machine
from fleetexp.control.messages import Event
from fleetexp.control.transitions import BY_RUN, HOST, RUN, Ignored
from fleetexp.domain import RunState, UnitState

Cell = tuple[RunState | UnitState, type]
CELLS: frozenset[Cell] = frozenset(
    (state, event) for table in (RUN, HOST) for state, row in table.items() for event in row
)
REACHED: defaultdict[Cell, set[RunState | UnitState]] = defaultdict(set)  # and the states that followed


def _raise(event: Event, state: RunState | UnitState) -> None:
    raise AssertionError(f"{event!r} is not listed where the state is {state!r}")


def _watched(handle: Callable[..., Any], table: Any, thing: Callable[..., Any], event: Callable[..., Any]) -> Any:  # noqa: ANN401
    def watched(*arguments: Any) -> Any:  # noqa: ANN401
        before, kind = thing(*arguments).state, type(event(*arguments))
        others = _others(*arguments)
        out = handle(*arguments)
        after, cell = thing(*arguments).state, table[before].get(kind)
        following = {before} if cell is None or isinstance(cell, Ignored) else cell.next
        assert after in following, f"{kind.__name__} led from {before!r} to {after!r}"
        REACHED[before, kind].add(after)
        for host, (was, now) in {host: (was, arguments[0].units[host].state) for host, was in others.items()}.items():
            moved = was is now or any(was in from_ and now in to for _, from_, to in BY_RUN)
            assert moved, f"{kind.__name__} moved {host} from {was!r} to {now!r}"
        return out

    return watched


def _others(thing: Any, event: Any, *_: Any) -> dict[str, UnitState]:  # noqa: ANN401
    """The states of all hosts but the event's, where there are few."""
    if not isinstance(thing, run_machine.RunMachine) or len(thing.units) > 50:
        return {}
    own = getattr(event, "host", "")
    return {host: unit.state for host, unit in thing.units.items() if host != own}


def install() -> None:
    """Hold every machine of this process to the table."""
    for module in (run_machine, host_machine):
        module.unlisted = _raise  # type: ignore[attr-defined]
    run_machine.RunMachine.handle = _watched(
        run_machine.RunMachine.handle, RUN, lambda m, *_: m, lambda _, event, *__: event
    )  # type: ignore[method-assign]
    host_machine.Hosts.handle = _watched(
        host_machine.Hosts.handle, HOST, lambda _, unit, *__: unit, lambda _, __, event, *___: event
    )  # type: ignore[method-assign]
