"""Time each first touch from compiled code, where calling back into Python would cost more than a small fault."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from numba import types

from agents.workloads.cycle import Words
from agents.workloads.native import native

Nanoseconds: TypeAlias = npt.NDArray[np.int64]

_PAIRS = 1001
_MONOTONIC = np.int32(1)  # CLOCK_MONOTONIC of clock_gettime(2): read in user space through the vDSO
_SECOND = np.int64(1_000_000_000)
_ONE = np.uint64(1)
# The C library's own function, found by name when the code is linked: unlike a pointer it can be cached on disk.
_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.uintp))


@native("int64(int64[::1])")
def _now(timespec: Nanoseconds) -> np.int64:
    _clock_gettime(_MONOTONIC, timespec.ctypes.data)
    now: np.int64 = timespec[0] * _SECOND + timespec[1]
    return now


@native("void(uint64[::1], int64, int64, int64[::1], int64[:,::1])")
def _touch_timed(words: Words, stride_words: int, step_words: int, timespec: Nanoseconds, took: Nanoseconds) -> None:
    for page in range(took.shape[1]):
        start = page * stride_words
        before = _now(timespec)
        words[start] = _ONE
        took[0, page] = _now(timespec) - before
        for place in range(start + step_words, start + stride_words, step_words):
            words[place] = _ONE
        took[1, page] = _now(timespec) - before


@native("void(int64[::1], int64[::1])")
def _read_twice(timespec: Nanoseconds, took: Nanoseconds) -> None:
    for pair in range(len(took)):
        before = _now(timespec)
        took[pair] = _now(timespec) - before


def clock_cost_nanoseconds() -> int:
    """Return what reading the clock twice costs: the median of many pairs, which a timed touch includes."""
    took: Nanoseconds = np.zeros(_PAIRS, dtype=np.int64)
    _read_twice(_timespec(), took)
    return int(np.median(took))


def time_touches(words: Words, stride_bytes: int) -> Nanoseconds:
    """Write the first word of each stride, in order, and return what each took, less the cost of the clock."""
    first: Nanoseconds = time_strides(words, stride_bytes, stride_bytes)[0]
    return first


def time_strides(words: Words, stride_bytes: int, step_bytes: int) -> Nanoseconds:
    """Write the first word of each step, in order; return two rows: what each stride's first took, and all."""
    stride_words, step_words = stride_bytes // words.itemsize, step_bytes // words.itemsize
    took: Nanoseconds = np.zeros((2, len(words) // stride_words), dtype=np.int64)
    cost = clock_cost_nanoseconds()
    _touch_timed(words, stride_words, step_words, _timespec(), took)
    return np.maximum(took - [[cost], [2 * cost]], 0)


def _timespec() -> Nanoseconds:
    return np.zeros(2, dtype=np.int64)
