"""On this machine's own kernel: the survey of a process of which every page is known says exactly that."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from agents.facts import survey
from agents.messages import HostFacts
from agents.page_sizes import HUGETLB, base_page_bytes, pmd_kib, sizes_in, sizes_looking_splits, thp_sizes
from agents.survey.figures import EIGHTHS, SHARES, PageSurvey, ProcessFigures, Residency, Sight, SurveyPages
from agents.survey.pace import Pace
from agents.survey.residency import Pagemap, TableLevels, Tally, count_range
from agents.survey.survey import survey_pages
from agents.sysroot import FolderRoot
from tests.agents.survey.laid_out import LaidOut, laid_out

HERE = FolderRoot()
GIB = 2**30
PAGE = base_page_bytes(HERE)
PMD_PAGES = pmd_kib(HERE) * 1024 // PAGE
LEVELS = TableLevels(page_bytes=PAGE, pmd_pages=PMD_PAGES)


@pytest.fixture(scope="module", autouse=True)
def _only_where_looking_is_harmless() -> None:
    if not PMD_PAGES or sizes_looking_splits(HERE):
        pytest.skip("this kernel has no huge pages, or some that looking splits: tests/lab")
    try:
        Pagemap(os.getpid(), PAGE).close()
    except OSError as error:
        pytest.skip(f"pagemap can't be read here: {error}")


@pytest.fixture(scope="module")
def facts() -> HostFacts:
    return survey(HERE)


def find_thp_switch(size_kib: int) -> Path:
    return Path(f"/sys/kernel/mm/transparent_hugepage/hugepages-{size_kib}kB/enabled")


def look_at(facts: HostFacts, process: LaidOut, **asked: float) -> tuple[PageSurvey, ProcessFigures]:
    found = survey_pages(HERE, facts, SurveyPages(pids=(process.pid,), cpu_share=1.0, **asked))
    (one,) = found.processes
    return found, one


def some_pages(extents: int, seed: int) -> list[int]:
    """Numbers of pages: extents of a PMD with none, one, few, half, most, all but one and all of their pages."""
    chance = random.Random(seed)
    kinds = [0, 1, PMD_PAGES // 16, PMD_PAGES // 2, PMD_PAGES // 2 + 1, PMD_PAGES - 1, PMD_PAGES]
    return [
        extent * PMD_PAGES + page
        for extent in range(extents)
        for page in sorted(chance.sample(range(PMD_PAGES), chance.choice(kinds)))
    ]


def expected(touched: Sequence[int], begin: int, total_pages: int, pages: int) -> Residency:
    """The same, counted extent by extent in the plainest way; `begin`: number of the region's first page."""
    extents, growth, resident, tables, used = [0] * SHARES, [0] * SHARES, 0, 0, 0
    by_extent: dict[int, list[int]] = {}
    for page in touched:
        by_extent.setdefault((begin + page) // pages, []).append(begin + page)
    for number in range(-(-begin // pages), (begin + total_pages) // pages):
        here = by_extent.get(number, [])
        share = 9 if len(here) == pages else -(-len(here) * EIGHTHS // pages)
        extents[share] += 1
        resident += len(here)
        if here:
            growth[share] += pages - len(here)
            used += 1
        if pages >= PMD_PAGES:
            tables += len({page // PMD_PAGES for page in here}) + bool(here and pages == LEVELS.pud_pages)
    return Residency(
        extents_by_share=tuple(extents),
        growth_by_share_bytes=tuple(count * PAGE for count in growth),
        resident_bytes=resident * PAGE,
        tables_saved_bytes=tables * PAGE,
        deposit_bytes=LEVELS.deposit_pages(pages) * used * PAGE,
    )


def orders() -> Iterator[int]:
    """Every power of two of pages up to what a PUD maps: all sizes that any kernel could have."""
    return (1 << order for order in range(1, LEVELS.pud_pages.bit_length()))


@pytest.mark.parametrize("offset", [0, 1, 77, PMD_PAGES - 3])
def test_extents_of_every_size_are_counted_as_they_lie_whatever_the_range_begins_and_ends_with(offset: int) -> None:
    touched = some_pages(24, seed=offset)
    with laid_out(GIB, write=touched) as process:
        begin, last = process.address // PAGE + offset, process.address // PAGE + 24 * PMD_PAGES - offset // 2
        inside = [page - offset for page in touched if begin <= process.address // PAGE + page < last]
        tallies = [Tally(pages=pages, levels=LEVELS) for pages in orders()]
        pagemap = Pagemap(process.pid, PAGE)
        assert count_range(pagemap, begin, last, tallies, Pace(HERE.clock, cpu_share=1.0, at_most_seconds=60))
        pagemap.close()
    for tally in tallies:
        assert tally.scaled(1.0, 0.0) == expected(inside, begin, last - begin, tally.pages), tally.pages


def test_a_process_is_surveyed_exactly_at_the_sizes_that_only_its_region_holds(facts: HostFacts) -> None:
    touched = some_pages(16, seed=3)
    with laid_out(GIB, write=touched) as process:
        found, one = look_at(facts, process)
    assert one.sight is Sight.WHOLE
    assert found.splitting_sizes_kib == ()
    anonymous = {size for size in thp_sizes(HERE) if find_thp_switch(size).exists()}  # the others are for shmem alone
    assert [size.size_kib for size in one.sizes] == sorted(anonymous | set(sizes_in(HERE, HUGETLB)))
    large = [size for size in one.sizes if size.size_kib * 1024 == GIB]
    if not large:
        pytest.skip("1 GiB is no page size of this host")
    (size,) = large
    assert (size.extents, size.cut_extents) == (1, 0)
    assert size.residency == expected(touched, process.address // PAGE, GIB // PAGE, GIB // PAGE)
    assert size.backable_bytes == GIB
    assert size.residency.growth_bytes == GIB - len(touched) * PAGE
    assert one.anon_bytes > len(touched) * PAGE
    for size in one.sizes:
        assert size.residency is not None
        assert size.residency.whole <= size.whole_at_most
        assert size.residency.growth_bytes <= size.growth_at_most_bytes
        assert sum(size.residency.extents_by_share) == size.extents


def test_pages_that_were_only_read_are_no_memory(facts: HostFacts) -> None:
    written = list(range(0, 4 * PMD_PAGES, 2))
    with laid_out(GIB, write=written, read=range(1, 6 * PMD_PAGES, 2)) as process:
        _, one = look_at(facts, process)
    residency = next(size.residency for size in one.sizes if size.size_kib * 1024 == GIB)
    assert residency is not None
    assert residency.resident_bytes == len(written) * PAGE
    assert one.shared_bytes == 0


def test_memory_that_refuses_huge_pages_has_no_extents_for_them(facts: HostFacts) -> None:
    with laid_out(GIB, write=[1], refuse=True) as process:
        _, one = look_at(facts, process)
    assert one.refused_bytes == GIB
    assert [size.extents for size in one.sizes if size.size_kib * 1024 == GIB] == [0]


def test_what_mprotect_of_a_part_cut_and_what_a_fork_shares_is_told(facts: HostFacts) -> None:
    touched = range(3 * PMD_PAGES)
    with laid_out(GIB, write=touched, split_at=PMD_PAGES + PMD_PAGES // 2) as process:
        process.tell("fork")
        _, one = look_at(facts, process)
    sizes = {size.size_kib * 1024: size for size in one.sizes}
    assert (sizes[GIB].extents, sizes[GIB].cut_extents) == (0, 1)
    assert one.forked_children == 1
    assert one.shared_bytes is not None
    assert one.shared_bytes >= len(touched) * PAGE


def test_looking_changes_neither_what_is_resident_nor_what_counts_as_accessed(facts: HostFacts) -> None:
    touched = some_pages(16, seed=5)

    def entries() -> bytes:
        with Path(f"/proc/{process.pid}/pagemap").open("rb") as pagemap:
            pagemap.seek(process.address // PAGE * 8)
            return pagemap.read(16 * PMD_PAGES * 8)

    def referenced() -> int:
        smaps = Path(f"/proc/{process.pid}/smaps").read_text()
        mapping = smaps[smaps.index(f"{process.address:x}-") :]
        return int(re.search(r"Referenced: +(\d+) kB", mapping)[1])

    with laid_out(GIB, write=touched) as process:
        before = entries()
        Path(f"/proc/{process.pid}/clear_refs").write_text("1")
        assert referenced() == 0
        _, one = look_at(facts, process)
        assert one.sight is Sight.WHOLE
        assert referenced() == 0
        assert entries() == before
        process.tell("touch")
        # nearly all: clear_refs leaves the CPU's translations be, and a page still among them is not marked again
        assert referenced() * 1024 > 0.9 * len(touched) * PAGE, "what is accessed would have been seen"
