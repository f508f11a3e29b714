"""How much of the time events are counted when all that an experiment wants are counted at once.

A CPU has few counters, some for a few events only, and others may hold some: nothing but trying tells.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack

from agents.perf.counters import PerfCounters
from agents.perf.modelled import ModelledCounters
from agents.sysroot import SysRoot

TRIED_SECONDS = 0.1  # some 25 turns: a CPU changes them every 4 ms (perf_event_mux_interval_ms in sysfs)
_ANY = 1e-9  # times are wanted, not counts: no share is too small


def shares_counted(
    root: SysRoot, names: Collection[str], *, own: Mapping[str, str], twice: bool = False
) -> dict[str, float]:
    """Return for each metric that can be counted the share of the time in which it was, by counting for a moment.

    `twice`: each is counted for a cgroup too, and competes with itself while the cgroup's tasks run.
    """
    out: dict[str, float] = {}
    with ExitStack() as opened:
        for _ in range(2 if twice else 1):
            counters: PerfCounters | ModelledCounters
            if root.real:
                counters = PerfCounters(root, tuple(names), own=own, floor=_ANY)
            else:
                counters = ModelledCounters(root, tuple(names), own=own, floor=_ANY)
            opened.callback(counters.close)
        refused = set(counters.unavailable)
        if root.real:
            time.sleep(TRIED_SECONDS)
        counters.collect(out)
    wanted = {name: out.get(f"{name}_time_enabled_seconds") for name in (*names, *own) if name not in refused}
    return {
        name: out[f"{name}_time_running_seconds"] / enabled if enabled else 0.0
        for name, enabled in wanted.items()
        if enabled is not None
    }
