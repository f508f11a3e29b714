"""Surveys with a layout that is said share by share, for tests of what is stored of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from agents.survey.figures import (
    EIGHTHS,
    SHARES,
    OpenReader,
    PageSurvey,
    ProcessFigures,
    Residency,
    Sight,
    SizeFigures,
    SurveyedSize,
    together,
)

GIB = 2**30
PAGE, PMD_KIB, PUD_KIB = 4096, 2048, 1048576


def size_figures(size_kib: int, extents: Mapping[int, int] | None, *, at_most: int = 0, cut: int = 0) -> SizeFigures:
    """Figures of one size with so many extents by share (0 to 9); None: not seen, but `at_most` extents are there."""
    if extents is None:
        return SizeFigures(
            size_kib=size_kib,
            extents=at_most,
            cut_extents=cut,
            whole_at_most=at_most,
            growth_at_most_bytes=at_most * size_kib * 1024,
            residency=None,
        )
    counts = [extents.get(share, 0) for share in range(SHARES)]
    free = [max(0, EIGHTHS - share) if share else 0 for share in range(SHARES)]
    growth = [count * eighths * size_kib * 1024 // EIGHTHS for count, eighths in zip(counts, free, strict=True)]
    used = sum(counts[1:])
    return SizeFigures(
        size_kib=size_kib,
        extents=sum(counts),
        cut_extents=cut,
        whole_at_most=used,
        growth_at_most_bytes=used * size_kib * 1024,
        residency=Residency(
            extents_by_share=tuple(counts),
            growth_by_share_bytes=tuple(growth),
            resident_bytes=used * size_kib * 1024 - sum(growth),
            tables_saved_bytes=used * PAGE,
            deposit_bytes=used * (PAGE if size_kib == PMD_KIB else 513 * PAGE),
        ),
    )


def process_figures(
    pid: int, command: str, sizes: Sequence[SizeFigures], *, sight: Sight = Sight.WHOLE, forked: int = 0
) -> ProcessFigures:
    anon = max((one.residency.resident_bytes for one in sizes if one.residency is not None), default=2 * GIB)
    return ProcessFigures(
        pid=pid,
        command=command,
        cgroup=f"/system.slice/{command}.service",
        sight=sight,
        anon_bytes=anon,
        swap_bytes=0,
        span_bytes=2 * anon,
        page_table_bytes=anon // 512,
        forked_children=forked,
        refused_bytes=0 if sight.seen else None,
        huge_bytes=0 if sight.seen else None,
        shared_bytes=0 if sight.seen else None,
        sizes=tuple(sizes),
    )


def page_survey(host: str, at: datetime, processes: Sequence[ProcessFigures]) -> PageSurvey:
    seen = all(one.sight.seen for one in processes)
    return PageSurvey(
        host=host,
        taken_at=at,
        boot_id=f"boot-of-{host}",
        kernel="6.18.0-fleet",
        memory_total_bytes=256 * GIB,
        base_page_bytes=PAGE,
        pmd_kib=PMD_KIB,
        sizes=tuple(SurveyedSize(size_kib=size, thp="madvise", hugetlb=True) for size in (PMD_KIB, PUD_KIB)),
        splitting_sizes_kib=() if seen else (PUD_KIB,),
        known_readers=("smem",),
        open_readers=(OpenReader(pid=7, command="watch\0er", path="/proc/42/smaps"),),
        processes=tuple(processes),
        cgroups=(),
        totals=together(one.sizes for one in processes),
        small_processes=3,
        small_anon_bytes=1 << 20,
        forks_per_second=4.5,
        looked_at_bytes=sum(one.span_bytes for one in processes) if seen else 0,
        cpu_seconds=1.25,
        wall_seconds=12.5,
    )


def a_fleet(at: datetime, hosts: tuple[str, str, str] = ("db-01", "web-a-01", "gb-01")) -> list[PageSurvey]:
    """Surveys of three hosts: one that would gain, one that would mostly grow, one where looking is out of bounds."""
    database = [size_figures(PMD_KIB, {0: 10, 8: 20, 9: 30_000}), size_figures(PUD_KIB, {0: 1, 7: 2, 9: 56}, cut=2)]
    web = [size_figures(PMD_KIB, {0: 900, 1: 4000, 2: 800, 9: 300}), size_figures(PUD_KIB, {0: 2, 1: 10})]
    hidden = [size_figures(PMD_KIB, None, at_most=1024), size_figures(PUD_KIB, None, at_most=2)]
    both = [process_figures(42, "database", database), process_figures(43, "web", web, forked=8)]
    return [
        page_survey(hosts[0], at, both),
        page_survey(hosts[1], at, [process_figures(42, "web", web, forked=8)]),
        page_survey(hosts[2], at, [process_figures(42, "database", hidden, sight=Sight.WOULD_SPLIT)]),
    ]
