"""Runs inside a guest: a chase of pointers over huge pages, in turn traced and not, timed in short slices.

Not a test itself: `tests/benchmarks/test_trace_overhead.py` boots the guest and judges what it printed. The fastest
slices are compared: what else runs on the machine that emulates the guest can only add to a slice.
"""

from __future__ import annotations

import ctypes
import json
import random
import time
from array import array

from agents import guardian_start
from agents.claim import take_claim
from agents.sysroot import FolderRoot
from agents.traced_calls import Traced
from tests.lab.guest_splits import KNOBS, PMD_BYTES
from tests.lab.split_causes import fault_in

MARK = "overhead: "
TURNS, SLICES, STEPS = 8, 400, 1500


def chase(links: ctypes.Array[ctypes.c_uint32], at: int) -> tuple[float, int]:
    """Follow so many links; returns the seconds that it took, and where it ended."""
    begun = time.perf_counter()
    for _ in range(STEPS):
        at = links[at]
    return time.perf_counter() - begun, at


def main() -> None:
    guardian_start.READY_WITHIN_SECONDS = 90.0
    count = PMD_BYTES // 4 // 64  # one link a cache line or so
    links = (ctypes.c_uint32 * count).from_address(fault_in(PMD_BYTES))
    order = list(range(count))[: 1 << 17]
    random.Random(1).shuffle(order)
    for here, there in zip(order, order[1:] + order[:1], strict=True):
        links[here] = there
    claim = take_claim(FolderRoot(), run="lab", owner="lab", knobs=KNOBS, lease_seconds=600)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    at, placed = order[0], 0
    for turn in range(2 * TURNS):
        traced = turn % 2 == 1
        trace = claim.trace(tuple(Traced)) if traced else None
        for _ in range(SLICES):
            took, at = chase(links, at)
            seconds[traced].append(took)
        if trace is not None:
            placed += len(trace.read().dropped)
            trace.close()
    claim.revert()
    claim.release()
    best = {name: array("d", sorted(seconds[on])[:20]).tolist() for name, on in (("bare", False), ("traced", True))}
    print(MARK + json.dumps({**best, "functions": placed / TURNS}))  # noqa: T201


if __name__ == "__main__":
    main()
