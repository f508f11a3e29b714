"""What a sample reads: counters and levels of the kernel, of a cgroup, of the PMU, and the agent's own cost.

`Collectors` is imported when it is asked for: whoever imports one of `kinds`, a declaration, imports this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agents.collectors.collectors import Collectors

__all__ = ["Collectors"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(name)
    return getattr(import_module("agents.collectors.collectors"), name)
