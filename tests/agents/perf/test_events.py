"""How events are asked for: generic ones by number, page walks by the names that the kernel gives for this CPU."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from agents.catalogue.table import EVENT_NAMES
from agents.perf import ModelledCounters, open_counters, probe_events
from agents.perf.cpus import parse_numbers
from agents.perf.events import find_events
from agents.perf.syscall import why_not
from agents.sysroot import FolderRoot

DEVICES = "sys/bus/event_source/devices"
SKYLAKE = {
    f"{DEVICES}/cpu/type": "4",
    f"{DEVICES}/cpu/format/event": "config:0-7",
    f"{DEVICES}/cpu/format/umask": "config:8-15",
    f"{DEVICES}/cpu/format/cmask": "config:24-31",
    f"{DEVICES}/cpu/format/any": "config:21",
    f"{DEVICES}/cpu/format/frontend": "config1:0-23",
    f"{DEVICES}/cpu/format/wide": "config:0-3,60-63",
    f"{DEVICES}/cpu/events/dtlb_load_misses.walk_active": "event=0x08,umask=0x10,cmask=1",
}
Tree = Callable[..., FolderRoot]


@pytest.mark.parametrize(
    ("text", "config", "config1"),
    [
        ("event=0x08,umask=0x10,cmask=1", 0x01001008, 0),
        ("event=0x08,any", 0x00200008, 0),
        ("event=1,frontend=0x15", 1, 0x15),
        ("config=0x1234", 0x1234, 0),
        ("wide=0x85", 0x8000000000000005, 0),
    ],
)
def test_an_event_named_in_sysfs_is_encoded_as_its_format_says(
    host_tree: Tree, text: str, config: int, config1: int
) -> None:
    root = host_tree(files={**SKYLAKE, f"{DEVICES}/cpu/events/dtlb_load_misses.walk_active": text})
    (event,) = [event for event in find_events(root)[0] if event.name == "dtlb_walk_cycles"]
    assert (event.kind, event.config, event.config1, event.config2) == (4, config, config1, 0)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("type", "9" * 10_000),
        ("type", str(2**32)),
        ("type", "-1"),
        ("format/event", "config:0-99999999999"),
        ("format/event", f"config:0-{'9' * 10_000}"),
        ("format/event", "config:7-0"),
        ("events/dtlb_load_misses.walk_active", "event=" + "9" * 10_000),
        ("events/dtlb_load_misses.walk_active", f"config={2**64}"),
        ("events/dtlb_load_misses.walk_active", "config=-1"),
    ],
)
def test_numbers_that_no_kernel_gives_are_no_event(host_tree: Tree, file: str, said: str) -> None:
    events, missing = find_events(host_tree(files={**SKYLAKE, f"{DEVICES}/cpu/{file}": said}))
    assert "dtlb_walk_cycles" not in {event.name for event in events}
    assert "names no such event" in missing["dtlb_walk_cycles"]


@pytest.mark.parametrize("text", ["nonsense=1", "event=0x1ff", "event=word", "event=1,"])
def test_an_event_that_can_not_be_encoded_is_not_asked_for(host_tree: Tree, text: str) -> None:
    root = host_tree(files={**SKYLAKE, f"{DEVICES}/cpu/events/dtlb_load_misses.walk_active": text})
    events, missing = find_events(root)
    assert "dtlb_walk_cycles" not in {event.name for event in events}
    assert "names no such event" in missing["dtlb_walk_cycles"]


def test_page_walks_are_not_taken_from_counters_outside_the_core(host_tree: Tree) -> None:
    files = {path.replace("/cpu/", "/uncore_imc/"): text for path, text in SKYLAKE.items()}
    assert "dtlb_walk_cycles" in find_events(host_tree(files=files))[1]


def test_events_come_in_the_order_of_the_catalogue_each_once(host_tree: Tree) -> None:
    events, missing = find_events(host_tree(files=SKYLAKE))
    names = [event.name for event in events]
    assert sorted([*names, *missing], key=EVENT_NAMES.index) == list(EVENT_NAMES)
    assert names == sorted(names, key=EVENT_NAMES.index)
    assert set(missing) == {"dtlb_store_walk_cycles"}


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
