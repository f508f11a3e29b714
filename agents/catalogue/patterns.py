"""The metrics whose names depend on the host: page sizes, buddy orders, migrate types, counted events."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from agents.catalogue.metric import CataloguePage, Metric, MetricKind, Owner
from agents.catalogue.table import CATALOGUE, EVENT_NAMES
from agents.catalogue.thp_stats import thp_stat

_C, _G = MetricKind.COUNTER, MetricKind.GAUGE

HUGETLB_COUNTS = {  # of a pool: metric -> its file, and what that counts
    "total_pages": ("nr_hugepages", "pages in the pool"),
    "free_pages": ("free_hugepages", "pages of the pool that nobody uses"),
    "reserved_pages": ("resv_hugepages", "pages promised to a mapping"),
    "surplus_pages": ("surplus_hugepages", "pages above the pool's size"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricPattern:
    """A family of metrics: how its names look, and how to describe one of them."""

    shape: str  # for people: thp_<N>kB_<stat>
    expression: re.Pattern[str]  # of the whole name
    describe: Callable[[re.Match[str]], Metric]
    example: str


def _thp(match: re.Match[str]) -> Metric:
    return thp_stat(int(match[1]), match[2])


def _hugetlb(match: re.Match[str]) -> Metric:
    file, meaning = HUGETLB_COUNTS[match[2]]
    return Metric(
        name=match[0],
        unit="pages",
        kind=_G,
        source=f"/sys/kernel/mm/hugepages/hugepages-{match[1]}kB/{file}",
        meaning=meaning,
    )


def _buddy(match: re.Match[str]) -> Metric:
    return Metric(
        name=match[0],
        unit="blocks",
        kind=_G,
        source="/proc/buddyinfo, all zones",
        meaning=f"free blocks of 2^{match[1]} base pages; read at period boundaries",
        page=CataloguePage.BASE,
    )


def _pageblocks(match: re.Match[str]) -> Metric:
    return Metric(
        name=match[0],
        unit="pageblocks",
        kind=_G,
        source="/proc/pagetypeinfo, all zones",
        meaning=f"pageblocks of the migrate type {match[1]}; read at period boundaries",
        page=CataloguePage.BASE,
    )


def _event_time(match: re.Match[str]) -> Metric:
    what = "was wanted" if match[3] == "enabled" else "was really counted"
    return Metric(
        name=match[0],
        unit="seconds",
        kind=_C,
        source=f"perf_event_open {match[1]} time_{match[3]}",
        meaning=f"time in which {match[1]} {what}, summed over CPUs",
        owner=Owner.PERF,
    )


def _cgroup_event(match: re.Match[str]) -> Metric:
    whole = CATALOGUE[match[1]]
    return Metric(
        name=match[0],
        unit=whole.unit,
        kind=_C,
        source=f"{whole.source} of the cgroup",
        meaning=whole.meaning.replace("all CPUs", "the cgroup's tasks on all CPUs"),
        better=whole.better,
        owner=Owner.PERF,
    )


_EVENT = f"({'|'.join(EVENT_NAMES)})"

PATTERNS: tuple[MetricPattern, ...] = (
    MetricPattern(
        shape="thp_<N>kB_<stat>",
        expression=re.compile(r"thp_([1-9]\d*)kB_(?!backed_bytes$|fallback_share$)([a-z][a-z0-9_]*)"),
        describe=_thp,
        example="thp_64kB_anon_fault_alloc",
    ),
    MetricPattern(
        shape="hugetlb_<N>kB_{total,free,reserved,surplus}_pages",
        expression=re.compile(rf"hugetlb_([1-9]\d*)kB_({'|'.join(HUGETLB_COUNTS)})"),
        describe=_hugetlb,
        example="hugetlb_1048576kB_free_pages",
    ),
    MetricPattern(
        shape="buddyinfo_order<K>_free_blocks",
        expression=re.compile(r"buddyinfo_order(\d+)_free_blocks"),
        describe=_buddy,
        example="buddyinfo_order9_free_blocks",
    ),
    MetricPattern(
        shape="pageblocks_<migrate type>",
        expression=re.compile(r"pageblocks_([a-z][a-z0-9_]*)"),
        describe=_pageblocks,
        example="pageblocks_unmovable",
    ),
    MetricPattern(
        shape="cgroup_<event>",
        expression=re.compile(f"cgroup_{_EVENT}"),
        describe=_cgroup_event,
        example="cgroup_context_switches",
    ),
    MetricPattern(
        shape="[cgroup_]<event>_time_{enabled,running}_seconds",
        expression=re.compile(f"((?:cgroup_)?{_EVENT})_time_(enabled|running)_seconds"),
        describe=_event_time,
        example="dtlb_load_misses_time_running_seconds",
    ),
)
