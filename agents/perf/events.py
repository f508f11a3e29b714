"""Which events are counted, and how the kernel is asked for each.

Generic events: include/uapi/linux/perf_event.h. Page-walk cycles have no generic name; they are counted only where the
kernel names them for this CPU in /sys/bus/event_source/devices/<PMU>/events.
"""

from __future__ import annotations

from collections.abc import Iterator

from agents.catalogue.table import EVENT_NAMES
from agents.numbers import whole_number
from agents.perf.syscall import TYPE_HARDWARE, TYPE_HW_CACHE, TYPE_SOFTWARE, PerfEvent, unreadable
from agents.sysroot import SysRoot

_DEVICES = "sys/bus/event_source/devices"
_CONFIG_BITS, _KIND_BITS = 64, 32  # of struct perf_event_attr
_DTLB, _READ, _WRITE, _MISS = 3, 0, 1, 1


def _cache_miss(operation: int) -> tuple[int, int]:
    return TYPE_HW_CACHE, _DTLB | operation << 8 | _MISS << 16


_GENERIC: dict[str, tuple[int, int]] = {
    "instructions": (TYPE_HARDWARE, 1),
    "cycles": (TYPE_HARDWARE, 0),
    "dtlb_load_misses": _cache_miss(_READ),
    "dtlb_store_misses": _cache_miss(_WRITE),
    "page_faults": (TYPE_SOFTWARE, 2),
    "context_switches": (TYPE_SOFTWARE, 3),
    "cpu_migrations": (TYPE_SOFTWARE, 4),
}
# event -> what the kernel may call it, best first
_NAMED: dict[str, tuple[str, ...]] = {
    "dtlb_walk_cycles": (
        "dtlb_load_misses.walk_active",
        "dtlb_load_misses.walk_pending",
        "dtlb_load_misses.walk_duration",
    ),
    "dtlb_store_walk_cycles": (
        "dtlb_store_misses.walk_active",
        "dtlb_store_misses.walk_pending",
        "dtlb_store_misses.walk_duration",
    ),
}


def find_events(root: SysRoot) -> tuple[tuple[PerfEvent, ...], dict[str, str]]:
    """Return the events that can be asked for, in catalogue order, and why the others can't."""
    found: list[PerfEvent] = []
    missing: dict[str, str] = {}
    for name in EVENT_NAMES:
        if name in _GENERIC:
            kind, config = _GENERIC[name]
            found.append(PerfEvent(name=name, kind=kind, config=config))
            continue
        try:
            event = _named(root, name, _NAMED[name])
        except OSError as error:  # not read is not the same as not there
            missing[name] = unreadable(error, _DEVICES)
            continue
        if event is not None:
            found.append(event)
        else:
            missing[name] = f"the kernel names no such event for this CPU ({_NAMED[name][0]} in {_DEVICES}/*/events)"
    return tuple(found), missing


def _named(root: SysRoot, name: str, aliases: tuple[str, ...]) -> PerfEvent | None:
    for pmu in _core_pmus(root):
        offered = set(root.names(f"{_DEVICES}/{pmu}/events"))
        for alias in aliases:
            if alias in offered:
                return _encode(root, pmu, name, root.read(f"{_DEVICES}/{pmu}/events/{alias}"))
    return None


def _core_pmus(root: SysRoot) -> Iterator[str]:
    """The CPU's own counters, not those of buses and memory controllers: they alone have a `cpu...` or ARM name."""
    for pmu in root.names(_DEVICES):
        if pmu == "cpu" or pmu.startswith(("cpu_core", "armv8_", "armv9_")):
            yield pmu


def _encode(root: SysRoot, pmu: str, name: str, text: bytes) -> PerfEvent | None:
    """Turn 'event=0x08,umask=0x10,cmask=1' into configs, each field placed as <PMU>/format says.

    None where the kernel's own description makes no sense; OSError where it could not be read.
    """
    configs = {"config": 0, "config1": 0, "config2": 0}
    try:
        for term in text.decode().strip().split(","):
            field, _, value = term.partition("=")
            number = int(value, 0) if value else 1
            if not 0 <= number < 1 << _CONFIG_BITS:
                raise ValueError(f"no config of an event: {value[:40]!r}")
            if field in configs:
                configs[field] |= number
                continue
            place, _, ranges = root.read(f"{_DEVICES}/{pmu}/format/{field}").decode().strip().partition(":")
            configs[place] |= _scatter(number, ranges)
        kind = whole_number(root.read(f"{_DEVICES}/{pmu}/type"))
        if kind >= 1 << _KIND_BITS:
            raise ValueError(f"no type of a PMU: {kind}")
    except (FileNotFoundError, IsADirectoryError, ValueError, KeyError):
        return None
    return PerfEvent(name=name, kind=kind, **configs)


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
