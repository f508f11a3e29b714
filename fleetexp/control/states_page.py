"""The tables of a run's and a host's life as a page for people: docs/STATES.md is this text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import TypeVar

from fleetexp.control.messages import Event
from fleetexp.control.transitions import BY_RUN, HOST, HOST_EVENTS, RUN, RUN_EVENTS, Ignored, Step, Table
from fleetexp.domain import RunState, UnitState

S = TypeVar("S", bound=StrEnum)
Edges = dict[tuple[str, str], list[str]]  # (from, to) -> what leads there

_HEAD = """# The states of a run and of its hosts

This page is generated from `fleetexp/control/transitions.py`; a test keeps it current. To write it again:

    python -c 'from fleetexp.control.states_page import render_states as r; print(r(), end="")' > docs/STATES.md

A run is a state machine that does no I/O. It takes events: what hosts answered, what people asked for, that time has
passed. It gives instructions. The tables say where an event may lead in each state: *stays* means that it is taken and
the state remains, a number that it is ignored, for the reason below the table. What has an empty cell can't come: it
changes nothing, and the audit trail has it as `unexpected_event`. Tests reach every cell and every state that follows.

## A run

An event of a host goes to that host first, by the host's own table below; what becomes of the run follows from how many
hosts are left, are changed, or have failed. The way out of `halting` is that every host that can be reached reads as it
was found. Whatever comes once a run is `paused`, `completed`, `halted`, `failed` or `restore_incomplete` is ignored.
"""
_UNDER_WAY = (RunState.PREFLIGHT, RunState.RUNNING, RunState.HALTING, RunState.ANALYSING)


def render_states() -> str:
    """Write the page."""
    run = {state: RUN[state] for state in _UNDER_WAY}
    moved: Edges = {}
    for what, before, after in BY_RUN:
        for one in sorted(before):
            for other in sorted(after):
                moved.setdefault((one, other), []).append(what)
    lines = [
        _HEAD,
        *_drawing({("[*]", "planned"): [], (RunState.PLANNED, RunState.PREFLIGHT): ["start"]}, run),
        "",
        *_table(run, [*RUN_EVENTS, *HOST_EVENTS]),
        "",
        "## A host",
        "",
        *_drawing({("[*]", UnitState.IDLE): [], **moved}, HOST),
        "",
        *_table(HOST, HOST_EVENTS),
        "",
        "What else moves a host, beside its own events:",
        "",
        "| what | from | to |",
        "|---|---|---|",
        *(f"| {what} | {_names(before)} | {_names(after)} |" for what, before, after in BY_RUN),
    ]
    return "\n".join(lines) + "\n"


def _drawing(edges: Edges, table: Table[S]) -> Iterator[str]:
    """Draw what leads from one state to another, first what the table does not have."""
    for state, row in table.items():
        for event, cell in row.items():
            for after in sorted(cell.next - {state}) if isinstance(cell, Step) else ():
                edges.setdefault((state, after), []).append(_words(event))
    yield "```mermaid"
    yield "stateDiagram-v2"
    for (start, end), causes in edges.items():
        yield f"  {start} --> {end}" + (f": {', '.join(causes)}" if causes else "")
    yield "```"


def _table(table: Table[S], events: Iterable[type[Event]]) -> Iterator[str]:
    """Write a row for each event, a column for each state, and why what is ignored is."""
    said = list(dict.fromkeys(cell.why for row in table.values() for cell in row.values() if isinstance(cell, Ignored)))
    yield f"| event | {' | '.join(f'`{state}`' for state in table)} |"
    yield "|---" * (len(table) + 1) + "|"
    for event in events:
        cells: list[str] = []
        for state, row in table.items():
            match row.get(event):
                case None:
                    cells.append("")
                case Ignored(why=note):
                    cells.append(f"({said.index(note) + 1})")
                case Step(next=following):
                    stays = ["stays"] if state in following else []
                    cells.append(", ".join([*stays, *(f"`{one}`" for one in sorted(following - {state}))]))
        yield f"| {_words(event)} | {' | '.join(cells)} |"
    yield ""
    yield from (f"{number}. {note}" for number, note in enumerate(said, start=1))


def _words(event: type[Event]) -> str:
    return re.sub(r"(?<!^)([A-Z])", r" \1", event.__name__).lower()


def _names(states: Iterable[UnitState]) -> str:
    return ", ".join(f"`{state}`" for state in sorted(states))
