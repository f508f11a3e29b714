"""Workloads of ours on real memory: what they report, how they end, and that none outlives its agent."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from agents.errors import WorkloadError
from agents.launcher import Launch
from agents.messages import Scalar, WorkloadSpec, WorkloadState
from agents.sysroot import FolderRoot
from agents.workloads import clock, cycle, region, run
from agents.workloads.clock import clock_cost_nanoseconds, time_touches
from agents.workloads.emit import Emit
from agents.workloads.host_pages import Backing
from agents.workloads.memory import RegionOptions
from agents.workloads.options import read_options
from agents.workloads.printed import OwnLines
from agents.workloads.process import ProcessWorkload
from agents.workloads.region import Region

Runs: TypeAlias = Any  # conftest.py
MIB = 2**20
FINISHED, FAILED, RUNNING = WorkloadState.FINISHED, WorkloadState.FAILED, WorkloadState.RUNNING
SMALL: dict[str, Scalar] = {"region_bytes": 64 * MIB, "page_size_kib": 2048, "dereferences": 10_000, "pretouch": False}


def said(kind: str, **options: Scalar) -> list[dict[str, Any]]:
    """Run a workload in this process and return its lines."""
    lines: list[bytes] = []
    run.run_spec(WorkloadSpec(kind=kind, options=options), FolderRoot(), Emit(lines.append))
    return [json.loads(line) for line in lines]


def values(lines: list[dict[str, Any]]) -> list[dict[str, float]]:
    return [line["values"] for line in lines if "values" in line]


# ---------------------------------------------------------------------------- what they report
def test_a_pointer_chase_reports_fault_in_and_each_repeat() -> None:
    lines = said("pointer_chase", **SMALL | {"repeats": 3, "pretouch": True})
    assert lines[0] == {"ready": True}
    fault, *repeats = values(lines)
    assert list(fault) == ["fault_seconds"] and 0 < fault["fault_seconds"] < 10
    assert len(repeats) == 3
    for repeat in repeats:
        per_dereference = repeat["access_nanoseconds_per_dereference"]
        assert repeat["access_seconds"] == pytest.approx(per_dereference * 10_000 / 1e9)
        assert 1 < per_dereference < 10_000


def test_memory_that_does_not_keep_what_was_written_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    lay = cycle.lay_cycle

    def lay_and_lose(words: np.ndarray[Any, np.dtype[np.uint64]], key: np.ndarray[Any, np.dtype[np.uint64]]) -> None:
        lay(words, key)
        words[:] = 8

    monkeypatch.setattr(cycle, "lay_cycle", lay_and_lose)
    with pytest.raises(WorkloadError, match="memory lost what was written"):
        said("pointer_chase", **SMALL)


def test_page_faults_are_timed_one_by_one_and_counted() -> None:
    lines = values(said("page_fault", region_bytes=64 * MIB, page_size_kib=2048, repeats=2))
    latencies = [line["fault_latency_seconds"] for line in lines if "fault_latency_seconds" in line]
    totals = [line for line in lines if "pages_asked" in line]
    assert len(latencies) == 64 and all(0 <= latency < 10 for latency in latencies)
    assert max(latencies) > 0
    assert [total["pages_asked"] for total in totals] == [32.0, 32.0]
    assert all(0 <= total["pages_granted"] <= 32 for total in totals)


@pytest.mark.parametrize("how", [{}, {"collapse": True}, {"backing": "hugetlb", "fallback": True}])
def test_a_whole_region_is_faulted_in_whatever_pages_it_gets(how: dict[str, Scalar]) -> None:
    options: dict[str, Scalar] = {"region_bytes": 16 * MIB, "page_size_kib": 2048, "pretouch": False, "whole": True}
    *latencies, totals = values(said("page_fault", **options | how))
    firsts = [line["fault_latency_seconds"] for line in latencies]
    assert len(firsts) == totals["pages_asked"] == 8
    assert totals["granted_share"] == totals["pages_granted"] / 8
    assert sum(firsts) <= totals["fault_seconds"] * 1.001 < 10


def test_pages_that_are_collapsed_are_counted_one_by_one() -> None:
    *_, totals = values(said("page_fault", region_bytes=16 * MIB, collapse=True, pretouch=False))
    assert (totals["pages_asked"], totals["pages_granted"]) == (8, 8)
    assert "fault_seconds" not in totals


def test_a_page_that_the_kernel_can_not_collapse_is_not_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def __init__(self, number: int) -> None:
            self.number = number

        def madvise(self, *_: int) -> None:
            raise OSError(self.number, os.strerror(self.number))

        def close(self) -> None: ...

    with Region(2 * MIB, backing=Backing.ANONYMOUS, page_size_kib=2048) as made:
        monkeypatch.setattr(made, "_memory", Refusing(errno.EAGAIN))
        assert made.collapse(0, 2 * MIB) is False
        monkeypatch.setattr(made, "_memory", Refusing(errno.EINVAL))
        with pytest.raises(WorkloadError, match="does not collapse small pages"):
            made.collapse(0, 2 * MIB)


def test_a_process_without_huge_pages_can_not_have_them_collapsed(runs: Runs) -> None:
    workload = runs.start("page_fault", region_bytes=4 * MIB, collapse=True, pretouch=False, process_thp="disabled")
    state, detail = runs.ended(workload)
    assert state is FAILED and "does not collapse small pages into big ones" in detail


def test_only_advised_memory_gets_big_pages_where_the_process_says_so(runs: Runs) -> None:
    asked: dict[str, Scalar] = {"region_bytes": 16 * MIB, "page_size_kib": 2048, "pretouch": False, "madvise": True}
    workload = runs.start("page_fault", process_thp="only_advised", **asked)
    state, detail = runs.ended(workload)
    if state is FAILED:  # before Linux 6.18
        assert "PR_THP_DISABLE_EXCEPT_ADVISED" in detail
        return
    assert [value for _, name, value in workload.measurements() if name == "pages_granted"] == [8.0]


def test_the_largest_page_of_a_process_follows_its_own_choice() -> None:
    def chosen(**options: Scalar) -> int:
        read = read_options(WorkloadSpec(kind="page_fault", options={"region_bytes": 16 * MIB, **options}))
        assert isinstance(read, RegionOptions)
        return read.page_kib_on(FolderRoot())

    assert chosen(process_thp="disabled", madvise=True) == 4
    assert chosen(process_thp="only_advised") == 4
    assert chosen(process_thp="only_advised", madvise=True) == chosen(madvise=True)
    assert chosen(collapse=True) == 2048
    assert chosen(page_size_kib=64, process_thp="disabled") == 64


def test_pages_granted_is_absent_where_the_kernel_does_not_count() -> None:
    *latencies, totals = values(said("page_fault", region_bytes=MIB, page_size_kib=4))
    assert len(latencies) == 256
    assert totals == {"pages_asked": 256.0}


def test_acquire_counts_what_it_asked_for_and_what_it_got() -> None:
    (line,) = values(said("acquire", pages=4, page_size_kib=2048))
    assert line["pages_asked"] == 4
    assert 0 <= line["pages_granted"] <= 4
    assert line["acquire_seconds"] > 0


def test_acquire_of_hugetlb_pages_that_no_pool_has_is_granted_none() -> None:
    lines = values(said("acquire", pages=10**4, page_size_kib=2048, backing="hugetlb", repeats=2))
    assert [line["pages_asked"] for line in lines] == [10**4, 10**4]
    assert all(line["pages_granted"] < 10**4 for line in lines)


def test_acquire_without_a_count_by_the_kernel_says_so() -> None:
    with pytest.raises(WorkloadError, match="does not count faults"):
        said("acquire", pages=4, page_size_kib=4)


def test_a_service_is_not_run_in_the_process_of_the_memory_workloads() -> None:
    with pytest.raises(WorkloadError, match="does not run in this process"):
        said("service", unit="web.service")


def test_huge_pages_switched_off_for_the_process_are_refused(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text("Name:\tx\nTHP_enabled:\t0\n")
    emit = Emit([].append)
    with pytest.raises(WorkloadError, match="PR_SET_THP_DISABLE"):
        run.run_spec(WorkloadSpec(kind="pointer_chase", options=SMALL), FolderRoot(tmp_path), emit)


# ---------------------------------------------------------------------------- memory and clock
@pytest.mark.parametrize("page_size_kib", [4, 2048, 1048576])
def test_a_region_starts_at_a_multiple_of_its_page_size(page_size_kib: int) -> None:
    with Region(2 * MIB, backing=Backing.ANONYMOUS, page_size_kib=page_size_kib, madvise=True) as made:
        assert made.words.ctypes.data % (page_size_kib * 1024) == 0
        assert made.words.nbytes == 2 * MIB
        assert not made.words.any()
        made.populate()


def test_memory_that_the_kernel_refuses_is_an_error() -> None:
    with pytest.raises(WorkloadError, match="the kernel gave no memory"):
        Region(2**47, backing=Backing.ANONYMOUS, page_size_kib=4)
    with pytest.raises(WorkloadError, match="refused hugetlb pages of 4 KiB"):
        Region(4096, backing=Backing.HUGETLB, page_size_kib=4)


def test_a_kernel_that_does_not_know_the_advice_has_the_page_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(region, "MADV_POPULATE_WRITE", 9999)
    with Region(2 * MIB, backing=Backing.ANONYMOUS, page_size_kib=4) as made:
        made.populate()
        assert made.words[0] == 1


def test_a_page_that_can_not_be_given_is_not_granted_and_no_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:  # a cgroup's or a node's limit on hugetlb pages, which the kernel here does not offer
        def madvise(self, *_: int) -> None:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")

        def close(self) -> None: ...

    make = region.mmap.mmap
    with Region(2 * MIB, backing=Backing.ANONYMOUS, page_size_kib=4) as made:
        monkeypatch.setattr(made, "_memory", Refusing())
        with pytest.raises(OSError, match="Cannot allocate memory"):
            made.populate()
    flags = region.mmap.MAP_PRIVATE | region.mmap.MAP_ANONYMOUS
    monkeypatch.setattr(region.mmap, "mmap", lambda fileno, length, **_: make(fileno, length, flags=flags))
    monkeypatch.setattr(Region, "populate", lambda _: Refusing().madvise())
    (line,) = values(said("acquire", pages=3, page_size_kib=2048, backing="hugetlb"))
    assert (line["pages_asked"], line["pages_granted"]) == (3, 0)


def test_a_first_touch_takes_longer_than_a_second_one() -> None:
    with Region(16 * MIB, backing=Backing.ANONYMOUS, page_size_kib=4) as made:
        first, second = time_touches(made.words, 4096), time_touches(made.words, 4096)
    assert len(first) == len(second) == 4096
    assert np.median(first) > 2 * np.median(second)
    assert second.min() >= 0


def test_the_cost_of_the_clock_is_small_and_measured() -> None:
    assert 0 < clock_cost_nanoseconds() < 100_000


def test_the_machine_code_times_what_the_python_says() -> None:
    words = np.zeros(1024, dtype=np.uint64)
    timespec, took = np.zeros(2, dtype=np.int64), np.full(2, -1, dtype=np.int64)
    strides = np.full((2, 2), -1, dtype=np.int64)
    before = time.monotonic_ns()
    now = clock._now(timespec)
    assert before <= now <= time.monotonic_ns()
    clock._touch_timed.py_func(words, 512, 256, timespec, strides)  # type: ignore[attr-defined]
    assert np.flatnonzero(words).tolist() == [0, 256, 512, 768]
    assert strides.min() > 0 and (strides[1] > strides[0]).all()
    clock._read_twice.py_func(timespec, took)  # type: ignore[attr-defined]
    assert took.min() > 0


# ---------------------------------------------------------------------------- as processes
def test_it_is_starting_then_running_and_finished_when_its_repeats_are_done(runs: Runs) -> None:
    begun = time.time()
    workload = runs.start("pointer_chase", **SMALL | {"repeats": 2})
    assert workload.poll() == (WorkloadState.STARTING, "")
    assert runs.ended(workload) == (FINISHED, "")
    measured = workload.measurements()
    assert [name for _, name, _ in measured] == [
        "fault_seconds",
        *["access_seconds", "access_nanoseconds_per_dereference"] * 2,
    ]
    assert measured == sorted(measured, key=lambda one: one[0])
    assert all(begun - 1 <= at.timestamp() <= time.time() + 1 for at, _, _ in measured)
    assert all(at.utcoffset() is not None for at, _, _ in measured)


def test_one_that_is_held_measures_only_when_it_is_let_go(runs: Runs) -> None:
    workload = runs.start("pointer_chase", hold=True, **SMALL | {"repeats": 1})
    workload.wait_until_ready(60.0)
    begun = datetime.now(UTC)
    assert workload.poll() == (RUNNING, "")
    assert workload.measurements() == []
    workload.go()
    assert runs.ended(workload) == (FINISHED, "")
    assert min(at for at, _, _ in workload.measurements()) > begun
    workload.go()


def test_waiting_for_one_that_fails_first_or_takes_too_long_is_an_error(runs: Runs, tmp_path: Path) -> None:
    failing = runs.start("pointer_chase", hold=True, **SMALL | {"backing": "hugetlb", "region_bytes": 4096 * MIB})
    with pytest.raises(WorkloadError, match="failed before it could measure: the hugetlb pool has too few"):
        failing.wait_until_ready(60.0)
    silent = printing(limit=30.0, endless=True, work_dir=tmp_path)
    with pytest.raises(WorkloadError, match="not ready to measure after"):
        silent.wait_until_ready(0.05)
    silent.stop()


def test_stopping_it_drops_the_repeat_under_way_and_keeps_the_others(runs: Runs) -> None:
    workload = runs.start("pointer_chase", **SMALL)
    measured: list[Any] = []
    runs.until(lambda: len(measured.extend(workload.measurements()) or measured) > 10)
    assert workload.poll() == (RUNNING, "")
    workload.stop()
    assert workload.poll() == (FINISHED, "stopped")
    measured += workload.measurements()
    names = [name for _, name, _ in measured[1:]]
    assert names == ["access_seconds", "access_nanoseconds_per_dereference"] * (len(names) // 2)


def test_stopped_before_it_measured_anything_is_a_failure(runs: Runs) -> None:
    workload = runs.start("pointer_chase", **SMALL)
    workload.stop()
    assert workload.poll() == (FAILED, "stopped before it was ready to measure")
    assert workload.measurements() == []


def printing(*lines: object, limit: float, endless: bool, work_dir: Path) -> ProcessWorkload:
    """A stand-in that prints such lines as ours do, and then hangs: its time does not depend on the machine's load."""
    script = "".join(f"echo '{json.dumps(line)}'; " for line in lines) + "exec sleep 60"
    return ProcessWorkload(
        Launch(
            argv=("sh", "-c", script),
            program="/bin/sh",
            environment={"PATH": os.environ["PATH"]},
            time_limit_seconds=limit,
        ),
        name="stand-in",
        printed=OwnLines(),
        work_dir=work_dir,
        may_run_out=endless,
    )


