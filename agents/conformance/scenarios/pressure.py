"""Scarce memory: a memory cgroup that refuses, one that is full, pages that are pinned, and a fragmented neighbourhood.

All of it is bounded, so that the host survives: by a cgroup of its own, or by a share of what is available.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agents.conformance.bench import Bench, NotTried
from agents.conformance.counters import Count
from agents.conformance.fork import in_a_fork
from agents.conformance.memory import Advice, Memory, Pattern
from agents.conformance.verdict import VerdictCause
from agents.own_cgroup import join_cgroup, make_limited_cgroup, remove_cgroup

_MIB = 2**20
_LEAST = _MIB  # a cgroup's accounting runs ahead by 64 base pages a CPU: less than this can't be limited exactly
_OWN_NEEDS = 16 * _MIB  # of a fork of this process
_HOLES = 16_384
_ATTEMPTS = 8
_SHARE = 8  # at most one part in so many of what is available is used


def cgroup_refuses(bench: Bench) -> None:
    """A page that does not fit the cgroup is refused and counted; the touch gets smaller pages, nobody is killed."""
    if bench.size < _LEAST:
        raise NotTried(VerdictCause.TOO_SMALL, f"a cgroup can't be limited to less than {_LEAST:,} bytes exactly")
    limit = max(bench.size // 2, _OWN_NEEDS)

    def inside(folder: Path) -> int:
        with bench.memory() as memory, _filled(folder, limit, bench.size // 2):
            brought = bench.brought(memory, memory.touch)
            return int(brought >= bench.size or memory.view()[0] != 1)

    with bench.counting() as rise:
        whole = _limited(limit, inside)
    bench.check_call("the page that does not fit", held=not whole, wanted="refused", seen="given")
    rise.check(Count.CHARGE_REFUSED, 1, at_least=True)
    rise.check(Count.FALLBACK, 1, at_least=True)


def cgroup_fills(bench: Bench) -> None:
    """A page in a cgroup that is filled up around it: reclaim takes what it needs, and no byte is lost.

    Small pages fill it, an eighth of the page and 16 MiB at least; half of them don't fit.
    """
    if bench.meminfo("SwapFree") < 2 * bench.size + _OWN_NEEDS:
        raise NotTried(VerdictCause.NO_SWAP, "what is reclaimed has nowhere to go: add swap (swapon), then try again")
    if bench.meminfo("MemAvailable") < 3 * bench.size + _OWN_NEEDS:
        raise NotTried(VerdictCause.NO_MEMORY, "there is too little memory for three pages of this size")
    fill = max(bench.size // 8, _OWN_NEEDS)  # more, and page and filling push each other out at each look

    def inside(_: Path) -> int:
        with bench.page() as (_memory, pattern), bench.memory(1, advise=False) as others:
            small = Memory(fill)
            small.advise(Advice.NOHUGEPAGE)
            filled = Pattern(small, seed=2)
            filled.write()
            others.touch()
            damaged = pattern.damaged() + filled.damaged()
            small.close()
            return damaged

    with bench.counting() as rise:
        damaged = _limited(bench.size + fill // 2 + _OWN_NEEDS, inside)
    bench.check_data("the memory of a full cgroup", damaged)
    rise.tell(Count.SPLIT)
    rise.tell(Count.MAPPING_SPLIT)


def pinned(bench: Bench) -> None:
    """A base page that a pipe pins keeps its bytes: while the rest is reclaimed, and after all of it is unmapped."""
    with bench.page() as (memory, pattern):
        reader, writer = os.pipe()
        try:
            wanted = bytes(memory.view()[bench.middle : bench.middle + bench.base])
            bench.call("vmsplice", lambda: memory.pin(writer, bench.middle))
            with bench.counting() as rise:
                _page_out(bench, memory)
            bench.check_data("the memory with a pinned page in it", pattern.damaged())
            memory.unmap(0, memory.length)
            seen = os.read(reader, bench.base)
        finally:
            os.close(reader)
            os.close(writer)
    bench.check_call("the pinned page, once the rest is gone", held=seen == wanted, wanted="its bytes", seen="others")
    rise.tell(Count.SPLIT)
    rise.tell(Count.MAPPING_SPLIT)


def locked(bench: Bench) -> None:
    """A page that mlock holds is not paged out: the advice is refused, and the page stays whole in memory."""
    with bench.page() as (memory, pattern):
        bench.call("mlock", memory.lock)
        refused = False
        with bench.counting() as rise:
            try:
                memory.advise(Advice.PAGEOUT)
            except OSError as error:
                refused = error.errno == errno.EINVAL
        bench.check_call("MADV_PAGEOUT of locked memory", held=refused, wanted="refused", seen="taken")
        bench.check_bytes("of this process in swap", bench.own("VmSwap"), at_most=0)
        bench.check_data("the locked memory", pattern.damaged())
        memory.unlock()
        bench.check_data("the memory after munlock", pattern.damaged())
    rise.check(Count.SPLIT, 0)


def beside_holes(bench: Bench) -> None:
    """Memory full of holes beside it: each fault gives a whole page or falls back and is counted, with every byte."""
    room = bench.meminfo("MemAvailable") // _SHARE
    attempts = min(_ATTEMPTS, max(1, room // bench.size))
    if bench.meminfo("MemAvailable") < 2 * bench.size:
        raise NotTried(VerdictCause.NO_MEMORY, "there is too little memory for two pages of this size")
    holes = min(_HOLES, room // (2 * bench.base))
    swiss = Memory(2 * holes * bench.base)
    swiss.advise(Advice.NOHUGEPAGE)
    kept = Pattern(swiss)
    kept.write()
    for hole in range(holes):
        swiss.advise(Advice.DONTNEED, 2 * hole * bench.base, bench.base)
    with bench.memory(attempts) as memory:
        with bench.counting() as rise:
            given = sum(bench.granted(memory, at) for at in range(0, memory.length, bench.size))
        pattern = Pattern(memory, seed=3)
        pattern.write()
        bench.check_data("the memory", pattern.damaged())
    lost = sum(kept.damaged(2 * hole + 1, 2 * hole + 2) for hole in range(0, holes, max(1, holes // 1024)))
    bench.check_data("the pages between the holes", lost)
    swiss.close()
    bench.tell("whole pages", f"{given} of {attempts}")
    rise.check_sum((Count.ALLOCATED, Count.FALLBACK), attempts)


def _page_out(bench: Bench, memory: Memory) -> None:
    try:
        bench.call("MADV_PAGEOUT", lambda: memory.advise(Advice.PAGEOUT))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def _limited(limit: int, inside: Callable[[Path], int]) -> int:
    """Return the count that a function returned in a fork in a cgroup of its own."""
    folder = make_limited_cgroup(limit)
    if folder is None:
        detail = "no cgroup with a memory limit can be made below this one: version 2 needs '+memory' in the "
        raise NotTried(VerdictCause.NO_MEMORY_CGROUP, f"{detail}cgroup.subtree_control here")

    def act() -> int:
        join_cgroup(folder)
        return inside(folder)

    try:
        return in_a_fork(act)
    finally:
        remove_cgroup(folder)


@contextmanager
def _filled(folder: Path, limit: int, room: int) -> Iterator[None]:
    """Fill a cgroup with locked memory meanwhile, so that less than `room` is left and none can be reclaimed."""
    usage = next(path for name in ("memory.current", "memory.usage_in_bytes") if (path := folder / name).exists())
    wanted = limit - room - int(usage.read_text())
    if wanted < _MIB:
        yield
        return
    memory = Memory(wanted // _MIB * _MIB)
    memory.advise(Advice.NOHUGEPAGE)
    memory.lock()
    yield
    memory.close()
