"""A simulated root has a kernel's manners: what it shows, what it refuses, what it grants."""

from __future__ import annotations

import errno
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from agents.collectors import Collectors
from agents.facts import survey
from agents.knobs import effective_thp, find_knob, find_knobs, read_knob
from agents.simulated import HostClock, Lie, MachineFiles, Refuse, SimulatedHost, SimulatedRoot
from agents.simulated.files import HUGETLB, NODE, THP

EPOCH = datetime(2026, 2, 2, tzinfo=UTC)
BIG = f"{THP}/hugepages-1048576kB/enabled"
PMD = f"{THP}/hugepages-2048kB/enabled"
POOL = f"{HUGETLB}/hugepages-1048576kB/nr_hugepages"


@pytest.fixture
def root(build: Callable[..., SimulatedHost]) -> SimulatedRoot:
    return build().root


def test_a_file_of_choices_shows_all_and_brackets_the_one_that_holds(root: SimulatedRoot) -> None:
    assert root.read(BIG) == b"always inherit madvise [never]\n"
    root.write(BIG, b"always\n")
    assert root.read(BIG) == b"[always] inherit madvise never\n"


@pytest.mark.parametrize("value", [b"sometimes", b"", b"Always"])
def test_a_value_that_no_kernel_knows_is_einval_and_changes_nothing(root: SimulatedRoot, value: bytes) -> None:
    with pytest.raises(OSError, match="Invalid argument") as refusal:
        root.write(BIG, value)
    assert refusal.value.errno == errno.EINVAL
    assert b"[never]" in root.read(BIG)


def test_a_number_beyond_its_limit_is_einval(root: SimulatedRoot) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        root.write("proc/sys/vm/swappiness", b"201")
    root.write("proc/sys/vm/swappiness", b"200")
    assert root.read("proc/sys/vm/swappiness") == b"200\n"


@pytest.mark.parametrize(
    ("path", "number"), [("proc/vmstat", errno.EACCES), (f"{THP}/hugepages-512kB/enabled", errno.ENOENT)]
)
def test_only_knobs_that_exist_can_be_written(root: SimulatedRoot, path: str, number: int) -> None:
    with pytest.raises(OSError, match=path) as refusal:
        root.write(path, b"1")
    assert refusal.value.errno == number
    assert not root.writable(path)


def test_inherit_follows_the_top_level(root: SimulatedRoot) -> None:
    root.write(PMD, b"inherit")
    for top in (b"always", b"never"):
        root.write(f"{THP}/enabled", top)
        assert effective_thp(root, 2048) == top.decode()


def test_a_pool_grants_what_memory_allows_and_gives_back_all(root: SimulatedRoot) -> None:
    root.write(POOL, b"10")
    assert root.read(POOL) == b"10\n"
    root.write(POOL, b"100000")
    granted = int(root.read(POOL))
    assert 10 < granted < 256
    root.write(POOL, b"0")
    assert root.read(POOL) == b"0\n"


def test_a_pool_takes_its_pages_from_free_memory_and_the_node_shows_the_same(root: SimulatedRoot) -> None:
    free = _meminfo(root)["MemFree:"]
    root.write(POOL, b"4")
    assert _meminfo(root)["MemFree:"] == free - 4 * 1048576
    assert root.read(f"{NODE}/hugepages-1048576kB/nr_hugepages") == b"4\n"
    root.write(f"{NODE}/hugepages-1048576kB/nr_hugepages", b"2")
    assert root.read(POOL) == b"2\n"


def _meminfo(root: SimulatedRoot) -> dict[str, int]:
    lines = (line.split() for line in root.read("proc/meminfo").decode().splitlines())
    return {words[0]: int(words[1]) for words in lines}


def test_a_refused_knob_says_so_while_it_lasts(root: SimulatedRoot) -> None:
    root.plant(Refuse(knob="thp/1048576kB/enabled", until_seconds=5.0, number=errno.EACCES))
    with pytest.raises(PermissionError):
        root.write(BIG, b"always")
    root.clock.reach(5.0)
    root.write(BIG, b"always")
    assert b"[always]" in root.read(BIG)


@pytest.mark.parametrize(("shows", "reads"), [("", b"[never]"), ("madvise", b"[madvise]")])
def test_a_kernel_that_lies_accepts_and_reads_otherwise(root: SimulatedRoot, shows: str, reads: bytes) -> None:
    root.plant(Lie(knob="thp/1048576kB/enabled", shows=shows))
    root.write(BIG, b"always")
    assert reads in root.read(BIG)


def test_a_reboot_forgets_the_knobs_and_changes_the_boot_id(root: SimulatedRoot) -> None:
    before = root.read("proc/sys/kernel/random/boot_id")
    root.clock.reach(100.0)
    root.write(BIG, b"always")
    root.oops("BUG: something")
    assert root.read("proc/sys/kernel/tainted") == b"128\n"
    root.reboot()
    assert b"[never]" in root.read(BIG)
    assert root.read("proc/sys/kernel/random/boot_id") != before
    assert root.read("proc/sys/kernel/tainted") == b"0\n"
    assert b"BUG" not in root.read("dev/kmsg")
    assert root.clock.boot_seconds() == 0.0


def test_a_survey_finds_what_a_real_host_has(root: SimulatedRoot) -> None:
    facts = survey(root)
    assert [size.size_kib for size in facts.thp_sizes] == [64, 2048, 1048576]
    assert facts.base_page_bytes == 4096
    assert facts.memory_total_bytes == 256 << 30
    assert set(facts.writable_knobs) == {knob.name for knob in find_knobs(root)} == set(facts.knobs)
    assert {event.event for event in facts.perf_events if event.available} >= {"instructions", "dtlb_load_misses"}
    assert facts.taken_at == root.clock.now()


def test_the_collectors_read_it_like_any_other_host(root: SimulatedRoot) -> None:
    collectors = Collectors(root)
    first = collectors.boundary()
    root.clock.reach(10.0)
    second = collectors.boundary()
    collectors.close()
    assert second["pgfault"] - first["pgfault"] == pytest.approx(200_000, rel=0.01)
    assert second["dtlb_load_misses"] > first["dtlb_load_misses"]
    assert {"thp_64kB_split", "memory_available_bytes", "hugetlb_2048kB_free_pages"} <= set(second)
    assert "agent_cpu_seconds" not in second


def test_hosts_can_be_found_with_other_values() -> None:
    machine = MachineFiles(found={BIG: "madvise"})
    assert machine.knobs[BIG].value == "madvise"


def test_every_knob_of_the_machine_is_a_knob_by_name(root: SimulatedRoot) -> None:
    for knob in find_knobs(root):
        assert read_knob(root, knob) == read_knob(root, find_knob(root, knob.name))


def test_the_clock_never_goes_back() -> None:
    clock = HostClock(EPOCH)
    clock.reach(5.0)
    clock.reach(3.0)
    clock.sleep(-1.0)
    assert clock.monotonic() == 5.0
