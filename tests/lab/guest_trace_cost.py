"""Runs inside the guest: short rounds of the pointer chase, with and without a trace, in turn.

    python guest_trace_cost.py RESULT.json BLOCKS

Not a test itself: `tests/benchmarks/test_trace_cost.py` boots a guest and runs this in it. A block
has a traced round and two plain ones, in an order that is drawn: what the plain ones differ by is the floor.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

from agents.sysroot import FolderRoot
from agents.traced_calls import Traced
from agents.tracing.kernel_trace import KernelTrace
from agents.workloads.cycle import LINE_BYTES, chase, lay_cycle, make_key, touch, word_at
from agents.workloads.host_pages import BASE_PAGE_KIB, Backing
from agents.workloads.region import Region

ROUNDS = ("traced", "plain", "plain again")
REGION_BYTES, PAGE_KIB, DEREFERENCES = 16 << 20, 2048, 500_000


def round_seconds() -> tuple[float, float]:
    """Return how long it took to fault the region in, and to go through it."""
    key = make_key(REGION_BYTES // LINE_BYTES, 0)
    with Region(REGION_BYTES, backing=Backing.ANONYMOUS, page_size_kib=PAGE_KIB, madvise=True) as region:
        begun = time.perf_counter()
        touch(region.words, BASE_PAGE_KIB * 1024 // 8)
        faulted = time.perf_counter()
        lay_cycle(region.words, key)
        begun_chase = time.perf_counter()
        chase(region.words, word_at(key, 0), DEREFERENCES)
        return faulted - begun, time.perf_counter() - begun_chase


def traced_faults(trace: KernelTrace) -> int:
    return sum(total.calls for key, total in trace.read().sums.items() if key.function == "fault_pmd")


def main() -> None:
    drawn, root = random.Random(1), FolderRoot()
    blocks: list[dict[str, tuple[float, float]]] = []
    faults = 0
    round_seconds()  # compiled, and in the caches
    for _ in range(int(sys.argv[2])):
        block = {}
        for name in drawn.sample(ROUNDS, len(ROUNDS)):
            if name != "traced":
                block[name] = round_seconds()
                continue
            trace = KernelTrace.start(root, "cost", tuple(Traced))
            try:
                assert not trace.missing, trace.missing
                block[name] = round_seconds()
                faults += traced_faults(trace)
            finally:
                trace.close()
        blocks.append(block)
    Path(sys.argv[1]).write_text(json.dumps({"blocks": blocks, "faults": faults}))


if __name__ == "__main__":
    main()
