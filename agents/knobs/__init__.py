"""Kernel memory settings: which exist here, what they hold, and one verified way to write them."""

from __future__ import annotations

from agents.knobs.access import attempt_write, check_value, effective_thp, read_knob, write_knob
from agents.knobs.names import Knob, current_value, find_knob, find_knobs, missing_knob_hint

__all__ = [
    "Knob",
    "attempt_write",
    "check_value",
    "current_value",
    "effective_thp",
    "find_knob",
    "find_knobs",
    "missing_knob_hint",
    "read_knob",
    "write_knob",
]
