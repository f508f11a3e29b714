"""Rows beside the headline: the same question asked in other ways, each named, none ever quoted as the result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from analysis.contrast import Contrast
from analysis.errors import NotEnoughData
from analysis.estimates import estimate
from analysis.estimator import Shift, estimators
from analysis.headline import Headline, Redraws
from analysis.heterogeneity import Heterogeneity, heterogeneity
from analysis.hosts import TwoArms
from analysis.inference import MIN_HOSTS, Inference
from analysis.look import Look
from analysis.matched import matched_pairs
from analysis.plan import AnalysisPlan, MetricPlan
from analysis.results import Check, Estimate, EstimateKind, Interval
from analysis.strata import StratumEffects, StratumStanding, combine, host_weights, within_strata


def randomisation_row(
    main: Estimate, sample: TwoArms, found: Headline, redraws: Redraws, look: Look
) -> Estimate | None:
    """The randomisation test alone, as far as the headline rests on one."""
    if found.inference.wanting:
        return bare(main, EstimateKind.RANDOMISATION, "randomisation test", warnings=found.warnings)
    if (drawn := found.inference.drawn) is None:
        return None
    if (pairs := matched_pairs(sample, redraws.plan)) is not None:
        said = [f"{pairs.control.size} pairs can't get below p = {2.0 ** (1 - pairs.control.size):.2g}"]
        said += [f"{pairs.broken} hosts without their partner have a coin to themselves"] if pairs.broken else []
    else:
        possible = redraws.of(sample)[0].possible()
        few = possible is not None and possible < 10**9
        said = [f"{possible} possible assignments" if few else "over a billion possible assignments"]
    row = bare(
        main, EstimateKind.RANDOMISATION, f"randomisation test {redraws.of(sample)[0].name}", warnings=tuple(said)
    )
    return replace(row, p_value=drawn.p_value, p_adjusted=look.p_adjusted(drawn.p_value))


def sensitivity_rows(
    main: Estimate, sample: TwoArms, metric: MetricPlan, plan: AnalysisPlan, look: Look
) -> list[Estimate]:
    """Every other way to ask that the data allow."""
    rows = []
    for one in estimators().values():
        found = one.estimate(sample, plan, look.level)
        if isinstance(found, Contrast):
            rows.append(_contrast_row(main, metric, found, look, kind=one.kind, method=one.method))
        elif found is not None:
            rows.append(_shifted(bare(main, one.kind, one.method), found, look))
    return [row if main.p_value is not None else replace(row, p_value=None, p_adjusted=None) for row in rows]


def _shifted(row: Estimate, found: Shift, look: Look) -> Estimate:
    control, treatment = found.means or (row.control_mean, row.treatment_mean)
    return replace(
        row,
        control_mean=control,
        treatment_mean=treatment,
        difference=found.difference,
        difference_interval=found.interval,
        standard_error=found.standard_error,
        df=found.df,
        p_value=found.p_value,
        p_adjusted=look.p_adjusted(found.p_value),
        lift=None,
    )


def stratum_rows(
    main: Estimate,
    sample: TwoArms,
    metric: MetricPlan,
    plan: AnalysisPlan,
    look: Look,
    *,
    judged: StratumEffects | None,
) -> tuple[list[Estimate], Check | None]:
    """Each stratum, their weighted combination, the mean of a population of strata, and whether they agree."""
    if judged is None or not judged.contrasts:
        return [], None
    rows = [
        estimate(
            part,
            metric,
            look,
            treatment=main.treatment,
            control=main.control,
            estimand=main.estimand,
            method="Welch t within the stratum" + (" and randomisation test" if part.drawn is not None else ""),
            kind=EstimateKind.STRATUM,
            stratum=name,
            withhold_p=main.p_value is None or min(part.contrast.n_control, part.contrast.n_treatment) < MIN_HOSTS,
        )
        for name, part in judged.contrasts.items()
    ]
    parts = within_strata(sample.y, sample.treated, sample.strata)
    weights = dict(plan.stratum_weights) or host_weights(sample.strata)
    try:
        combined = combine(parts, weights)
    except NotEnoughData:
        return rows, _agreement(metric, main.treatment, judged, None)
    left_out = tuple(f"stratum {name} has too few hosts" for name in np.unique(sample.strata) if name not in parts)
    row = _contrast_row(
        main, metric, combined, look, kind=EstimateKind.STRATA_COMBINED, method="strata combined by weight"
    )
    rows.append(replace(row, warnings=(*row.warnings, *left_out)))
    spread = [part for part in parts.values() if part.variance > 0]
    found = None
    if len(spread) >= 2:
        found = heterogeneity([p.difference for p in spread], [p.variance for p in spread])
        low, high = found.random_interval(look.level)
        rows.append(
            replace(
                bare(
                    main, EstimateKind.RANDOM_EFFECTS, "random effects over strata (DerSimonian-Laird, Hartung-Knapp)"
                ),
                difference=found.random,
                difference_interval=Interval(low=low, high=high, level=look.level),
                standard_error=max(found.random_se, found.spread_se),
                lift=None,
            )
        )
    return rows, _agreement(metric, main.treatment, judged, found)


def _agreement(metric: MetricPlan, treatment: str, judged: StratumEffects, found: Heterogeneity | None) -> Check:
    """Strata that disagree limit what the mean says; they don't make the experiment wrong: never 'failed'."""
    name = f"heterogeneity ({metric.name}, {treatment})"
    p = judged.interaction_p
    harmed, better = judged.named(StratumStanding.HARMED), judged.named(StratumStanding.BETTER)
    spread = "" if found is None else f", I2 = {found.i2:.0%}"
    if p is None:
        return Check(name=name, passed=None, p_value=None, detail="Too few hosts in the strata to compare them.")
    if harmed and better:
        words = f"Strata have OPPOSITE SIGNS ({', '.join(better)} against {', '.join(harmed)}): the mean hides it"
    elif harmed or judged.differ:
        words = "Strata differ: the mean hides it" + (f" ({', '.join(harmed)} harmed)" if harmed else "")
    else:
        words = "No sign that strata differ"
    agrees = not harmed and not judged.differ
    detail = f"{words} (interaction p = {p:.2g}{spread})."
    return Check(name=name, passed=True if agrees else None, p_value=p, detail=detail)


def _contrast_row(
    main: Estimate, metric: MetricPlan, contrast: Contrast, look: Look, *, kind: EstimateKind, method: str
) -> Estimate:
    return estimate(
        Inference(contrast=contrast),
        metric,
        look,
        treatment=main.treatment,
        control=main.control,
        estimand=main.estimand,
        method=method,
        kind=kind,
        withhold_p=main.p_value is None,
    )


def bare(main: Estimate, kind: EstimateKind, method: str, warnings: tuple[str, ...] = ()) -> Estimate:
    """The headline's frame without its inference."""
    return replace(
        main,
        kind=kind,
        method=method,
        difference_interval=None,
        lift_interval=None,
        standard_error=None,
        df=None,
        p_value=None,
        p_adjusted=None,
        warnings=warnings,
    )
