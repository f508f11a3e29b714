"""An import from its tables to its findings: gathered, entered in one transaction, analysed as its design allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from agents.messages import Arm
from agents.versions import version_of
from analysis import analyze
from analysis.description import described
from analysis.errors import BadObservations
from analysis.odd_series import refuse_unit_jump, rising_warnings, unmeasured_warnings
from analysis.results import Findings
from fleetexp.domain import Design, DriftPolicy, PeriodKind, Plan, Safety, UnitPlan
from fleetexp.errors import DataRefused
from fleetexp.experiment.mapping import (
    TAKEN_ON_TRUST,
    ImportMapping,
    Layout,
    WrittenMapping,
    mapping_to_json,
    recall_mapping,
)
from fleetexp.experiment.schedule import assigned_units
from fleetexp.imports.gather import MICROSECONDS, Gathered, Gathering
from fleetexp.imports.tables import SourceTable
from fleetexp.process_identity import this_process
from fleetexp.store.imported import ImportedPeriods, ImportedRun, ImportedSums
from fleetexp.store.store import Store

if TYPE_CHECKING:
    from pandas import DataFrame

_NEVER_CHANGED = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOutcome:
    """What was entered, and what it shows. `skipped`: metrics of the data that the mapping does not name."""

    run_id: int
    design: Design
    hosts: int
    periods: int
    rows: int
    values: int
    sums: int
    skipped: tuple[str, ...]
    findings: Findings


def import_tables(tables: Iterable[SourceTable], written: WrittenMapping, store: Store) -> ImportOutcome:
    """Read tables to their end, enter them as one run, and analyse it.

    Nothing is written before everything was read and found right, and then all of it in one transaction. DataRefused
    and ConfigError name the place and the remedy; StoreError where the same was imported before.
    """
    gathering = Gathering(written)
    for table in tables:
        gathering.read(table)
    gathered = gathering.finish()
    mapping = written.mapping
    said = tuple(_odd(gathered, mapping))
    periods, sums = _scheduled(gathered, written)
    plan = _plan(gathered, mapping)
    findings = findings_of(*_frames(plan, periods, sums, mapping.metrics.names), mapping, plan)
    findings = replace(findings, warnings=(*findings.warnings, *said))
    with store.together():
        run_id = store.import_run(
            ImportedRun(
                plan=plan,
                experiment=mapping.name,
                hypothesis=mapping.hypothesis,
                mapping_text=written.text,
                mapping=mapping_to_json(mapping),
                launched_by=this_process(),
                versions={name: version_of(name) for name in ("fleetexp", "pyarrow", "numpy")},
                changed={
                    host: _at(changed)
                    for host, changed in zip(gathered.hosts, gathered.changed, strict=True)
                    if changed is not None
                },
                sources=gathered.sources,
                metrics=mapping.metrics.names,
                periods=periods,
                sums=sums,
            )
        )
        store.save_findings(run_id, findings)
    return ImportOutcome(
        run_id=run_id,
        design=mapping.design,
        hosts=len(gathered.hosts),
        periods=periods.measured.size,
        rows=gathered.rows,
        values=gathered.values,
        sums=len(sums.period),
        skipped=tuple(gathered.skipped),
        findings=findings,
    )


def findings_of(observations: DataFrame, periods: DataFrame, mapping: ImportMapping, plan: Plan) -> Findings:
    """Analyse an import: as an experiment where chance decided; else what was measured is described, and no more.

    What a rollout that nobody drew does bear is asked of its `panel`.
    """
    asked = mapping.analysis_plan(assigned_units(plan))
    if asked.design == Design.RETROSPECTIVE.value:
        return described(observations, asked, periods)
    findings = analyze(observations, asked, periods)
    return replace(findings, warnings=(TAKEN_ON_TRUST, *findings.warnings))


def _odd(gathered: Gathered, mapping: ImportMapping) -> Iterator[str]:
    """Say what the series show that nobody asked of them; DataRefused where a metric changes its unit."""
    if mapping.layout is Layout.PER_HOST:
        return
    sums, length = gathered.sums, round(mapping.period * MICROSECONDS)
    buckets, column = np.unique(sums.bucket, return_inverse=True)
    began = buckets * length
    yield from unmeasured_warnings(began, began + length)
    labels = [f"{at} UTC" for at in began.astype("datetime64[us]").astype("datetime64[s]")]
    source = ", ".join(one.name for one in gathered.sources)
    for place, metric in enumerate(mapping.metrics.names):
        mine = sums.column == place
        values = np.full((len(gathered.hosts), len(buckets)), np.nan)
        values[sums.key[mine], column[mine]] = sums.mean[mine]
        try:
            refuse_unit_jump(metric, values, gathered.hosts, labels, source)
        except BadObservations as error:
            raise DataRefused(error.what, error.where, error.remedy) from error
        yield from rising_warnings([(metric, values)])


def _frames(
    plan: Plan, periods: ImportedPeriods, sums: ImportedSums, metrics: Sequence[str]
) -> tuple[DataFrame, DataFrame]:
    """Observations and periods as the store hands them out: analysed before they are stored, which then is quick."""
    import pandas as pd  # noqa: PLC0415 - half a second

    frame = pd.DataFrame(periods.columns([unit.host for unit in plan.units])).infer_objects()
    frame.insert(0, "period_id", np.arange(1, len(frame) + 1))
    rows = frame.drop(columns=["state", "reason", "broken_by"]).take(sums.period).reset_index(drop=True)
    names = pd.Series(metrics).array.take(sums.metric)
    return rows.assign(metric=names, mean=sums.figures["mean"]), frame


def panel(store: Store, run_id: int) -> DataFrame:
    """Return an import as a panel: one row a host, period and metric, as `analysis.retrospective` takes it.

    Columns host, period (whole numbers, rising in time), started_at, ended_at, metric, value (the period's mean),
    treated_from (the instant of the host's change, UTC; missing for hosts that never were) and settled_from (from when
    its values count after that). A host without any value has one row with none.
    """
    import pandas as pd  # noqa: PLC0415 - half a second

    record = store.run(run_id)
    settle = pd.Timedelta(recall_mapping(record.spec_text, run_id).settle, "s")
    rows = store.observations(run_id, figures=["mean"])
    silent = {unit.host for unit in record.plan.units}.difference(rows["host"])
    rows = pd.concat([rows, *(rows[:1].assign(host=host, mean=np.nan) for host in sorted(silent))], ignore_index=True)
    spans = store.periods_frame(run_id).set_index("period_id").loc[rows["period_id"]]
    treated_from = rows["host"].map(pd.Series(store.changed_at(run_id), dtype="datetime64[us, UTC]"))
    return pd.DataFrame(
        {
            "host": rows["host"],
            "period": rows["position"],
            "started_at": spans["started_at"].to_numpy(),
            "ended_at": spans["ended_at"].to_numpy(),
            "metric": rows["metric"],
            "value": rows["mean"],
            "treated_from": treated_from,
            "settled_from": treated_from + settle,
        }
    )


def _plan(gathered: Gathered, mapping: ImportMapping) -> Plan:
    """The plan as far as an import has one: who was in which arm. Nothing was scheduled, no knob was named."""
    return Plan(
        design=mapping.design,
        seed=mapping.seed,
        arms=tuple(Arm(name=name, knobs={}) for name in mapping.arm_names),
        control=mapping.control,
        units=tuple(
            UnitPlan(host=host, stratum=stratum, arm=arm, stage=0, periods=())
            for host, arm, stratum in zip(gathered.hosts, gathered.arms, gathered.strata, strict=True)
        ),
        stages=(),
        sample_every_seconds=mapping.period,
        safety=Safety(max_failed_hosts=0, lease_seconds=0.0, on_drift=DriftPolicy.INVALIDATE),
    )


# ------------------------------------------------------------------ periods
@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """When hosts were changed, in microseconds: before `first` none is, from `settled` on all are. None: no change."""

    first: int | None
    settled: int | None

    def kind(self, begins: int, ends: int) -> PeriodKind:
        if self.first is None or self.settled is None or begins >= self.settled:
            return PeriodKind.MEASURE
        return PeriodKind.BASELINE if ends <= self.first else PeriodKind.WASHOUT


def _scheduled(gathered: Gathered, written: WrittenMapping) -> tuple[ImportedPeriods, ImportedSums]:
    """Every host's periods over the time that the data reach; those without any value are kept, as not measured."""
    mapping, sums = written.mapping, gathered.sums
    buckets = np.unique(sums.bucket)
    timed = mapping.layout is not Layout.PER_HOST
    length = round(mapping.period * MICROSECONDS)
    begins = buckets * length
    known = [at for at in gathered.changed if at is not None]
    settle = round(mapping.settle * MICROSECONDS)
    change = _Change(first=min(known, default=None), settled=max(known) + settle if known else None)
    kinds = [change.kind(begin, begin + length) for begin in begins.tolist()]
    if PeriodKind.MEASURE not in kinds:
        written.refuse(
            ("settle",) if settle else ("period",),
            "no period lies wholly after the last change",
            "sum up over shorter periods, bring later data, or settle for less",
        )
    column = np.searchsorted(buckets, sums.bucket)
    measured = np.zeros((len(gathered.hosts), len(buckets)), np.bool_)
    measured[sums.key, column] = True
    changed = np.array([_NEVER_CHANGED if at is None else at for at in gathered.changed])
    not_yet = (begins < changed[:, np.newaxis]) & [kind is not PeriodKind.MEASURE for kind in kinds]
    periods = ImportedPeriods(
        seconds=mapping.period,
        kinds=kinds,
        spans=[(_at(begin), _at(begin + length)) if timed else (None, None) for begin in begins.tolist()],
        arms=np.where(not_yet, mapping.control, np.array(gathered.arms, dtype=object)[:, np.newaxis]),
        measured=measured,
    )
    period = sums.key * len(buckets) + column
    rank = np.argsort(np.argsort(mapping.metrics.names))
    order = np.argsort(period * len(rank) + rank[sums.column])  # once, as the analysis and the store's key have it
    figures = {"n": sums.n, "mean": sums.mean, **sums.spread._asdict()}
    return periods, ImportedSums(
        period=period[order],
        metric=sums.column[order],
        figures={name: figure[order] for name, figure in figures.items()},
    )


def _at(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / MICROSECONDS, UTC)
