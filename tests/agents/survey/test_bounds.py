"""The survey keeps to its bounds: what it costs, what it may not look at, and how wrong a sample may be."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from agents.clock import SystemClock
from agents.errors import AgentError
from agents.facts import survey
from agents.page_sizes import sizes_looking_splits
from agents.survey.figures import ProcessFigures, Sight, SurveyPages
from agents.survey.layout import AnonymousMapping, bounds, count_cut_extents, count_extents, parse_layout
from agents.survey.pace import Pace
from agents.survey.processes import open_readers
from agents.survey.residency import TableLevels
from agents.survey.sampling import look
from agents.survey.survey import survey_pages
from agents.sysroot import FolderRoot
from tests.agents.survey.laid_out import laid_out
from tests.agents.survey.listed_processes import FILES, MAPS, STATUS
from tests.host_tree import THP

Tree = Callable[..., FolderRoot]
MIB, GIB = 2**20, 2**30
PAGE = 4096


class WatchedRoot(FolderRoot):
    """A host in a folder, with a list of every path that was read."""

    def __init__(self, folder: FolderRoot) -> None:
        super().__init__(folder.root)
        self.asked: list[str] = []

    def read(self, path: str) -> bytes:
        self.asked.append(path)
        return super().read(path)


class LiesAsMachine(WatchedRoot):
    """The same, but taken for this machine itself: what it may look at, it would."""

    real = True  # type: ignore[assignment]


def survey_of(root: FolderRoot, pid: int = 42) -> ProcessFigures:
    (one,) = survey_pages(root, survey(FolderRoot(root.root)), SurveyPages(pids=(pid,))).processes
    return one


def test_the_layout_is_that_of_private_anonymous_memory_that_may_be_touched() -> None:
    layout = parse_layout(MAPS.encode())
    assert [(one.start, one.span) for one in layout.mappings] == [
        (0x7F0000000000, 2 * GIB),
        (0x7F0080000000, MIB),
        (0x7F0080100000, GIB - MIB),
        (0x7FFF00000000, 2 * MIB),
    ]
    assert count_extents(layout.mappings, GIB) == 2
    assert count_cut_extents(layout.mappings, GIB) == 1
    assert count_extents(layout.mappings, 2 * MIB) == 1024 + 511 + 1
    assert count_cut_extents(layout.mappings, 2 * MIB) == 1


def test_what_can_be_said_without_looking_holds_wherever_the_pages_are() -> None:
    layout = parse_layout(MAPS.encode())
    extents = count_extents(layout.mappings, GIB)
    for held in (0, PAGE, 3 * PAGE, GIB, 2 * GIB, layout.private_bytes):
        whole, growth = bounds(layout, extents, GIB, held, PAGE)
        outside = layout.private_bytes - extents * GIB
        for inside in {0, min(held, 2 * GIB), max(0, held - outside), min(held, GIB + PAGE)}:
            if max(0, held - outside) <= inside <= min(held, extents * GIB):
                for used in range(-(-inside // GIB), min(extents, inside // PAGE) + 1):
                    assert used * GIB - inside <= growth
        assert whole == min(2, held // GIB)


def test_where_a_page_above_the_pmds_may_live_nothing_is_read_that_splits_it(host_tree: Tree) -> None:
    on = {f"{THP}/hugepages-1048576kB/enabled": "[always] inherit madvise never"}
    root = LiesAsMachine(host_tree(gigantic=True, files=FILES | on))
    one = survey_of(root)
    assert one.sight is Sight.WOULD_SPLIT
    assert (one.huge_bytes, one.shared_bytes, one.refused_bytes) == (None, None, None)
    sizes = {size.size_kib: size for size in one.sizes}
    assert sizes[1048576].residency is None
    assert (sizes[1048576].extents, sizes[1048576].cut_extents) == (2, 1)
    assert sizes[1048576].whole_at_most == 1
    assert sizes[1048576].growth_at_most_bytes <= 2 * GIB
    assert [path for path in root.asked if path.startswith("proc/42/")] == [
        f"proc/42/{name}" for name in ("status", "stat", "cgroup", "maps")
    ]


@pytest.mark.parametrize(
    ("enabled", "alive", "out_of_bounds"),
    [
        ("always inherit madvise [never]", "0", False),
        ("always inherit madvise [never]", "1", True),  # given before it was switched off
        ("always inherit madvise [never]", None, True),  # not known
        ("always [inherit] madvise never", "0", True),  # whatever the top level says
        ("always inherit [madvise] never", "0", True),
    ],
)
def test_looking_is_out_of_bounds_unless_no_such_page_can_be_there(
    host_tree: Tree, enabled: str, alive: str | None, out_of_bounds: bool
) -> None:
    folder = f"{THP}/hugepages-1048576kB"
    root = host_tree(gigantic=True, files={f"{folder}/enabled": enabled, f"{folder}/stats/nr_anon": alive})
    assert sizes_looking_splits(root) == ((1048576,) if out_of_bounds else ())


def test_a_size_below_a_pmds_is_never_split_by_looking(host_tree: Tree) -> None:
    on = {f"{THP}/hugepages-{size}kB/enabled": "[always] inherit madvise never" for size in (64, 2048)}
    assert sizes_looking_splits(host_tree(files=on)) == ()


def test_a_copied_tree_gives_the_layout_and_says_that_it_has_no_pagemap(host_tree: Tree) -> None:
    found = survey_pages(root := host_tree(files=FILES), survey(root), SurveyPages())
    assert [(one.pid, one.sight) for one in found.processes] == [(42, Sight.NOT_OFFERED), (43, Sight.NOT_OFFERED)]
    assert [(one.command, one.forked_children) for one in found.processes] == [("server", 1), ("worker", 0)]
    assert [(one.cgroup, one.processes, one.seen) for one in found.cgroups] == [
        ("", 1, 0),
        ("/system.slice/web.service", 1, 0),
    ]
    assert found.cgroups[1].anon_bytes == GIB
    assert found.forks_per_second == pytest.approx(10.0, abs=0.01)
    assert found.small_processes == 0
    assert found.looked_at_bytes == 0


@pytest.mark.parametrize(
    "said",
    [
        STATUS.replace("server", "x\x0bRssAnon:\t9 kB\x85y"),
        STATUS.replace("PPid:\t1", "PPid:\tone"),
        STATUS.replace("2000000 kB", f"{'9' * 5000} kB"),
        STATUS.replace("2000000 kB", "18446744073709551615 kB"),
        STATUS.replace("VmPTE:\t 4000 kB", "VmPTE:"),
    ],
)
def test_whatever_a_process_says_of_itself_the_survey_goes_on(host_tree: Tree, said: str) -> None:
    odd = {"proc/stat": "processes 99999999999999999999999", "proc/uptime": "soon", "proc/42/stat": "42 (x) S one"}
    root = host_tree(files=FILES | odd | {"proc/42/status": said, "proc/123456789/status": STATUS})
    found = survey_pages(root, survey(root), SurveyPages(least_bytes=0))
    assert {one.pid for one in found.processes} == {42, 43}
    assert found.forks_per_second is None
    anon = {one.pid: one.anon_bytes for one in found.processes}
    assert anon[42] in (0, 2_000_000 * 1024)
    assert anon[43] == 2_000_000 * 1024


def test_a_mapped_file_whose_name_looks_like_a_mapping_is_none() -> None:
    name = b"/tmp/a\r7f1000000000-7f1100000000 rw-p 00000000 00:00 0 "
    text = b"7f0000000000-7f0000200000 rw-p 00000000 fe:00 12     " + name + b"\n"
    assert parse_layout(text).mappings == ()


def test_a_process_that_is_not_there_is_an_error_with_a_remedy(host_tree: Tree) -> None:
    root = host_tree(files=FILES)
    with pytest.raises(AgentError, match=r"no process .* 44 .*kernel thread"):
        survey_pages(root, survey(root), SurveyPages(pids=(42, 44)))


class Memory:
    """The pages of one process, as `Pagemap` would give them."""

    def __init__(self, held: bytes) -> None:
        self._held = held

    def held(self, first: int, last: int) -> bytes:
        return self._held[first:last]


def test_a_sample_is_as_far_off_as_it_says() -> None:
    """The interval of two standard errors covers the truth about as often as it should: 95 of 100 times."""
    chance, pmd, cluster, clusters = random.Random(7), 512, 4096, 64
    held = bytearray(cluster * clusters)
    for extent in range(len(held) // pmd):
        for page in chance.sample(range(pmd), chance.choice([0, 1, 40, 200, 512])):
            held[extent * pmd + page] = 1
    mappings = [AnonymousMapping(start=0, end=len(held) * PAGE, resident=PAGE)]
    levels = TableLevels(page_bytes=PAGE, pmd_pages=pmd)

    def estimate(sample_above_bytes: int) -> tuple[int, float]:
        pace = Pace(SystemClock(), cpu_share=1.0, at_most_seconds=60)
        seen = look(Memory(bytes(held)), mappings, [pmd, cluster], levels, pace, sample_above_bytes=sample_above_bytes)  # type: ignore[arg-type]
        assert seen is not None
        assert seen.sampled == (sample_above_bytes < len(held) * PAGE)
        residency = seen.tallies[pmd].scaled(seen.factor, seen.growth_error_pages[pmd])
        assert sum(residency.extents_by_share) == len(held) // pmd
        return residency.growth_bytes, residency.growth_error_bytes

    truth, nothing = estimate(len(held) * PAGE)
    assert nothing == 0.0
    random.seed(11)
    tries = [estimate(16 * cluster * PAGE) for _ in range(100)]
    covered = sum(abs(found - truth) <= 2 * error for found, error in tries)
    assert 88 <= covered <= 99
    assert sum(found for found, _ in tries) / len(tries) == pytest.approx(truth, rel=0.02)


def test_the_share_of_a_cpu_is_kept() -> None:
    pace = Pace(SystemClock(), cpu_share=0.2, at_most_seconds=60)
    while pace.cpu_seconds < 0.1:
        sum(range(10_000))
    pace.rest()
    assert pace.cpu_seconds / pace.wall_seconds <= 0.21


def test_when_time_is_over_what_is_left_is_named_as_not_looked_at() -> None:
    with laid_out(GIB, write=range(1000)) as process:
        root = FolderRoot()
        if sizes_looking_splits(root):
            pytest.skip("looking would split pages here")
        asked = SurveyPages(pids=(process.pid,), at_most_seconds=0.0)
        (one,) = survey_pages(root, survey(root), asked).processes
    assert one.sight is Sight.OUT_OF_TIME
    assert one.anon_bytes > 1000 * PAGE
    assert all(size.residency is None for size in one.sizes)


def test_a_program_that_holds_a_splitting_file_open_is_named() -> None:
    with laid_out(2 * MIB) as process, laid_out(2 * MIB) as reader:
        assert reader.tell(f"open /proc/{process.pid}/smaps_rollup") == "done"
        found = [one for one in open_readers(FolderRoot()) if one.pid == reader.pid]
    assert [one.path for one in found] == [f"/proc/{process.pid}/smaps_rollup"]
    assert found[0].command
