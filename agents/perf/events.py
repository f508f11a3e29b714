"""Which events are counted, and how the kernel is asked for each.

Where a table of `agents/perf/tables` has the CPU, TLB events are the table's, encoded as the kernel describes the PMU
in /sys/bus/event_source/devices. Elsewhere they are the kernel's generic ones, which mean what its driver for that CPU
makes of them (include/uapi/linux/perf_event.h).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agents.catalogue.table import EVENT_NAMES
from agents.event_text import TYPE_HARDWARE, TYPE_HW_CACHE, TYPE_SOFTWARE
from agents.perf.cpu_kind import cpu_words, find_cpu_kinds
from agents.perf.pmu import DEVICES, AbsentError, encode, split_terms
from agents.perf.syscall import PerfEvent, unreadable
from agents.perf.tables import EventTable, find_table
from agents.sysroot import SysRoot

_CPUINFO = "proc/cpuinfo"
_DTLB, _READ, _WRITE, _MISS = 3, 0, 1, 1


def _cache_miss(operation: int) -> tuple[int, int]:
    return TYPE_HW_CACHE, _DTLB | operation << 8 | _MISS << 16


# metric -> perf's name, type, config
_GENERIC: Mapping[str, tuple[str, int, int]] = {
    "instructions": ("instructions", TYPE_HARDWARE, 1),
    "cycles": ("cycles", TYPE_HARDWARE, 0),
    "dtlb_load_misses": ("dTLB-load-misses", *_cache_miss(_READ)),
    "dtlb_store_misses": ("dTLB-store-misses", *_cache_miss(_WRITE)),
    "page_faults": ("page-faults", TYPE_SOFTWARE, 2),
    "context_switches": ("context-switches", TYPE_SOFTWARE, 3),
    "cpu_migrations": ("cpu-migrations", TYPE_SOFTWARE, 4),
}


def find_events(root: SysRoot, names: Iterable[str] = EVENT_NAMES) -> tuple[tuple[PerfEvent, ...], dict[str, str]]:
    """Return the events that can be asked for, of those named and in their order, and why the others can't."""
    found: list[PerfEvent] = []
    missing: dict[str, str] = {}
    table, why_none = _table_of(root)
    for name in names:
        generic = _GENERIC.get(name)
        if generic is not None and (generic[1] != TYPE_HW_CACHE or table is None):
            event, kind, config = generic
            counts = f"what the kernel counts as {event} on {cpu_words(root)}" if kind == TYPE_HW_CACHE else ""
            found.append(PerfEvent(name=name, event=event, counts=counts, kind=kind, config=config))
        elif table is None:
            missing[name] = why_none
        else:
            try:
                found.append(table.event(name))
            except OSError as error:
                missing[name] = unreadable(error, DEVICES)
            except AbsentError as answer:
                missing[name] = answer.why
    return tuple(found), missing


def _table_of(root: SysRoot) -> tuple[_TableOfHost | None, str]:
    """Return the host's table, or None and why there is none."""
    try:
        return _TableOfHost(root), ""
    except OSError as error:  # not read is not the same as not there
        return None, unreadable(error, _CPUINFO)
    except AbsentError as answer:
        return None, answer.why


class _TableOfHost:
    """The table that has this host's CPU, and the host's PMU for it."""

    def __init__(self, root: SysRoot) -> None:
        """Choose them: AbsentError where there is none, OSError where it can't be found out."""
        self._root = root
        kinds = find_cpu_kinds(root)
        if len(kinds) != 1:
            if kinds:
                raise AbsentError(f"CPUs of {len(kinds)} kinds here: their events differ")
            raise AbsentError("no table of events has this CPU", f"/{_CPUINFO} gives no family and model")
        found = find_table(kinds[0])
        if found is None:
            raise AbsentError("no table of events has this CPU", f"{kinds[0]}")
        self._table: EventTable = found[0]
        self._cpu = found[1].name
        pmus = [name for name in root.names(DEVICES) if self._table.has_pmu(name)]
        if len(pmus) != 1:
            if pmus:
                raise AbsentError(f"{len(pmus)} PMUs for the cores of {self._cpu}: {', '.join(sorted(pmus))}")
            where = f"{' or '.join(self._table.pmus)} in /{DEVICES}"
            raise AbsentError(f"the kernel has no PMU of {self._cpu}", where)
        self._pmu = pmus[0]

    def event(self, metric: str) -> PerfEvent:
        """Return the event for a metric; AbsentError where there is none, OSError where the kernel can't be asked."""
        event = self._table.events.get(metric)
        if event is None:
            raise AbsentError(f"{self._cpu} has no such event")
        code = encode(self._root, self._pmu, split_terms(event.terms))
        return PerfEvent(name=metric, event=event.event, pmu=self._pmu, counts=event.counts, **code._asdict())
