"""Whole numbers as the kernel prints them, and which of them can't be true."""

from __future__ import annotations

from collections.abc import Collection, Mapping

IMPLAUSIBLE = 2.0**63  # a level below zero, printed without its sign, reads as this or more; nothing else gets there
_MOST_DIGITS = 20  # of the largest unsigned number of 64 bits
_UNSIGNED_KIB = 2.0**74  # the largest of these in bytes, where the kernel printed it as kB
_UNSIGNED = "below zero, printed without its sign"


def whole_number(text: bytes) -> int:
    """Return the number; ValueError where the text is none, or one that can't be true."""
    word = text.strip()
    if not word.isdigit():
        raise ValueError(f"no whole number: {word[:40]!r}")
    if len(word) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(word):,} digits")
    number = int(word)
    if number >= IMPLAUSIBLE:
        raise ValueError(f"{number}: {_UNSIGNED}")
    return number


def whole_numbers(texts: Collection[bytes]) -> list[float]:
    """Return the numbers, by one look at all of them: a third of the time of `whole_number` for each.

    ValueError where any is none, or can't be true; which one it is `whole_number` tells.
    """
    if not b"".join(texts).translate(None, b"\n").isdigit() or max(map(len, texts)) > _MOST_DIGITS + 1:
        raise ValueError("not whole numbers")
    numbers = list(map(float, texts))
    if sum(numbers) >= IMPLAUSIBLE and max(numbers) >= IMPLAUSIBLE:
        raise ValueError("a number that no host reaches")
    return numbers


def implausible(values: Mapping[str, float]) -> dict[str, str]:
    """Return which of these values can't be true, and why."""
    if not values or (min(values.values()) >= 0.0 and sum(values.values()) < IMPLAUSIBLE):
        return {}
    doubtful = {metric: value for metric, value in values.items() if not 0.0 <= value < IMPLAUSIBLE}
    return {
        metric: "below zero" if value < 0 else _UNSIGNED if value <= _UNSIGNED_KIB else "a number that no host reaches"
        for metric, value in doubtful.items()
    }
