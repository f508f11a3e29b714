"""Verdicts, counters and processes, without a kernel that is changed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.conformance.bench import NotTried
from agents.conformance.counters import Count, Level, counter_name, level_of, read_counters
from agents.conformance.fork import in_a_fork
from agents.conformance.memory import Memory, Pattern
from agents.conformance.process import ScenarioProcess
from agents.conformance.registry import SCENARIOS
from agents.conformance.runner import KernelHealth, size_switch
from agents.conformance.verdict import Outcome, PageCheck, PageVerdict, Subject, VerdictCause, judge
from agents.errors import UnknownKnob
from agents.sysroot import FolderRoot
from tests.agents.conformance.misbehaving import ALL
from tests.agents.conformance.on_this_machine import living


def a_check(outcome: Outcome, subject: Subject = Subject.COUNTER) -> PageCheck:
    return PageCheck(subject=subject, what="split", wanted="+1", seen="+2", outcome=outcome, counter="split")


@pytest.mark.parametrize(
    ("checks", "verdict", "cause"),
    [
        ([a_check(Outcome.HELD)], PageVerdict.PASS, VerdictCause.NONE),
        ([a_check(Outcome.HELD), a_check(Outcome.ABSENT)], PageVerdict.PASS, VerdictCause.NONE),
        ([a_check(Outcome.HELD), a_check(Outcome.BROKEN)], PageVerdict.FAIL, VerdictCause.EXPECTATION),
        ([a_check(Outcome.EXCEEDED)], PageVerdict.FAIL, VerdictCause.EXPECTATION),
        ([a_check(Outcome.BROKEN), a_check(Outcome.BROKEN, Subject.DATA)], PageVerdict.FAIL, VerdictCause.DATA),
        ([a_check(Outcome.HELD, Subject.DATA), a_check(Outcome.ABSENT)], PageVerdict.SKIP, VerdictCause.NO_COUNTER),
        ([a_check(Outcome.HELD, Subject.DATA), a_check(Outcome.UNCLEAR)], PageVerdict.SKIP, VerdictCause.OTHERS),
        ([a_check(Outcome.HELD, Subject.DATA)], PageVerdict.PASS, VerdictCause.NONE),
        ([a_check(Outcome.TOLD)], PageVerdict.SKIP, VerdictCause.NO_COUNTER),
        ([], PageVerdict.SKIP, VerdictCause.NO_COUNTER),
    ],
)
def test_a_verdict_follows_from_its_checks(checks: list[PageCheck], verdict: PageVerdict, cause: VerdictCause) -> None:
    assert judge(checks)[:2] == (verdict, cause)


def test_names_of_scenarios_are_told_apart_and_fit_the_screen() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 18 and len(scenario.asks) <= 45 for name, scenario in zip(names, SCENARIOS, strict=True))
    assert all(scenario.run.__doc__ for scenario in SCENARIOS)


def test_a_size_is_counted_by_what_maps_it_on_that_host(host_tree: Callable[..., FolderRoot]) -> None:
    root = host_tree(gigantic=True)
    assert [level_of(root, size) for size in (64, 2048, 1048576)] == [Level.PTE, Level.PMD, Level.PUD]
    counted = {"thp_split_pmd": 1, "thp_split_pud": 2, "split": 3, "thp_fault_alloc": 4}
    assert counter_name(Count.MAPPING_SPLIT, Level.PMD, counted) == "thp_split_pmd"
    assert counter_name(Count.MAPPING_SPLIT, Level.PUD, counted) == "thp_split_pud"
    assert counter_name(Count.MAPPING_SPLIT, Level.PTE, counted) == ""
    assert counter_name(Count.SPLIT, Level.PTE, counted) == "split"
    # A kernel without counters of its own for each size counts its one size in vmstat, and no other there.
    assert counter_name(Count.ALLOCATED, Level.PMD, counted) == "thp_fault_alloc"
    assert counter_name(Count.ALLOCATED, Level.PUD, counted) == ""
    assert read_counters(root, 1048576)["anon_fault_alloc"] >= 0


def test_a_size_that_a_kernel_lacks_is_refused_with_those_it_has(host_tree: Callable[..., FolderRoot]) -> None:
    root = host_tree(gigantic=False)
    assert size_switch(root, 2048) == "thp/2048kB/enabled"
    with pytest.raises(UnknownKnob) as caught:
        size_switch(root, 1048576)
    assert "2048kB" in caught.value.remedy


def test_a_pattern_sees_a_byte_a_page_and_a_moved_page() -> None:
    memory = Memory(64 * os.sysconf("SC_PAGE_SIZE"))
    pattern = Pattern(memory)
    pattern.write()
    assert pattern.damaged() == 0
    base = os.sysconf("SC_PAGE_SIZE")
    view = memory.view()
    view[5 * base - 1] ^= 1
    assert (pattern.damaged(), pattern.damaged(0, 4), pattern.damaged(4, 5)) == (1, 0, 1)
    view[10 * base : 11 * base] = bytes(base)
    assert pattern.damaged() == 2
    pattern.write()
    view[20 * base : 21 * base], view[30 * base : 31 * base] = (
        bytes(view[30 * base : 31 * base]),
        bytes(view[20 * base : 21 * base]),
    )
    assert pattern.damaged() == 2
    pattern.change(20)
    memory.close()


def test_memory_is_aligned_and_exactly_as_long_as_asked() -> None:
    memory = Memory(2**21, align=2**21)
    assert memory.start % 2**21 == 0
    maps = [line.split()[:2] for line in Path("/proc/self/maps").read_text().splitlines()]
    assert [f"{memory.start:x}-{memory.start + 2**21:x}", "rw-p"] in maps
    memory.close()


@pytest.mark.parametrize(
    ("name", "cause"),
    [("crashes", VerdictCause.CRASHED), ("raises", VerdictCause.BROKEN), ("leaves", VerdictCause.BROKEN)],
)
def test_a_process_that_ends_badly_is_a_finding_and_not_the_end(name: str, cause: VerdictCause) -> None:
    tried = ScenarioProcess(ALL[name], 2048).run(lambda knobs: None, lambda: True)
    assert (tried.cause, tried.not_tried, tried.stuck) == (cause, False, False)
    assert tried.detail


def test_what_a_fork_finds_or_raises_is_known_here_and_that_it_was_killed() -> None:
    def refused() -> int:
        raise NotTried(VerdictCause.NO_PAGE, "smaller pages")

    def killed() -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    assert in_a_fork(lambda: 262_144) == 262_144
    with pytest.raises(NotTried) as caught:
        in_a_fork(refused)
    assert (caught.value.cause, caught.value.detail) == (VerdictCause.NO_PAGE, "smaller pages")
    with pytest.raises(ChildProcessError, match="status -9"):
        in_a_fork(killed)


def test_a_process_that_hangs_is_ended_with_what_it_started() -> None:
    process = ScenarioProcess(ALL["hangs"], 2048, 2.0)
    seen: list[int] = []

    def tick() -> bool:
        seen.append(len(living(process.pid)))
        return True

    tried = process.run(lambda knobs: None, tick)
    assert (tried.cause, tried.stuck) == (VerdictCause.HUNG, False)
    assert tried.detail == "not finished in 2 s: a slow host needs a higher --time-limit"
    assert max(seen) >= 1
    assert living(process.pid) == []


def test_the_kernels_complaints_are_heard_once(host_tree: Callable[..., FolderRoot]) -> None:
    root = host_tree()
    (root.root / "dev").mkdir(exist_ok=True)
    log, taint = root.root / "dev/kmsg", root.root / "proc/sys/kernel/tainted"
    log.write_text("6,1,1,-;hello\n")
    taint.parent.mkdir(parents=True, exist_ok=True)
    taint.write_text("512\n")
    health = KernelHealth(root)
    assert health.complaint() == ""
    with log.open("a") as file:
        file.write("3,2,2,-;mm/pgtable-generic.c:38: bad pud 00000000deadbeef(8000000140000067)\n")
    taint.write_text("640\n")
    said = health.complaint()
    assert "bad pud" in said
    assert "kernel died recently" in said
    assert health.complaint() == ""
    health.close()
