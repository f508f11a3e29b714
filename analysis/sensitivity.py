"""Rows beside the headline: the same question asked in other ways, each named, none ever quoted as the result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from analysis.adjustment import independent_columns
from analysis.contrast import Contrast, estimate
from analysis.decision import RANDOMISATION
from analysis.errors import NotEnoughData
from analysis.headline import covariates_of
from analysis.heterogeneity import Heterogeneity, heterogeneity
from analysis.hosts import TwoArms
from analysis.look import Look
from analysis.matched import matched_pairs, pair_contrast
from analysis.plan import AnalysisPlan, MetricPlan
from analysis.randomisation import CHUNK_CELLS, DRAWS, randomisation_p
from analysis.replay import replay_of
from analysis.results import Check, Estimate, Interval
from analysis.robust import bca, hodges_lehmann, winsorised
from analysis.signflip import sign_flip_p
from analysis.strata import combine, host_weights, within_strata
from analysis.welch import welch


def randomisation_row(main: Estimate, sample: TwoArms, plan: AnalysisPlan, look: Look) -> Estimate:
    """The headline's question answered by re-drawing the assignment, on what the covariates leave unexplained."""
    basis = independent_columns(covariates_of(sample)[0])
    y = sample.y - sample.y.mean()
    y = y - basis @ (basis.T @ y)
    if (pairs := matched_pairs(sample, plan)) is not None:
        p = sign_flip_p(pairs.differences(y), plan.seed)
        n = pairs.control.size
        said = [f"{n} pairs can't get below p = {2.0 ** (1 - n):.2g}"]
        said += [f"{pairs.broken} hosts without their partner were left out"] if pairs.broken else []
        row = _bare(main, f"{RANDOMISATION} within matched pairs", p_value=p, warnings=tuple(said))
        return replace(row, p_adjusted=look.p_adjusted(row))
    draws = min(DRAWS, max(999, 5 * CHUNK_CELLS // max(y.size, 1)))
    try:
        replay = replay_of(sample, plan, main.treatment)
        p = randomisation_p(y, sample.treated, sample.strata, plan.seed, draws, replay=replay)
    except NotEnoughData as error:
        return _bare(main, RANDOMISATION, p_value=None, warnings=(error.what,))
    possible = replay.possible()
    size = "many" if possible is None else f"{possible} possible" if possible < 10**9 else "over a billion possible"
    row = _bare(main, f"{RANDOMISATION} {replay.name}", p_value=p, warnings=(f"{size} assignments",))
    return replace(row, p_adjusted=look.p_adjusted(row))


def sensitivity_rows(
    main: Estimate, sample: TwoArms, metric: MetricPlan, plan: AnalysisPlan, level: float
) -> list[Estimate]:
    """Every other way to ask that the data allow."""
    control, treatment = sample.arms(sample.y)
    rows = [_contrast_row(main, metric, welch(control, treatment), "Welch t, unadjusted", level)]
    if (pairs := matched_pairs(sample, plan)) is not None:
        found_pairs = pair_contrast(sample.y[pairs.control], sample.y[pairs.treatment])
        rows.insert(0, _contrast_row(main, metric, found_pairs, "paired t on matched pairs", level))
    known = np.isfinite(sample.before)
    if known.all():
        gained = sample.arms(sample.y - sample.before)
        rows.append(_bare_effect(main, welch(*gained), "difference in differences", level))
    shift, interval, p = hodges_lehmann(control, treatment, level)
    rows.append(
        replace(
            _bare(main, "Hodges-Lehmann shift, Mann-Whitney test", p_value=p, warnings=()),
            difference=shift,
            difference_interval=interval,
            lift=None,
        )
    )
    reference = sample.before[known] if known.any() else sample.y
    clipped = winsorised(control, treatment, reference)
    rows.append(_contrast_row(main, metric, clipped, "Welch t, winsorised at 2.5 % a side", level))
    found = bca(control, treatment, level, plan.seed)
    if found is not None:
        difference = float(treatment.mean() - control.mean())
        rows.append(
            replace(
                _bare(main, "BCa bootstrap", p_value=None, warnings=()),
                control_mean=float(control.mean()),
                treatment_mean=float(treatment.mean()),
                difference=difference,
                difference_interval=found,
                lift=None,
            )
        )
    return rows


def stratum_rows(
    main: Estimate, sample: TwoArms, metric: MetricPlan, plan: AnalysisPlan, level: float
) -> tuple[list[Estimate], Check | None]:
    """Each stratum, their weighted combination, the mean of a population of strata, and whether they agree."""
    parts = within_strata(sample.y, sample.treated, sample.strata)
    if len(np.unique(sample.strata)) < 2 or not parts:
        return [], None
    rows = [
        replace(_contrast_row(main, metric, part, "Welch t within the stratum", level), stratum=name)
        for name, part in parts.items()
    ]
    weights = dict(plan.stratum_weights) or host_weights(sample.strata)
    try:
        combined = combine(parts, weights)
    except NotEnoughData:
        return rows, None
    left_out = tuple(f"stratum {name} has too few hosts" for name in np.unique(sample.strata) if name not in parts)
    row = _contrast_row(main, metric, combined, "strata combined by weight", level)
    rows.append(replace(row, warnings=(*row.warnings, *left_out)))
    spread = {name: part for name, part in parts.items() if part.variance > 0}
    if len(spread) < 2:
        return rows, None
    found = heterogeneity([p.difference for p in spread.values()], [p.variance for p in spread.values()], plan.alpha)
    low, high = found.random_interval(level)
    rows.append(
        replace(
            _bare(main, "random effects over strata (DerSimonian-Laird)", p_value=None, warnings=()),
            difference=found.random,
            difference_interval=Interval(low=low, high=high, level=level),
            standard_error=found.random_se,
            lift=None,
        )
    )
    return rows, _agreement(metric, main.treatment, found, plan.alpha)


def _agreement(metric: MetricPlan, treatment: str, found: Heterogeneity, alpha: float) -> Check:
    """Strata that disagree limit what the mean says; they don't make the experiment wrong: never 'failed'."""
    agrees = found.p_value >= alpha and not found.opposite_signs
    words = "Strata agree" if agrees else "Strata differ: the mean hides it"
    if found.opposite_signs:
        words = "Strata have OPPOSITE SIGNS: the mean hides it"
    detail = f"{words} (Q = {found.q:.3g} on {found.df}, I2 = {found.i2:.0%})."
    return Check(
        name=f"heterogeneity ({metric.name}, {treatment})",
        passed=True if agrees else None,
        p_value=found.p_value,
        detail=detail,
    )


def _contrast_row(main: Estimate, metric: MetricPlan, contrast: Contrast, method: str, level: float) -> Estimate:
    return estimate(
        contrast,
        metric,
        treatment=main.treatment,
        control=main.control,
        estimand=main.estimand,
        method=method,
        level=level,
        withhold_p=main.p_value is None,
        headline=False,
    )


def _bare_effect(main: Estimate, contrast: Contrast, method: str, level: float) -> Estimate:
    """A row whose means are changes, so that only the difference can be read like the headline's."""
    return replace(
        _bare(main, method, p_value=None if main.p_value is None else contrast.p_value(), warnings=()),
        difference=contrast.difference,
        difference_interval=contrast.interval(level),
        standard_error=contrast.standard_error,
        df=contrast.df,
        lift=None,
    )


def _bare(main: Estimate, method: str, *, p_value: float | None, warnings: tuple[str, ...]) -> Estimate:
    """The headline's frame without its inference."""
    return replace(
        main,
        method=method,
        difference_interval=None,
        lift_interval=None,
        standard_error=None,
        df=None,
        p_value=p_value,
        p_adjusted=None,
        headline=False,
        warnings=warnings,
    )


def all_rows(main: Estimate, sample: TwoArms, metric: MetricPlan, plan: AnalysisPlan, look: Look) -> Iterator[Estimate]:
    """Randomisation test first, then the other rows."""
    yield randomisation_row(main, sample, plan, look)
    yield from sensitivity_rows(main, sample, metric, plan, look.level)
