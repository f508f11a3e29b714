"""Faults: does a touch bring a whole page, and does it hold what is written to it?"""

from __future__ import annotations

from agents.conformance.bench import Bench
from agents.conformance.counters import Count
from agents.conformance.memory import Pattern


def allocation(bench: Bench) -> None:
    """One byte touched in an aligned extent brings one page of the size, and nothing falls back."""
    with bench.memory() as memory, bench.counting() as rise:
        brought = bench.brought(memory, memory.touch)
    bench.check_bytes("memory that one touch brought", brought, at_least=bench.size)
    rise.check(Count.ALLOCATED, 1)
    rise.check(Count.FALLBACK, 0)
    rise.check(Count.MAPPING_SPLIT, 0)


def stride(bench: Bench) -> None:
    """Every base page written and read back: one fault, one page, no split."""
    with bench.memory() as memory:
        pattern = Pattern(memory)
        with bench.counting() as rise:
            pattern.write()
        damaged = pattern.damaged()
        bench.check_data("the page after a write at page stride", damaged)
    rise.check(Count.ALLOCATED, 1)
    rise.check(Count.FALLBACK, 0)
    rise.check(Count.MAPPING_SPLIT, 0)
    rise.check(Count.SPLIT, 0)
