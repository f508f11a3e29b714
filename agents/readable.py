"""Waiting for descriptors, however high their numbers: select(2) takes none above 1023, and a busy host has more."""

from __future__ import annotations

import math
import select
from collections.abc import Iterable


def readable_within(descriptors: Iterable[int], seconds: float) -> frozenset[int]:
    """Return which of these can be read or have ended, as soon as one has; empty after so many seconds (poll(2))."""
    waiting = select.poll()
    for descriptor in descriptors:
        waiting.register(descriptor, select.POLLIN)
    return frozenset(descriptor for descriptor, _ in waiting.poll(math.ceil(max(seconds, 0.0) * 1000)))