def test_the_time_limit_is_a_good_end_for_a_chase_without_end_that_has_reported(runs: Runs, tmp_path: Path) -> None:
    lines = {"ready": True}, {"values": {"access_seconds": 0.5}, "at": 1.0}
    workload = printing(*lines, limit=1.0, endless=True, work_dir=tmp_path)
    assert runs.ended(workload) == (FINISHED, "ended by its time limit of 1 s")
    assert [value for _, _, value in workload.measurements()] == [0.5]


@pytest.mark.parametrize("endless", [True, False])
def test_the_time_limit_is_a_failure_before_the_first_value_or_the_last_repeat(
    runs: Runs, tmp_path: Path, endless: bool
) -> None:
    lines = [{"ready": True}] if endless else [{"ready": True}, {"values": {"access_seconds": 0.5}, "at": 1.0}]
    workload = printing(*lines, limit=0.5, endless=endless, work_dir=tmp_path)
    assert runs.ended(workload) == (FAILED, "still running after its time limit of 0.5 s")


def test_an_error_inside_it_arrives_with_its_remedy(runs: Runs) -> None:
    workload = runs.start("pointer_chase", **SMALL | {"backing": "hugetlb", "region_bytes": 4096 * MIB})
    state, detail = runs.ended(workload)
    assert state is FAILED
    assert "too few free pages of 2048 KiB" in detail and "nr_hugepages" in detail


