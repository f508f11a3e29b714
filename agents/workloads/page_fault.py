"""The latency of each big-page fault over a region, and how many were answered with a big page."""

from __future__ import annotations

from itertools import count

from agents.sysroot import SysRoot
from agents.workloads.clock import clock_cost_nanoseconds, time_touches
from agents.workloads.emit import Emit
from agents.workloads.host_pages import faults_granted, largest_page_kib
from agents.workloads.options import KIB, Backing, PageFault
from agents.workloads.pointer_chase import pretouch
from agents.workloads.region import Region


def run_page_fault(options: PageFault, root: SysRoot, emit: Emit) -> None:
    """Report `fault_latency_seconds` for each big page, then `pages_asked` and `pages_granted` of the pass.

    The first byte of each big page is touched, in order, from one thread. Where the arm gives smaller pages, the same
    touch costs a smaller fault: what was granted tells them apart. It is absent where the kernel does not count.
    """
    page_kib = options.page_size_kib or largest_page_kib(
        root, options.backing, options.region_bytes, madvise=options.madvise
    )
    if options.pretouch:
        pretouch(options.region_bytes, options.backing, page_kib, madvise=options.madvise)
    clock_cost_nanoseconds()  # linked and warm before anything is measured
    emit.ready()
    for _ in range(options.repeats) if options.repeats else count():
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
