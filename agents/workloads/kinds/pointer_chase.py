"""Random dependent dereferences through a region: fault-in time and access time, apart.

The benchmark of the RFC "mm: PUD (1GB) THP implementation" (2026-02-02): 4 GB, 4M dereferences.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

from agents.catalogue.declared import Reported
from agents.errors import WorkloadError
from agents.sysroot import SysRoot
from agents.workloads.emit import Emit
from agents.workloads.host_pages import BASE_PAGE_KIB, Backing
from agents.workloads.memory import (
    FAULT_SECONDS,
    RegionOptions,
    backing_option,
    madvise_option,
    pretouch_option,
    process_thp_option,
)
from agents.workloads.option import KIB, count, page_size, size
from agents.workloads.process_thp import ProcessThp
from agents.workloads.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class PointerChase(RegionOptions):
    """Random dependent dereferences in a region, after faulting it in."""

    region_bytes: int = size("memory that is worked on", "4GiB", default=2**30)
    dereferences: int = count("of one repeat", "4M", default=4_000_000, least=1)
    backing: Backing = backing_option()
    page_size_kib: int = page_size("region is aligned to it")
    repeats: int = count("0: until the period ends", 10, default=0)
    pretouch: bool = pretouch_option()
    madvise: bool = madvise_option()
    process_thp: ProcessThp = process_thp_option()
    seed: int = count("of the order of dereferences", 7, default=0)


def run_pointer_chase(options: PointerChase, root: SysRoot, emit: Emit) -> None:
    """Report `fault_seconds` once, then `access_seconds` and its share per dereference for each repeat.

    Faulting in touches every base page once, in order, from one thread, under every backing alike: threads that race
    for one gigabyte were seen to get none. A repeat goes on where the last one ended, so that it finds other lines.
    WorkloadError where the chase ends elsewhere than computed: the memory did not keep what was written.
    """
    from agents.workloads.cycle import LINE_BYTES, chase, lay_cycle, make_key, touch, word_at
    from agents.workloads.region import Region, touch_once

    page_kib = options.page_kib_on(root)
    stride_words = BASE_PAGE_KIB * KIB // 8
    if options.pretouch:
        touch_once(options.region_bytes, options.backing, page_kib, madvise=options.madvise)
    key = make_key(options.region_bytes // LINE_BYTES, options.seed)
    with Region(
        options.region_bytes, backing=options.backing, page_size_kib=page_kib, madvise=options.madvise
    ) as region:
        emit.ready()
        begun = time.perf_counter_ns()
        touch(region.words, stride_words)
        emit.measured({"fault_seconds": (time.perf_counter_ns() - begun) / 1e9})
        lay_cycle(region.words, key)
        at, steps = word_at(key, 0), 0
        for _ in range(options.repeats) if options.repeats else itertools.count():
            begun = time.perf_counter_ns()
            at = chase(region.words, at, options.dereferences)
            took = time.perf_counter_ns() - begun
            steps += options.dereferences
            if at != word_at(key, steps):
                raise WorkloadError(
                    f"the memory lost what was written: step {steps} of the chase ended at word {at}",
                    where=f"a region of {options.region_bytes:,} bytes",
                    remedy="look for 'bad page' and machine checks in the kernel log; don't trust this host's memory",
                )
            emit.measured(
                {"access_seconds": took / 1e9, "access_nanoseconds_per_dereference": took / options.dereferences}
            )


WORKLOAD = Workload(
    name="pointer_chase",
    options=PointerChase,
    reports=(
        Reported(
            name="access_seconds",
            unit="seconds",
            meaning="time for all dereferences of one repeat",
            better="decrease",
        ),
        Reported(
            name="access_nanoseconds_per_dereference",
            unit="nanoseconds",
            meaning="mean time of one dereference",
            better="decrease",
        ),
        FAULT_SECONDS,
    ),
    run=run_pointer_chase,
)
