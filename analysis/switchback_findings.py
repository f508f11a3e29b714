"""A switchback's findings: each metric over the blocks, checks, guardrails, the decision for these hosts only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import pandas as pd

from analysis.attrition import MISSING_ALARM
from analysis.blocks import Cells, attempts_of, excluded_periods, measured, order_of, used_periods
from analysis.carryover import CarryOver, carry_over, carry_over_check, carry_over_row
from analysis.decision import Case, concluded
from analysis.effect import Effect
from analysis.estimates import estimate
from analysis.fading import Fading, Growing, block_halves, fading_of, growing_harms
from analysis.frame import metric_label
from analysis.guardrails import Evidence, decisive, judge, with_guardrail_metrics, worst_value
from analysis.halves import cut_in_halves
from analysis.look import look_at
from analysis.meanings import mixed_words
from analysis.multiplicity import AdjustedTest, adjusted
from analysis.observer import observer_effects
from analysis.order_check import order_check
from analysis.plan import TOGETHER, AnalysisPlan, Crossing, GuardrailPlan, MetricPlan, Role
from analysis.resolution import Resolutions
from analysis.results import (
    BlockContrast,
    Check,
    Doubt,
    Estimate,
    EstimateKind,
    Findings,
    GuardrailResult,
    Missing,
    Overturn,
    Scope,
)
from analysis.strata import StratumEffects
from analysis.switchback import (
    MIN_BLOCKS,
    MIN_HOSTS,
    BlockEffects,
    block_effects,
    block_strata,
    lasting,
    too_few_blocks,
    units_of,
    with_carry_over,
)
from analysis.trade import trades_of
from analysis.validation import finite_checks, finite_estimates

_Key = tuple[str, str]  # metric's label, treatment


def switchback_findings(
    observations: pd.DataFrame,
    plan: AnalysisPlan,
    periods: pd.DataFrame | None,
    warnings: tuple[str, ...] = (),
    crossings: Sequence[Crossing] = (),
    *,
    mixed: Mapping[str, tuple[str, ...]] | None = None,
) -> Findings:
    """Answer a switchback from checked observations. `mixed`: labels not estimated, and their meanings."""
    mixed = mixed or {}
    every = measured(observations)
    used = used_periods(every, plan, periods)
    rows = every[every["period_id"].isin(used)]
    every_metric = {metric_label(metric): metric for metric in with_guardrail_metrics(plan)}
    metrics = {label: metric for label, metric in every_metric.items() if label not in mixed}
    shared = next(
        (mixed[label] for label, one in every_metric.items() if one.role is Role.PRIMARY and label in mixed), ()
    )
    treatments = [arm for arm in plan.arms if arm != plan.control]
    attempts = attempts_of(every, used, plan, periods)
    cells = {label: attempts.cells(metric) for label, metric in metrics.items()}
    found: dict[_Key, BlockEffects] = {
        (label, treatment): block_effects(cells[label], replace(metric, name=label), (plan.control, treatment), plan)
        for label, metric in metrics.items()
        for treatment in treatments
    }
    said = list(warnings)
    for label in metrics:
        if all(found[label, treatment].effect is None for treatment in treatments):
            said.append(f"{label}: unavailable, no block has it under two arms")
    units = len(rows.drop_duplicates([*plan.of_one_coin])) // (2 if plan.order == "abba" else 1)
    if units < MIN_BLOCKS:
        said.append(too_few_blocks(units))
    effects = {key: one.effect for key, one in found.items() if one.effect is not None}
    heads = adjusted(
        {key: AdjustedTest(row=effect.estimate, inference=effect.inference) for key, effect in effects.items()},
        plan.alpha,
    )
    fine = Resolutions(rows, plan, metrics)
    heads = {key: fine.told(row) for key, row in heads.items()}
    effects = {key: replace(effect, estimate=heads[key]) for key, effect in effects.items()}
    primary = next((label for label, metric in metrics.items() if metric.role is Role.PRIMARY), None)
    before = order_of(rows, periods)
    guarded = {guardrail.metric for guardrail in plan.guardrails if guardrail.margin is not None}
    carried = {
        (label, treatment): carry_over(rows, metric, before, (plan.control, treatment), together=plan.order == TOGETHER)
        for label, metric in metrics.items()
        if label == primary or metric.name in guarded
        for treatment in treatments
    }
    by_halves = {metric_label(metric) for metric in cut_in_halves(plan)}
    halves = {
        key: None
        if effects[key].inference is None
        else block_halves(units_of(cells[key[0]], (plan.control, key[1]), plan))
        for key in effects
        if key[0] in by_halves
    }
    growing = growing_harms(plan, effects, halves, metrics)
    guardrails = tuple(
        _guardrails(every_metric, treatments, found, effects, carried, every, plan, crossings, mixed, fine, growing)
    )
    pairs = [] if primary is None else list(_pairwise(cells[primary], metrics[primary], treatments, plan))
    fading = {
        treatment: fading_of(effects[primary, treatment], halves[primary, treatment], metrics[primary], plan.alpha)
        for treatment in treatments
        if primary is not None and (primary, treatment) in effects
    }
    where = _strata_of(every, plan)
    strata = {
        treatment: None
        if primary is None or (primary, treatment) not in effects
        else block_strata(cells[primary], metrics[primary], (plan.control, treatment), plan, where)
        for treatment in treatments
    }
    estimates: list[Estimate] = []
    contrasts: list[BlockContrast] = []
    for key, one in found.items():
        if key in effects:
            estimates += [effects[key].estimate, *one.rows]
            if key[0] == primary:
                estimates.append(carry_over_row(carried[key], effects[key].estimate, 1 - plan.alpha))
                estimates += _stratum_rows(effects[key], strata[key[1]], metrics[key[0]])
        contrasts += one.contrasts
    judged: list[Fading | Growing] = [*fading.values(), *growing.values()]
    estimates += dict.fromkeys(row for one in judged for row in one.rows)
    checks = finite_checks(
        (
            *_missing(cells, metrics, treatments, plan),
            *(check for treatment in treatments for check in order_check(rows, plan, treatment)),
            *(
                carry_over_check(carried[primary, treatment], metrics[primary], treatment)
                for treatment in treatments
                if primary is not None
            ),
            *observer_effects(list(heads.values())),
        )
    )
    trades = trades_of(plan, effects)
    cases = [
        Case(
            treatment=treatment,
            primary=None if primary is None else effects.get((primary, treatment)),
            scope=(scope := _scope(rows, primary, metrics, (plan.control, treatment))),
            guardrails=tuple(rail for rail in guardrails if rail.treatment == treatment),
            trade=next((trade for trade in trades if trade.treatment == treatment), None),
            local=scope.hosts < MIN_HOSTS,
            missing=tuple(_missing_of(cells, metrics, treatment, plan)),
            strata=strata[treatment],
            fading=fading.get(treatment),
            growing=tuple(one for (_, arm), one in growing.items() if arm == treatment),
            mixed=shared,
            unresolved=None if primary is None else fine.unresolved(primary, (plan.control, treatment)),
            stratum_rows=tuple(
                row for row in estimates if row.kind is EstimateKind.STRATUM and row.treatment == treatment
            ),
            doubts=()
            if primary is None
            else _doubts(effects.get((primary, treatment)), carried[primary, treatment], 1 - plan.alpha),
        )
        for treatment in treatments
    ]
    told_apart = [row for row in pairs if fine.unresolved(row.metric, (row.control, row.treatment)) is None]
    concluded_by = concluded(plan, cases, checks, told_apart)
    return Findings(
        decision=concluded_by.decision,
        reason=concluded_by.sentence,
        estimates=finite_estimates((*estimates, *pairs)),
        guardrails=guardrails,
        checks=(*checks, *finite_checks(one.check for one in judged)),
        contrasts=tuple(contrasts),
        excluded=excluded_periods(every, used, periods),
        alpha=plan.alpha,
        warnings=tuple(said),
        trades=trades,
        arms=concluded_by.arms,
        preference=concluded_by.preference,
    )


def _guardrails(  # noqa: PLR0917 - what was found, then what it is judged by
    metrics: Mapping[str, MetricPlan],
    treatments: Sequence[str],
    found: Mapping[_Key, BlockEffects],
    effects: Mapping[_Key, Effect],
    carried: Mapping[_Key, CarryOver],
    every: pd.DataFrame,
    plan: AnalysisPlan,
    crossings: Sequence[Crossing],
    mixed: Mapping[str, tuple[str, ...]],
    fine: Resolutions,
    growing: Mapping[tuple[GuardrailPlan, str], Growing],
) -> Iterator[GuardrailResult]:
    for guardrail in plan.guardrails:
        label, metric = next((label, one) for label, one in metrics.items() if one.name == guardrail.metric)
        for treatment in treatments:
            effect = effects.get((label, treatment))
            worst = None if guardrail.tripwire is None else worst_value(every, metric, treatment, guardrail.worse)
            things = mixed.get(label, ())
            why = mixed_words(things) if things else ""
            evidence = Evidence(estimate=None, inference=None, worst=worst, mixed=why)
            if effect is not None:
                still, silent = found[label, treatment].still, found[label, treatment].silent
                inference, bounds = (
                    (effect.inference, effect.bounds)
                    if still or silent  # nothing was read that an arm could have left behind
                    else with_carry_over(effect, carried.get((label, treatment)))
                )
                evidence = Evidence(
                    estimate=effect.estimate,
                    inference=inference,
                    bounds=bounds,
                    still=still,
                    worst=worst,
                    units=effect.estimate.n_control,
                    unresolved=fine.unresolved(label, (plan.control, treatment)),
                    later=None if (grown := growing.get((guardrail, treatment))) is None else grown.later,
                )
            yield judge(guardrail, treatment, evidence, plan, crossings)


def _pairwise(cells: Cells, metric: MetricPlan, treatments: Sequence[str], plan: AnalysisPlan) -> Iterator[Estimate]:
    """Every two treatments against each other, their intervals simultaneous."""
    pairs = list(combinations(treatments, 2))
    for pair in pairs:
        units = len({key[:2] for key in cells.values.index})
        look = look_at(replace(plan, arms=pair), metric.role, units).shared(len(pairs))
        found = block_effects(cells, replace(metric, name=metric_label(metric)), pair, plan, look)
        if found.effect is not None:
            yield replace(found.effect.estimate, kind=EstimateKind.PAIRWISE)


def _missing_of(
    cells: Mapping[str, Cells], metrics: Mapping[str, MetricPlan], treatment: str, plan: AnalysisPlan
) -> Iterator[Missing]:
    """What is missing of every metric that the decision reads."""
    for label in decisive(plan, metrics.values()):
        yield from cells[label].missing(replace(metrics[label], name=label), (plan.control, treatment))


def _missing(
    cells: Mapping[str, Cells], metrics: Mapping[str, MetricPlan], treatments: Sequence[str], plan: AnalysisPlan
) -> Iterator[Check]:
    """Are periods missing more under one arm? Of the primary and of every metric that a guardrail watches."""
    for label in decisive(plan, metrics.values()):
        metric = metrics[label]
        for treatment in treatments:
            p = cells[label].p_value((plan.control, treatment))
            if p is None:
                continue
            lost = {one.arm: one for one in cells[label].missing(metric, (plan.control, treatment))}
            sizes = ", ".join(f"{one.lost:g} of {one.due} under {arm}" for arm, one in lost.items())
            worse = p < MISSING_ALARM
            detail = f"The arms lost different shares of periods: {sizes}." if worse else f"Periods lost: {sizes}."
            yield Check(name=f"missing data ({label}, {treatment})", passed=not worse, p_value=p, detail=detail)


def _scope(rows: pd.DataFrame, primary: str | None, metrics: Mapping[str, MetricPlan], pair: tuple[str, str]) -> Scope:
    own = rows[rows["arm"].isin(pair)]
    if primary is not None:
        own = own[own["metric"] == metrics[primary].name]
    own = own.drop_duplicates("period_id")
    hosts = sorted(set(own["host"].astype(str)))
    return Scope(
        hosts=len(hosts),
        periods=len(own),
        seconds=float(own["seconds"].sum()),
        host_names=tuple(hosts) if len(hosts) < MIN_HOSTS else (),
    )


def _doubts(effect: Effect | None, carried: CarryOver, level: float) -> tuple[Overturn, ...]:
    """What an arm leaves behind: could it turn the effect around in a fleet that keeps the arm?"""
    if carried.p_value() is None:
        return (Overturn(doubt=Doubt.CARRY_OVER_UNTESTED),)
    if effect is None or effect.inference is None:
        return ()
    kept = lasting(effect.inference, carried).interval(level)
    turned = kept is None or kept.low is None or kept.high is None or kept.low <= 0 <= kept.high
    return (Overturn(doubt=Doubt.CARRY_OVER, about=effect.estimate.metric),) if turned else ()


def _strata_of(rows: pd.DataFrame, plan: AnalysisPlan) -> dict[str, str]:
    """The stratum of each host: the plan's, else that of the observations."""
    if plan.units:
        return {unit.host: unit.stratum for unit in plan.units}
    if "stratum" not in rows.columns:
        return {}
    first = rows.drop_duplicates("host")
    return dict(zip(first["host"].astype(str), first["stratum"].astype(str), strict=True))


def _stratum_rows(effect: Effect, strata: StratumEffects | None, metric: MetricPlan) -> Iterator[Estimate]:
    """The effect in each stratum beside the headline."""
    for name, found in ({} if strata is None else strata.contrasts).items():
        yield estimate(
            found,
            replace(metric, name=effect.estimate.metric),
            effect.look,
            treatment=effect.estimate.treatment,
            control=effect.estimate.control,
            estimand=effect.estimate.estimand,
            method="paired t on the block contrasts of the stratum",
            kind=EstimateKind.STRATUM,
            stratum=name,
            withhold_p=effect.few or found.contrast.n_control < MIN_BLOCKS,
        )
