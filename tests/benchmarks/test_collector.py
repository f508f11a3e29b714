"""What sampling costs, against the least it could cost: raw reads of the same sources in the same run."""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator

import pytest

from agents.collectors import Collectors
from agents.perf.syscall import open_event
from agents.sysroot import FolderRoot
from tests.touched_pages import touch_pages

pytestmark = pytest.mark.benchmark
ROUNDS = 1000
MOST_TIMES_RAW = 1.75
MOST_OF_A_CORE = 0.001
MOVED_PAGES = 8


@pytest.fixture
def collectors() -> Iterator[Collectors]:
    made = Collectors(FolderRoot(), watch_sizes_kib=(64, 2048))
    yield made
    made.close()


def starts_of_reads(fd: int) -> list[int]:
    """Where each read begins that a whole file takes: the kernel gives no more than a page at once."""
    starts, end = [], 0
    while data := os.pread(fd, 4096, end):
        starts.append(end)
        end += len(data)
    return starts


class Raw:
    """The same files and the same perf events, read with nothing around the system calls."""

    def __init__(self, collectors: Collectors) -> None:
        self._files = [os.open(f"/{path}", os.O_RDONLY) for path in collectors.paths]
        self._reads = [(fd, start) for fd in self._files for start in starts_of_reads(fd)]
        self._singly = [open_event(event, cpu=cpu) for event, cpu in collectors.counted]
        self._grouped = collectors.descriptors

    def read_each(self) -> None:
        """Every file, and every event on its own."""
        self._read_files()
        for fd in self._singly:
            os.read(fd, 4096)

    def read_grouped(self) -> None:
        """Every file, and the events as the collector reads them: a CPU's in one call."""
        self._read_files()
        for fd in self._grouped:
            os.read(fd, 4096)

    def _read_files(self) -> None:
        for fd, start in self._reads:
            os.pread(fd, 4096, start)

    def close(self) -> None:
        for fd in (*self._files, *self._singly):
            os.close(fd)


@pytest.fixture
def raw(collectors: Collectors) -> Iterator[Raw]:
    made = Raw(collectors)
    yield made
    made.close()


def seconds(act: Callable[[], object]) -> float:
    """Time an act after some counters and levels have moved: what stays as it was a sample need not convert again."""
    touch_pages(MOVED_PAGES)
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def test_a_sample_costs_at_most_1_75_raw_reads_of_the_same_files_and_events(collectors: Collectors, raw: Raw) -> None:
    samples: list[dict[str, float]] = []
    acts = (lambda: samples.append(collectors.sample()), raw.read_each, raw.read_grouped)
    rounds = [[seconds(act) for act in acts] for _ in range(ROUNDS)]
    each = statistics.median(sample / floor for sample, floor, _ in rounds)
    grouped = statistics.median(sample / floor for sample, _, floor in rounds)
    sample_us = statistics.median(sample for sample, *_ in rounds) * 1e6
    changed = statistics.median(
        sum(one[name] != after[name] for name in after) for one, after in itertools.pairwise(samples)
    )
    print(
        f"sample of {len(collectors.paths)} files and {len(collectors.counted)} events: {sample_us:.0f} us, "
        f"{each:.2f}x of raw reads, {grouped:.2f}x where those read events in groups too; "
        f"{changed:.0f} of {len(samples[-1])} values were others than before"
    )
    assert each <= MOST_TIMES_RAW


def test_sampling_every_second_takes_less_than_a_thousandth_of_a_core(collectors: Collectors) -> None:
    """With a pause before each, as in use: others had the CPU and its caches meanwhile, and more values have moved."""
    samples, used = 100, 0.0
    for _ in range(samples):
        time.sleep(0.02)
        begun = time.process_time()
        collectors.sample()
        collectors.events()
        used += time.process_time() - begun
    share = used / samples
    print(f"one sample and its events at 1 Hz: {share:.3%} of a core")
    assert share < MOST_OF_A_CORE
