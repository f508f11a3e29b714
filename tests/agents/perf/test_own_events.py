"""Events of the user's own: how each host's kernel is asked for them, and counting some on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.collectors import Collectors
from agents.messages import MetricSource
from agents.perf import ModelledCounters, PerfCounters, probe_own_events
from agents.perf.own_events import find_own_events
from agents.perf.syscall import PerfEvent
from agents.sysroot import FolderRoot
from tests.agents.perf.cpu_files import DEVICES, cpuinfo, pmu_files
from tests.agents.perf.test_counters import needs_perf_events, take
from tests.touched_pages import touch_pages

Tree = Callable[..., FolderRoot]
SECOND = 1_000_000_000
INTEL = {
    "proc/cpuinfo": cpuinfo("GenuineIntel", 6, 0x8F, 8),
    **pmu_files("GenuineIntel", "cpu"),
    f"{DEVICES}/cpu/events/cache-misses": "event=0x2e,umask=0x41\n",
    f"{DEVICES}/cpu/events/mem-loads": "event=0xcd,umask=0x1,ldlat=3\n",
    f"{DEVICES}/cpu/events/asks": "event=0xcd,umask=?\n",
    f"{DEVICES}/cpu/events/slots": "event=0x0,umask=0x4\n",
    f"{DEVICES}/cpu/events/slots.scale": "4\n",
    f"{DEVICES}/power/type": "9\n",
    f"{DEVICES}/power/cpumask": "0\n",
    f"{DEVICES}/power/format/event": "config:0-7\n",
}
HOST = "GenuineIntel family 6 model 0x8f"


def find(root: FolderRoot, text: str) -> PerfEvent | str:
    events, missing = find_own_events(root, {"mine": text})
    return events[0] if events else missing["mine"]


@pytest.mark.parametrize(
    ("text", "kind", "configs", "meaning"),
    [
        ("cpu/event=0x24,umask=0x3f/", 4, (0x3F24, 0), f"cpu/event=0x24,umask=0x3f/ on {HOST}"),
        ("cpu/event=0x24,umask=0x3f,cmask=1,inv,edge/", 4, (0x1843F24, 0), None),
        ("cpu/config=0x1843f24/", 4, (0x1843F24, 0), None),
        ("cpu/cache-misses/", 4, (0x412E, 0), f"cpu/cache-misses/ on {HOST}"),
        ("cpu/mem-loads/", 4, (0x1CD, 3), None),
        ("r3f24", 4, (0x3F24, 0), f"r3f24 on {HOST}"),
        ("LLC-load-misses", 3, (0x10002, 0), f"LLC-load-misses on {HOST}"),
        ("cycles", 0, (0, 0), ""),
        ("page-faults", 1, (2, 0), ""),
    ],
)
def test_terms_are_placed_as_the_host_says(
    host_tree: Tree, text: str, kind: int, configs: tuple[int, int], meaning: str | None
) -> None:
    event = find(host_tree(files=INTEL), text)
    assert isinstance(event, PerfEvent)
    assert (event.kind, event.config, event.config1, event.config2) == (kind, *configs, 0)
    assert meaning is None or event.counts == meaning


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cpu/event=0x24,ocr_msr=1/", "PMU cpu does not take ocr_msr=0x1"),
        ("cpu/event=0x124/", "PMU cpu does not take event=0x124"),
        ("cpu/no-such-event/", "PMU cpu does not take no-such-event=0x1"),
        ("cpu/asks/", "has no fixed code for asks"),
        ("cpu/slots/", "a unit of its own"),
        ("cpu/cache-misses,umask=1/", "umask is given twice"),
        ("cpu_core/event=0x24/", "no PMU cpu_core here (in /sys/bus/event_source/devices: cpu, power)"),
        ("power/event=2/", "for a whole package"),
    ],
)
def test_what_a_host_does_not_take_is_a_reason(host_tree: Tree, text: str, words: str) -> None:
    found = find(host_tree(files=INTEL), text)
    assert isinstance(found, str)
    assert words in found


def test_the_same_code_on_another_cpu_has_another_meaning(host_tree: Tree) -> None:
    other = {"proc/cpuinfo": cpuinfo("AuthenticAMD", 25, 0x11, 1), **pmu_files("AuthenticAMD", "cpu")}
    sources = [MetricSource(metric="mine", perf="cpu/event=0x24/u", in_cgroup=True)]
    meanings = []
    for name, files in (("intel", INTEL), ("amd", other)):
        root = host_tree(name=name, files={**files, "perf/mine": f"0 5 {SECOND} {SECOND}"})
        (one,) = probe_own_events(root, sources)
        assert one.available
        assert one.counted is not None
        assert one.counted.encoding == "type=0x4,config=0x24,exclude_kernel=0x1"
        assert one.counted.in_cgroup
        meanings.append(one.counted.meaning)
    assert len(set(meanings)) == 2


def test_a_model_of_a_host_takes_what_its_pmu_takes(host_tree: Tree) -> None:
    root = host_tree(files={**INTEL, "perf/good": f"0 5 {SECOND} {SECOND // 2}", "perf/bad": f"0 5 {SECOND} {SECOND}"})
    counters = ModelledCounters(root, (), own={"good": "cpu/event=1/", "bad": "cpu/event=1,nonsense=1/", "none": "r1"})
    out: dict[str, float] = {}
    counters.collect(out)
    assert out == {"good": 10.0, "good_time_enabled_seconds": 1.0, "good_time_running_seconds": 0.5}
    assert set(counters.unavailable) == {"bad", "none"}


@needs_perf_events
def test_this_machines_own_events_are_counted() -> None:
    own = {"faults_of_users": "page-faults:u", "clock": "cpu-clock", "faults_of_kernel": "faults:k"}
    counters = PerfCounters(FolderRoot(), own=own)
    try:
        before = take(counters)
        touch_pages(3000)
        time.sleep(0.05)
        after = take(counters)
    finally:
        counters.close()
    assert after["faults_of_users"] - before["faults_of_users"] >= 3000
    assert after["page_faults"] - before["page_faults"] >= after["faults_of_users"] - before["faults_of_users"]
    assert after["faults_of_kernel"] - before["faults_of_kernel"] < 3000
    assert after["clock"] > before["clock"]
    assert after["clock_time_running_seconds"] > 0


@needs_perf_events
@pytest.mark.skipif(not Path(f"/{DEVICES}/msr/events/tsc").exists(), reason="no PMU of this machine has named events")
def test_a_named_event_of_a_pmu_of_this_machine_counts_its_own_clock() -> None:
    counters = PerfCounters(FolderRoot(), (), own={"tsc": "msr/tsc/"})
    try:
        assert counters.unavailable == {}
        first, begun = take(counters)["tsc"], time.monotonic()
        time.sleep(0.2)
        second, seconds = take(counters)["tsc"], time.monotonic() - begun
    finally:
        counters.close()
    assert 0.3e9 < (second - first) / seconds / (os.cpu_count() or 1) < 10e9


@needs_perf_events
def test_what_this_machine_refuses_is_a_reason_and_no_zero() -> None:
    sources = [
        MetricSource(metric="code", perf="msr/event=0xff/"),
        MetricSource(metric="user_time", perf="msr/event=0/u"),
        MetricSource(metric="faults", perf="faults"),
    ]
    found = {one.event: one for one in probe_own_events(FolderRoot(), sources)}
    assert found["faults"].available
    for name in ("code", "user_time"):
        assert not found[name].available
        assert found[name].reason


def test_an_event_of_the_cgroup_without_one_is_a_reason() -> None:
    source = MetricSource(metric="mine", perf="faults", in_cgroup=True)
    collectors = Collectors(FolderRoot(), own_events=(source,))
    try:
        assert "mine" not in collectors.sample()
        assert collectors.unavailable["mine"] == "the workload has no cgroup"
    finally:
        collectors.close()
