"""The latency of each big-page fault over a region, and how many were answered with a big page."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from agents.catalogue.declared import Reported
from agents.sysroot import SysRoot
from agents.workloads.emit import Emit
from agents.workloads.host_pages import Backing, faults_granted, largest_page_kib
from agents.workloads.memory import (
    PAGES_ASKED,
    PAGES_GRANTED,
    RegionOptions,
    backing_option,
    madvise_option,
    pretouch_option,
)
from agents.workloads.option import KIB, Wrong, count, page_size, size
from agents.workloads.workload import Workload

PAGES_AT_MOST = 100_000  # each fault is a measurement of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFault(RegionOptions):
    """The latency of each big-page fault over a region."""

    region_bytes: int = size("memory that is worked on", "4GiB", default=2**30)
    page_size_kib: int = page_size("of the pages that are faulted in")
    backing: Backing = backing_option()
    repeats: int = count("passes over the region; 0: until the period ends", 10, default=1)
    pretouch: bool = pretouch_option()
    madvise: bool = madvise_option()

    def wrong(self) -> Iterator[Wrong]:
        if self.page_size_kib and self.region_bytes > self.page_size_kib * KIB * PAGES_AT_MOST:
            yield (
                "region_bytes",
                f"more than {PAGES_AT_MOST:,} pages of {self.page_size_kib} KiB, each a measurement of its own",
                "choose a smaller region or a bigger page size",
            )


def run_page_fault(options: PageFault, root: SysRoot, emit: Emit) -> None:
    """Report `fault_latency_seconds` for each big page, then `pages_asked` and `pages_granted` of the pass.

    The first byte of each big page is touched, in order, from one thread. Where the arm gives smaller pages, the same
    touch costs a smaller fault: what was granted tells them apart. It is absent where the kernel does not count.
    """
    from agents.workloads.clock import clock_cost_nanoseconds, time_touches
    from agents.workloads.region import Region, touch_once

    page_kib = options.page_size_kib or largest_page_kib(
        root, options.backing, options.region_bytes, madvise=options.madvise
    )
    if options.pretouch:
        touch_once(options.region_bytes, options.backing, page_kib, madvise=options.madvise)
    clock_cost_nanoseconds()  # linked and warm before anything is measured
    emit.ready()
    for _ in range(options.repeats) if options.repeats else itertools.count():
        with Region(
            options.region_bytes, backing=options.backing, page_size_kib=page_kib, madvise=options.madvise
        ) as region:
            before = faults_granted(root, page_kib)
            took = time_touches(region.words, page_kib * KIB)
            after = faults_granted(root, page_kib)
        for nanoseconds in took:
            emit.measured({"fault_latency_seconds": int(nanoseconds) / 1e9})
        totals = {"pages_asked": float(len(took))}
        if options.backing is Backing.HUGETLB:
            totals["pages_granted"] = float(len(took))  # a hugetlb fault without a page is SIGBUS
        elif before is not None and after is not None:
            totals["pages_granted"] = float(min(after - before, len(took)))
        emit.measured(totals)


WORKLOAD = Workload(
    name="page_fault",
    options=PageFault,
    reports=(
        Reported(name="fault_latency_seconds", unit="seconds", meaning="time of one big-page fault", better="decrease"),
        PAGES_ASKED,
        PAGES_GRANTED,
    ),
    run=run_page_fault,
)
