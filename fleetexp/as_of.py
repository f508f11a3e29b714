"""A run as it would have been analysed at an earlier moment: what had been read by then, and an honest interval."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from analysis import analyze
from analysis.results import Findings
from fleetexp.control.interim_analysis import Measured, analysis_at
from fleetexp.control.metric_meanings import meanings_of
from fleetexp.control.period_halves import with_halves
from fleetexp.domain import EventKind, Origin, PeriodKind, PeriodState
from fleetexp.errors import RunError
from fleetexp.experiment import analysis_plan, recall_experiment
from fleetexp.experiment.schedule import assigned_units
from fleetexp.simulated import is_simulated
from fleetexp.store.records import RunRecord
from fleetexp.store.store import Store

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisAsOf:
    """What the data showed at `at`. `stage` (from 0) where that was a planned look; `words` say what this is."""

    at: datetime
    stage: int | None
    planned: bool
    whole: bool  # everything had been measured: the analysis is the run's own
    words: str
    findings: Findings
    observations: DataFrame
    periods: DataFrame


def analysed_as_of(store: Store, run_id: int, moment: datetime | int) -> AnalysisAsOf:
    """Analyse a run as of an instant, or as of the end of a stage (from 0).

    A stage's end is a planned look: alpha is spent. Any other instant was not planned: confidence sequences. RunError
    where nothing had begun by then, or the stage has not ended.
    """
    record = store.run(run_id)
    if record.origin is Origin.IMPORT:
        raise RunError(f"run {run_id} was imported whole", "--as-of", "import the earlier data by themselves")
    stage = moment if isinstance(moment, int) else None
    at = (_stage_end(store, record, moment) if isinstance(moment, int) else moment).astimezone(UTC)
    every = store.periods_frame(run_id)
    if not (every["started_at"] <= at).any():
        began = every["started_at"].dropna()
        remedy = "nothing has been measured yet" if began.empty else f"it began at {began.min():%F %T} UTC"
        raise RunError(f"run {run_id} had measured nothing at {at:%Y-%m-%d %H:%M:%S} UTC", "--as-of", remedy)
    periods = _periods_at(every, at)
    experiment = recall_experiment(record.spec_text, run_id)
    apart = {} if is_simulated(record.fleet) else experiment.apart_at_most
    measured = Measured(store=store, run_id=run_id, plan=record.plan, counters=experiment.counters, apart=apart)
    rows, periods = _all_of(measured.by(at, periods, past=True))
    plan = analysis_plan(experiment, assigned_units(record.plan))
    whole = _is_whole(every, at)
    looked = plan if whole else analysis_at(plan, record.plan, stage)
    planned = not whole and not looked.unplanned_look
    words = _words(record, at, stage, planned=planned, whole=whole)
    meanings = meanings_of(store, run_id, [metric.name for metric in looked.metrics])
    halved = with_halves(rows, looked, periods, store=store, counters=experiment.counters, until=at)
    findings = analyze(halved, looked, periods, meanings=meanings)
    findings = replace(findings, reason=f"{words} {findings.reason}", warnings=(words, *findings.warnings))
    return AnalysisAsOf(
        at=at,
        stage=stage,
        planned=planned,
        whole=whole,
        words=words,
        findings=findings,
        observations=rows,
        periods=periods,
    )


def _all_of(slices: Generator[None, None, tuple[DataFrame, DataFrame]]) -> tuple[DataFrame, DataFrame]:
    while True:
        try:
            next(slices)
        except StopIteration as end:
            found: tuple[DataFrame, DataFrame] = end.value
            return found


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


def _words(record: RunRecord, at: datetime, stage: int | None, *, planned: bool, whole: bool) -> str:
    when = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    where = f"the end of stage {stage + 1} ({when})" if stage is not None else when
    start = f"LOOKING BACK at run {record.run_id} as of {where}"
    if whole:
        return f"{start}: everything had been measured by then, this is the whole run."
    if planned:
        return f"{start}, a planned look: alpha is spent, this is NOT the run's result."
    return f"{start}, no planned look: an interval that holds at every moment, this is NOT the run's result."
