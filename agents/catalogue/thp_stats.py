"""The counters that the kernel keeps for each transparent-huge-page size."""

from __future__ import annotations

from collections.abc import Mapping

from agents.catalogue.metric import Better, Metric, MetricKind

# stat file -> (unit, meaning, better); a stat not listed here is still collected
_THP_STATS: Mapping[str, tuple[str, str, Better | None]] = {
    "anon_fault_alloc": ("pages", "pages of this size given at an anonymous fault", None),
    "anon_fault_fallback": ("faults", "faults that wanted this size and got a smaller one", "decrease"),
    "anon_fault_fallback_charge": ("faults", "of these, refused by a memory cgroup", "decrease"),
    "nr_anon": ("pages", "anonymous pages of this size now", None),
    "nr_anon_partially_mapped": ("pages", "of these, only partly mapped", "decrease"),
    "split": ("pages", "folios of this size split", "decrease"),
    "split_failed": ("attempts", "splits that failed", "decrease"),
    "split_deferred": ("pages", "partly unmapped folios queued for a split", "decrease"),
    "swpin": ("pages", "swapped in whole", None),
    "swpin_fallback": ("pages", "could not be swapped in whole", "decrease"),
    "swpin_fallback_charge": ("pages", "of these, refused by a memory cgroup", "decrease"),
    "swpout": ("pages", "swapped out whole", "decrease"),
    "swpout_fallback": ("pages", "split to be swapped out", "decrease"),
    "zswpout": ("pages", "swapped out whole to zswap", "decrease"),
    "shmem_alloc": ("pages", "pages of this size given to shared memory", None),
    "shmem_fallback": ("faults", "shared-memory requests that got a smaller size", "decrease"),
    "shmem_fallback_charge": ("faults", "of these, refused by a memory cgroup", "decrease"),
}


def thp_stat(size_kib: int, stat: str, *, column: bool = False) -> Metric:
    """Describe one per-size counter file; `nr_*` are levels, the rest only rise."""
    unit, meaning, better = _THP_STATS.get(stat, ("count", f"{stat.replace('_', ' ')}, as this kernel counts it", None))
    return Metric(
        name=f"thp_{size_kib}kB_{stat}",
        unit=unit,
        kind=MetricKind.GAUGE if stat.startswith("nr_") else MetricKind.COUNTER,
        source=f"/sys/kernel/mm/transparent_hugepage/hugepages-{size_kib}kB/stats/{stat}",
        meaning=meaning,
        column=column,
        better=better,
    )
