"""Events that take turns on a CPU's few counters: preflight tells which, and for how much of the time they are seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agents.facts import survey
from agents.messages import MetricSource, Severity
from agents.perf.multiplexing import Turns, try_turns
from agents.preflight import preflight
from agents.sysroot import FolderRoot
from tests.agents.perf.test_counters import needs_perf_events

Tree = Callable[..., FolderRoot]
SECOND = 1_000_000_000


def counted(share: float) -> str:
    return f"0 5 {SECOND} {int(SECOND * share)}\n1 5 {SECOND} {int(SECOND * share)}"


def said(root: FolderRoot, events: tuple[str, ...], sources: tuple[MetricSource, ...] = ()) -> list[tuple[str, str]]:
    problems = preflight(root, survey(root), (), (), None, events=events, sources=sources)
    assert all(problem.severity is Severity.WARNING for problem in problems)
    return [(problem.what, problem.remedy) for problem in problems if "turns" in problem.what]


@pytest.mark.parametrize("watchdog", ["0", "1"])
def test_preflight_says_which_events_take_turns_and_how_long_each_is_counted(host_tree: Tree, watchdog: str) -> None:
    files = {
        "perf/cycles": counted(1.0),
        "perf/instructions": counted(0.5),
        "perf/cgroup_dtlb_walks_1g": counted(0.05),
        "perf/mine": counted(0.0),
        "proc/sys/kernel/nmi_watchdog": watchdog,
    }
    root, mine = host_tree(files=files), MetricSource(metric="mine", perf="r1a8")
    ((what, remedy),) = said(root, ("cycles", "instructions", "cgroup_dtlb_walks_1g"), (mine,))
    assert what.startswith("3 of 4 wanted events take turns")
    for part in ("instructions is counted 50%", "dtlb_walks_1g is counted 5%", "mine is counted 0%"):
        assert part in what
    assert "cycles" not in what
    assert ("nmi_watchdog" in remedy) == (watchdog == "1")
    assert said(root, ("cycles",)) == []
    assert said(root, ()) == []


def test_what_the_answer_needs_is_an_error_where_it_is_not_counted_and_the_rest_a_warning(host_tree: Tree) -> None:
    root = host_tree(files={"perf/cycles": counted(1.0)})
    asked = ("cycles", "instructions", "cgroup_dtlb_load_misses")
    found = preflight(root, survey(root), (), (), None, events=asked, needed_events=("cycles", "instructions"))
    told = [(problem.severity, problem.what) for problem in found if "counted here" in problem.what]
    assert [severity for severity, _ in told] == [Severity.ERROR, Severity.WARNING]
    assert "the primary metric or a guardrail needs instructions, not counted here" in told[0][1]
    assert "derived: cgroup_dtlb_load_misses" in told[1][1]


def test_what_the_counters_do_not_hold_together_is_said(host_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(shares={"dtlb_walks_1g": 1.0}, apart=("dtlb_walks_1g", "cycles"))
    monkeypatch.setattr("agents.preflight.try_turns", lambda *_: turns)
    root = host_tree()
    found = preflight(root, survey(root), (), (), None, events=("dtlb_walks_1g",))
    (what,) = [problem.what for problem in found if "do not hold" in problem.what]
    assert what.startswith("the CPU's counters do not hold dtlb_walks_1g together")


@needs_perf_events
def test_software_events_of_this_machine_never_take_turns() -> None:
    turns = try_turns(FolderRoot(), ("cgroup_page_faults",), (MetricSource(metric="mine", perf="faults:u"),))
    names = ("page_faults", "context_switches", "cgroup_page_faults", "mine")
    assert {name: turns.shares[name] for name in names} == dict.fromkeys(names, 1.0)
    assert not turns.apart


@needs_perf_events
def test_what_is_not_offered_has_no_share() -> None:
    turns = try_turns(FolderRoot(), (), (MetricSource(metric="mine", perf="nonsense_pmu/event=1/"),))
    assert "mine" not in turns.shares
