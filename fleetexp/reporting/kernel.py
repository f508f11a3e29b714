"""What the kernel did with big pages, read from a run: exposure, fault latencies, success by circumstance, splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from agents.catalogue import CATALOGUE, Owner
from analysis.report.content import (
    ExposureRow,
    LatencyRow,
    MappingSplits,
    SplitCauseRow,
    SplitsCounted,
    StallRow,
    SuccessRow,
    SupplyRow,
)
from analysis.report.shares import ClusterSums, success_interval
from analysis.results import Units
from fleetexp.reporting import queries
from fleetexp.reporting.queries import CIRCUMSTANCES, Band, Circumstance
from fleetexp.store.records import RunRecord
from fleetexp.store.store import Store

if TYPE_CHECKING:
    from pandas import DataFrame

_BANDS = 3
_FEWEST_FOR_BANDS = 6  # different values of a circumstance
LATENCIES = tuple(
    name
    for name, metric in CATALOGUE.items()
    if metric.owner is Owner.WORKLOAD and metric.unit == "seconds" and ("fault" in name or "acquire" in name)
)


def exposure(store: Store, record: RunRecord, sizes_kib: Sequence[int], found: dict[int, str]) -> Iterator[ExposureRow]:
    """What was asked for against what was received: assigned to an arm is not backed by its pages."""
    if not sizes_kib:
        return
    sums = {
        (str(arm), int(size)): figures
        for arm, size, *figures in store.select(queries.exposure(record.run_id, sizes_kib))
    }
    for arm in record.plan.arms:
        for size in sizes_kib:
            faulted, fallbacks, _, _, splits, backed = map(_known, sums.get((arm.name, size), [None] * 6))
            yield ExposureRow(
                arm=arm.name,
                page_size_kib=size,
                assigned=arm.knobs.get(f"thp/{size}kB/enabled", f"as found ({found.get(size, 'not known')})"),
                faulted_pages=faulted,
                fallbacks=fallbacks,
                splits=splits,
                backed_bytes=backed,
            )


def exposure_of(
    measured: DataFrame, record: RunRecord, sizes_kib: Sequence[int], found: dict[int, str]
) -> Iterator[ExposureRow]:
    """The same from observations in memory: those of an earlier moment."""
    for arm in record.plan.arms:
        own = measured[measured["arm"] == arm.name]
        for size in sizes_kib:
            backed = own.loc[own["metric"] == f"thp_{size}kB_backed_bytes", "mean"]
            yield ExposureRow(
                arm=arm.name,
                page_size_kib=size,
                assigned=arm.knobs.get(f"thp/{size}kB/enabled", f"as found ({found.get(size, 'not known')})"),
                faulted_pages=_total(own, f"thp_{size}kB_anon_fault_alloc"),
                fallbacks=_total(own, f"thp_{size}kB_anon_fault_fallback"),
                splits=_total(own, f"thp_{size}kB_split"),
                backed_bytes=float(backed.mean()) if len(backed) else None,
            )


def _total(rows: DataFrame, metric: str) -> float | None:
    """A counter over all periods, as the kernel counted it; None where it was not read."""
    own = rows.loc[rows["metric"] == metric, "rise"]
    return float(own.sum()) if len(own) else None


def _known(value: Any) -> float | None:  # noqa: ANN401 - a figure as the database gives it
    return None if value is None else float(value)


def latencies(store: Store, run_id: int) -> Iterator[LatencyRow]:
    """How long the workload's faults took; nothing where no workload timed any."""
    for metric, arm, readings, p50, p99, maximum in store.select(queries.latencies(run_id, LATENCIES)):
        yield LatencyRow(
            metric=str(metric),
            arm=str(arm),
            unit="seconds",
            readings=int(readings),
            p50=float(p50),
            p99=float(p99),
            maximum=float(maximum),
        )


def mapping_splits(store: Store, run_id: int) -> Iterator[MappingSplits]:
    """How many mappings of big pages the kernel split; nothing where no host counts them."""
    for arm, metric, splits, _ in store.select(queries.mapping_splits(run_id)):
        if splits is not None:
            yield MappingSplits(arm=str(arm), metric=str(metric), splits=float(splits))


