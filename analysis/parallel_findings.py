"""A parallel design's findings: hosts as units, every assigned host in the count, the decision for the fleet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd

from analysis.attrition import attrition_check, loss_guardrail, missing_check
from analysis.blocks import broken_periods
from analysis.calibration import calibration_check
from analysis.decision import Case, concluded
from analysis.effect import Effect
from analysis.errors import NotEnoughData
from analysis.estimates import estimate, no_estimate
from analysis.exposure_rows import exposure_rows
from analysis.fading import Fading, Growing, Halves, fading_of, growing_harms, host_halves
from analysis.frame import metric_label
from analysis.guardrails import Evidence, decisive, judge, with_guardrail_metrics, worst_value
from analysis.halves import cut_at_their_middles, cut_in_halves
from analysis.headline import Headline, Redraws, headline, linearised
from analysis.hosts import HostTable, TwoArms
from analysis.inference import MIN_HOSTS
from analysis.look import Look, guardrail_look, look_at
from analysis.meanings import mixed_words
from analysis.missing import Gaps, bounds_of, gaps_of, trimmed
from analysis.multiplicity import AdjustedTest, adjusted
from analysis.observer import observer_effects
from analysis.plan import AnalysisPlan, Crossing, Direction, Estimand, GuardrailPlan, MetricPlan, Role
from analysis.resolution import Resolutions
from analysis.results import Check, Estimate, EstimateKind, Findings, GuardrailResult, Interval, Missing, Scope
from analysis.sensitivity import bare, randomisation_row, sensitivity_rows, stratum_rows
from analysis.srm import ratio_check, spread_check
from analysis.strata import StratumEffects, judged_strata
from analysis.trade import trades_of
from analysis.validation import finite_checks, finite_estimates
from analysis.welch import welch

PRE_PERIOD_ALARM = 0.001
CLAIMS = (Role.PRIMARY, Role.SECONDARY, Role.GUARDRAIL)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Metrics:
    """What every metric's estimate is made from."""

    plan: AnalysisPlan
    table: HostTable
    redraws: Redraws
    weighed: frozenset[str]  # metrics whose gaps are bounded: a decision reads them
    planned: int | None  # hosts that will have an arm; None: the plan names none


@dataclass(frozen=True, slots=True, kw_only=True)
class _MetricEffect:
    """One metric for one treatment: the headline and what it rests on, rows beside it."""

    effect: Effect
    still: bool = False
    rows: tuple[Estimate, ...] = ()
    checks: tuple[Check, ...] = ()
    strata: StratumEffects | None = None


