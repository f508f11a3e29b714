"""What a sample reads: counters and levels of the kernel, of a cgroup, of the PMU, and the agent's own cost."""

from __future__ import annotations

from agents.collectors.collectors import Collectors

__all__ = ["Collectors"]
