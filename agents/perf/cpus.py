"""Lists of CPU or node numbers as the kernel prints them: '0-3,8'."""

from __future__ import annotations

_MOST = 1 << 16  # CPUs or nodes; the kernel is built for 8192 CPUs and 1024 nodes at most


def parse_numbers(text: bytes) -> frozenset[int]:
    """Return the numbers in a kernel list; ValueError where it is none."""
    numbers: set[int] = set()
    for part in text.decode().strip().split(","):
        if part:
            low, _, high = part.partition("-")
            first, last = int(low), int(high or low)
            if not 0 <= first <= last < _MOST:
                raise ValueError(f"no list of CPUs: {part[:40]!r}")
            numbers.update(range(first, last + 1))
    return frozenset(numbers)
