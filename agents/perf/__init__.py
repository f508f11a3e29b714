"""Counting with perf_event_open: events, descriptors, and counts scaled for multiplexing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agents.catalogue.table import EVENT_NAMES
from agents.messages import EventSupport
from agents.perf.counters import PerfCounters
from agents.perf.modelled import ModelledCounters
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
]


def open_counters(
    root: SysRoot,
    *,
    cgroup: Path | None = None,
    prefix: str = "",
    lost: Callable[[str], None] = lambda _: None,
) -> PerfCounters | ModelledCounters:
    """Start counting every event there is: the kernel's on the machine's own root, else those the root models."""
    if root.real:
        return PerfCounters(root, cgroup=cgroup, prefix=prefix, lost=lost)
    return ModelledCounters(root, prefix=prefix)


def probe_events(root: SysRoot) -> tuple[EventSupport, ...]:
    """Tell for each event whether it can be counted here, by opening and closing it."""
    counters = open_counters(root)
    reasons = dict(counters.unavailable)
    counters.close()
    return tuple(
        EventSupport(event=name, available=name not in reasons, reason=reasons.get(name, "")) for name in EVENT_NAMES
    )
