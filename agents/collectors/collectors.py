"""The sampler: reads every source that does not disturb what it measures.

Never read: smaps, smaps_rollup, numa_maps, pagemap. Reading them splits the 1 GB pages of the process looked at.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from agents.catalogue.declared import added_collectors, own_collectors
from agents.catalogue.table import COUNTED_IN_CGROUPS, MEMINFO_KEYS, VMSTAT_KEYS
from agents.collectors.cgroup import cgroup_sources, find_cgroup
from agents.collectors.collector import Collector
from agents.collectors.fenced import FencedCollector
from agents.collectors.kernel_log import SICK_TAINTS, KernelLog, taint_names
from agents.collectors.notes import Notes, why
from agents.collectors.own_cost import OwnCost
from agents.collectors.pages import pool_files, thp_files, watched_sizes
from agents.collectors.parsers import (
    KeyedTable,
    more_than_there_is,
    parse_buddyinfo,
    parse_pagetypeinfo,
    parse_uptime,
)
from agents.collectors.sources import NumberFiles, ParsedFile, Source
from agents.messages import HostEventKind, MetricSource
from agents.numbers import whole_number
from agents.page_sizes import HUGETLB, THP, sizes_in
from agents.perf import ModelledCounters, PerfCounters, PerfEvent, open_counters
from agents.sysroot import Reader, SysRoot

_TAINTED = "proc/sys/kernel/tainted"


class Collectors:
    """Everything one host is sampled for. Not for several threads at once.

    A metric whose source is missing is absent from the sample, and `unavailable` says why; it is never 0.
    """

    def __init__(
        self,
        root: SysRoot,
        *,
        watch_sizes_kib: Sequence[int] = (),
        cgroup: str | None = None,
        events: Collection[str] = (),
        own_events: Collection[MetricSource] = (),
    ) -> None:
        """Open the sources. `watch_sizes_kib`: THP sizes read at each sample, beside the PMD size and 1 GiB.

        `cgroup` is a path below the hierarchy, or a whole path below /sys/fs/cgroup. `events` are metrics of perf
        events that are counted beside those that always are, `own_events` sources that are perf events.
        """
        self._root = root
        self._notes = Notes()
        watched = watched_sizes(root, watch_sizes_kib)
        self._rare_thp_sizes = tuple(size for size in sizes_in(root, THP) if size not in watched)
        pools = tuple(size for size in sizes_in(root, HUGETLB) if size in {*watched, *watch_sizes_kib})
        self._rare_pools = tuple(size for size in sizes_in(root, HUGETLB) if size not in pools)
        self._sources = self._open_sources({**thp_files(root, watched), **pool_files(root, pools)})
        self._rare_sources = self._open_collectors(rare=True)
        self._counters: list[PerfCounters | ModelledCounters] = [
            open_counters(root, wanted=events, own=_texts(own_events, in_cgroup=False), lost=self._notes.lost)
        ]
        own = _texts(own_events, in_cgroup=True)
        if cgroup is not None:
            self._open_cgroup(cgroup, events, own)
        elif own and root.real:
            self._notes.missing(list(own), "the workload has no cgroup")
        elif own:  # a model's workload has none, and counts all the same
            self._counters.append(ModelledCounters(root, (), own=own))
        self._log = KernelLog(root)
        self._tainted = self._open_taint()
        self._taint = self._read_taint() or 0
        self._oom_kills: float | None = None
        self._oom_kills_told: float | None = None
        self._oom_kills_told = self._oom_kills = self._collect_sources().get("oom_kills")
        self._notes.take_lost()  # what was never there has not gone away

    def _open_sources(self, numbers: Mapping[str, str]) -> list[Source]:
        root, notes = self._root, self._notes
        meminfo = KeyedTable(MEMINFO_KEYS, scale=1024.0, ending=":")
        sources: list[Source] = [
            ParsedFile(root, "proc/vmstat", KeyedTable(VMSTAT_KEYS), tuple(VMSTAT_KEYS.values()), notes),
            ParsedFile(root, "proc/meminfo", meminfo, tuple(MEMINFO_KEYS.values()), notes),
            ParsedFile(root, "proc/uptime", parse_uptime, ("cpu_idle_seconds",), notes),
            NumberFiles(root, numbers, notes),
        ]
        return [*sources, *self._open_collectors(rare=False), OwnCost(root, notes)]

    def _open_collectors(self, *, rare: bool) -> list[Source]:
        own = (one for one in own_collectors() if isinstance(one, Collector) and one.rare is rare)
        added = (one for one in added_collectors() if isinstance(one, Collector) and one.rare is rare)
        sources = [source for collector in own for source in collector.open(self._root, self._notes)]
        return [*sources, *(FencedCollector(collector, self._root, self._notes) for collector in added)]

    def _open_cgroup(self, name: str, events: Collection[str], own: Mapping[str, str]) -> None:
        places = find_cgroup(self._root, name)
        self._sources += cgroup_sources(self._root, places, self._notes)
        if places.perf is None and self._root.real:
            wanted = [metric for metric in events if metric.startswith("cgroup_")]
            names = [*(f"cgroup_{event}" for event in COUNTED_IN_CGROUPS), *wanted, *own]
            self._notes.missing(names, f"no cgroup {places.name!r} in a hierarchy with perf events")
            return
        folder = Path("/") / (places.perf or "")
        self._counters.append(
            open_counters(self._root, cgroup=folder, prefix="cgroup_", wanted=events, own=own, lost=self._notes.lost)
        )

    def _open_taint(self) -> Reader | None:
        try:
            return self._root.reader(_TAINTED)
        except OSError as error:
            self._notes.missing(["kernel_taint"], f"/{_TAINTED}: {why(error)}")
            return None

    # ------------------------------------------------------------------ reading
    def sample(self) -> dict[str, float]:
        """Read what is cheap, and costs the same under every arm: counters raw, levels in the metric's unit."""
        return self._sample(boundary=False)

    def _sample(self, *, boundary: bool) -> dict[str, float]:
        out = self._collect_sources()
        for counters in self._counters:
            counters.collect(out, boundary=boundary)
        self._oom_kills = out.get("oom_kills", self._oom_kills)
        return out

    def _collect_sources(self) -> dict[str, float]:
        """Return what the files say, without what can't be true; that is told once."""
        out: dict[str, float] = {}
        for source in self._sources:
            source.collect(out)
        for metric, reason in more_than_there_is(out).items():
            del out[metric]
            self._notes.doubted(metric, reason)
        return out

    def boundary(self) -> dict[str, float]:
        """Read a sample and what is too dear for one: every page size, fragmentation. Tries lost sources again."""
        for source in (*self._sources, *self._rare_sources):
            source.retry()
        out = self._sample(boundary=True)
        rare = {**thp_files(self._root, self._rare_thp_sizes), **pool_files(self._root, self._rare_pools)}
        for metric, path in rare.items():
            try:
                out[metric] = float(whole_number(self._root.read(path)))
            except (OSError, ValueError) as error:
                self._notes.missing([metric], f"/{path}: {why(error)}")
        for family, path, parse in (
            ("buddyinfo", "proc/buddyinfo", parse_buddyinfo),
            ("pageblocks", "proc/pagetypeinfo", parse_pagetypeinfo),
        ):
            try:
                parse(self._root.read(path), out)
                self._notes.found([family])
            except (OSError, ValueError) as error:
                self._notes.missing([family], f"/{path}: {why(error)}")
        for source in self._rare_sources:
            source.collect(out)
        self._notes.found(out)
        return out

    def events(self) -> list[tuple[HostEventKind, str]]:
        """Return what happened since the last call that is not a number."""
        found = self._log.events()
        if (flags := self._read_taint()) is not None and (fresh := flags & ~self._taint):
            found += [(HostEventKind.TAINT, name) for name in taint_names(fresh & SICK_TAINTS)]
            found += [(HostEventKind.KERNEL_CHANGED, name) for name in taint_names(fresh & ~SICK_TAINTS)]
            self._taint |= fresh
        told, now = self._oom_kills_told, self._oom_kills
        if told is not None and now is not None and now > told:
            found.append((HostEventKind.OOM_KILL, f"oom_kill rose by {now - told:.0f}, from {told:.0f} to {now:.0f}"))
        self._oom_kills_told = now
        found += [(HostEventKind.SOURCE_LOST, sentence) for sentence in self._notes.take_lost()]
        return found

    def _read_taint(self) -> int | None:
        if self._tainted is None:
            return None
        try:
            return whole_number(self._tainted.read())
        except (OSError, ValueError):
            return None

    # ------------------------------------------------------------------ what there is
    @property
    def unavailable(self) -> Mapping[str, str]:
        """Metric or family -> why it is not in the samples."""
        reasons = dict(self._notes.unavailable)
        for counters in self._counters:
            reasons.update(counters.unavailable)
        if self._log.unavailable:
            reasons["kernel_log"] = self._log.unavailable
        return reasons

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that one `sample` reads."""
        perf = (counters.paths for counters in self._counters if isinstance(counters, PerfCounters))
        return tuple(itertools.chain(*(source.paths for source in self._sources), *perf))

    @property
    def counted(self) -> tuple[tuple[PerfEvent, int], ...]:
        """The perf events that one `sample` counts, each with its CPU."""
        return tuple(itertools.chain(*(one.counted for one in self._counters if isinstance(one, PerfCounters))))

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What one `sample` reads of them."""
        return tuple(itertools.chain(*(one.descriptors for one in self._counters if isinstance(one, PerfCounters))))

    def close(self) -> None:
        """Close every descriptor; more than once does no harm."""
        for source in (*self._sources, *self._rare_sources):
            source.close()
        for counters in self._counters:
            counters.close()
        self._log.close()
        if self._tainted is not None:
            self._tainted.close()
            self._tainted = None


def _texts(sources: Collection[MetricSource], *, in_cgroup: bool) -> dict[str, str]:
    return {source.metric: source.perf for source in sources if source.in_cgroup is in_cgroup}
