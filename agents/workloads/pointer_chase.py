"""Random dependent dereferences through a region: fault-in time and access time, apart.

The benchmark of the RFC "mm: PUD (1GB) THP implementation" (2026-02-02): 4 GB, 4M dereferences.
"""

from __future__ import annotations

import time
from itertools import count

import numpy as np

from agents.errors import WorkloadError
from agents.sysroot import SysRoot
from agents.workloads.cycle import LINE_BYTES, WORDS_PER_LINE, chase, lay_cycle, make_key, slot_at, touch
from agents.workloads.emit import Emit
from agents.workloads.host_pages import BASE_PAGE_KIB, largest_page_kib
from agents.workloads.options import KIB, Backing, PointerChase
from agents.workloads.region import Region


def run_pointer_chase(options: PointerChase, root: SysRoot, emit: Emit) -> None:
    """Report `fault_seconds` once, then `access_seconds` and its share per dereference for each repeat.

    Faulting in touches every base page once, in order, from one thread, under every backing alike: threads that race
    for one gigabyte were seen to get none. A repeat goes on where the last one ended, so that it finds other lines.
    WorkloadError where the chase ends elsewhere than computed: the memory did not keep what was written.
    """
    page_kib = options.page_size_kib or largest_page_kib(
        root, options.backing, options.region_bytes, madvise=options.madvise
    )
    stride_words = BASE_PAGE_KIB * KIB // 8
    if options.pretouch:
        pretouch(options.region_bytes, options.backing, page_kib, madvise=options.madvise)
    key = make_key(options.region_bytes // LINE_BYTES, options.seed)
    with Region(
        options.region_bytes, backing=options.backing, page_size_kib=page_kib, madvise=options.madvise
    ) as region:
        emit.ready()
        begun = time.perf_counter_ns()
        touch(region.words, stride_words)
        emit.measured({"fault_seconds": (time.perf_counter_ns() - begun) / 1e9})
        lay_cycle(region.words, key)
        at, steps = _word_at(key, 0), 0
        for _ in range(options.repeats) if options.repeats else count():
            begun = time.perf_counter_ns()
            at = chase(region.words, at, options.dereferences)
            took = time.perf_counter_ns() - begun
            steps += options.dereferences
            if at != _word_at(key, steps):
                raise WorkloadError(
                    f"the memory lost what was written: step {steps} of the chase ended at word {at}",
                    where=f"a region of {options.region_bytes:,} bytes",
                    remedy="look for 'bad page' and machine checks in the kernel log; don't trust this host's memory",
                )
            emit.measured(
                {"access_seconds": took / 1e9, "access_nanoseconds_per_dereference": took / options.dereferences}
            )


def pretouch(region_bytes: int, backing: Backing, page_size_kib: int, *, madvise: bool) -> None:
    """Touch as much memory as will be measured, and give it back.

    A guest's memory that was never used is first given to it by the host, at up to 20 times the cost.
    """
    with Region(region_bytes, backing=backing, page_size_kib=page_size_kib, madvise=madvise) as region:
        touch(region.words, BASE_PAGE_KIB * KIB // 8)


def _word_at(key: np.ndarray[tuple[int], np.dtype[np.uint64]], steps: int) -> np.uint64:
    return np.uint64(slot_at(key, np.uint64(steps % int(key[0])))) * WORDS_PER_LINE
