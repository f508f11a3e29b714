"""Chance that can be replayed: numbers that follow from a seed and names, the same on every machine."""

from __future__ import annotations

import hashlib


def uniform(seed: int, *names: str) -> float:
    """Return a number in [0, 1) that depends on the seed and the names only, the same on every machine."""
    # Length first, so that no two lists of names run into one text.
    text = "".join(f"{len(name)}:{name}" for name in (str(seed), *names))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53  # 53 bits: the float is exact, and below 1
