"""Guardrails: was harm beyond the margin ruled out, shown, or neither? No data never passes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.effect import Bounds
from analysis.frame import metric_label
from analysis.inference import Inference
from analysis.look import guardrail_look
from analysis.plan import AnalysisPlan, Crossing, Direction, GuardrailPlan, MetricPlan, Role
from analysis.results import Estimate, GuardrailResult, Interval, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a guardrail's metric showed for one treatment.

    `inference` None says that too few units were watched for a claim; `bounds` are the ends had what is missing been
    at its worst; `still` that every unit of both arms read one and the same value.
    """

    estimate: Estimate | None
    inference: Inference | None
    bounds: Bounds | None = None
    still: bool = False
    worst: float | None = None  # the worst that any treated unit reached; None: it was never read
    units: int = 0
    mixed: str = ""  # why the metric is not estimated: hosts counted different things
    unresolved: float | None = None  # how wide the bucket is that the metric never left under either arm, if so
    later: tuple[Verdict, str] | None = None  # of the later half of the measured time alone, where harm clearly grew


def margin_verdict(
    guardrail: GuardrailPlan, estimate: Estimate | None, bounds: Interval | None, completed: Interval | None = None
) -> tuple[Verdict, str]:
    """Judge a relative margin from the lift's set at level 1 - 2 alpha: each end is a one-sided bound at alpha.

    Pass: the whole set is on the good side of the margin, and so is `completed`, the set had what is missing been at
    its worst. Fail: the whole set is beyond it. Else, and for an unbounded set, no estimate or a control mean that is
    not positive: inconclusive.
    """
    margin = guardrail.margin
    if margin is None:
        raise ValueError("a guardrail without a margin has no margin to be judged by")
    if estimate is None or estimate.control_mean is None:
        return Verdict.INCONCLUSIVE, "No relative change could be estimated."
    if estimate.control_mean <= 0:
        return Verdict.INCONCLUSIVE, "A relative margin needs a positive control mean; use a tripwire."
    if bounds is None or not bounds.bounded or bounds.low is None or bounds.high is None:
        return Verdict.INCONCLUSIVE, "The relative change has no bounded interval."
    up = guardrail.worse is Direction.INCREASE
    best, worst = (bounds.low, bounds.high) if up else (-bounds.high, -bounds.low)
    harm = f"{'An' if up else 'A'} {guardrail.worse.value} of {margin * 100:.3g} % or more"
    confidence = f"at {(1 + bounds.level) / 2:.4g} one-sided"
    if best > margin:
        return Verdict.FAIL, f"{harm} is shown {confidence} (bound {best * 100:+.1f} %)."
    if worst >= margin:
        reach = f"{best * 100:+.1f} % to {worst * 100:+.1f} %"
        return Verdict.INCONCLUSIVE, f"{harm} is neither ruled out nor shown ({reach})."
    if completed is not None:
        end = completed.high if up else completed.low
        if not completed.bounded or end is None or (end if up else -end) >= margin:
            return Verdict.INCONCLUSIVE, f"{harm} is ruled out by what was seen, but not by what could not be."
    return Verdict.PASS, f"{harm} is ruled out {confidence} (bound {worst * 100:+.1f} %)."


def tripwire_verdict(
    guardrail: GuardrailPlan, worst: float | None, enough: bool, crossings: Sequence[Crossing] = ()
) -> tuple[Verdict, str]:
    """Judge an absolute limit from the worst value that any treated unit reached; None: it was never read.

    `crossings` are those of treated units that were taken out for it: what they measured is not among the rest.
    """
    limit = guardrail.tripwire
    if limit is None:
        raise ValueError("a guardrail without a tripwire has none to be crossed")
    if crossings:
        more = f", and on {len(crossings) - 1} more" if len(crossings) > 1 else ""
        return Verdict.FAIL, f"The tripwire was crossed on {crossings[0].host}: {crossings[0].detail}{more}."
    if worst is None:
        return Verdict.INCONCLUSIVE, "No data: the metric was not read under the treatment."
    crossed = worst >= limit if guardrail.worse is Direction.INCREASE else worst <= limit
    if crossed:
        return Verdict.FAIL, f"The tripwire {limit:g} was reached: {worst:g}."
    if not enough:
        return Verdict.INCONCLUSIVE, f"Not reached ({worst:g}, limit {limit:g}), but too few units were watched."
    return Verdict.PASS, f"The tripwire {limit:g} was not reached: at worst {worst:g}."