def parallel_findings(
    observations: pd.DataFrame,
    plan: AnalysisPlan,
    periods: pd.DataFrame | None,
    warnings: tuple[str, ...] = (),
    crossings: Sequence[Crossing] = (),
    *,
    calibration_runs: int = 0,
    mixed: Mapping[str, tuple[str, ...]] | None = None,
) -> Findings:
    """Answer a parallel design from checked observations. `mixed`: labels not estimated, and their meanings."""
    mixed = mixed or {}
    table = HostTable(observations, plan, periods)
    metrics = with_guardrail_metrics(plan)
    treatments = [arm for arm in plan.arms if arm != plan.control]
    planned = sum(unit.arm is not None for unit in plan.units) or None
    base = _Metrics(
        plan=plan, table=table, redraws=Redraws(plan=plan), weighed=frozenset(decisive(plan, metrics)), planned=planned
    )
    said = list(warnings)
    if table.misplaced:
        said.append(f"measured under another arm than assigned, counted as assigned: {', '.join(table.misplaced)}")
    found: dict[tuple[str, str], _MetricEffect] = {}
    missing_checks: list[Check] = []
    missing: dict[str, list[Missing]] = {treatment: [] for treatment in treatments}
    for metric in metrics:
        for treatment in treatments:
            label = metric_label(metric)
            if label in mixed:
                continue
            sample = table.two_arms(metric, treatment)
            gaps = gaps_of(table, sample, metric) if label in base.weighed else None
            if gaps is not None and gaps.any:
                missing_checks.append(missing_check(label, treatment, gaps))
                missing[treatment] += gaps.missing(label)
            if min(sample.sizes) == 0:
                said.append(f"{label}, {treatment}: unavailable, {_who_lacks(sample)}")
            else:
                found[label, treatment] = _metric_effect(sample, metric, gaps, base)
    effects = adjusted(
        {key: AdjustedTest(row=one.effect.estimate, inference=one.effect.inference) for key, one in found.items()},
        plan.alpha,
    )
    fine = Resolutions(observations, plan, {metric_label(metric): metric for metric in metrics})
    effects = {key: fine.told(row) for key, row in effects.items()}
    found = {key: replace(one, effect=replace(one.effect, estimate=effects[key])) for key, one in found.items()}
    primary = next((metric for metric in metrics if metric.role is Role.PRIMARY), None)
    shared = () if primary is None else mixed.get(metric_label(primary), ())
    pairs = [] if primary is None or shared else list(_pairwise(primary, treatments, base))
    halves = dict(_halves(base, found, observations, periods))
    fading = {
        treatment: fading_of(one.effect, halves[metric_label(primary), treatment], primary, plan.alpha)
        for treatment in treatments
        if primary is not None and (one := _of(found, primary, treatment)) is not None
    }
    growing = growing_harms(
        plan,
        {key: one.effect for key, one in found.items()},
        halves,
        {metric_label(metric): metric for metric in metrics},
    )
    by_halves: list[Fading | Growing] = [*fading.values(), *growing.values()]
    estimates = finite_estimates(
        (
            *(row for one in found.values() for row in (one.effect.estimate, *one.rows)),
            *dict.fromkeys(row for one in by_halves for row in one.rows),
            *pairs,
        )
    )
    guardrails = (
        *_guardrails(metrics, treatments, found, observations, plan, crossings, mixed, fine, growing),
        *_losses(table, treatments, plan),
    )
    checks = finite_checks(
        (
            ratio_check(table.counts(plan.arms), plan.odds),
            *_spread(table, plan),
            *_crossovers(table),
            *_attrition(table, treatments, plan),
            *missing_checks,
            *(check for one in found.values() for check in one.checks),
            *observer_effects(list(effects.values())),
            *((calibration_check(observations, plan, calibration_runs),) if calibration_runs and not shared else ()),
        )
    )
    trades = trades_of(plan, {key: one.effect for key, one in found.items()})
    cases = [
        Case(
            treatment=treatment,
            primary=None if (one := _of(found, primary, treatment)) is None else one.effect,
            scope=scope_of(observations, table, primary, treatment, plan),
            guardrails=tuple(rail for rail in guardrails if rail.treatment == treatment),
            trade=next((trade for trade in trades if trade.treatment == treatment), None),
            strata=None if one is None else one.strata,
            missing=tuple(missing[treatment]),
            mixed=shared,
            unresolved=None if primary is None else fine.unresolved(metric_label(primary), (plan.control, treatment)),
            fading=fading.get(treatment),
            growing=tuple(one for (_, arm), one in growing.items() if arm == treatment),
            stratum_rows=() if one is None else tuple(row for row in one.rows if row.kind is EstimateKind.STRATUM),
        )
        for treatment in treatments
    ]
    told_apart = [row for row in pairs if fine.unresolved(row.metric, (row.control, row.treatment)) is None]
    concluded_by = concluded(plan, cases, checks, told_apart)
    return Findings(
        decision=concluded_by.decision,
        reason=concluded_by.sentence,
        estimates=estimates,
        guardrails=guardrails,
        checks=(*checks, *finite_checks(one.check for one in by_halves)),
        contrasts=(),
        excluded=broken_periods(periods),
        alpha=plan.alpha,
        warnings=tuple(said),
        trades=trades,
        arms=concluded_by.arms,
        preference=concluded_by.preference,
    )


