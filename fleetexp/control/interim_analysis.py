"""What is known of a run by now: at the end of a stage, at the end of the run, or looking back at any moment.

The planned looks are the ends of the stages, each with its share of the information that the last one will have. The
information of an estimate is 1 / Var: nm / (n + m) for arms of n and m hosts, the number of hosts for a switchback.
Hosts differ by more than one host's own readings do, so that it is hosts that inform, not hours: a stage at which
nobody joins is the same look once more. The shares are fixed by the plan: hosts that are lost on the way change how
precise a look is, never how much of alpha it may spend. A moment that nobody planned (an abort, a tripwire, too many
hosts lost, a stage at which some arm has no host yet) is looked at with intervals that hold at any moment.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

from analysis import analyze
from analysis.errors import AnalysisError
from analysis.plan import AnalysisPlan, Crossing
from analysis.results import GuardrailResult, Verdict
from fleetexp.control.messages import GuardrailsTested
from fleetexp.control.metric_meanings import meanings_of
from fleetexp.control.observations import mostly_read, observations, observe
from fleetexp.control.period_halves import with_halves
from fleetexp.domain import Design, EventKind, PeriodKind, PeriodState, Plan
from fleetexp.store.store import Store

if TYPE_CHECKING:
    from pandas import DataFrame

    from analysis.meanings import Meanings

_BADNESS = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL)
_READ = (PeriodKind.BASELINE.value, PeriodKind.MEASURE.value)


# ------------------------------------------------------------------ which look this is
def information_fractions(plan: Plan) -> tuple[float | None, ...]:
    """Return the share of the last look's information that each stage's end has; None where an arm has no host yet."""
    amounts = [_information(plan, stage.index) for stage in plan.stages]
    return tuple(amount / amounts[-1] if amount else None for amount in amounts)


def _information(plan: Plan, stage: int) -> float:
    joined = [unit.arm for unit in plan.units if unit.stage <= stage]
    if plan.design is Design.SWITCHBACK:
        return float(len(joined))
    control = joined.count(plan.control)
    sizes = [joined.count(arm.name) for arm in plan.arms if arm.name != plan.control]
    return min(control * size / (control + size) if size else 0.0 for size in sizes)


def planned_looks(plan: Plan) -> tuple[float, ...]:
    """Return the information of the planned looks, rising to 1: stages that add none share one."""
    return tuple(sorted({share for share in information_fractions(plan) if share is not None}))


def analysis_at(analysis: AnalysisPlan, plan: Plan, stage: int | None) -> AnalysisPlan:
    """Return the plan of analysis for the look at the end of a stage, or (None) at a moment that nobody planned.

    All hosts are in before the last stage is over where it adds none: only its end is the run's own look.
    """
    share = None if stage is None else information_fractions(plan)[stage]
    if share is None or (share == 1.0 and stage != len(plan.stages) - 1):
        return replace(analysis, unplanned_look=True)
    looks = planned_looks(plan)
    return replace(analysis, information_fractions=looks, look=looks.index(share))


# ------------------------------------------------------------------ what has been measured
@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a run has measured; `counters` are those among the metrics of the user's own.

    `elsewhere`: those that are read from a metrics' server. `apart`: as of `mostly_read`.
    """

    store: Store
    run_id: int
    plan: Plan
    counters: frozenset[str] = frozenset()
    elsewhere: frozenset[str] = frozenset()
    apart: Mapping[str, float] = field(default_factory=dict)

    def by(
        self, at: datetime, periods: DataFrame, *, metrics: Sequence[str] | None = None, past: bool = False
    ) -> Generator[None, None, tuple[DataFrame, DataFrame]]:
        """Gather observations of complete periods, and of those under way up to `at`, in slices (None: more to do).

        `periods` are those known then; one that was cut off counts as complete in those that are returned. A block of a
        switchback counts whole or not at all, so that nothing of it is cut. `past`: later readings are stored as well.
        """
        import pandas as pd  # noqa: PLC0415 - half a second

        stored = self.store.observations(self.run_id, metrics)
        complete = periods.loc[periods["state"] == PeriodState.COMPLETE.value, "period_id"]
        rows = stored[stored["period_id"].isin(complete)]
        cut: list[dict[str, object]] = []
        running = periods[(periods["state"] == PeriodState.RUNNING.value) & periods["kind"].isin(_READ)]
        under_way = running.to_dict("records") if self.plan.design is Design.PARALLEL else []
        for period in under_way:
            readings = self.store.period_readings(int(period["period_id"]))
            if past:
                readings = readings.between(until=at)
            about = {str(key): value for key, value in period.items()}
            about["seconds"] = (at - period["started_at"]).total_seconds()
            readings = mostly_read(readings, self.counters, self.apart)
            for metric, summary in observations(readings, self.counters).items():
                if metrics is None or metric in metrics:
                    cut.append({**about, "metric": metric, **asdict(summary)})
            yield
        if not cut:
            return rows, periods
        partial = pd.DataFrame(cut)[list(rows.columns)]
        used = periods["period_id"].isin(partial["period_id"])
        periods = periods.assign(state=periods["state"].where(~used, PeriodState.COMPLETE.value))
        return pd.concat([part for part in (rows, partial) if not part.empty], ignore_index=True), periods


