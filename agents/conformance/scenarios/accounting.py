"""Accounting: do page tables come back, and do counters agree with each other?"""

from __future__ import annotations

from agents.conformance.bench import Bench, Rise
from agents.conformance.counters import Count, Level

_ROUNDS = 4
_EXTENTS = 4


def page_tables(bench: Bench) -> None:
    """Page tables that a page brings, and those its split needs, are given back with it: none stay, round by round."""
    left = []
    for _ in range(_ROUNDS):
        with bench.memory() as memory:
            if not bench.granted(memory):
                bench.no_page()
            with_page = bench.own("VmPTE")
            memory.unmap(bench.middle, bench.piece)
        left.append(bench.own("VmPTE"))
    bench.tell("page tables with a page there", f"{with_page:,} bytes")
    bench.check_bytes("page tables left after more rounds", max(0, left[-1] - left[0]), at_most=0)


def counters_agree(bench: Bench) -> None:
    """So many pages faulted in, so many counted by each counter there is; and gone when they are."""
    extents = 1 if bench.level is Level.PUD else _EXTENTS
    with bench.memory(extents) as memory:
        with bench.counting() as rise:
            whole = sum(bench.granted(memory, at) for at in range(0, memory.length, bench.size))
        if whole < extents:
            bench.no_page()
        gone = bench.counts()
    with_them = Rise(bench, gone)
    with_them.end(bench.counts())
    rise.check(Count.ALLOCATED, extents)
    rise.check(Count.ANONYMOUS, extents, gauge=True)
    if bench.level is not Level.PTE:
        rise.check(Count.ALL_FAULTS, extents)
    with_them.check(Count.ANONYMOUS, -extents, gauge=True)
