"""The survey of a host: its processes one after the other, the largest first, within the bounds that were asked for."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from agents.collectors.cgroup import cgroup_version, find_cgroup
from agents.collectors.parsers import KeyedTable
from agents.errors import AgentError
from agents.messages import HostFacts
from agents.page_sizes import sizes_looking_splits
from agents.survey.figures import (
    CgroupFigures,
    PageSurvey,
    ProcessFigures,
    Sight,
    SizeFigures,
    SurveyedSize,
    SurveyPages,
    together,
)
from agents.survey.layout import AnonymousMapping, MemoryLayout, bounds, count_cut_extents, count_extents, parse_layout
from agents.survey.pace import Pace
from agents.survey.processes import (
    ProcessStatus,
    cgroup_of,
    forked_children,
    forks_per_second,
    list_processes,
    open_readers,
)
from agents.survey.residency import Pagemap, TableLevels
from agents.survey.sampling import LookedAt, look, untouched_extents
from agents.sysroot import SysRoot

_ANON_OF_CGROUP = {2: "anon", 1: "total_rss"}  # by version, in memory.stat, with the cgroups below


def survey_pages(root: SysRoot, facts: HostFacts, asked: SurveyPages) -> PageSurvey:
    """Survey the processes of a host of which these are the facts; nothing is written.

    AgentError where its page size is not known, or a process that was asked for is not there.
    """
    if not facts.base_page_bytes:
        raise AgentError("the size of a base page is not known", facts.host, "survey the host itself, not a copy")
    pace = Pace(root.clock, cpu_share=asked.cpu_share, at_most_seconds=asked.at_most_seconds)
    sizes = _sizes(facts)
    taken_at = root.clock.now()
    everyone = list_processes(root)
    meant, small = _meant(facts.host, everyone, asked)
    children = forked_children(root, everyone)
    version = cgroup_version(root)
    surveyor = _Surveyor(root, facts, asked, pace, tuple(size.size_kib * 1024 for size in sizes))
    looked = (surveyor.process(one, cgroup_of(root, one.pid, version), children.get(one.pid, 0)) for one in meant)
    processes = [one for one in looked if one is not None]
    return PageSurvey(
        host=facts.host,
        taken_at=taken_at,
        boot_id=facts.boot_id,
        kernel=facts.kernel,
        memory_total_bytes=facts.memory_total_bytes,
        base_page_bytes=facts.base_page_bytes,
        pmd_kib=facts.thp_pmd_kib,
        sizes=sizes,
        splitting_sizes_kib=sizes_looking_splits(root),
        known_readers=facts.page_splitting_readers,
        open_readers=open_readers(root),
        processes=tuple(processes),
        cgroups=tuple(_cgroups(root, processes)),
        totals=together(one.sizes for one in processes),
        small_processes=len(small),
        small_anon_bytes=sum(one.anon_bytes for one in small),
        forks_per_second=forks_per_second(root),
        looked_at_bytes=surveyor.looked_at_bytes,
        cpu_seconds=pace.cpu_seconds,
        wall_seconds=pace.wall_seconds,
    )


def _sizes(facts: HostFacts) -> tuple[SurveyedSize, ...]:
    thp = {one.size_kib: one.effective for one in facts.thp_sizes if one.effective}  # the others are for shmem alone
    pools = {one.size_kib for one in facts.hugetlb_pools}
    return tuple(
        SurveyedSize(size_kib=size, thp=thp.get(size, ""), hugetlb=size in pools) for size in sorted({*thp, *pools})
    )


def _meant(
    host: str, everyone: list[ProcessStatus], asked: SurveyPages
) -> tuple[list[ProcessStatus], list[ProcessStatus]]:
    """Return the processes to be looked at, and those that are only counted."""
    if asked.pids:
        missing = sorted(set(asked.pids) - {one.pid for one in everyone})
        if missing:
            raise AgentError(
                f"no process with memory of its own has the number {', '.join(map(str, missing))}",
                host,
                "name one that 'ps' lists, not a kernel thread",
            )
        return [one for one in everyone if one.pid in asked.pids], []
    large = [one for one in everyone if one.anon_bytes + one.swap_bytes >= asked.least_bytes]
    return large, everyone[len(large) :]


@dataclass(slots=True)
class _Surveyor:
    root: SysRoot
    facts: HostFacts
    asked: SurveyPages
    pace: Pace
    sizes: tuple[int, ...]  # bytes
    looked_at_bytes: int = 0

    def process(self, status: ProcessStatus, cgroup: str, children: int) -> ProcessFigures | None:
        """Look one process over; None where it is gone before anything is known of it."""
        sight, layout = self._layout(status.pid)
        if layout is None:
            return None
        refused = [one for one in layout.mappings if one.refused or not status.thp_allowed]
        open_to = [one for one in layout.mappings if not one.refused and status.thp_allowed]
        seen: LookedAt | None = None
        shared = 0
        if sight is Sight.WHOLE and self.sizes:
            sight, seen, shared = self._look(status.pid, open_to)
        return ProcessFigures(
            pid=status.pid,
            command=status.command,
            cgroup=cgroup,
            sight=sight,
            anon_bytes=status.anon_bytes,
            swap_bytes=status.swap_bytes,
            span_bytes=sum(one.span for one in layout.mappings),
            page_table_bytes=status.page_table_bytes,
            forked_children=children,
            refused_bytes=sum(one.span for one in refused) if sight.seen else None,
            huge_bytes=sum(one.huge for one in layout.mappings) if sight.seen else None,
            shared_bytes=shared if sight.seen else None,
            sizes=tuple(self._figures(size, status, layout, open_to, seen) for size in self.sizes),
        )

    def _layout(self, pid: int) -> tuple[Sight, MemoryLayout | None]:
        """Read smaps where that may be done, else maps; WHOLE: residency may be looked at."""
        sight = self._may_look()
        file = "smaps" if sight is Sight.WHOLE else "maps"
        try:
            return sight, parse_layout(self.root.read(f"proc/{pid}/{file}"))
        except OSError as error:
            sight = _sight_of(error)
        finally:
            self.pace.rest()
        if file == "smaps" and sight is not Sight.GONE:
            try:
                return sight, parse_layout(self.root.read(f"proc/{pid}/maps"))
            except OSError:
                pass
        return sight, None

    def _may_look(self) -> Sight:
        """Ask again before each process: a setting that was changed meanwhile is a reason to stop."""
        if sizes_looking_splits(self.root):
            return Sight.WOULD_SPLIT
        if not self.root.real:
            return Sight.NOT_OFFERED
        return Sight.OUT_OF_TIME if self.pace.over else Sight.WHOLE

    def _look(self, pid: int, mappings: Sequence[AnonymousMapping]) -> tuple[Sight, LookedAt | None, int]:
        page = self.facts.base_page_bytes
        levels = TableLevels(page_bytes=page, pmd_pages=self.facts.thp_pmd_kib * 1024 // page)
        pagemap: Pagemap | None = None
        try:
            pagemap = Pagemap(pid, page)
            seen = look(
                pagemap,
                mappings,
                [size // page for size in self.sizes],
                levels,
                self.pace,
                sample_above_bytes=self.asked.sample_above_bytes,
            )
        except OSError as error:
            return _sight_of(error), None, 0
        finally:
            if pagemap is not None:
                self.looked_at_bytes += pagemap.pages_seen * page
                pagemap.close()
        if seen is None:
            return Sight.OUT_OF_TIME, None, 0
        return Sight.SAMPLED if seen.sampled else Sight.WHOLE, seen, round(pagemap.shared_pages * seen.factor) * page

    def _figures(
        self,
        size: int,
        status: ProcessStatus,
        layout: MemoryLayout,
        open_to: Sequence[AnonymousMapping],
        seen: LookedAt | None,
    ) -> SizeFigures:
        page = self.facts.base_page_bytes
        extents = count_extents(open_to, size)
        whole, growth = bounds(layout, extents, size, status.anon_bytes + status.swap_bytes, page)
        residency = None
        if seen is not None:
            tally = seen.tallies[size // page]
            residency = tally.scaled(seen.factor, seen.growth_error_pages[size // page])
            residency = residency.with_empty(untouched_extents(open_to, size))
        return SizeFigures(
            size_kib=size // 1024,
            extents=extents,
            cut_extents=count_cut_extents(open_to, size),
            whole_at_most=whole,
            growth_at_most_bytes=growth,
            residency=residency,
        )


def _sight_of(error: OSError) -> Sight:
    if error.errno in (errno.EACCES, errno.EPERM):
        return Sight.NOT_PERMITTED
    return Sight.GONE if error.errno in (errno.ESRCH, errno.ENOENT) else Sight.NOT_OFFERED


def _cgroups(root: SysRoot, processes: Sequence[ProcessFigures]) -> Iterator[CgroupFigures]:
    """Yield the cgroups, the largest first, each with the processes that are in it and in none below."""
    by_name = sorted(processes, key=lambda one: one.cgroup)
    groups = [(name, list(same)) for name, same in groupby(by_name, key=lambda one: one.cgroup)]
    for name, same in sorted(groups, key=lambda group: -sum(one.anon_bytes for one in group[1])):
        yield CgroupFigures(
            cgroup=name,
            processes=len(same),
            seen=sum(one.sight.seen for one in same),
            anon_bytes=_anon_of(root, name),
            sizes=together(one.sizes for one in same),
        )


def _anon_of(root: SysRoot, cgroup: str) -> int | None:
    places = find_cgroup(root, cgroup)
    if places.memory is None or places.memory_version is None:
        return None
    found: dict[str, float] = {}
    try:
        data = root.read(f"{places.memory}/memory.stat")
        KeyedTable({_ANON_OF_CGROUP[places.memory_version]: "anon"})(data, found)
    except (OSError, ValueError):
        return None
    return int(found["anon"]) if "anon" in found else None
