"""A switchback's findings: each metric over the blocks, checks, guardrails, the decision for these hosts only."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.blocks import excluded_periods, measured, order_of, used_periods
from analysis.carryover import carry_over
from analysis.decision import decide
from analysis.finite import finite_checks, finite_estimates
from analysis.frame import metric_label
from analysis.guardrails import judge, with_guardrail_metrics, worst_value
from analysis.multiplicity import adjust
from analysis.observer import observer_effect
from analysis.plan import AnalysisPlan, Crossing, Role
from analysis.results import BlockContrast, Check, Estimate, Findings
from analysis.switchback import MIN_BLOCKS, MIN_HOSTS, BlockEffects, block_effects
from analysis.trade import trades_of


def switchback_findings(
    observations: pd.DataFrame,
    plan: AnalysisPlan,
    periods: pd.DataFrame | None,
    warnings: tuple[str, ...] = (),
    crossings: Sequence[Crossing] = (),
) -> Findings:
    """Answer a switchback from checked observations."""
    every = measured(observations)
    used = used_periods(every, plan, periods)
    rows = every[every["period_id"].isin(used)]
    metrics = with_guardrail_metrics(plan)
    estimates: list[Estimate] = []
    contrasts: list[BlockContrast] = []
    effects: dict[tuple[str, str], BlockEffects] = {}
    said = list(warnings)
    for metric in metrics:
        for treatment in (arm for arm in plan.arms if arm != plan.control):
            found = block_effects(rows, metric, treatment, plan)
            effects[metric_label(metric), treatment] = found
            estimates += found.estimates
            contrasts += found.contrasts
        if not any(effects[metric_label(metric), arm].estimates for arm in plan.arms if arm != plan.control):
            said.append(f"{metric_label(metric)}: unavailable, no block has it under two arms")
    units = len(rows.drop_duplicates(["host", "block"])) // (2 if plan.order == "abba" else 1)
    if units < MIN_BLOCKS:
        said.append(f"{units} whole blocks of at least {MIN_BLOCKS}: nothing is called significant")
    adjusted = adjust(finite_estimates(estimates))
    guardrails = tuple(
        judge(
            guardrail,
            treatment,
            estimate=next(iter(effects[metric_label(metric), treatment].estimates), None),
            contrast=effects[metric_label(metric), treatment].bounds,
            worst=worst_value(every, metric, treatment, guardrail.worse),
            plan=plan,
            crossings=crossings,
        )
        for guardrail in plan.guardrails
        for metric in metrics
        if metric.name == guardrail.metric
        for treatment in plan.arms
        if treatment != plan.control
    )
    checks = finite_checks(_checks(rows, plan, periods, adjusted))
    decision, reason = decide(plan, adjusted, guardrails, checks, _scope(rows))
    return Findings(
        decision=decision,
        reason=reason,
        estimates=adjusted,
        guardrails=guardrails,
        checks=checks,
        contrasts=tuple(contrasts),
        excluded=excluded_periods(every, used, periods),
        alpha=plan.alpha,
        warnings=tuple(said),
        trades=trades_of(plan, {key: effect.bounds for key, effect in effects.items()}),
    )


def _scope(rows: pd.DataFrame) -> str:
    hosts = sorted(set(rows["host"].astype(str)))
    if len(hosts) == 1:
        return f" (on {hosts[0]} only: one host does not speak for others)"
    if 1 < len(hosts) < MIN_HOSTS:
        return f" (on these {len(hosts)} hosts only: too few to speak for others)"
    return ""


def _checks(
    rows: pd.DataFrame, plan: AnalysisPlan, periods: pd.DataFrame | None, estimates: tuple[Estimate, ...]
) -> tuple[Check, ...]:
    primary = next((metric for metric in plan.metrics if metric.role is Role.PRIMARY), None)
    checks = [] if primary is None else [carry_over(rows, primary, order_of(rows, periods))]
    checks += [observer_effect(row) for row in estimates if row.headline and row.role is Role.OBSERVER]
    return tuple(checks)
