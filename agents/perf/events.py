"""Which events are counted, and how the kernel is asked for each.

Where a table of `agents/perf/tables` has the CPU, TLB events are the table's, encoded as the kernel describes the PMU
in /sys/bus/event_source/devices. Elsewhere they are the kernel's generic ones, which mean what its driver for that CPU
makes of them (include/uapi/linux/perf_event.h).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agents.catalogue.table import EVENT_NAMES
from agents.numbers import whole_number
from agents.perf.cpu_kind import find_cpu_kinds
from agents.perf.syscall import TYPE_HARDWARE, TYPE_HW_CACHE, TYPE_SOFTWARE, PerfEvent, unreadable
from agents.perf.tables import EventTable, TableEvent, find_table
from agents.sysroot import SysRoot

_DEVICES = "sys/bus/event_source/devices"
_CPUINFO = "proc/cpuinfo"
_CONFIG_BITS, _KIND_BITS = 64, 32  # of struct perf_event_attr
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


class _AbsentError(Exception):
    """No table's event can be asked for here; the message says why."""


def find_events(root: SysRoot, names: Iterable[str] = EVENT_NAMES) -> tuple[tuple[PerfEvent, ...], dict[str, str]]:
    """Return the events that can be asked for, of those named and in their order, and why the others can't."""
    found: list[PerfEvent] = []
    missing: dict[str, str] = {}
    table, why_none = _table_of(root)
    for name in names:
        generic = _GENERIC.get(name)
        if generic is not None and (generic[1] != TYPE_HW_CACHE or table is None):
            event, kind, config = generic
            counts = f"what the kernel counts as {event} on {_cpu_of(root)}" if kind == TYPE_HW_CACHE else ""
            found.append(PerfEvent(name=name, event=event, counts=counts, kind=kind, config=config))
        elif table is None:
            missing[name] = why_none
        else:
            try:
                found.append(table.event(name))
            except OSError as error:
                missing[name] = unreadable(error, _DEVICES)
            except _AbsentError as answer:
                missing[name] = str(answer)
    return tuple(found), missing


def _cpu_of(root: SysRoot) -> str:
    """The CPU, as far as its numbers tell: what a generic event of its caches means depends on it."""
    try:
        kinds = find_cpu_kinds(root)
    except OSError:
        kinds = ()
    return " and ".join(map(str, kinds)) or "a CPU without numbers"


def _table_of(root: SysRoot) -> tuple[_TableOfHost | None, str]:
    """Return the host's table, or None and why there is none."""
    try:
        return _TableOfHost(root), ""
    except OSError as error:  # not read is not the same as not there
        return None, unreadable(error, _CPUINFO)
    except _AbsentError as answer:
        return None, str(answer)


class _TableOfHost:
    """The table that has this host's CPU, and the host's PMU for it."""

    def __init__(self, root: SysRoot) -> None:
        """Choose them: _AbsentError where there is none, OSError where it can't be found out."""
        self._root = root
        kinds = find_cpu_kinds(root)
        if len(kinds) != 1:
            raise _AbsentError(
                f"CPUs of {len(kinds)} kinds here: their events differ"
                if kinds
                else f"no table of events has this CPU (/{_CPUINFO} gives no family and model)"
            )
        found = find_table(kinds[0])
        if found is None:
            raise _AbsentError(f"no table of events has this CPU ({kinds[0]})")
        self._table: EventTable = found[0]
        self._cpu = found[1].name
        pmus = [name for name in root.names(_DEVICES) if self._table.has_pmu(name)]
        if len(pmus) != 1:
            raise _AbsentError(
                f"{len(pmus)} PMUs for the cores of {self._cpu}: {', '.join(sorted(pmus))}"
                if pmus
                else f"the kernel has no PMU of {self._cpu} ({' or '.join(self._table.pmus)} in /{_DEVICES})"
            )
        self._pmu = pmus[0]

    def event(self, metric: str) -> PerfEvent:
        """Return the event for a metric; _AbsentError where there is none, OSError where the kernel can't be asked."""
        event = self._table.events.get(metric)
        if event is None:
            raise _AbsentError(f"{self._cpu} has no such event")
        return _encode(self._root, self._pmu, metric, event)


def _encode(root: SysRoot, pmu: str, metric: str, event: TableEvent) -> PerfEvent:
    """Turn 'event=0x08,umask=0x10,cmask=1' into configs, each term placed as <PMU>/format says.

    _AbsentError where the kernel's own description makes no sense; OSError where it could not be read.
    """
    configs = {"config": 0, "config1": 0, "config2": 0}
    for term in event.terms.split(","):
        name, _, value = term.partition("=")
        try:
            place, _, ranges = root.read(f"{_DEVICES}/{pmu}/format/{name}").decode().strip().partition(":")
            configs[place] |= _scatter(int(value, 0), ranges)
        except (FileNotFoundError, IsADirectoryError, ValueError, KeyError) as error:
            raise _AbsentError(f"PMU {pmu} does not take {term} (/{_DEVICES}/{pmu}/format/{name})") from error
    try:
        kind = whole_number(root.read(f"{_DEVICES}/{pmu}/type"))
        if kind >= 1 << _KIND_BITS:
            raise ValueError(f"no type of a PMU: {kind}")
    except (FileNotFoundError, IsADirectoryError, ValueError) as error:
        raise _AbsentError(f"PMU {pmu} has no number (/{_DEVICES}/{pmu}/type)") from error
    return PerfEvent(name=metric, event=event.event, pmu=pmu, counts=event.counts, kind=kind, **configs)


def _scatter(number: int, ranges: str) -> int:
    """Place the low bits of a number into the bit ranges '0-7,32-35', lowest first; ValueError where it is too wide."""
    placed = 0
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if not 0 <= low <= high < _CONFIG_BITS:
            raise ValueError(f"no bits of a config: {part[:40]!r}")
        width = high - low + 1
        placed |= (number & ((1 << width) - 1)) << low
        number >>= width
    if number:
        raise ValueError(f"value does not fit the bits {ranges}")
    return placed