def _metric_effect(sample: TwoArms, metric: MetricPlan, gaps: Gaps | None, base: _Metrics) -> _MetricEffect:
    """Estimate one metric, with as many rows beside it as its role deserves."""
    plan = base.plan
    labelled = replace(metric, name=metric_label(metric))
    few = min(sample.sizes) < MIN_HOSTS
    too_few = (
        f"{sample.sizes[0]} + {sample.sizes[1]} hosts of at least {MIN_HOSTS} + {MIN_HOSTS}: "
        "nothing is called significant"
    )
    look = look_at(plan, metric.role, sample.y.size, base.planned)
    if min(sample.sizes) < 2:
        control, treated = sample.arms(sample.y)
        alone = no_estimate(
            labelled,
            treatment=sample.treatment,
            control=sample.control,
            estimand=metric.estimand,
            method="Welch t",
            sizes=sample.sizes,
            means=(float(control.mean()), float(treated.mean())),
            reason=too_few,
        )
        return _MetricEffect(effect=Effect(estimate=alone, inference=None, look=look, few=True))
    found = headline(sample, metric, base.redraws, claims=metric.role in CLAIMS)
    main = estimate(
        found.inference,
        labelled,
        look,
        treatment=sample.treatment,
        control=sample.control,
        estimand=metric.estimand,
        method=found.method,
        withhold_p=few,
        warnings=(*((too_few,) if few else ()), *found.warnings, *look.warnings),
    )
    bounds = None if gaps is None or few else bounds_of(gaps, metric, base.redraws)
    effect = Effect(
        estimate=main,
        inference=None if few else found.inference,
        look=look,
        bounds=bounds,
        few=few,
    )
    rows: list[Estimate] = []
    checks: list[Check] = []
    strata = None
    if not few and metric.role in CLAIMS:
        if (drawn := randomisation_row(main, sample, found, base.redraws, look)) is not None:
            rows.append(drawn)
        if metric.role is Role.PRIMARY:
            rows += _worst_case_rows(effect, gaps)
            strata = _strata(sample, metric, found, look, base)
        if metric.role is Role.PRIMARY and metric.estimand != Estimand.FLEET_RATIO:
            rows += sensitivity_rows(main, sample, labelled, plan, look)
            per_stratum, agreement = stratum_rows(main, sample, labelled, plan, look, judged=strata)
            rows += per_stratum
            checks += [agreement] if agreement is not None else []
            checks += _before_check(sample, labelled)
            rows += exposure_rows(main, sample, plan=plan, table=base.table, look=look)
    return _MetricEffect(
        effect=effect,
        still=bool(np.ptp(sample.y) == 0),
        rows=tuple(rows),
        checks=tuple(checks),
        strata=strata,
    )


def _halves(
    base: _Metrics,
    found: Mapping[tuple[str, str], _MetricEffect],
    observations: pd.DataFrame,
    periods: pd.DataFrame | None,
) -> Iterator[tuple[tuple[str, str], Halves | None]]:
    """Both halves of the measured time, of every metric that is looked at so and has an effect."""
    for metric in cut_in_halves(base.plan):
        label, cut = metric_label(metric), cut_at_their_middles(observations, metric)
        table = base.table if cut is None else HostTable(cut, base.plan, periods)
        for key, one in found.items():
            if key[0] == label:
                few = one.effect.inference is None
                yield key, None if few else host_halves(table, metric, key[1], base.redraws)


def _strata(sample: TwoArms, metric: MetricPlan, found: Headline, look: Look, base: _Metrics) -> StratumEffects | None:
    if metric.better is None:
        return None
    if metric.estimand == Estimand.FLEET_RATIO:  # each host's part in the ratio, which strata share
        sample = replace(sample, y=linearised(sample), before=np.full(sample.y.size, np.nan))
    better = metric.better is Direction.INCREASE
    gain = found.inference.difference if (found.inference.difference > 0) == better else None
    return judged_strata(sample, metric.better, base.redraws, alpha=1 - look.level, gain=gain)