# ------------------------------------------------------------------ looks of a run under way
CALIBRATION_RUNS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class InterimAnalyst:
    """The analyses of a run under way: the guardrails at the end of a stage, everything at its own end."""

    measured: Measured
    analysis: AnalysisPlan
    now: Callable[[], datetime]
    verdicts: dict[str, str] = field(default_factory=dict)  # guardrail's metric -> what its last test said

    def observe(self, period_ids: Sequence[int]) -> None:
        """Sum up periods that have ended."""
        of = self.measured
        observe(of.store, period_ids, of.counters, elsewhere=of.elsewhere, apart=of.apart)

    def analyse(self, stage: int | None) -> None:
        """Estimate from all complete periods and store the findings; where that can't be done, an event says why."""
        from analysis.frame import figures_of  # noqa: PLC0415 - pandas takes half a second

        store, run_id = self.measured.store, self.measured.run_id
        plan = analysis_at(self.analysis, self.measured.plan, stage)
        rows = store.observations(run_id, figures=figures_of(plan))
        periods = store.periods_frame(run_id)
        rows = with_halves(rows, plan, periods, store=store, counters=self.measured.counters)
        try:
            findings = analyze(
                rows,
                plan,
                periods,
                self._crossings(),
                calibration_runs=CALIBRATION_RUNS,
                meanings=self._meanings(plan),
            )
        except AnalysisError as error:
            store.record_event(run_id, EventKind.ANALYSIS_FAILED, str(error), at=self.now())
            return
        self._note(findings.guardrails)
        store.save_findings(run_id, findings, look=_number(plan), at=self.now())

    def test_guardrails(self, stage: int, unread: frozenset[str]) -> Iterator[GuardrailsTested | None]:
        """Test the guardrails on what has been read so far, running periods included, in slices (None: more to do).

        The last thing it yields is what was found, after all answers are stored. Guardrails that can't be tested count
        as breached: a stage never opens on an untested one. `unread` are the metrics of which a metrics' server did not
        give everything: a guardrail on one of them that is open for it is named, and so is one that is open and was
        read on less than half of an arm's hosts.
        """
        store, run_id = self.measured.store, self.measured.run_id
        plan = analysis_at(self.analysis, self.measured.plan, stage)
        guarded = {guardrail.metric for guardrail in plan.guardrails}
        plan = replace(plan, metrics=tuple(metric for metric in plan.metrics if metric.name in guarded))
        periods = store.periods_frame(run_id)
        ends = {end for metric in plan.metrics for end in (metric.at_least, metric.at_most) if end}
        rows, periods = yield from self.measured.by(self.now(), periods, metrics=sorted(guarded | ends))
        try:
            checks = analyze(rows, plan, periods, self._crossings(), meanings=self._meanings(plan)).guardrails
        except AnalysisError as error:
            store.record_event(run_id, EventKind.GUARDRAIL_TEST_FAILED, str(error), at=self.now())
            yield GuardrailsTested(stage=stage, breaches=(f"of stage {stage + 1} can't be tested: {error}",))
            return
        self._note(checks)
        store.save_guardrail_checks(run_id, checks, stage=stage, look=_number(plan), at=self.now())
        still_open = {one.plan.metric for one in checks if one.verdict is Verdict.INCONCLUSIVE}
        silent = {metric for metric in (still_open & guarded) - unread if _silent(rows, periods, metric)}
        yield GuardrailsTested(
            stage=stage,
            breaches=tuple(f"{one.plan.metric}: {one.reason}" for one in checks if one.verdict is Verdict.FAIL),
            unread=tuple(sorted(still_open & unread)),
            silent=tuple(sorted(silent)),
        )

    def _meanings(self, plan: AnalysisPlan) -> Meanings:
        return meanings_of(self.measured.store, self.measured.run_id, [metric.name for metric in plan.metrics])

    def _note(self, checks: Iterable[GuardrailResult]) -> None:
        """Keep the verdicts for those who watch; of one metric under several treatments, the worst."""
        worst: dict[str, Verdict] = {}
        for check in checks:
            before = worst.get(check.plan.metric, Verdict.PASS)
            worst[check.plan.metric] = max(before, check.verdict, key=_BADNESS.index)
        self.verdicts.update((metric, verdict.value) for metric, verdict in worst.items())

    def _crossings(self) -> tuple[Crossing, ...]:
        return self.measured.store.crossings(self.measured.run_id)


def _silent(rows: DataFrame, periods: DataFrame, metric: str) -> bool:
    """Whether less than half of the hosts that have been measured under some arm have a value of a metric."""
    begun = periods[(periods["kind"] == PeriodKind.MEASURE.value) & periods["started_at"].notna()]
    read = rows[(rows["kind"] == PeriodKind.MEASURE.value) & (rows["metric"] == metric) & rows["mean"].notna()]
    hosts, heard = (frame.groupby("arm")["host"].nunique() for frame in (begun, read))
    return bool((heard.reindex(hosts.index, fill_value=0) * 2 < hosts).any())


def _number(plan: AnalysisPlan) -> int | None:
    """Which planned look this is, None where it is none."""
    return None if plan.unplanned_look else plan.look
