"""Looking at a run's data: at the end of a stage, while hosts go on measuring, and at the end of the run.

The planned looks are the ends of the stages; the information that each has is taken as the share of the plan's hosts
that have joined by then. The estimates are means over hosts, and hosts differ by more than one host's own readings
do, so that it is hosts that inform, not hours. The shares are fixed by the plan: hosts that are lost on the way change
how precise a look is, never how much of alpha it may spend. A run that ends at no planned moment (an abort, a
tripwire, too many hosts lost) is looked at with intervals that hold at any moment.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from analysis import analyze
from analysis.errors import AnalysisError
from analysis.plan import AnalysisPlan, Crossing
from analysis.results import GuardrailResult, Verdict
from fleetexp.domain import EventKind, PeriodState, Plan
from fleetexp.meanings import meanings_of
from fleetexp.orchestrator.observe import observations
from fleetexp.store.store import Store

if TYPE_CHECKING:
    from pandas import DataFrame

    from analysis.meanings import Meanings

_BADNESS = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL)


def information_fractions(plan: Plan) -> tuple[float, ...]:
    """Return the share of the information that each stage's end has; they rise to 1."""
    return tuple(stage.hosts / plan.stages[-1].hosts for stage in plan.stages)


def analysis_at(analysis: AnalysisPlan, plan: Plan, stage: int | None) -> AnalysisPlan:
    """Return the plan of analysis for the look at the end of a stage, or (None) at a moment that nobody planned."""
    if stage is None:
        return replace(analysis, unplanned_look=True)
    return replace(analysis, information_fractions=information_fractions(plan), look=stage)


CALIBRATION_RUNS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """One run's analysis, at whatever moment."""

    store: Store
    run_id: int
    plan: Plan
    analysis: AnalysisPlan
    now: Callable[[], datetime]
    counters: frozenset[str] = frozenset()  # among the metrics of the user's own
    verdicts: dict[str, str] = field(default_factory=dict)  # guardrail's metric -> what its last test said

    def analyse(self, stage: int | None) -> None:
        """Estimate from all complete periods and store the findings; where that can't be done, an event says why."""
        from analysis.frame import figures_of  # noqa: PLC0415 - pandas takes half a second

        plan = analysis_at(self.analysis, self.plan, stage)
        measured = self.store.observations(self.run_id, figures=figures_of(plan))
        periods = self.store.periods_frame(self.run_id)
        try:
            findings = analyze(
                measured,
                plan,
                periods,
                self._crossings(),
                calibration_runs=CALIBRATION_RUNS,
                meanings=self._meanings(plan),
            )
        except AnalysisError as error:
            self.store.record_event(self.run_id, EventKind.ANALYSIS_FAILED, str(error), at=self.now())
            return
        self._note(findings.guardrails)
        look = None if stage is None else plan.look
        self.store.save_findings(self.run_id, findings, look=look, at=self.now())

    def test_guardrails(self, stage: int) -> Iterator[tuple[str, ...] | None]:
        """Test the guardrails on what has been read so far, running periods included, in slices (None: more to do).

        The last thing it yields are the breaches, after they and all other answers are stored. Guardrails that can't
        be tested count as breached: a stage never opens on an untested one.
        """
        plan = analysis_at(self.analysis, self.plan, stage)
        guarded = {guardrail.metric for guardrail in plan.guardrails}
        plan = replace(plan, metrics=tuple(metric for metric in plan.metrics if metric.name in guarded))
        measured, periods = yield from self._so_far(frozenset(guarded))
        try:
            checks = analyze(measured, plan, periods, self._crossings(), meanings=self._meanings(plan)).guardrails
        except AnalysisError as error:
            self.store.record_event(self.run_id, EventKind.GUARDRAIL_TEST_FAILED, str(error), at=self.now())
            yield (f"of stage {stage + 1} can't be tested: {error}",)
            return
        self._note(checks)
        self.store.save_guardrail_checks(self.run_id, checks, stage=stage, look=plan.look, at=self.now())
        yield tuple(f"{one.plan.metric}: {one.reason}" for one in checks if one.verdict is Verdict.FAIL)

    def _meanings(self, plan: AnalysisPlan) -> Meanings:
        return meanings_of(self.store, self.run_id, [metric.name for metric in plan.metrics])

    def _note(self, checks: Iterable[GuardrailResult]) -> None:
        """Keep the verdicts for those who watch; of one metric under several treatments, the worst."""
        worst: dict[str, Verdict] = {}
        for check in checks:
            before = worst.get(check.plan.metric, Verdict.PASS)
            worst[check.plan.metric] = max(before, check.verdict, key=_BADNESS.index)
        self.verdicts.update((metric, verdict.value) for metric, verdict in worst.items())

    def _so_far(self, metrics: frozenset[str]) -> Generator[None, None, tuple[DataFrame, DataFrame]]:
        """Gather the observations of complete periods, and of those that are being measured up to this moment."""
        import pandas as pd  # noqa: PLC0415 - it takes half a second

        store = self.store
        complete, periods = store.observations(self.run_id, sorted(metrics)), store.periods_frame(self.run_id)
        under_way = periods[(periods["state"] == PeriodState.RUNNING.value) & (periods["kind"] == "measure")]
        rows: list[dict[str, Any]] = []
        for period in under_way.to_dict("records"):
            found = observations(store.period_readings(int(period["period_id"])), self.counters)
            seconds = (self.now() - period["started_at"]).total_seconds()
            for metric in metrics & found.keys():
                known = {name: period[name] for name in complete.columns if name in period}
                rows.append({**known, "seconds": seconds, "metric": metric, **asdict(found[metric])})
            yield
        partial = pd.DataFrame(rows, columns=list(complete.columns))
        return (pd.concat([complete, partial], ignore_index=True) if rows else complete), periods

    def _crossings(self) -> tuple[Crossing, ...]:
        return self.store.crossings(self.run_id)
