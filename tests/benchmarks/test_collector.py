"""What sampling costs, against the least it could cost: raw preads of the same files in the same run."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator

import pytest

from agents.collectors import Collectors
from agents.sysroot import FolderRoot

pytestmark = pytest.mark.benchmark
ROUNDS, PER_ROUND = 60, 20
MOST_TIMES_RAW = 1.75
MOST_OF_A_CORE = 0.001


@pytest.fixture
def collectors() -> Iterator[Collectors]:
    made = Collectors(FolderRoot(), watch_sizes_kib=(64, 2048))
    yield made
    made.close()


@pytest.fixture
def raw(collectors: Collectors) -> Iterator[Callable[[], None]]:
    """Read the files of one sample and the same perf events with nothing around the system calls."""
    files = [os.open(f"/{path}", os.O_RDONLY) for path in collectors.paths]
    events = collectors.descriptors

    def read_all() -> None:
        for fd in files:
            os.pread(fd, 4096, 0)
        for fd in events:
            os.read(fd, 24)

    yield read_all
    for fd in files:
        os.close(fd)


def seconds(act: Callable[[], object], times: int) -> float:
    begun = time.perf_counter()
    for _ in range(times):
        act()
    return time.perf_counter() - begun


def test_a_sample_costs_at_most_1_75_raw_preads_of_the_same_files(
    collectors: Collectors, raw: Callable[[], None]
) -> None:
    seconds(collectors.sample, PER_ROUND)
    seconds(raw, PER_ROUND)
    pairs = [(seconds(collectors.sample, PER_ROUND), seconds(raw, PER_ROUND)) for _ in range(ROUNDS)]
    ratio = statistics.median(sample / floor for sample, floor in pairs)
    sample_us = statistics.median(sample for sample, _ in pairs) / PER_ROUND * 1e6
    print(f"sample of {len(collectors.paths)} files: {sample_us:.0f} us, {ratio:.2f}x of raw preads")
    assert ratio <= MOST_TIMES_RAW


def test_sampling_every_second_takes_less_than_a_thousandth_of_a_core(collectors: Collectors) -> None:
    samples = 500
    begun = time.process_time()
    for _ in range(samples):
        collectors.sample()
        collectors.events()
    share = (time.process_time() - begun) / samples
    print(f"one sample and its events at 1 Hz: {share:.3%} of a core")
    assert share < MOST_OF_A_CORE
