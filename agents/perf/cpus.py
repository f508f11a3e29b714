"""Lists of CPU or node numbers as the kernel prints them: '0-3,8'."""

from __future__ import annotations


def parse_numbers(text: bytes) -> frozenset[int]:
    """Return the numbers in a kernel list; ValueError where it is none."""
    numbers: set[int] = set()
    for part in text.decode().strip().split(","):
        if part:
            low, _, high = part.partition("-")
            numbers.update(range(int(low), int(high or low) + 1))
    return frozenset(numbers)
