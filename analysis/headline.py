"""The one estimate of a metric that is quoted: adjusted where a pre-period or strata allow it, else Welch's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.adjustment import LIN_FROM, ancova, independent_columns, stratum_columns
from analysis.contrast import Contrast
from analysis.errors import NotEnoughData
from analysis.hosts import FLEET_RATIO, TwoArms
from analysis.plan import MetricPlan, Role
from analysis.welch import fleet_ratio, welch

_Floats = NDArray[np.float64]
MOST_MISSING = 0.2  # of the hosts may lack a pre-period; beyond, nothing is adjusted for it
LEAST_DF = 6  # strata are left out of the model where fewer would be left over


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    contrast: Contrast
    method: str
    warnings: tuple[str, ...] = ()


def headline(sample: TwoArms, metric: MetricPlan) -> Headline:
    """Estimate one metric from the hosts of two arms; what is adjusted for was fixed before the arms differed.

    Raises NotEnoughData below two hosts in an arm.
    """
    if metric.denominator is not None and metric.estimand == FLEET_RATIO:
        top, bottom = sample.arms(sample.numerator), sample.arms(sample.denominator)
        found = fleet_ratio((top[0], bottom[0]), (top[1], bottom[1]))
        return Headline(contrast=found, method="Welch t on the linearised ratio")
    control, treatment = sample.arms(sample.y)
    unadjusted = welch(control, treatment)
    if metric.role is Role.EXPOSURE:  # what was received is what it was: a control that got none must read 0
        return Headline(contrast=unadjusted, method="Welch t")
    covariates, names, warnings = covariates_of(sample)
    if covariates.shape[1] == 0 or unadjusted.variance == 0:
        return Headline(contrast=unadjusted, method="Welch t", warnings=warnings)
    models = ["ANCOVA"]
    if "pre-period" in names and min(sample.sizes) >= LIN_FROM:
        models = ["Lin's ANCOVA", "ANCOVA"]
    for model in models:
        try:
            found = ancova(sample.y, sample.treated, covariates, interact=model != "ANCOVA")
        except NotEnoughData:
            continue  # an arm is missing from some stratum: the smaller model may still do
        return Headline(contrast=found, method=f"{model} on {' and '.join(names)}, HC2", warnings=warnings)
    return Headline(contrast=unadjusted, method="Welch t", warnings=(*warnings, "too few hosts to adjust"))


def covariates_of(sample: TwoArms) -> tuple[_Floats, tuple[str, ...], tuple[str, ...]]:
    """Columns to adjust for, what they are, and what had to be left out or filled in."""
    hosts = sample.y.size
    names: list[str] = []
    warnings: list[str] = []
    columns = np.empty((hosts, 0))
    known = np.isfinite(sample.before)
    missing = int((~known).sum())
    if 0 < missing <= MOST_MISSING * hosts:
        warnings.append(f"{missing} hosts without a pre-period count as average in it")
    elif 0 < missing < hosts:
        warnings.append(f"{missing} of {hosts} hosts have no pre-period: nothing was adjusted for it")
    if missing <= MOST_MISSING * hosts and hosts:
        filled = np.where(known, sample.before, sample.before[known].mean() if known.any() else 0.0)
        if independent_columns(filled[:, np.newaxis]).shape[1] and hosts - 3 >= 3:
            columns, names = filled[:, np.newaxis], ["pre-period"]
    dummies = stratum_columns(sample.strata)
    if dummies.shape[1]:
        smallest = min(
            int((sample.treated[sample.strata == name] == arm).sum())
            for name in np.unique(sample.strata)
            for arm in (False, True)
        )
        if hosts - columns.shape[1] - dummies.shape[1] - 2 >= LEAST_DF and smallest >= 1:
            columns, names = np.hstack((columns, dummies)), [*names, "strata"]
        else:
            warnings.append("too few hosts in some stratum: strata were not adjusted for")
    return columns, tuple(names), tuple(warnings)
