"""What compiling with numba costs a pointer chase: the same loop in C, over the same region, in turn."""

from __future__ import annotations

import ctypes
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from agents.workloads.cycle import LINE_BYTES, WORDS_PER_LINE, Words, chase, lay_cycle, make_key, slot_at, touch
from agents.workloads.host_pages import Backing
from agents.workloads.region import Region

pytestmark = pytest.mark.benchmark
MOST_TIMES_C = 1.05
REGION_BYTES = 256 * 2**20
DEREFERENCES, PAIRS = 40_000, 501

SOURCE = """
#include <stdint.h>
uint64_t chase(const uint64_t *words, uint64_t at, int64_t dereferences)
{
    for (int64_t i = 0; i < dereferences; i++)
        at = words[at];
    return at;
}
"""


@pytest.fixture(scope="module")
def chase_in_c(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Words, int, int], int]:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("no gcc on this machine to compare with")
    folder: Path = tmp_path_factory.mktemp("chase")
    (folder / "chase.c").write_text(SOURCE)
    subprocess.run([gcc, "-O2", "-shared", "-fPIC", "-o", folder / "chase.so", folder / "chase.c"], check=True)
    function = ctypes.CDLL(str(folder / "chase.so")).chase
    function.restype = ctypes.c_uint64
    function.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int64]
    return lambda words, at, dereferences: int(function(words.ctypes.data, at, dereferences))


@pytest.fixture(scope="module")
def region() -> Iterator[Region]:
    with Region(REGION_BYTES, backing=Backing.ANONYMOUS, page_size_kib=2048, madvise=True) as made:
        touch(made.words, 512)
        lay_cycle(made.words, make_key(REGION_BYTES // LINE_BYTES, seed=1))
        yield made


def test_the_chase_takes_at_most_1_05_times_the_same_loop_in_c(
    region: Region, chase_in_c: Callable[[Words, int, int], int]
) -> None:
    key = make_key(REGION_BYTES // LINE_BYTES, seed=1)
    at = int(np.uint64(slot_at(key, np.uint64(0))) * WORDS_PER_LINE)

    def timed(follow: Callable[[], int]) -> tuple[float, int]:
        begun = time.perf_counter()
        end = follow()
        return time.perf_counter() - begun, end

    ratios, per_dereference = [], []
    for pair in range(PAIRS):
        # One after the other from the same place would find the caches warm: each goes on where the other ended.
        ours_first = pair % 2 == 0
        seconds = {}
        for ours in (ours_first, not ours_first):
            start = at
            seconds[ours], at = timed(
                (lambda start=start: int(chase(region.words, np.uint64(start), DEREFERENCES)))  # type: ignore[misc]
                if ours
                else (lambda start=start: chase_in_c(region.words, start, DEREFERENCES))  # type: ignore[misc]
            )
        ratios.append(seconds[True] / seconds[False])
        per_dereference.append(seconds[True] / DEREFERENCES * 1e9)
    steps = 2 * PAIRS * DEREFERENCES
    assert at == int(slot_at(key, np.uint64(steps % int(key[0])))) * 8  # both followed the one cycle
    ratio = statistics.median(ratios)
    print(f"numba / C: {ratio:.3f} (median of {PAIRS}), {statistics.median(per_dereference):.0f} ns a dereference")
    assert ratio <= MOST_TIMES_C


def test_laying_the_cycle_takes_no_longer_than_faulting_the_region_in() -> None:
    key = make_key(REGION_BYTES // LINE_BYTES, seed=1)
    ratios = []
    for _ in range(7):
        with Region(REGION_BYTES, backing=Backing.ANONYMOUS, page_size_kib=4) as made:
            begun = time.perf_counter()
            touch(made.words, 512)
            faulted = time.perf_counter()
            lay_cycle(made.words, key)
            ratios.append((time.perf_counter() - faulted) / (faulted - begun))
    ratio = statistics.median(ratios)
    print(f"laying / faulting in with 4 KiB pages: {ratio:.2f}")
    assert ratio <= 1.0
