"""Faults: does a touch bring a whole page, and does it hold what is written to it?"""

from __future__ import annotations

import errno
import threading
from functools import partial

from agents.conformance.bench import Bench, NotTried
from agents.conformance.counters import Count, Level
from agents.conformance.memory import Advice, Memory, Pattern
from agents.conformance.verdict import VerdictCause

_THREADS = 4
_COLLAPSE_TRIES = 5


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


def plain_mmap(bench: Bench) -> None:
    """A mapping at whatever address the kernel chose: a whole page for each aligned extent in it, and for no other."""
    memory = Memory(2 * bench.size)
    first = -memory.start % bench.size
    starts = range(first, memory.length - bench.size + 1, bench.size)
    memory.advise(Advice.HUGEPAGE)
    with bench.counting() as rise:
        brought = [bench.brought(memory, partial(memory.touch, at)) for at in starts]
    pattern = Pattern(memory)
    pattern.write()
    bench.check_data("the memory", pattern.damaged())
    bench.tell("whole extents in a mapping of two", f"{len(starts)}, the first {first:,} bytes in")
    memory.close()
    bench.check_bytes("memory that the least touch of an extent brought", min(brought), at_least=bench.size)
    rise.check(Count.ALLOCATED, len(starts))


def threads(bench: Bench) -> None:
    """Threads that touch one extent at the same instant: one page for all, or a fall-back that is counted."""
    start = threading.Barrier(_THREADS)
    offsets = [number * (bench.size // _THREADS) for number in range(_THREADS)]

    def touch(memory: Memory, offset: int) -> None:
        start.wait()
        memory.touch(offset, offset % 251 + 1)  # ctypes lets go of the interpreter's lock meanwhile

    def all_touch(memory: Memory) -> None:
        crowd = [threading.Thread(target=touch, args=(memory, offset)) for offset in offsets]
        for one in crowd:
            one.start()
        for one in crowd:
            one.join()

    with bench.memory() as memory:
        with bench.counting() as rise:
            brought = bench.brought(memory, lambda: all_touch(memory))
        lost = sum(memory.view()[offset] != offset % 251 + 1 for offset in offsets)
        bench.check_data("what each thread wrote", lost)
    rise.check_sum((Count.ALLOCATED, Count.FALLBACK), 1)
    if bench.level is Level.PUD:
        bench.tell("a whole page for all threads", "yes" if brought >= bench.size else "no, smaller pages")
    else:
        bench.check_bytes("memory that the threads brought", brought, at_least=bench.size)
        rise.check(Count.ALLOCATED, 1)


def collapse(bench: Bench) -> None:
    """MADV_COLLAPSE of memory in small pages makes pages of PMDs, with every byte; of another size it makes none."""
    with bench.memory(advise=False) as memory:
        pattern = Pattern(memory)
        pattern.write()
        with bench.counting() as rise:
            done, tries = _collapsed(bench, memory)
        bench.check_data("the memory", pattern.damaged())
    bench.tell("MADV_COLLAPSE", done)
    rise.check(Count.ALLOCATED, 0)
    if bench.level is Level.PMD:
        if done != "done":
            raise NotTried(VerdictCause.NO_CALL, f"MADV_COLLAPSE (Linux 6.1) is refused here: {done}")
        rise.check(Count.COLLAPSED, 1, at_least=tries > 1)  # one that came to nothing may have counted too


def _collapsed(bench: Bench, memory: Memory) -> tuple[str, int]:
    """Return "done" or what the kernel said, and how often it was asked: EAGAIN means ask again (madvise(2))."""
    said = ""
    for tries in range(1, _COLLAPSE_TRIES + 1):
        try:
            bench.call("MADV_COLLAPSE", lambda: memory.advise(Advice.COLLAPSE))
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.EAGAIN, errno.ENOMEM, errno.EBUSY}:
                raise
            said = str(error.strerror)
            if error.errno != errno.EAGAIN:
                break
        else:
            return "done", tries
    return said, tries
