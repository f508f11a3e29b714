"""Lists of CPU or node numbers as the kernel prints them: '0-3,8'."""

from __future__ import annotations

import re

_RANGE = re.compile(rb"([0-9]{1,6})(?:-([0-9]{1,6}))?")
_MOST = 1 << 16  # CPUs or nodes; the kernel is built for 8192 CPUs and 1024 nodes at most


def parse_numbers(text: bytes) -> frozenset[int]:
    """Return the numbers in a kernel list; ValueError where it is none."""
    numbers: set[int] = set()
    for part in text.strip().split(b","):
        if part:
            match = _RANGE.fullmatch(part)
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
            if not first <= last < _MOST:
                raise ValueError(f"no list of CPUs: {part[:40]!r}")
            numbers.update(range(first, last + 1))
    return frozenset(numbers)