def _pairwise(metric: MetricPlan, treatments: Sequence[str], base: _Metrics) -> Iterator[Estimate]:
    """Every two treatments against each other, their intervals simultaneous."""
    plan, pairs = base.plan, list(combinations(treatments, 2))
    for first, second in pairs:
        sample = base.table.two_arms(metric, second, first)
        if min(sample.sizes) < 2:
            continue
        few = min(sample.sizes) < MIN_HOSTS
        look = look_at(replace(plan, arms=(first, second)), metric.role, sample.y.size).shared(len(pairs))
        try:
            found = headline(sample, metric, base.redraws)
        except NotEnoughData:
            continue
        yield estimate(
            found.inference,
            replace(metric, name=metric_label(metric)),
            look,
            treatment=second,
            control=first,
            estimand=metric.estimand,
            method=found.method,
            kind=EstimateKind.PAIRWISE,
            withhold_p=few,
            warnings=found.warnings,
        )


def _who_lacks(sample: TwoArms) -> str:
    arms = (sample.control, sample.treatment)
    empty = [arm for arm, size in zip(arms, sample.sizes, strict=True) if size == 0]
    return f"no host of {' or '.join(empty)} has it"


def _before_check(sample: TwoArms, metric: MetricPlan) -> list[Check]:
    """The arms before they differed: a gap that chance does not explain says that the draw went wrong."""
    control, treated = (side[np.isfinite(side)] for side in sample.arms(sample.before))
    if min(control.size, treated.size) < 2:
        return []
    contrast = welch(control, treated)
    p = contrast.p_value()
    name = f"pre-period A/A ({metric.name}, {sample.treatment})"
    if p is None:
        return [Check(name=name, passed=None, p_value=None, detail="The pre-period does not vary.")]
    detail = f"Before they differed, the arms were {contrast.difference:+.3g} {metric.unit} apart (p = {p:.2g})."
    return [Check(name=name, passed=p >= PRE_PERIOD_ALARM, p_value=p, detail=detail)]


def _worst_case_rows(effect: Effect, gaps: Gaps | None) -> Iterator[Estimate]:
    """What the effect would be had all that is missing been at its worst, or its best; and Lee's bounds."""
    if gaps is None or effect.bounds is None:
        return
    main, level = effect.estimate, effect.look.level
    ends = effect.bounds.low.difference, effect.bounds.high.difference
    below, above = effect.bounds.low.interval(level), effect.bounds.high.interval(level)
    main = replace(
        main, n_control=int((~gaps.sample.treated).sum()), n_treatment=int(gaps.sample.treated.sum()), lift=None
    )
    yield replace(
        bare(main, EstimateKind.WORST_CASE, "worst-case bounds for what is missing"),
        difference=sum(ends) / 2,
        difference_interval=Interval(
            low=None if below is None else below.low, high=None if above is None else above.high, level=level
        ),
        warnings=(f"the effect is between {ends[0]:.4g} and {ends[1]:.4g}, by how what is missing would have done",),
    )
    found = trimmed(gaps, level)
    if found is not None:
        yield replace(
            bare(main, EstimateKind.TRIMMED, "Lee's bounds: the fuller arm trimmed"),
            difference=sum(found) / 2,
            warnings=(
                f"between {found[0]:.4g} and {found[1]:.4g}, if the arm could only cost hosts, or only save them",
            ),
        )


