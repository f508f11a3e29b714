"""Counting with perf_event_open: events, descriptors, and counts scaled for multiplexing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from agents.catalogue.table import COUNTED_ALWAYS, COUNTED_IN_CGROUPS, EVENT_NAMES
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
    floor: float = COVERAGE_FLOOR,
    lost: Callable[[str], None] = lambda _: None,
) -> PerfCounters | ModelledCounters:
    """Start counting: the kernel's events on the machine's own root, else those the root models.

    `wanted` are metrics, `prefix` included, that are counted beside those that always are; `own` are events of the
    user's, by metric, as perf writes them. With a prefix they are a cgroup's, and hardware events only as wanted.
    """
    always = COUNTED_IN_CGROUPS if prefix else COUNTED_ALWAYS
    asked = [name for name in EVENT_NAMES if prefix + name in wanted]
    names = list(dict.fromkeys((*asked, *always)))  # what does not fit a group with those before it is counted apart
    if root.real:
        return PerfCounters(root, names, own=own, cgroup=cgroup, prefix=prefix, floor=floor, lost=lost)
    return ModelledCounters(root, names, own=own, prefix=prefix, floor=floor)
