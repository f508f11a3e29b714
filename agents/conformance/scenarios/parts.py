"""A part of a page unmapped, protected, given back or moved: the rest must stay as it was."""

from __future__ import annotations

from agents.conformance.bench import Bench
from agents.conformance.counters import Count
from agents.conformance.memory import PROT_READ, PROT_WRITE, Advice, Memory, Pattern


def partial_munmap(bench: Bench) -> None:
    """A piece in the middle is unmapped: the mapping is split, the page queued for a split, the rest intact."""
    with bench.page() as (memory, pattern):
        with bench.counting() as rise:
            memory.unmap(bench.middle, bench.piece)
        _check_the_rest(bench, pattern)
    rise.check(Count.MAPPING_SPLIT, 1)
    rise.check(Count.DEFERRED, 1)


def partial_discard(bench: Bench) -> None:
    """A piece in the middle is given back with MADV_DONTNEED: it reads as zeros, and the rest is intact."""
    with bench.page() as (memory, pattern):
        with bench.counting() as rise:
            memory.advise(Advice.DONTNEED, bench.middle, bench.piece)
        _check_the_rest(bench, pattern)
        left = any(memory.view()[bench.middle : bench.middle + bench.piece])
        bench.check_call("the piece that was given back", held=not left, wanted="zeros", seen="old data")
    rise.check(Count.MAPPING_SPLIT, 1)
    rise.check(Count.DEFERRED, 1)


def partial_mprotect(bench: Bench) -> None:
    """A piece in the middle becomes read-only: the mapping is split, the page is not, and writes there are refused."""
    with bench.page() as (memory, pattern):
        with bench.counting() as rise:
            memory.protect(bench.middle, bench.piece, PROT_READ)
        bench.check_data("the memory", pattern.damaged())
        refused = memory.refuses_writes(bench.middle)
        bench.check_call("a write to the piece", held=refused, wanted="refused", seen="taken")
        memory.protect(bench.middle, bench.piece, PROT_READ | PROT_WRITE)
        pattern.change(bench.middle // bench.base)
        bench.check_data("the memory after a write to the piece", pattern.damaged())
    rise.check(Count.MAPPING_SPLIT, 1)
    rise.check(Count.SPLIT, 0)


def whole_mremap(bench: Bench) -> None:
    """The whole page is moved to another aligned address: every byte goes along, and nothing is left behind."""
    with bench.page() as (memory, pattern), bench.memory() as other:
        with bench.counting() as rise:
            memory.move_to(other)
        bench.check_data("the memory at its new place", pattern.damaged(moved_to=other))
        rise.tell(Count.MAPPING_SPLIT)
    rise.check(Count.ALLOCATED, 0)


def partial_mremap(bench: Bench) -> None:
    """A piece in the middle is moved away: both parts keep their bytes."""
    with bench.page() as (memory, pattern):
        piece = Memory(bench.piece)
        part = memory.part(bench.middle, bench.piece)
        part.move_to(piece)
        _check_the_rest(bench, pattern)
        first = bench.middle // bench.base
        last = first + bench.piece // bench.base
        bench.check_data("the piece at its new place", pattern.damaged(first, last, moved_to=piece))
        piece.close()


def _check_the_rest(bench: Bench, pattern: Pattern) -> None:
    first = bench.middle // bench.base
    bench.check_data("the memory below the piece", pattern.damaged(0, first))
    bench.check_data("the memory above the piece", pattern.damaged(first + bench.piece // bench.base))