def _guardrails(  # noqa: PLR0917 - what was found, then what it is judged by
    metrics: tuple[MetricPlan, ...],
    treatments: list[str],
    found: Mapping[tuple[str, str], _MetricEffect],
    rows: pd.DataFrame,
    plan: AnalysisPlan,
    crossings: Sequence[Crossing],
    mixed: Mapping[str, tuple[str, ...]],
    fine: Resolutions,
    growing: Mapping[tuple[GuardrailPlan, str], Growing],
) -> Iterator[GuardrailResult]:
    for guardrail in plan.guardrails:
        metric = next(metric for metric in metrics if metric.name == guardrail.metric)
        for treatment in treatments:
            one = found.get((metric_label(metric), treatment))
            worst = None if guardrail.tripwire is None else worst_value(rows, metric, treatment, guardrail.worse)
            things = mixed.get(metric_label(metric), ())
            why = mixed_words(things) if things else ""
            evidence = Evidence(estimate=None, inference=None, worst=worst, mixed=why)
            if one is not None:
                row = one.effect.estimate
                evidence = Evidence(
                    estimate=row,
                    inference=one.effect.inference,
                    bounds=one.effect.bounds,
                    still=one.still,
                    worst=worst,
                    units=row.n_control + row.n_treatment,
                    unresolved=fine.unresolved(row.metric, (plan.control, treatment)),
                    later=None if (grown := growing.get((guardrail, treatment))) is None else grown.later,
                )
            yield judge(guardrail, treatment, evidence, plan, crossings)


def _losses(table: HostTable, treatments: list[str], plan: AnalysisPlan) -> Iterator[GuardrailResult]:
    for treatment in treatments:
        lost, assigned = _lost(table, plan.control, treatment)
        if plan.units or sum(lost):  # else only hosts that report are known: nobody can be missing
            planned = sum(unit.arm in {plan.control, treatment} for unit in plan.units) or None
            look = guardrail_look(plan, sum(assigned), planned)
            yield loss_guardrail(lost, assigned, treatment, (1 - look.level) / 2)


def _attrition(table: HostTable, treatments: list[str], plan: AnalysisPlan) -> Iterator[Check]:
    for treatment in treatments:
        lost, assigned = _lost(table, plan.control, treatment)
        if plan.units or sum(lost):
            yield attrition_check(lost, assigned, treatment)


def _spread(table: HostTable, plan: AnalysisPlan) -> Iterator[Check]:
    """Whether arms are spread over strata as one draw would, where no ratio says how large they should be in each."""
    if plan.odds is None and (check := spread_check(table.by_stratum(plan.arms), plan.arms)) is not None:
        yield check


def _crossovers(table: HostTable) -> Iterator[Check]:
    """Hosts whose knobs read back as another arm's: the comparison is of mixtures, harm and gain both diluted."""
    wrong, hosts = len(table.misplaced), len(table.reporting)
    if wrong:
        detail = (
            f"{wrong} of {hosts} hosts were measured under another arm than assigned: {', '.join(table.misplaced)}."
        )
        yield Check(name="arms as assigned", passed=wrong <= max(1, hosts // 100), p_value=None, detail=detail)


def _lost(table: HostTable, control: str, treatment: str) -> tuple[tuple[int, int], tuple[int, int]]:
    return (table.lost(control), table.lost(treatment)), (table.assigned(control), table.assigned(treatment))


def _of(
    found: Mapping[tuple[str, str], _MetricEffect], metric: MetricPlan | None, treatment: str
) -> _MetricEffect | None:
    return None if metric is None else found.get((metric_label(metric), treatment))


def scope_of(
    rows: pd.DataFrame, table: HostTable, metric: MetricPlan | None, treatment: str, plan: AnalysisPlan
) -> Scope:
    """What the comparison of one treatment speaks for."""
    arms = {plan.control, treatment}
    hosts = [unit.host for unit in table.units if unit.arm in arms and unit.host in table.reporting]
    if metric is None:
        return Scope(hosts=len(hosts), periods=0, seconds=0.0)
    own = rows[(rows["metric"] == metric.name) & (rows["kind"] == "measure")]
    own = own[own["host"].isin(hosts)]
    return Scope(hosts=int(own["host"].nunique()), periods=len(own), seconds=float(own["seconds"].sum()))
