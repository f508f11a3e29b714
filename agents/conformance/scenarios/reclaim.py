"""Reclaim: a page that is paged out must come back with every byte."""

from __future__ import annotations

from agents.conformance.bench import Bench, NotTried
from agents.conformance.counters import Count, Level
from agents.conformance.memory import Advice
from agents.conformance.verdict import VerdictCause


def pageout(bench: Bench) -> None:
    """MADV_PAGEOUT: one mapping split, the page swapped out whole or split for it, and every byte back when read."""
    _require_swap(bench)
    with bench.page() as (memory, pattern):
        with bench.counting() as rise:
            bench.call("MADV_PAGEOUT", lambda: memory.advise(Advice.PAGEOUT))
            swapped = bench.own("VmSwap")
        _check_back(bench, pattern.damaged())
    if not swapped:
        raise NotTried(VerdictCause.NO_SWAP, "the kernel took the advice and kept the page in memory")
    if bench.level is not Level.PTE:
        rise.check(Count.MAPPING_SPLIT, 1)
    rise.check_sum((Count.SWAPPED_OUT, Count.SWAPOUT_SPLIT, Count.SPLIT), 1)


def swap_out_and_in(bench: Bench) -> None:
    """All of the page leaves memory, and all of it comes back, twice over."""
    _require_swap(bench)
    with bench.page() as (memory, pattern):
        for turn in ("first", "second"):
            bench.call("MADV_PAGEOUT", lambda: memory.advise(Advice.PAGEOUT))
            if not bench.own("VmSwap"):
                raise NotTried(VerdictCause.NO_SWAP, "the kernel took the advice and kept the page in memory")
            _check_back(bench, pattern.damaged(), turn)
            pattern.write()
            bench.check_data(f"the memory written again after the {turn} turn", pattern.damaged())
            bench.check_bytes(f"of this process still in swap after the {turn} turn", bench.own("VmSwap"), at_most=0)


def _check_back(bench: Bench, damaged: int, turn: str = "") -> None:
    bench.check_data(f"the memory that came back from swap{turn and f', {turn} turn'}", damaged)


def _require_swap(bench: Bench) -> None:
    free = bench.meminfo("SwapFree")
    if free < bench.size:
        raise NotTried(
            VerdictCause.NO_SWAP,
            f"it takes {bench.size:,} bytes of swap, and {free:,} are free: add some (swapon), then try again",
        )