def split_causes(store: Store, run_id: int) -> Iterator[SplitCauseRow]:
    """Who had big pages split and why; nothing where no splits were traced."""
    for arm, metric, cause, program, splits, timed, seconds in store.select(queries.split_causes(run_id)):
        yield SplitCauseRow(
            arm=str(arm),
            metric=str(metric),
            cause=str(cause),
            program=str(program),
            splits=float(splits),
            timed=float(timed),
            seconds_lost=_known(seconds),
        )


def splits_counted(store: Store, run_id: int) -> Iterator[SplitsCounted]:
    """What was traced against what the kernel's counters say of the same periods."""
    for arm, metric, traced, counted in store.select(queries.splits_counted(run_id)):
        yield SplitsCounted(arm=str(arm), metric=str(metric), traced=float(traced), counted=_known(counted))


def stalls(store: Store, run_id: int) -> Iterator[StallRow]:
    """What kept programs waiting; nothing where no stalls were traced."""
    for arm, function, program, calls, seconds, longest in store.select(queries.stalls(run_id)):
        yield StallRow(
            arm=str(arm),
            function=str(function),
            program=str(program),
            calls=float(calls),
            seconds_lost=_known(seconds),
            longest_seconds=_known(longest),
        )


def supplies(store: Store, record: RunRecord) -> Iterator[SupplyRow]:
    """What each arm's workload asked for and got, the arms in the plan's order; nothing where none counts its pages."""
    by_arm = {str(arm): list(map(_known, figures)) for arm, *figures in store.select(queries.supply(record.run_id))}
    for arm in record.plan.arms:
        asked, given, p50, p99, maximum, region, used = by_arm.get(arm.name, [None] * 7)
        workload = record.plan.workloads.get(arm.name)
        if asked and given is not None and workload is not None:
            size = workload.options.get("page_size_kib", 0)
            yield SupplyRow(
                arm=arm.name,
                page_size_kib=size if isinstance(size, int) else 0,
                asked=asked,
                given=given,
                p50=p50,
                p99=p99,
                maximum=maximum,
                region_seconds=region,
                memory_used_bytes=used,
            )


def bands(store: Store, run_id: int, sizes_kib: Sequence[int]) -> list[tuple[int, Circumstance, Band]]:
    """Cut each circumstance into ranges with as many periods each; one range where it hardly varies."""
    out = []
    for size in sizes_kib:
        for what in CIRCUMSTANCES:
            rows = store.select(queries.asked_and_given(run_id, size, what))
            values = sorted(float(value) for *_, value in rows if value is not None)
            out += [(size, what, band) for band in _cut(values)]
    return out


def _cut(values: list[float]) -> list[Band]:
    if not values:
        return []
    if len(set(values)) < _FEWEST_FOR_BANDS:
        return [Band(least=values[0], most=values[-1], last=True)]
    edges = sorted({values[0], *(values[len(values) * part // _BANDS] for part in range(1, _BANDS)), values[-1]})
    return [Band(least=low, most=high, last=high == edges[-1]) for low, high in pairwise(edges)]


CLUSTERS = {Units.HOSTS: "host", Units.PERIODS: "period_id"}  # what goes alike -> its column


def successes(
    store: Store, run_id: int, cut: Sequence[tuple[int, Circumstance, Band]], clustered_by: Units
) -> Iterator[SuccessRow]:
    """How many big pages were given of those asked for, in each range of each circumstance."""
    if not cut:
        return
    units = {what.name: what.unit for what in CIRCUMSTANCES}
    rows = store.select(queries.success(run_id, cut, CLUSTERS[clustered_by]))
    for _, size, circumstance, least, most, periods, asked, given, _, clusters, *squares in rows:
        asked_squared, given_squared, product = (float(value) for value in squares)
        sums = ClusterSums(
            clusters=int(clusters),
            asked=float(asked),
            given=float(given),
            asked_squared=asked_squared,
            given_squared=given_squared,
            product=product,
        )
        yield SuccessRow(
            page_size_kib=int(size),
            circumstance=str(circumstance),
            least=float(least),
            most=float(most),
            unit=units[str(circumstance)],
            periods=int(periods),
            asked=sums.asked,
            given=sums.given,
            clustered_by=clustered_by,
            clusters=sums.clusters,
            interval=success_interval(sums),
        )
