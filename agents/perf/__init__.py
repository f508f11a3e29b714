"""Counting with perf_event_open: events, descriptors, and counts scaled for multiplexing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from agents.catalogue.table import COUNTED_ALWAYS, EVENT_NAMES
from agents.perf.counters import PerfCounters
from agents.perf.modelled import ModelledCounters
from agents.perf.probe import probe_events, probe_own_events
from agents.perf.scaling import COVERAGE_FLOOR, ScaledCounts
from agents.perf.syscall import PerfEvent
from agents.sysroot import SysRoot

__all__ = [
    "COVERAGE_FLOOR",
    "ModelledCounters",
    "PerfCounters",
    "PerfEvent",
    "ScaledCounts",
    "open_counters",
    "probe_events",
    "probe_own_events",
]


def open_counters(
    root: SysRoot,
    *,
    cgroup: Path | None = None,
    prefix: str = "",
    wanted: Collection[str] = (),
    own: Mapping[str, str] = MappingProxyType({}),
    lost: Callable[[str], None] = lambda _: None,
) -> PerfCounters | ModelledCounters:
    """Start counting: the kernel's events on the machine's own root, else those the root models.

    `wanted` are metrics, `prefix` included, that are counted beside those that always are; `own` are events of the
    user's, by metric, as perf writes them.
    """
    names = [name for name in EVENT_NAMES if name in COUNTED_ALWAYS or prefix + name in wanted]
    if root.real:
        return PerfCounters(root, names, own=own, cgroup=cgroup, prefix=prefix, lost=lost)
    return ModelledCounters(root, names, own=own, prefix=prefix)