def test_its_death_is_a_failure(runs: Runs) -> None:
    workload = runs.start("pointer_chase", **SMALL)
    runs.until(lambda: workload.poll()[0] is RUNNING)
    os.kill(workload.pid, signal.SIGSEGV)
    state, detail = runs.ended(workload)
    assert (state, detail.partition(";")[0]) == (FAILED, "killed by SIGSEGV")


def test_the_kernel_would_kill_it_before_anything_else(runs: Runs) -> None:
    workload = runs.start("pointer_chase", **SMALL)
    runs.until(lambda: workload.poll()[0] is RUNNING)
    assert Path(f"/proc/{workload.pid}/oom_score_adj").read_text().strip() == "1000"


def test_machine_code_is_kept_in_the_state_folder_where_the_package_can_not_be_written(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Elsewhere(FolderRoot):
        @property
        def state_dir(self) -> Path:
            return tmp_path / "state"

    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "__pycache__" not in str(path) and may(path, mode))
    runs.root = Elsewhere()
    workload = runs.start("pointer_chase", **SMALL | {"repeats": 1})
    assert runs.ended(workload) == (FINISHED, "")
    assert list((tmp_path / "state" / "numba").rglob("*.nbc"))


@contextmanager
def agent_with_a_workload(work_dir: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that has started a chase without end; yields it and the chase's pid."""
    source = f"""
import sys, time
from pathlib import Path
from agents.messages import WorkloadSpec
from agents.sysroot import FolderRoot
from agents.workloads import start_workload
spec = WorkloadSpec(kind="pointer_chase", options={SMALL!r} | {{"dereferences": 10**10}})
workload = start_workload(spec, root=FolderRoot(), work_dir=Path({str(work_dir)!r}), time_limit_seconds=120)
while workload.poll()[0] == "starting":
    time.sleep(0.01)
print(workload.pid, workload.poll(), flush=True)
time.sleep(120)
"""
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True) as agent:
        try:
            assert agent.stdout is not None
            yield agent, int(re.match(r"\d+", agent.stdout.readline())[0])  # type: ignore[index]
        finally:
            agent.kill()


