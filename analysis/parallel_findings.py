"""A parallel design's findings: hosts as units, every assigned host in the count, the decision for the fleet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.attrition import attrition_check, loss_guardrail, worst_case
from analysis.blocks import broken_periods
from analysis.calibration import calibration_check
from analysis.contrast import Contrast, estimate, no_estimate
from analysis.decision import FEW_UNITS, decide
from analysis.exposure_rows import exposure_rows
from analysis.finite import finite_checks, finite_estimates
from analysis.frame import metric_label
from analysis.guardrails import judge, with_guardrail_metrics, worst_value
from analysis.headline import headline
from analysis.hosts import FLEET_RATIO, HostTable, TwoArms
from analysis.look import guardrail_look, look_at
from analysis.multiplicity import adjust
from analysis.observer import observer_effect
from analysis.plan import AnalysisPlan, Crossing, MetricPlan, Role
from analysis.results import Check, Estimate, Findings, GuardrailResult
from analysis.sensitivity import all_rows, randomisation_row, stratum_rows
from analysis.srm import ratio_check
from analysis.trade import trades_of
from analysis.welch import welch

MIN_HOSTS = 4  # in each arm; 3 + 3 hosts can't get below p = .10
PRE_PERIOD_ALARM = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricEffect:
    """One metric for one treatment: the headline, rows beside it, the contrast behind it (None: too few hosts)."""

    estimate: Estimate
    contrast: Contrast | None
    rows: tuple[Estimate, ...] = ()
    checks: tuple[Check, ...] = ()


def parallel_findings(
    observations: pd.DataFrame,
    plan: AnalysisPlan,
    periods: pd.DataFrame | None,
    warnings: tuple[str, ...] = (),
    crossings: Sequence[Crossing] = (),
    *,
    calibration_runs: int = 0,
) -> Findings:
    """Answer a parallel design from checked observations."""
    table = HostTable(observations, plan, periods)
    said = list(warnings)
    if table.misplaced:
        said.append(f"measured under another arm than assigned, counted as assigned: {', '.join(table.misplaced)}")
    metrics = with_guardrail_metrics(plan)
    treatments = [arm for arm in plan.arms if arm != plan.control]
    effects: dict[tuple[str, str], MetricEffect] = {}
    for metric in metrics:
        for treatment in treatments:
            sample = table.two_arms(metric, treatment)
            if min(sample.sizes) == 0:
                said.append(f"{metric_label(metric)}, {treatment}: unavailable, {_who_lacks(sample, plan, treatment)}")
            else:
                effects[metric_label(metric), treatment] = metric_effect(sample, metric, treatment, plan, table)
    estimates = [row for effect in effects.values() for row in (effect.estimate, *effect.rows)]
    adjusted = adjust(finite_estimates(estimates))
    guardrails = (
        *_guardrails(metrics, treatments, effects, observations, plan, crossings),
        *_losses(table, treatments, plan),
    )
    checks = finite_checks(
        (
            ratio_check(table.counts(plan.arms), plan.ratio or [1.0] * len(plan.arms)),
            *_attrition(table, treatments, plan),
            *(check for effect in effects.values() for check in effect.checks),
            *(observer_effect(row) for row in adjusted if row.headline and row.role is Role.OBSERVER),
            *((calibration_check(observations, plan, calibration_runs),) if calibration_runs else ()),
        )
    )
    decision, reason = decide(plan, adjusted, guardrails, checks)
    return Findings(
        decision=decision,
        reason=reason,
        estimates=adjusted,
        guardrails=guardrails,
        checks=checks,
        contrasts=(),
        excluded=broken_periods(periods),
        alpha=plan.alpha,
        warnings=tuple(said),
        trades=trades_of(plan, {key: effect.contrast for key, effect in effects.items()}),
    )


def metric_effect(
    sample: TwoArms, metric: MetricPlan, treatment: str, plan: AnalysisPlan, table: HostTable
) -> MetricEffect:
    """Estimate one metric, with as many rows beside it as its role deserves."""
    n_control, n_treatment = sample.sizes
    labelled = replace(metric, name=metric_label(metric))
    few = min(sample.sizes) < MIN_HOSTS
    warnings = (
        f"{n_control} + {n_treatment} hosts of at least {MIN_HOSTS} + {MIN_HOSTS}: nothing is called significant",
    )
    if min(sample.sizes) < 2:
        control, treated = sample.arms(sample.y)
        alone = no_estimate(
            labelled,
            treatment=treatment,
            control=plan.control,
            estimand=metric.estimand,
            method="Welch t",
            n_control=n_control,
            n_treatment=n_treatment,
            control_mean=float(control.mean()),
            treatment_mean=float(treated.mean()),
            reason=warnings[0],
        )
        return MetricEffect(estimate=alone, contrast=None)
    found = headline(sample, metric)
    look = look_at(plan, metric.role, sample.y.size, sum(unit.arm is not None for unit in plan.units) or None)
    level = look.level
    main = estimate(
        found.contrast,
        labelled,
        treatment=treatment,
        control=plan.control,
        estimand=metric.estimand,
        method=found.method,
        level=level,
        withhold_p=few or look.blind,
        warnings=(*(warnings if few else ()), *found.warnings, *look.warnings),
    )
    main = replace(main, p_adjusted=look.p_adjusted(main))
    rows: list[Estimate] = []
    checks: list[Check] = []
    if not few and metric.estimand != FLEET_RATIO:
        if metric.role is Role.PRIMARY:
            rows += all_rows(main, sample, labelled, plan, look)
            per_stratum, agreement = stratum_rows(main, sample, labelled, plan, level)
            rows += per_stratum
            checks += [agreement] if agreement is not None else []
            checks += _before_check(sample, labelled, treatment)
            rows += _worst_case_row(main, sample, table, plan, level)
            rows += exposure_rows(main, sample, plan=plan, table=table, level=level)
        elif metric.role in {Role.SECONDARY, Role.GUARDRAIL} and min(sample.sizes) < FEW_UNITS:
            rows.append(randomisation_row(main, sample, plan, look))
    return MetricEffect(estimate=main, contrast=None if few else found.contrast, rows=tuple(rows), checks=tuple(checks))


def _who_lacks(sample: TwoArms, plan: AnalysisPlan, treatment: str) -> str:
    empty = [arm for arm, size in zip((plan.control, treatment), sample.sizes, strict=True) if size == 0]
    return f"no host of {' or '.join(empty)} has it"


def _before_check(sample: TwoArms, metric: MetricPlan, treatment: str) -> list[Check]:
    """The arms before they differed: a gap that chance does not explain says that the draw went wrong."""
    control, treated = (side[np.isfinite(side)] for side in sample.arms(sample.before))
    if min(control.size, treated.size) < 2:
        return []
    contrast = welch(control, treated)
    p = contrast.p_value()
    name = f"pre-period A/A ({metric.name}, {treatment})"
    if p is None:
        return [Check(name=name, passed=None, p_value=None, detail="The pre-period does not vary.")]
    detail = f"Before they differed, the arms were {contrast.difference:+.3g} {metric.unit} apart (p = {p:.2g})."
    return [Check(name=name, passed=p >= PRE_PERIOD_ALARM, p_value=p, detail=detail)]


def _worst_case_row(
    main: Estimate, sample: TwoArms, table: HostTable, plan: AnalysisPlan, level: float
) -> Iterator[Estimate]:
    arms = (plan.control, main.treatment)
    lost = (table.lost(arms[0]), table.lost(arms[1]))
    assigned = (table.assigned(arms[0]), table.assigned(arms[1]))
    if sum(lost) == 0 or attrition_check(lost, assigned, main.treatment, plan.alpha).passed is not False:
        return
    control, treated = sample.arms(sample.y)
    ends, interval = worst_case(control, treated, lost, level)
    yield replace(
        main,
        method="worst-case bounds for the lost hosts",
        n_control=assigned[0],
        n_treatment=assigned[1],
        difference=((ends.low or 0.0) + (ends.high or 0.0)) / 2,
        difference_interval=interval,
        lift=None,
        lift_interval=None,
        standard_error=None,
        df=None,
        p_value=None,
        headline=False,
        warnings=(f"the effect is between {ends.low:.4g} and {ends.high:.4g}, by how the lost hosts would have done",),
    )


def _guardrails(  # noqa: PLR0917 - what was found, then what it is judged by
    metrics: tuple[MetricPlan, ...],
    treatments: list[str],
    effects: dict[tuple[str, str], MetricEffect],
    rows: pd.DataFrame,
    plan: AnalysisPlan,
    crossings: Sequence[Crossing],
) -> Iterator[GuardrailResult]:
    measured = rows[rows["kind"] == "measure"]
    for guardrail in plan.guardrails:
        metric = next(metric for metric in metrics if metric.name == guardrail.metric)
        for treatment in treatments:
            effect = effects.get((metric_label(metric), treatment))
            yield judge(
                guardrail,
                treatment,
                estimate=None if effect is None else effect.estimate,
                contrast=None if effect is None else effect.contrast,
                worst=worst_value(measured, metric, treatment, guardrail.worse),
                plan=plan,
                crossings=crossings,
            )


def _losses(table: HostTable, treatments: list[str], plan: AnalysisPlan) -> Iterator[GuardrailResult]:
    if not plan.units:
        return  # only hosts that report are known: nobody can be missing
    for treatment in treatments:
        lost, assigned = _lost(table, plan.control, treatment)
        look = guardrail_look(plan, sum(assigned), sum(unit.arm in {plan.control, treatment} for unit in plan.units))
        yield loss_guardrail(lost, assigned, treatment, (1 - look.level) / 2)


def _attrition(table: HostTable, treatments: list[str], plan: AnalysisPlan) -> Iterator[Check]:
    if plan.units:
        for treatment in treatments:
            lost, assigned = _lost(table, plan.control, treatment)
            yield attrition_check(lost, assigned, treatment, PRE_PERIOD_ALARM)


def _lost(table: HostTable, control: str, treatment: str) -> tuple[tuple[int, int], tuple[int, int]]:
    return (table.lost(control), table.lost(treatment)), (table.assigned(control), table.assigned(treatment))
