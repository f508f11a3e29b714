"""Idle page tracking: a big page that is marked and looked up again.

Source: Documentation/admin-guide/mm/idle_page_tracking.rst, pagemap.rst (64 bits for each base page, by its frame).
"""

from __future__ import annotations

import sys
from pathlib import Path

from agents.conformance.bench import Bench, NotTried
from agents.conformance.counters import Count, Level
from agents.conformance.memory import Memory
from agents.conformance.verdict import VerdictCause

_IDLE = Path("/sys/kernel/mm/page_idle/bitmap")
_FLAGS = Path("/proc/kpageflags")
_PAGEMAP = Path("/proc/self/pagemap")
_BYTES = 8  # of an entry, in each of these files
_BITS = 8 * _BYTES
_FRAME = (1 << 55) - 1  # of an entry of pagemap
_HEAD = 1 << 15 | 1 << 22  # of an entry of kpageflags: COMPOUND_HEAD, THP


def idle_scan(bench: Bench) -> None:
    """A page is marked idle and looked up again: it reads as idle, and has every byte. Only this mark changes."""
    if missing := [str(path) for path in (_IDLE, _FLAGS, _PAGEMAP) if not path.exists()]:
        raise NotTried(VerdictCause.NO_CALL, f"this kernel was built without {missing[0]}")
    by_flags = bench.level is Level.PUD  # to look into pagemap would split it
    others = _heads(bench) if by_flags else set()
    with bench.page() as (memory, pattern):
        frames = _heads(bench) - others if by_flags else {_frame(memory, bench)}
        with bench.counting() as rise:
            for frame in frames:
                _mark(frame)
            idle = [_entry(_IDLE, frame // _BITS) >> frame % _BITS & 1 for frame in frames]
        bench.check_call("a page that nobody touched", held=1 in idle, wanted="idle", seen="in use")
        bench.check_data("the memory", pattern.damaged())
    if by_flags:
        rise.tell(Count.MAPPING_SPLIT)
    elif bench.level is Level.PMD:
        rise.check(Count.MAPPING_SPLIT, 0)
    rise.check(Count.SPLIT, 0)


def _heads(bench: Bench) -> set[int]:
    """Return the first frames of the host's aligned pages of this size: a few of a PUD; no page table is looked at."""
    found, frame = set(), 0
    while (flags := _entry(_FLAGS, frame)) >= 0:
        if flags & _HEAD == _HEAD:
            found.add(frame)
        frame += bench.pages
    return found


def _frame(memory: Memory, bench: Bench) -> int:
    return _entry(_PAGEMAP, memory.start // bench.base) & _FRAME


def _entry(path: Path, number: int) -> int:
    """Return an entry; -1 where the file has no more."""
    with path.open("rb", buffering=0) as file:
        file.seek(number * _BYTES)
        data = file.read(_BYTES)
    return int.from_bytes(data, sys.byteorder) if data else -1


def _mark(frame: int) -> None:
    with _IDLE.open("r+b", buffering=0) as file:
        file.seek(frame // _BITS * _BYTES)
        file.write((1 << frame % _BITS).to_bytes(_BYTES, sys.byteorder))
