"""Keeping huge pages out of a scenario's interpreter, so that what is counted is the scenario's memory alone.

PR_SET_THP_DISABLE, Documentation/admin-guide/mm/transhuge.rst; it is inherited over fork and exec.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_PR_SET_THP_DISABLE, _PR_GET_THP_DISABLE = 41, 42


def _prctl(option: int, value: int = 0) -> int:
    nothing = ctypes.c_ulong(0)
    return int(ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), nothing, nothing, nothing))


@contextmanager
def without_huge_pages() -> Iterator[None]:
    """Have what this process starts meanwhile begin without huge pages."""
    before = _prctl(_PR_GET_THP_DISABLE)
    _prctl(_PR_SET_THP_DISABLE, 1)
    try:
        yield
    finally:
        _prctl(_PR_SET_THP_DISABLE, max(0, before))


def allow_huge_pages() -> None:
    """Let memory that this process maps from now on have huge pages."""
    _prctl(_PR_SET_THP_DISABLE, 0)
