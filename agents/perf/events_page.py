"""What each kind of CPU is asked to count for each metric, as a page for people: docs/EVENTS.md is this text."""

from __future__ import annotations

from collections.abc import Iterator

from agents.perf.tables import EventTable, event_tables

_HEAD = """# Hardware events by CPU

This page is generated from `agents/perf/tables`; a test keeps it current. To write it again:

    python -c 'from agents.perf.events_page import render_events as r; print(r(), end="")' > docs/EVENTS.md

What a host is asked to count for a metric depends on its CPU. Each encoding is the one of Linux's event tables, or of
the maker's where Linux has none; tests compare them with these and with libpfm4, wherever it knows the CPU. A CPU that
is not here counts the kernel's generic events, and `fleetexp doctor` says so. What was counted is stored with each
run and host, and hosts that counted different things are never averaged.
"""


def render_events() -> str:
    """Write the page."""
    return "\n".join([_HEAD, *(line for table in event_tables() for line in _section(table))])


def _section(table: EventTable) -> Iterator[str]:
    yield f"## {'; '.join(cpu.name for cpu in table.cpus)}\n"
    for cpu in table.cpus:
        yield f"- {cpu.name}: {cpu.source}" + (f"; libpfm4 `{cpu.libpfm4}`" if cpu.libpfm4 else "; not in libpfm4")
    yield "\n| metric | event | encoding | table |\n|---|---|---|---|"
    for metric, event in table.events.items():
        yield f"| `{metric}` | {event.event} | `{event.terms}` | {event.table} |"
    yield ""
