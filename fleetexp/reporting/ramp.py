"""The fleet over time, read from a run: stages, who was assigned what, series of the metrics, doses of the hosts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agents.catalogue import describe, is_known
from analysis.plan import AnalysisPlan, Role
from analysis.report.content import AssignedRow, DoseRow, Doses, SeriesRow, StageRow
from fleetexp.reporting import queries
from fleetexp.store.records import RunRecord
from fleetexp.store.store import Store

if TYPE_CHECKING:
    from pandas import DataFrame

_SHOWN = (Role.PRIMARY, Role.GUARDRAIL, Role.SECONDARY, Role.EXPOSURE)
MOST_SERIES = 6


def stages(store: Store, record: RunRecord) -> Iterator[StageRow]:
    """The steps of the ramp as planned, and when each opened; nothing for an import, which had none."""
    if not record.plan.stages:
        return
    start = min((period.started_at for period in store.periods(record.run_id) if period.started_at), default=None)
    for stage, hosts, opened, *_ in store.select(queries.stages(record.run_id)):
        planned = record.plan.stages[int(stage)]
        at = _instant(opened)
        yield StageRow(
            index=int(stage),
            hosts=int(hosts),
            hold_seconds=planned.hold_seconds,
            approve=planned.approve,
            opened_seconds=None if at is None or start is None else max(0.0, (at - start).total_seconds()),
        )


def assigned(store: Store, run_id: int) -> Iterator[AssignedRow]:
    """How many hosts each arm was given in each stratum and stage, and how many of them were measured."""
    for stage, stratum, arm, hosts, measured in store.select(queries.assigned(run_id)):
        yield AssignedRow(
            stage=int(stage), stratum=str(stratum), arm=str(arm), hosts=int(hosts), measured=int(measured)
        )


def measured_seconds(store: Store, run_id: int) -> dict[str, float]:
    """For each arm, the time that was measured and used, over all its hosts."""
    return {str(arm): float(seconds) for arm, seconds in store.select(queries.measured_seconds(run_id)) if seconds}


def series(store: Store, record: RunRecord, plan: AnalysisPlan) -> Iterator[SeriesRow]:
    """The metrics that decide, over time; nothing where the arms alternate in time on each host."""
    if plan.design != "parallel":
        return
    names = [metric.name for role in _SHOWN for metric in plan.metrics if metric.role is role]
    for name in list(dict.fromkeys(names))[:MOST_SERIES]:
        planned = next(metric for metric in plan.metrics if metric.name == name)
        by_arm: dict[str, list[tuple[float, float]]] = {}
        for arm, second, mean in store.series(record.run_id, name, counter=planned.counter):
            by_arm.setdefault(arm, []).append((second, mean))
        if all(mean == 0 for points in by_arm.values() for _, mean in points):
            continue  # the tables say 0, and a picture says no more
        for arm, points in by_arm.items():
            yield SeriesRow(
                metric=name,
                unit=planned.unit,
                arm=arm,
                seconds=tuple(second for second, _ in points),
                means=tuple(mean for _, mean in points),
            )


def doses(plan: AnalysisPlan, measured: DataFrame) -> Doses | None:
    """Each host's dose and outcome; None where the design has no hosts of their own, or no dose was read."""
    if plan.design != "parallel":
        return None
    primary = next((metric for metric in plan.metrics if metric.role is Role.PRIMARY), None)
    if primary is None:
        return None
    for dose in (metric for metric in plan.metrics if metric.role is Role.EXPOSURE):
        rows = measured[measured["metric"].isin([dose.name, primary.name])]
        wide = rows.pivot_table(index=["host", "arm"], columns="metric", values="mean", aggfunc="mean").reset_index()
        if dose.name not in wide or primary.name not in wide:
            continue
        wide = wide.dropna(subset=[dose.name, primary.name])
        unit = describe(dose.name).unit if is_known(dose.name) else dose.unit
        return Doses(
            dose_metric=dose.name,
            dose_unit=unit,
            outcome_metric=primary.name,
            outcome_unit=primary.unit,
            hosts=tuple(
                DoseRow(host=str(host), arm=str(arm), dose=float(amount), outcome=float(value))
                for host, arm, amount, value in wide[["host", "arm", dose.name, primary.name]].itertuples(index=False)
            ),
        )
    return None


def _instant(value: object) -> datetime | None:
    if value is None or isinstance(value, datetime):
        return value
    found = datetime.fromisoformat(str(value))
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
