"""Which pages of a mapping are resident, and how aligned extents of every size fill up: counted by /proc/PID/pagemap.

Nothing here may run where a page above a PMD's size may live: reading pagemap splits it (`agents.page_sizes`).
Sources: Documentation/admin-guide/mm/pagemap.rst; fs/proc/task_mmu.c.
"""

from __future__ import annotations

import os
import sys
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from agents.survey.figures import EIGHTHS, SHARES, Residency
from agents.survey.pace import Pace

_ENTRY_BYTES = 8
_TOP = slice(7, None, 8) if sys.byteorder == "little" else slice(0, None, 8)  # of an entry: the byte of its bits 56-63
_PRESENT, _SWAPPED, _OF_FILE, _GUARD, _EXCLUSIVE = 0x80, 0x40, 0x20, 0x04, 0x01
_FRAME = (1 << 55) - 1
_ZERO_PAGE = 1 << 24  # of an entry of /proc/kpageflags
_LOOKUPS_AT_MOST = 4096  # in kpageflags, per process
_BLOCK_PAGES = 1 << 15  # looked up at once
_BYTE_LEVEL = 7  # 128 pages: the most whose count, doubled, still fits a byte


def _held(top: int) -> bool:
    return bool(top & _PRESENT and not top & _OF_FILE) or bool(top & _SWAPPED and not top & _GUARD)


_HELD = bytes(_held(top) for top in range(256))
_NOT_EXCLUSIVE = bytes(top & (_PRESENT | _OF_FILE | _EXCLUSIVE) == _PRESENT for top in range(256))