def judge(
    guardrail: GuardrailPlan,
    treatment: str,
    evidence: Evidence,
    plan: AnalysisPlan,
    crossings: Sequence[Crossing] = (),
) -> GuardrailResult:
    """Join a guardrail's answers (its later half's, its margin's, its tripwire's): the first of the worst counts."""
    answers = []
    if guardrail.margin is not None:
        if evidence.later is not None and evidence.unresolved is None:
            answers.append(evidence.later)
        answers.append(_by_margin(guardrail, evidence, plan))
    if guardrail.tripwire is not None:
        own = [one for one in crossings if (one.metric, one.arm) == (guardrail.metric, treatment)]
        answers.append(tripwire_verdict(guardrail, evidence.worst, evidence.inference is not None, own))
    rank = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)
    verdict, reason = min(answers, key=lambda answer: rank.index(answer[0]))
    return GuardrailResult(
        plan=guardrail, treatment=treatment, verdict=verdict, estimate=evidence.estimate, reason=reason
    )


def _by_margin(guardrail: GuardrailPlan, evidence: Evidence, plan: AnalysisPlan) -> tuple[Verdict, str]:
    inference, bounds = evidence.inference, evidence.bounds
    if evidence.mixed:
        return Verdict.INCONCLUSIVE, f"No change was estimated: {evidence.mixed}."
    if evidence.unresolved is not None and guardrail.margin is not None and evidence.estimate is not None:
        mean = abs(evidence.estimate.control_mean or 0.0)
        if evidence.unresolved > guardrail.margin * mean:
            return Verdict.INCONCLUSIVE, "It never left one bucket of its histogram, which is wider than the margin."
    if inference is not None and evidence.still and bounds is None and evidence.estimate is not None:
        return Verdict.PASS, f"Every unit of both arms read {evidence.estimate.control_mean:g}: nothing moved."
    look = guardrail_look(plan, evidence.units, sum(unit.arm is not None for unit in plan.units) or None)
    if inference is None or look.blind:
        return margin_verdict(guardrail, evidence.estimate, None)
    found = inference.lift_interval(look.level)
    if bounds is None:
        return margin_verdict(guardrail, evidence.estimate, found)
    worst = bounds.high if guardrail.worse is Direction.INCREASE else bounds.low
    unbounded = Interval(low=None, high=None, level=look.level)
    return margin_verdict(guardrail, evidence.estimate, found, worst.lift_interval(look.level) or unbounded)


def with_guardrail_metrics(plan: AnalysisPlan) -> tuple[MetricPlan, ...]:
    """The plan's metrics, and those that only a guardrail names."""
    named = {metric.name for metric in plan.metrics}
    extra = dict.fromkeys(guardrail.metric for guardrail in plan.guardrails if guardrail.metric not in named)
    return (*plan.metrics, *(MetricPlan(name=name, unit="", role=Role.GUARDRAIL) for name in extra))


def decisive(plan: AnalysisPlan, metrics: Iterable[MetricPlan]) -> tuple[str, ...]:
    """Name, among these metrics, those that a decision reads: the primary, the guarded ones, the parts of the trade."""
    names = {guardrail.metric for guardrail in plan.guardrails}
    names |= {plan.trade.throughput, plan.trade.memory} if plan.trade is not None else set()
    return tuple(metric_label(one) for one in metrics if one.role is Role.PRIMARY or one.name in names)


def worst_value(rows: pd.DataFrame, metric: MetricPlan, treatment: str, worse: Direction) -> float | None:
    """The worst that any host reached under the treatment: a counter's total, else the worst single reading."""
    own = rows[rows["metric"] == metric.name]
    own = own[(own["kind"] == "measure") & (own["arm"] == treatment)]
    if own.empty:
        return None
    up = worse is Direction.INCREASE
    if metric.counter:
        nearly = own["mean"] * own["seconds"]  # where the count itself was not kept
        totals = (own["rise"].fillna(nearly) if "rise" in own.columns else nearly).groupby(own["host"]).sum()
        return float(totals.max() if up else totals.min())
    column = "maximum" if up else "minimum"
    source = own[column] if column in own.columns else own["mean"]
    return float(source.max() if up else source.min())
