"""How much of the time events are counted when all that an experiment wants are counted at once.

A CPU has few counters, some for a few events only, and others may hold some: nothing but trying tells.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass

from agents.messages import MetricSource
from agents.perf import open_counters
from agents.perf.scaling import TURN_SECONDS
from agents.sysroot import SysRoot

_WHOLE = 0.98  # of the time: what is above was counted all along, but for the moments of opening it
_ANY = 1e-9  # times are wanted, not counts: no share is too small


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """For each metric that can be counted the share of the time in which it was.

    `apart` are those that the CPU's counters do not hold together with what they are divided by.
    """

    shares: Mapping[str, float]
    apart: tuple[str, ...]

    def partly(self, among: Collection[str]) -> list[str]:
        """Say for each of these that is counted only part of the time how much of it."""
        shares = {name: share for name, share in self.shares.items() if name in among and share < _WHOLE}
        return [f"{name} is counted {share:.0%} of the time" for name, share in shares.items()]


def try_turns(root: SysRoot, wanted: Collection[str] = (), sources: Collection[MetricSource] = ()) -> Turns:
    """Count for a moment what a run would: the metrics `wanted`, those counted always and sources that are events.

    What is counted for a cgroup takes counters of its own while the cgroup's tasks run: here, all the time.
    """
    out: dict[str, float] = {}
    with ExitStack() as opened:
        sets = [
            opened.enter_context(
                closing(
                    open_counters(
                        root,
                        prefix="cgroup_" if in_cgroup else "",
                        wanted=wanted,
                        own={one.metric: one.perf for one in sources if one.perf and one.in_cgroup is in_cgroup},
                        floor=_ANY,
                    )
                )
            )
            for in_cgroup in (False, True)
        ]
        if root.real:
            time.sleep(TURN_SECONDS)
        for counters in sets:
            counters.collect(out)
    ending = "_time_enabled_seconds"
    enabled = {name.removesuffix(ending): seconds for name, seconds in out.items() if name.endswith(ending)}
    return Turns(
        shares={
            name: out[f"{name}_time_running_seconds"] / seconds if seconds else 0.0 for name, seconds in enabled.items()
        },
        apart=tuple(metric for counters in sets for metric in counters.apart),
    )
