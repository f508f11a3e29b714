"""Which events are asked for, in which order, and what their refusals mean. Tables of events: test_tables.py."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from agents.catalogue import asked_events
from agents.catalogue.table import EVENT_NAMES
from agents.perf import ModelledCounters, open_counters, probe_events
from agents.perf.cpus import parse_numbers
from agents.perf.events import find_events
from agents.perf.syscall import why_not
from agents.perf.tables import event_tables
from agents.sysroot import FolderRoot
from tests.agents.perf.cpu_files import files_of

Tree = Callable[..., FolderRoot]


def test_events_come_in_the_order_of_the_catalogue_each_once(host_tree: Tree) -> None:
    for table in event_tables():
        events, missing = find_events(host_tree(files=files_of(table, table.cpus[0])))
        names = [event.name for event in events]
        assert sorted([*names, *missing], key=EVENT_NAMES.index) == list(EVENT_NAMES)
        assert names == sorted(names, key=EVENT_NAMES.index)


def test_what_no_metric_asks_for_is_not_counted(host_tree: Tree) -> None:
    """A CPU counts four to eight events at once: each one more takes time from the others."""
    second = 1_000_000_000
    files = {f"perf/{name}": f"0 100 {second} {second}" for name in ("dtlb_walks_1g", "cgroup_dtlb_walks_1g", "cycles")}
    root = host_tree(files=files)
    for wanted, prefix, counted in (
        ((), "", {"cycles"}),
        (("dtlb_walks_1g",), "", {"cycles", "dtlb_walks_1g"}),
        (("dtlb_walks_1g",), "cgroup_", set()),
        (("cgroup_dtlb_walks_1g",), "cgroup_", {"cgroup_dtlb_walks_1g"}),
    ):
        out: dict[str, float] = {}
        open_counters(root, wanted=wanted, prefix=prefix).collect(out)
        assert {name for name in out if "_time_" not in name} == counted


@pytest.mark.parametrize(
    ("metrics", "events"),
    [
        (("throughput", "dtlb_load_misses_per_kilo_instruction"), ("dtlb_load_misses", "instructions")),
        (("dtlb_walks_1g", "cgroup_dtlb_walks_1g", "dtlb_walks_1g"), ("dtlb_walks_1g", "cgroup_dtlb_walks_1g")),
        (("itlb_walks_2m_coverage", "cgroup_cycles"), ("itlb_walks_2m", "cgroup_cycles")),
    ],
)
def test_metrics_ask_for_the_events_that_they_need(metrics: tuple[str, ...], events: tuple[str, ...]) -> None:
    assert asked_events(metrics) == events


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOENT, "ENOENT: the CPU or hypervisor offers no such event"),
        (errno.EOPNOTSUPP, "the CPU or hypervisor offers no such event"),
        (errno.EACCES, "perf_event_paranoid"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENOMEM, "ENOMEM: Cannot allocate memory"),
    ],
)
def test_an_error_of_the_system_call_is_explained(code: int, words: str) -> None:
    import os

    assert words in why_not(OSError(code, os.strerror(code)))


@pytest.mark.parametrize(
    ("text", "numbers"), [(b"0-3,8\n", {0, 1, 2, 3, 8}), (b"0\n", {0}), (b"\n", set()), (b"0-1,4-5,9", {0, 1, 4, 5, 9})]
)
def test_lists_of_cpus(text: bytes, numbers: set[int]) -> None:
    assert parse_numbers(text) == numbers


def test_a_host_that_models_no_events_says_so_for_each(host_tree: Tree) -> None:
    support = probe_events(host_tree())
    assert [one.event for one in support] == list(EVENT_NAMES)
    assert not any(one.available for one in support)
    assert all("own root only" in one.reason for one in support)


def test_modelled_events_are_counted_and_scaled(host_tree: Tree) -> None:
    second = 1_000_000_000
    root = host_tree(files={"perf/dtlb_load_misses": f"0 100 {second} {second}\n1 50 {second} {second // 2}"})
    counters = open_counters(root)
    assert isinstance(counters, ModelledCounters)
    out: dict[str, float] = {}
    counters.collect(out)
    assert out["dtlb_load_misses"] == 200.0
    assert "dtlb_load_misses" not in counters.unavailable
    assert "instructions" in counters.unavailable
    assert {one.event for one in probe_events(root) if one.available} == {"dtlb_load_misses"}
    (root.root / "perf/dtlb_load_misses").write_text("garbage\n")
    out.clear()
    counters.collect(out)
    assert out == {}
    assert "/perf/dtlb_load_misses" in counters.unavailable["dtlb_load_misses"]
    counters.close()
