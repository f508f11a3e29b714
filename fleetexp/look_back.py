"""A run as it would have been analysed at an earlier moment: what had been read by then, and an honest interval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from analysis import analyze
from analysis.aggregate import FIGURES
from analysis.plan import AnalysisPlan
from analysis.results import Findings
from fleetexp.config import analysis_plan, recall_experiment
from fleetexp.design import assigned_units
from fleetexp.domain import Design, EventKind, PeriodKind, PeriodState, Plan
from fleetexp.errors import RunError
from fleetexp.meanings import meanings_of
from fleetexp.orchestrator.observe import observations
from fleetexp.store.records import PeriodReadings, RunRecord, Series
from fleetexp.store.store import Store

if TYPE_CHECKING:
    from pandas import DataFrame

_AT_A_TIME = 200  # periods whose readings are cut with one query


@dataclass(frozen=True, slots=True, kw_only=True)
class LookBack:
    """What the data showed at `at`. `stage` (from 0) where that was a planned look; `words` say what this is."""

    at: datetime
    stage: int | None
    planned: bool
    whole: bool  # everything had been measured: the analysis is the run's own
    words: str
    findings: Findings
    observations: DataFrame
    periods: DataFrame


def look_back(store: Store, run_id: int, moment: datetime | int) -> LookBack:
    """Analyse a run as of an instant, or as of the end of a stage (from 0).

    A stage's end is a planned look: alpha is spent. Any other instant was not planned: confidence sequences. RunError
    where nothing had begun by then, or the stage has not ended.
    """
    record = store.run(run_id)
    stage = moment if isinstance(moment, int) else None
    at = _stage_end(store, record, moment) if isinstance(moment, int) else moment
    every = store.periods_frame(run_id)
    if not (every["started_at"] <= at).any():
        began = every["started_at"].dropna()
        remedy = "nothing has been measured yet" if began.empty else f"it began at {began.min():%F %T} UTC"
        raise RunError(f"run {run_id} had measured nothing at {at:%Y-%m-%d %H:%M:%S} UTC", "--as-of", remedy)
    periods = _periods_at(every, at)
    experiment = recall_experiment(record.spec_text, run_id)
    cut = None
    if record.plan.design is Design.PARALLEL:
        cut = _cut_observations(store, run_id, periods, at, experiment.counters)
    rows, periods = _rows_at(store, run_id, periods, cut)
    plan = analysis_plan(experiment, assigned_units(record.plan))
    whole = _is_whole(every, at)
    looked = plan if whole else _early(plan, record.plan, stage)
    planned = not whole and not looked.unplanned_look
    words = _words(record, at, stage, planned=planned, whole=whole)
    meanings = meanings_of(store, run_id, [metric.name for metric in looked.metrics])
    findings = analyze(rows, looked, periods, meanings=meanings)
    findings = replace(findings, reason=f"{words} {findings.reason}", warnings=(words, *findings.warnings))
    return LookBack(
        at=at,
        stage=stage,
        planned=planned,
        whole=whole,
        words=words,
        findings=findings,
        observations=rows,
        periods=periods,
    )


def information_fractions(plan: Plan) -> tuple[float | None, ...]:
    """Planned share of the last look's information at each stage's end; None where an arm has no host yet.

    The information of a comparison of arms of n and m hosts goes with nm / (n + m), of a switchback with its hosts.
    """
    amounts = [_information(plan, stage.index) for stage in plan.stages]
    last = amounts[-1] if amounts else 0.0
    return tuple(None if amount == 0 or last == 0 else amount / last for amount in amounts)


def _information(plan: Plan, stage: int) -> float:
    joined = [unit.arm for unit in plan.units if unit.stage <= stage]
    if plan.design is Design.SWITCHBACK:
        return float(len(joined))
    control = joined.count(plan.control)
    sizes = [joined.count(arm.name) for arm in plan.arms if arm.name != plan.control]
    return min((control * size / (control + size) if control + size else 0.0 for size in sizes), default=0.0)


def _early(plan: AnalysisPlan, design: Plan, stage: int | None) -> AnalysisPlan:
    """The plan of an early look: at a stage that can be compared alpha is spent, else nothing was planned."""
    fractions = information_fractions(design)
    if stage is None or fractions[stage] is None:
        return replace(plan, unplanned_look=True)
    shares = [share for share in fractions if share is not None]
    if any(later <= earlier for earlier, later in pairwise(shares)):
        return replace(plan, unplanned_look=True)
    look = sum(share is not None for share in fractions[:stage])
    return replace(plan, information_fractions=tuple(shares), look=look)


def _stage_end(store: Store, record: RunRecord, stage: int) -> datetime:
    """When a stage ended: when the next one opened, the last one with the run."""
    stages = len(record.plan.stages)
    where = f"run {record.run_id}"
    if not 0 <= stage < stages:
        raise RunError(f"{where} has {stages} stages, no stage {stage + 1}", "--as-of", f"name 1 to {stages}")
    if stage == stages - 1:
        if record.ended_at is None:
            raise RunError(f"stage {stage + 1} has not ended", where, "name an instant, or wait for the end")
        return record.ended_at
    for event in store.events(record.run_id, kinds=[EventKind.STAGE_OPENED]):
        if event.stage == stage + 1:
            return event.at
    raise RunError(f"stage {stage + 1} has not ended", where, "name an earlier stage, or an instant")


def _periods_at(every: DataFrame, at: datetime) -> DataFrame:
    """The schedule as it was known: what began later was planned, what ended later was running, repeats unknown."""
    started = every["started_at"] <= at
    known = every[started | (every["attempt"] == 0)].copy()
    begun = known["started_at"] <= at
    running = begun & ~(known["ended_at"] <= at)
    known.loc[~begun, "state"] = PeriodState.PLANNED.value
    known.loc[running, "state"] = PeriodState.RUNNING.value
    known.loc[~begun | running, ["reason", "broken_by"]] = ""
    known["seconds"] = known["seconds"].where(~running, (at - known["started_at"]).dt.total_seconds())
    known["seconds"] = known["seconds"].where(begun)
    return known


def _is_whole(every: DataFrame, at: datetime) -> bool:
    measured = every[every["kind"] == PeriodKind.MEASURE.value]
    return bool((measured["ended_at"] <= at).all())


def _rows_at(store: Store, run_id: int, periods: DataFrame, cut: DataFrame | None) -> tuple[DataFrame, DataFrame]:
    """Observations of the periods that were complete, and of those that ran, up to the cut; these count as complete."""
    import pandas as pd  # noqa: PLC0415 - half a second

    stored = store.observations(run_id)
    complete = set(periods.loc[periods["state"] == PeriodState.COMPLETE.value, "period_id"])
    rows = stored[stored["period_id"].isin(complete)]
    if cut is None or cut.empty:
        return rows, periods
    used = periods["period_id"].isin(cut["period_id"])
    periods = periods.assign(state=periods["state"].where(~used, PeriodState.COMPLETE.value))
    parts = [part for part in (rows, cut[rows.columns]) if not part.empty]
    return pd.concat(parts, ignore_index=True), periods


def _cut_observations(
    store: Store, run_id: int, periods: DataFrame, at: datetime, counters: frozenset[str]
) -> DataFrame:
    """Summarise what had been read of the periods that were under way."""
    import pandas as pd  # noqa: PLC0415

    kinds = [PeriodKind.BASELINE.value, PeriodKind.MEASURE.value]
    running = periods[(periods["state"] == PeriodState.RUNNING.value) & periods["kind"].isin(kinds)]
    of = running.set_index("period_id")
    out: list[dict[str, object]] = []
    for numbers in _pieces([int(number) for number in of.index]):
        taken = store.samples(run_id, period_ids=numbers)
        taken = taken[taken["taken_at"] <= at]
        limits = taken.groupby("period_id")["boottime_seconds"].max().to_dict()
        for number in numbers:
            found = observations(_until(store.period_readings(number), limits.get(number, -np.inf), at), counters)
            about = {**{str(key): value for key, value in of.loc[number].items()}, "period_id": number}
            for metric, summary in found.items():
                out.append({**about, "metric": metric, **{name: getattr(summary, name) for name in FIGURES}})
    return pd.DataFrame(out)


def _until(readings: PeriodReadings, boottime: float, at: datetime) -> PeriodReadings:
    def before(series: Series, limit: float) -> Series:
        kept = series.seconds <= limit
        return Series(seconds=series.seconds[kept], values=series.values[kept])

    limits = ((readings.samples, boottime), (readings.measured, at.timestamp()))
    samples, measured = (
        {name: short for name, series in of.items() if (short := before(series, limit)).seconds.size}
        for of, limit in limits
    )
    return PeriodReadings(period_id=readings.period_id, samples=samples, measured=measured)


def _pieces(numbers: Sequence[int]) -> Iterator[list[int]]:
    for first in range(0, len(numbers), _AT_A_TIME):
        yield list(numbers[first : first + _AT_A_TIME])


def _words(record: RunRecord, at: datetime, stage: int | None, *, planned: bool, whole: bool) -> str:
    when = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    where = f"the end of stage {stage + 1} ({when})" if stage is not None else when
    start = f"LOOKING BACK at run {record.run_id} as of {where}"
    if whole:
        return f"{start}: everything had been measured by then, this is the whole run."
    if planned:
        return f"{start}, a planned look: alpha is spent, this is NOT the run's result."
    return f"{start}, no planned look: an interval that holds at every moment, this is NOT the run's result."
