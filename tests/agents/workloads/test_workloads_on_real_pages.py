"""Workloads under this machine's own knobs: big pages where the arm gives them, none where it does not.

What was given is read from the kernel's per-size counters, never from smaps: reading it splits 1 GB pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agents.messages import Scalar, WorkloadState

# The timeout also covers waiting for another test to give the knobs back.
pytestmark = [pytest.mark.slow, pytest.mark.real_knobs, pytest.mark.usefixtures("real_knobs"), pytest.mark.timeout(600)]
Runs: TypeAlias = Any  # conftest.py
THP = Path("/sys/kernel/mm/transparent_hugepage/hugepages-2048kB")
POOLS = Path("/sys/kernel/mm/hugepages")
MIB = 2**20
PAGES = 64
CHASE: dict[str, Scalar] = {"region_bytes": 2 * PAGES * MIB, "page_size_kib": 2048, "dereferences": 10_000}


@contextmanager
def holding(knob: Path, value: str) -> Iterator[None]:
    """Write a knob and put it back; the fixture checks that."""
    text = knob.read_text()
    before = text[text.index("[") + 1 : text.index("]")] if "[" in text else text.strip()
    knob.write_text(value)
    try:
        yield
    finally:
        knob.write_text(before)


def number(path: Path) -> int:
    return int(path.read_text())


def values(workload: Any, metric: str) -> list[float]:  # noqa: ANN401
    return [value for _, name, value in workload.measurements() if name == metric]


@pytest.mark.parametrize(
    ("enabled", "madvise", "backed"),
    [("always", False, True), ("madvise", True, True), ("madvise", False, False), ("never", True, False)],
)
def test_the_region_of_a_chase_is_backed_as_the_arm_says(runs: Runs, enabled: str, madvise: bool, backed: bool) -> None:
    faults, now = THP / "stats/anon_fault_alloc", THP / "stats/nr_anon"
    with holding(THP / "enabled", enabled):
        faults_before, now_before = number(faults), number(now)
        workload = runs.start("pointer_chase", pretouch=False, madvise=madvise, **CHASE)
        runs.until(lambda: len(workload.measurements()) > 0 and workload.poll()[0] is WorkloadState.RUNNING)
        runs.until(lambda: bool(values(workload, "access_seconds")))
        if backed:
            assert number(faults) - faults_before >= PAGES
            assert number(now) - now_before >= PAGES
            workload.stop()
            assert number(now) - now_before < PAGES
        else:
            assert number(faults) == faults_before
            assert number(now) <= now_before
            workload.stop()


def test_page_faults_say_how_many_were_big_and_big_ones_take_longer(runs: Runs) -> None:
    medians = {}
    for enabled, granted in (("always", PAGES), ("never", 0)):
        with holding(THP / "enabled", enabled):
            workload = runs.start("page_fault", region_bytes=2 * PAGES * MIB, page_size_kib=2048)
            assert runs.ended(workload) == (WorkloadState.FINISHED, "")
        measured = workload.measurements()
        latencies = sorted(value for _, name, value in measured if name == "fault_latency_seconds")
        assert len(latencies) == PAGES
        assert [value for _, name, value in measured if name == "pages_granted"] == [granted]
        medians[enabled] = latencies[PAGES // 2]
    assert medians["always"] > 5 * medians["never"]  # 512 pages to clear instead of one


@pytest.mark.parametrize(("enabled", "granted"), [("always", 16.0), ("never", 0.0)])
def test_acquire_is_granted_what_the_arm_gives(runs: Runs, enabled: str, granted: float) -> None:
    with holding(THP / "enabled", enabled):
        workload = runs.start("acquire", pages=16, page_size_kib=2048)
        runs.ended(workload)
    assert values(workload, "pages_granted") == [granted]


def test_hugetlb_pages_come_from_the_pool_and_go_back_to_it(runs: Runs) -> None:
    pool = POOLS / "hugepages-2048kB"
    with holding(pool / "nr_hugepages", str(PAGES)):
        if number(pool / "nr_hugepages") < PAGES:
            pytest.skip("the kernel granted fewer hugetlb pages than asked for")
        free = number(pool / "free_hugepages")
        workload = runs.start("pointer_chase", backing="hugetlb", **CHASE)
        runs.until(lambda: bool(values(workload, "access_seconds")))
        assert free - number(pool / "free_hugepages") == PAGES
        workload.stop()
        assert number(pool / "free_hugepages") == free

        asked = runs.start("acquire", pages=PAGES + 8, page_size_kib=2048, backing="hugetlb")
        runs.ended(asked)
        assert values(asked, "pages_granted") == [free]
        faults = runs.start("page_fault", region_bytes=2 * PAGES * MIB, page_size_kib=2048, backing="hugetlb")
        runs.ended(faults)
        measured = faults.measurements()
        assert [value for _, name, value in measured if name == "pages_granted"] == [PAGES]
        assert number(pool / "free_hugepages") == free


def test_a_pool_too_small_gives_what_it_has_where_small_pages_will_do(runs: Runs) -> None:
    pool = POOLS / "hugepages-2048kB"
    with holding(pool / "nr_hugepages", "4"):
        free = number(pool / "free_hugepages")
        workload = runs.start(
            "page_fault", region_bytes=32 * MIB, page_size_kib=2048, backing="hugetlb", fallback=True, whole=True
        )
        assert runs.ended(workload) == (WorkloadState.FINISHED, "")
        assert number(pool / "free_hugepages") == free
    measured = {name: value for _, name, value in workload.measurements()}
    assert (measured["pages_granted"], measured["granted_share"]) == (free, free / 16)
    assert measured["fault_seconds"] > 0


@pytest.mark.parametrize(
    ("process_thp", "madvise", "granted"),
    [("as_found", False, PAGES), ("disabled", False, 0), ("only_advised", False, 0), ("only_advised", True, PAGES)],
)
def test_a_process_takes_the_big_pages_that_it_chose_to(
    runs: Runs, process_thp: str, madvise: bool, granted: int
) -> None:
    with holding(THP / "enabled", "always"):
        workload = runs.start(
            "page_fault",
            region_bytes=2 * PAGES * MIB,
            page_size_kib=2048,
            pretouch=False,
            process_thp=process_thp,
            madvise=madvise,
        )
        assert runs.ended(workload) == (WorkloadState.FINISHED, "")
    assert values(workload, "pages_granted") == [granted]


def test_a_pool_too_small_for_the_region_is_a_failure_with_the_knob_to_raise(runs: Runs) -> None:
    with holding(POOLS / "hugepages-2048kB" / "nr_hugepages", "4"):
        workload = runs.start("pointer_chase", backing="hugetlb", **CHASE)
        state, detail = runs.ended(workload)
    assert state is WorkloadState.FAILED
    assert "hugetlb/2048kB/nr_hugepages" in detail


@pytest.mark.slow
def test_a_chase_runs_on_a_1_gib_hugetlb_page(runs: Runs) -> None:
    pool = POOLS / "hugepages-1048576kB"
    if not pool.exists():
        pytest.skip("this kernel has no 1 GiB hugetlb pool")
    with holding(pool / "nr_hugepages", "1"):
        if number(pool / "free_hugepages") < 1:
            pytest.skip("the kernel has no free gigabyte in one piece")
        workload = runs.start(
            "pointer_chase", region_bytes=2**30, backing="hugetlb", page_size_kib=1048576, dereferences=10_000
        )
        runs.until(lambda: bool(values(workload, "access_seconds")), seconds=60)
        assert number(pool / "free_hugepages") == 0
        workload.stop()
        assert number(pool / "free_hugepages") == 1