class Pagemap:
    """The pagemap of one process. OSError as the kernel gives it: EACCES, ENOENT, ESRCH.

    A page that was read and never written is the kernel's zero page, and no memory of the process: told by its frame,
    where this user may see frames. `shared_pages`: those seen that are mapped by others too.
    """

    def __init__(self, pid: int, page_bytes: int) -> None:
        self._page = page_bytes
        self._fd = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._flags = os.open("/proc/kpageflags", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._flags = -1
        self._is_zero: dict[int, bool] = {}
        self.shared_pages = 0
        self.pages_seen = 0

    def close(self) -> None:
        for fd in (self._fd, self._flags):
            if fd >= 0:
                os.close(fd)

    def held(self, first: int, last: int) -> bytes:
        """Return a byte a page, 1 where it is resident or in swap, for the pages numbered from `first` up to `last`."""
        wanted = (last - first) * _ENTRY_BYTES
        data = os.pread(self._fd, wanted, first * _ENTRY_BYTES)
        while len(data) < wanted and (more := os.pread(self._fd, wanted - len(data), first * _ENTRY_BYTES + len(data))):
            data += more
        self.pages_seen += last - first
        tops = data[_TOP]
        held = tops.translate(_HELD)
        maybe_zero = tops.translate(_NOT_EXCLUSIVE)
        if 1 in maybe_zero:
            held = self._without_zero_pages(data, held, maybe_zero)
        return held.ljust(last - first, b"\0")

    def _without_zero_pages(self, data: bytes, held: bytes, maybe_zero: bytes) -> bytes:
        entries = array("Q", data)
        frames = {at: entries[at] & _FRAME for at, mark in enumerate(maybe_zero) if mark}
        zero = {frame for frame, _ in Counter(frames.values()).most_common() if self._check(frame)}
        out = bytearray(held)
        for at, frame in frames.items():
            if frame in zero:
                out[at] = 0
            else:
                self.shared_pages += 1
        return bytes(out)

    def _check(self, frame: int) -> bool:
        if frame in self._is_zero:
            return self._is_zero[frame]
        if not frame or self._flags < 0 or len(self._is_zero) >= _LOOKUPS_AT_MOST:
            return False
        flags = os.pread(self._flags, _ENTRY_BYTES, frame * _ENTRY_BYTES)
        self._is_zero[frame] = bool(int.from_bytes(flags, sys.byteorder) & _ZERO_PAGE)
        return self._is_zero[frame]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLevels:
    """What a page table holds: a PMD maps `pmd_pages`, one table as many PMDs as a page has entries."""

    page_bytes: int
    pmd_pages: int

    @property
    def pud_pages(self) -> int:
        return self.pmd_pages * self.page_bytes // _ENTRY_BYTES

    def deposit_pages(self, pages: int) -> int:
        """Return how many tables the kernel lays by with each transparent huge page, for the case that it is split."""
        if not self.pmd_pages or pages < self.pmd_pages:
            return 0
        return 1 if pages == self.pmd_pages else 1 + self.pud_pages // self.pmd_pages if pages == self.pud_pages else 0


@dataclass(slots=True, kw_only=True)
class Tally:
    """Extents of one size (in pages) so far, in pages: what a `Residency` is made of."""

    pages: int
    levels: TableLevels
    extents: list[int] = field(default_factory=lambda: [0] * SHARES)
    growth: list[int] = field(default_factory=lambda: [0] * SHARES)
    resident: int = 0
    tables: int = 0

    def add(self, held: int, extents: int) -> None:
        """Count so many extents, in each of which so many pages are held."""
        share = SHARES - 1 if held == self.pages else -(-held * EIGHTHS // self.pages)
        self.extents[share] += extents
        self.resident += held * extents
        if held:
            self.growth[share] += (self.pages - held) * extents

    def scaled(self, factor: float, growth_error_pages: float) -> Residency:
        """Return the figures in bytes, of a whole of which `1 / factor` was counted."""
        page = self.levels.page_bytes
        deposit = self.levels.deposit_pages(self.pages) * sum(self.extents[1:])
        return Residency(
            extents_by_share=tuple(round(count * factor) for count in self.extents),
            growth_by_share_bytes=tuple(round(count * factor) * page for count in self.growth),
            resident_bytes=round(self.resident * factor) * page,
            tables_saved_bytes=round(self.tables * factor) * page,
            deposit_bytes=round(deposit * factor) * page,
            growth_error_bytes=growth_error_pages * page,
        )

    def include(self, other: Tally) -> None:
        """Add another's counts."""
        self.extents = [a + b for a, b in zip(self.extents, other.extents, strict=True)]
        self.growth = [a + b for a, b in zip(self.growth, other.growth, strict=True)]
        self.resident += other.resident
        self.tables += other.tables


def count_range(pagemap: Pagemap, first: int, last: int, tallies: Sequence[Tally], pace: Pace) -> bool:
    """Count the extents within a range of pages for every size; False where the pace's time was over before its end.

    Levels double: counts of two neighbours make one of the next, as whole strings of bytes up to 128 pages.
    """
    by_pages = {tally.pages: tally for tally in tallies}
    units: list[int] = []  # counts at the last level of bytes
    units_begin = -(-first >> _BYTE_LEVEL)
    at = first
    while at < last:
        if pace.over:
            return False
        end = min(last, (at // _BLOCK_PAGES + 1) * _BLOCK_PAGES)
        units += _count_bytes(pagemap.held(at, end), at, by_pages)
        pace.rest()
        at = end
    _count_units(units, units_begin, by_pages)
    return True


def _count_bytes(counts: bytes, begin: int, tallies: dict[int, Tally]) -> bytes:
    """Count levels 1 to 7; return the counts of whole aligned units of the last level."""
    for level in range(1, _BYTE_LEVEL + 1):
        counts = counts[begin & 1 :]
        begin = (begin + 1) >> 1
        counts = counts[: len(counts) & ~1]
        added = int.from_bytes(counts[0::2], "little") + int.from_bytes(counts[1::2], "little")
        counts = added.to_bytes(len(counts) // 2, "little")
        if (tally := tallies.get(1 << level)) is not None:
            for held in range((1 << level) + 1):
                if number := counts.count(held):
                    tally.add(held, number)
    return counts


def _count_units(counts: Sequence[int], begin: int, tallies: dict[int, Tally]) -> None:
    level, top = _BYTE_LEVEL, max(tallies, default=0)
    levels = next(iter(tallies.values())).levels if tallies else None
    tables: Sequence[int] = ()  # page tables in use, by unit
    while counts and 1 << level < top:
        trim = begin & 1
        whole = len(counts) - (len(counts) - trim) % 2
        counts = [a + b for a, b in zip(counts[trim:whole:2], counts[trim + 1 : whole : 2], strict=True)]
        tables = [a + b for a, b in zip(tables[trim:whole:2], tables[trim + 1 : whole : 2], strict=True)]
        begin = (begin + 1) >> 1
        level += 1
        if levels is not None and 1 << level == levels.pmd_pages:
            tables = [int(held > 0) for held in counts]
        if levels is not None and 1 << level == levels.pud_pages:
            tables = [below + (below > 0) for below in tables]
        if (tally := tallies.get(1 << level)) is not None:
            for held, number in Counter(counts).items():
                tally.add(held, number)
            tally.tables += sum(tables)
