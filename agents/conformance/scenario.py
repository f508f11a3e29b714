"""What a scenario is: a question to the kernel, a function that puts it, and how long it may take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agents.conformance.bench import Bench

_SECONDS_PER_GIB = 60.0  # of a page: to clear, copy or compress a gigabyte takes seconds, in an emulated guest many
_KIB_PER_GIB = 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A scenario by name; `asks` in a few words what it finds out. `run` is looked up in a process of its own."""

    name: str
    asks: str
    run: Callable[[Bench], None]
    limit_seconds: float = 30.0

    def limit_for(self, size_kib: int) -> float:
        """Return how long it may take with pages of this size."""
        return self.limit_seconds + _SECONDS_PER_GIB * size_kib / _KIB_PER_GIB
