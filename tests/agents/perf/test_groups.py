"""What is divided is counted together where it fits the CPU's counters, apart where not; what is one event, once."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection

import pytest

from agents.catalogue.table import COUNTED_ALWAYS, COUNTED_IN_CGROUPS
from agents.event_text import TYPE_SOFTWARE
from agents.perf import PerfCounters, open_counters
from agents.perf.cpu_kind import CpuKind
from agents.perf.group import EventGroup
from agents.perf.scaling import Reading
from agents.perf.syscall import PerfEvent
from agents.perf.tables import find_table
from agents.sysroot import FolderRoot
from tests.agents.perf.cpu_files import files_of

Tree = Callable[..., FolderRoot]
KINDS = {
    "intel": CpuKind(vendor="GenuineIntel", family=6, model=0x8F, stepping=8),
    "amd": CpuKind(vendor="AuthenticAMD", family=25, model=0x11, stepping=1),
}
WALKS = tuple(f"dtlb_load_walks{more}" for more in ("", "_4k", "_2m", "_1g", "_pending"))


class Pmu:
    """A PMU of so many counters: a group larger than `taken` is refused, one larger than `counters` never counted.

    Every group that fits has been counted for a quarter of a second of half a second.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, counters: int, taken: int = 99) -> None:
        self.counters = counters
        self.taken = taken
        self.asked: list[PerfEvent] = []
        self.slept = 0.0
        self._in_group: dict[int, int] = {}
        monkeypatch.setattr("agents.perf.group.open_event", self._open)
        monkeypatch.setattr(EventGroup, "read", lambda group, _: self._read(group))
        monkeypatch.setattr("agents.perf.counters.time.sleep", self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.slept += seconds + 0.001

    def _open(self, event: PerfEvent, *, cpu: int, cgroup_fd: int = -1, leader: int = -1) -> int:
        fd = os.open(os.devnull, os.O_RDONLY)
        head = fd if leader < 0 else leader
        self._in_group[head] = 1 if leader < 0 else self._in_group[head] + 1
        if event.kind != TYPE_SOFTWARE and self._in_group[head] > self.taken:
            os.close(fd)
            raise OSError(errno.EINVAL, "too many")
        self.asked.append(event)
        return fd

    def _read(self, group: EventGroup) -> Reading:
        of_software = all(event.kind == TYPE_SOFTWARE for event in group.events)
        fits = of_software or len(group.events) <= self.counters
        enabled = int((0.5 + self.slept) * 1e9)
        return (enabled, enabled // 2 if fits else 0, *((100 if fits else 0) for _ in group.events))


def host(host_tree: Tree, kind: str = "intel") -> FolderRoot:
    found = find_table(KINDS[kind])
    assert found is not None
    return host_tree(files={**files_of(*found), "sys/devices/system/cpu/online": "0-1"})


def groups_of(counters: PerfCounters) -> list[tuple[str, ...]]:
    return [group.counts.metrics for group in counters._groups if group.events[0].kind != TYPE_SOFTWARE]


def test_what_is_divided_is_in_one_group_with_its_divisor(host_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    pmu = Pmu(monkeypatch, counters=8)
    made = PerfCounters(host(host_tree), COUNTED_ALWAYS, own={"mine": "r1a8"})
    both = ("instructions", "cycles", "dtlb_load_misses", "dtlb_store_misses", "dtlb_walk_cycles")
    assert groups_of(made) == [(*both, "dtlb_store_walk_cycles"), ("mine",)]
    assert made.apart == []
    assert pmu.slept < 0.05
    made.close()


def test_an_event_that_the_kernel_takes_for_one_group_too_many_starts_the_next(
    host_tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pmu(monkeypatch, counters=8, taken=4)
    made = PerfCounters(host(host_tree), COUNTED_ALWAYS)
    whole, rest = groups_of(made)
    assert whole == ("instructions", "cycles", "dtlb_load_misses", "dtlb_store_misses")
    assert rest == ("dtlb_walk_cycles", "dtlb_store_walk_cycles") == tuple(made.apart)
    assert not {*whole, *rest} & set(made.unavailable)
    made.close()


def test_a_group_that_is_never_counted_is_made_smaller_until_it_is(
    host_tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program holds counters of which the kernel's check of a new group knows nothing: the NMI watchdog."""
    pmu = Pmu(monkeypatch, counters=4)
    lost: list[str] = []
    made = PerfCounters(host(host_tree), COUNTED_ALWAYS, lost=lost.append)
    whole, *rest = groups_of(made)
    assert whole == ("instructions", "cycles", "dtlb_load_misses", "dtlb_store_misses")
    assert rest == [("dtlb_store_walk_cycles",), ("dtlb_walk_cycles",)]
    assert sorted(made.apart) == ["dtlb_store_walk_cycles", "dtlb_walk_cycles"]
    assert any("dtlb_walk_cycles do not fit" in sentence for sentence in lost)
    assert 0 < pmu.slept < 1
    out: dict[str, float] = {}
    made.collect(out)
    assert {*whole, *(name for (name,) in rest)} <= set(out)
    made.close()


def test_a_cgroups_group_is_made_smaller_when_its_tasks_have_run(
    host_tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    pmu = Pmu(monkeypatch, counters=2)
    root = host(host_tree)
    monkeypatch.setattr("agents.perf.counters.require_cgroup", lambda *_, **__: None)
    names = ("instructions", "cycles", "dtlb_load_misses")
    made = PerfCounters(root, names, cgroup=root.root, prefix="cgroup_")
    assert groups_of(made) == [("cgroup_instructions", "cgroup_cycles", "cgroup_dtlb_load_misses")]
    pmu.slept += 0.2  # as much later
    made.collect({})
    assert groups_of(made) == [("cgroup_instructions", "cgroup_cycles"), ("cgroup_dtlb_load_misses",)]
    assert made.apart == ["cgroup_dtlb_load_misses"]
    made.close()


@pytest.mark.parametrize(("kind", "walks"), [("intel", "dtlb_load_walks"), ("amd", "dtlb_walks")])
def test_two_metrics_that_are_one_event_here_take_one_counter(
    host_tree: Tree, monkeypatch: pytest.MonkeyPatch, kind: str, walks: str
) -> None:
    pmu = Pmu(monkeypatch, counters=8)
    made = PerfCounters(host(host_tree, kind), ["dtlb_load_misses", walks])
    assert {event.name for event in pmu.asked} == {"dtlb_load_misses"}
    out: dict[str, float] = {}
    pmu.slept += 0.5
    made.collect(out)
    for ending in ("", "_time_enabled_seconds", "_time_running_seconds"):
        assert out[walks + ending] == out[f"dtlb_load_misses{ending}"]
    pmu.counters = 0
    pmu.slept += 0.5
    made.collect({})
    assert made.unavailable[walks] == made.unavailable["dtlb_load_misses"]
    made.close()


def test_a_share_by_page_size_is_counted_with_all_the_walks(host_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    Pmu(monkeypatch, counters=8)
    made = PerfCounters(host(host_tree), WALKS)
    assert groups_of(made) == [WALKS]
    made.close()


@pytest.mark.parametrize(
    ("wanted", "more"), [((), ()), (("cgroup_dtlb_load_misses",), ("dtlb_load_misses",)), (("dtlb_load_misses",), ())]
)
def test_a_cgroup_takes_counters_only_for_what_is_asked_of_it(
    host_tree: Tree, wanted: Collection[str], more: tuple[str, ...]
) -> None:
    events = (*COUNTED_ALWAYS, "dtlb_load_walks")
    root = host_tree(files={f"perf/cgroup_{name}": "0 1 1000 1000" for name in events})
    out: dict[str, float] = {}
    open_counters(root, prefix="cgroup_", wanted=wanted).collect(out)
    assert {name for name in out if "_time_" not in name} == {f"cgroup_{one}" for one in (*COUNTED_IN_CGROUPS, *more)}


def test_what_a_metric_asks_for_comes_first_into_a_group(host_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    Pmu(monkeypatch, counters=8, taken=3)
    monkeypatch.setattr(FolderRoot, "real", True)
    made = open_counters(host(host_tree), wanted=("dtlb_walk_cycles", "cycles"))
    assert isinstance(made, PerfCounters)
    assert groups_of(made)[0] == ("cycles", "dtlb_walk_cycles", "instructions")
    made.close()


def test_on_a_cpu_that_no_table_has_each_event_goes_alone(host_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    Pmu(monkeypatch, counters=8)
    made = PerfCounters(host_tree(files={"sys/devices/system/cpu/online": "0-1"}), ["instructions", "dtlb_load_misses"])
    assert groups_of(made) == [("instructions",), ("dtlb_load_misses",)]
    made.close()
