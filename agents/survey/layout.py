"""Where a process may have huge pages: its private anonymous mappings, and the aligned extents within them.

Sources: proc_pid_maps(5), proc_pid_smaps(5); Documentation/admin-guide/mm/transhuge.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_HEAD = re.compile(rb"([0-9a-f]{1,16})-([0-9a-f]{1,16}) (\S{4}) \S+ \S+ ([0-9]+) *(.*)")
_ANONYMOUS_NAMES = (b"[heap]", b"[stack", b"[anon:")
_NO_RIGHTS = b"---"
_FIELDS = {b"Rss:": "resident", b"Swap:": "swapped", b"AnonHugePages:": "huge"}
_NEVER = b"nh"  # VmFlags: MADV_NOHUGEPAGE


@dataclass(slots=True, kw_only=True)
class AnonymousMapping:
    """A private anonymous mapping that may be touched: addresses in bytes; amounts, in bytes, where smaps said them."""

    start: int
    end: int
    resident: int = 0
    swapped: int = 0
    huge: int = 0
    refused: bool = False

    @property
    def span(self) -> int:
        return self.end - self.start

    @property
    def used(self) -> bool:
        return self.resident > 0 or self.swapped > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLayout:
    """The mappings of a process that could have anonymous huge pages, by address, and how long all private ones are."""

    mappings: tuple[AnonymousMapping, ...]
    private_bytes: int


def parse_layout(text: bytes) -> MemoryLayout:
    """Return what /proc/PID/maps, or smaps with its amounts, lists."""
    found: list[AnonymousMapping] = []
    private = 0
    current: AnonymousMapping | None = None
    for line in text.split(b"\n"):  # the kernel escapes that in names, and nothing else
        if line[:1].isupper():  # a field of smaps; addresses are in lower case
            if current is not None:
                _take_field(current, line)
        elif (match := _HEAD.match(line)) is not None:
            current = None
            start, end = int(match[1], 16), int(match[2], 16)
            rights, inode, name = match.group(3, 4, 5)
            if not rights.endswith(b"p"):
                continue
            private += end - start
            anonymous = inode == b"0" and (not name or name.startswith(_ANONYMOUS_NAMES))
            if anonymous and not rights.startswith(_NO_RIGHTS):
                current = AnonymousMapping(start=start, end=end)
                found.append(current)
    return MemoryLayout(mappings=tuple(found), private_bytes=private)


def _take_field(mapping: AnonymousMapping, line: bytes) -> None:
    words = line.split()
    if words[0] == b"VmFlags:":
        mapping.refused = _NEVER in words
    elif (name := _FIELDS.get(words[0])) is not None:
        setattr(mapping, name, int(words[1]) * 1024)


def extents_within(start: int, end: int, size: int) -> int:
    """Return how many aligned extents of `size` bytes lie within a range of addresses."""
    return max(0, end // size - -(-start // size))


def count_extents(mappings: Sequence[AnonymousMapping], size: int) -> int:
    return sum(extents_within(one.start, one.end, size) for one in mappings)


def count_cut_extents(mappings: Sequence[AnonymousMapping], size: int) -> int:
    """Return how many more there would be, were contiguous mappings one."""
    return sum(extents_within(start, end, size) for start, end in _runs(mappings)) - count_extents(mappings, size)


def _runs(mappings: Sequence[AnonymousMapping]) -> Iterator[tuple[int, int]]:
    start = end = 0
    for one in mappings:
        if one.start != end:
            yield start, end
            start = one.start
        end = one.end
    yield start, end


def bounds(layout: MemoryLayout, extents: int, size: int, held: int, page: int) -> tuple[int, int]:
    """Return the most of these extents that can be wholly resident, and the most bytes that backing them could add.

    Sizes in bytes; `held` is the process's anonymous memory, wherever it lies. At most as many extents are used as it
    has pages, and what the rest of its private mappings can't hold lies within extents.
    """
    used = min(extents, held // page)
    inside = max(0, held - (layout.private_bytes - extents * size))
    return min(extents, held // size), max(0, used * size - max(inside, used * page))