def test_sigkill_of_the_agent_leaves_no_orphan(runs: Runs, tmp_path: Path) -> None:
    with agent_with_a_workload(tmp_path) as (agent, pid):
        os.kill(pid, 0)
        agent.kill()
        runs.until(lambda: not Path(f"/proc/{pid}").exists())


def test_the_order_on_stdin_and_its_end_are_all_it_needs(tmp_path: Path) -> None:
    read, write = os.pipe()
    command = [sys.executable, "-m", "agents.workloads.run"]
    with subprocess.Popen(command, stdin=read, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        os.close(read)
        spec = {"kind": "pointer_chase", "options": SMALL | {"dereferences": 10**10}}
        os.write(write, json.dumps(spec).encode() + b"\n")
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"ready": True}
        os.close(write)
        assert process.wait(60) == run.ORPHANED


def test_main_answers_a_bad_order_with_an_error_line(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    read, write = os.pipe()
    saved, adjusted = os.dup(0), Path("/proc/self/oom_score_adj").read_text()
    os.dup2(read, 0)
    try:
        os.write(write, b'{"kind": "nonsense", "options": {}}\n')
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(threading.Thread, "start", lambda self: None)
            patch.setattr(run, "_be_the_first_victim", lambda: None)
            assert run.main() == 1
    finally:
        os.dup2(saved, 0)
        for descriptor in (read, write, saved):
            os.close(descriptor)
    assert b"no workload 'nonsense'" in capfdbinary.readouterr().out
    assert Path("/proc/self/oom_score_adj").read_text() == adjusted
