"""The one estimate of a metric that is quoted: adjusted where a pre-period or strata allow it, else Welch's.

Where hosts are few or skewed, a randomisation test by the plan's own draw stands beside it and must agree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from analysis.adjustment import LIN_FROM, ancova, independent_columns, stratum_columns
from analysis.assignment_redraws import Replay, redrawn, replay_of
from analysis.contrast import Contrast
from analysis.errors import NotEnoughData
from analysis.hosts import TwoArms
from analysis.inference import Inference, is_delicate
from analysis.plan import AnalysisPlan, Estimand, MetricPlan, Role
from analysis.randomisation_intervals import HostDraws
from analysis.welch import fleet_ratio, welch

_Floats = NDArray[np.float64]
MOST_MISSING = 0.2  # of the hosts may lack a pre-period; beyond, nothing is adjusted for it
LEAST_DF = 6  # strata are left out of the model where fewer would be left over
MOST_HOSTS = 20_000  # beyond, the mean is as good as normal whatever hosts are like


class Covariate(StrEnum):
    """What a headline is adjusted for."""

    PRE_PERIOD = "pre-period"
    STRATA = "strata"


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    inference: Inference
    method: str
    warnings: tuple[str, ...] = ()

    @property
    def contrast(self) -> Contrast:
        return self.inference.contrast


@dataclass(frozen=True, slots=True, kw_only=True)
class Redraws:
    """The assignments that the plan's own mechanism could have given, kept for every metric of the same hosts."""

    plan: AnalysisPlan
    _kept: dict[bytes, tuple[Replay, NDArray[np.bool_], bool] | NotEnoughData] = field(default_factory=dict)

    def of(self, sample: TwoArms) -> tuple[Replay, NDArray[np.bool_], bool]:
        """Return the mechanism, its draws [draw, host], and whether the real one is to be counted in besides.

        Raises NotEnoughData where the plan cannot be replayed.
        """
        key = b"\0".join((sample.hosts.tobytes(), sample.treated.tobytes(), sample.treatment.encode()))
        if key not in self._kept:
            try:
                self._kept[key] = self._drawn(sample)
            except NotEnoughData as error:
                self._kept[key] = error
        found = self._kept[key]
        if isinstance(found, NotEnoughData):
            raise found
        return found

    def _drawn(self, sample: TwoArms) -> tuple[Replay, NDArray[np.bool_], bool]:
        replay = replay_of(sample, self.plan)
        return replay, *redrawn(replay, sample.y.size, self.plan.seed)

    def test(self, sample: TwoArms, top: _Floats, bottom: _Floats, basis: _Floats) -> HostDraws:
        """Return the randomisation test of values; `basis` are columns that they are cleaned of."""
        _, draws, counted_in = self.of(sample)
        return HostDraws(
            top=top, bottom=bottom, treated=sample.treated, draws=draws, counted_in=counted_in, basis=basis
        )


def headline(sample: TwoArms, metric: MetricPlan, redraws: Redraws, *, claims: bool = True) -> Headline:
    """Estimate one metric from the hosts of two arms; what is adjusted for was fixed before the arms differed.

    `claims`: something will be concluded, so that few or skewed hosts need the randomisation test. Raises
    NotEnoughData below two hosts in an arm.
    """
    nothing = np.empty((sample.y.size, 0))
    if metric.denominator is not None and metric.estimand == Estimand.FLEET_RATIO:
        top, bottom = sample.arms(sample.numerator), sample.arms(sample.denominator)
        contrast = fleet_ratio((top[0], bottom[0]), (top[1], bottom[1]))
        linear = linearised(sample)
        warnings: tuple[str, ...] = (
            ("strata and pre-period are not adjusted for in a fleet ratio",)
            if len(np.unique(sample.strata)) > 1 or np.isfinite(sample.before).any()
            else ()
        )
        method = "Welch t on the linearised ratio"
        if not (claims and is_delicate(*sample.arms(linear))):
            return Headline(inference=Inference(contrast=contrast), method=method, warnings=warnings)
        return _with_draws(contrast, method, warnings, (sample, sample.numerator, sample.denominator, nothing), redraws)
    control, treatment = sample.arms(sample.y)
    contrast = unadjusted = welch(control, treatment)
    method, covariates, warnings = "Welch t", nothing, ()
    if metric.role is not Role.EXPOSURE:  # what was received is what it was: a control that got none must read 0
        covariates, names, warnings = covariates_of(sample)
        if covariates.shape[1] and contrast.variance > 0:
            contrast, method, warnings = _adjusted(sample, covariates, names, contrast, warnings)
    if contrast is unadjusted:
        covariates = nothing
    basis = independent_columns(covariates)
    if not (claims and is_delicate(*sample.arms(_cleaned(sample.y, basis)))):
        return Headline(inference=Inference(contrast=contrast), method=method, warnings=warnings)
    return _with_draws(contrast, method, warnings, (sample, sample.y, np.ones(sample.y.size), basis), redraws)


def linearised(sample: TwoArms) -> _Floats:
    """Each host's part in its arm's ratio of sums: their mean is the ratio, their spread its error. Deng et al. 2018.

    Raises NotEnoughData where a denominator sums to 0.
    """
    out = np.empty(sample.y.size)
    for arm in (sample.treated, ~sample.treated):
        top, bottom = sample.numerator[arm], sample.denominator[arm]
        if bottom.size and not bottom.sum() > 0:
            raise NotEnoughData("a ratio's denominator sums to 0", "fleet ratio", "leave the metric out")
        ratio = top.sum() / bottom.sum() if bottom.size else 0.0
        out[arm] = ratio + (top - ratio * bottom) / bottom.mean() if bottom.size else 0.0
    return out


def _with_draws(
    contrast: Contrast,
    method: str,
    warnings: tuple[str, ...],
    values: tuple[TwoArms, _Floats, _Floats, _Floats],
    redraws: Redraws,
) -> Headline:
    if values[0].y.size > MOST_HOSTS:
        return Headline(inference=Inference(contrast=contrast), method=method, warnings=warnings)
    try:
        drawn = redraws.test(*values)
    except NotEnoughData as error:
        return Headline(
            inference=Inference(contrast=contrast, wanting=True), method=method, warnings=(*warnings, error.what)
        )
    inference = Inference(contrast=contrast, drawn=drawn)
    return Headline(inference=inference, method=f"{method} and randomisation test", warnings=warnings)


def _adjusted(
    sample: TwoArms, covariates: _Floats, names: tuple[Covariate, ...], unadjusted: Contrast, warnings: tuple[str, ...]
) -> tuple[Contrast, str, tuple[str, ...]]:
    models = [("ANCOVA", False)]
    if Covariate.PRE_PERIOD in names and min(sample.sizes) >= LIN_FROM:
        models = [("Lin's ANCOVA", True), *models]
    for model, interact in models:
        try:
            found = ancova(sample.y, sample.treated, covariates, interact=interact)
        except NotEnoughData:
            continue  # an arm is missing from some stratum: the smaller model may still do
        return found, f"{model} on {' and '.join(names)}, HC2", warnings
    return unadjusted, "Welch t", (*warnings, "too few hosts to adjust")


def _cleaned(y: _Floats, basis: _Floats) -> _Floats:
    centred = y - y.mean()
    cleaned: _Floats = centred - basis @ (basis.T @ centred)
    return cleaned


def covariates_of(sample: TwoArms) -> tuple[_Floats, tuple[Covariate, ...], tuple[str, ...]]:
    """Columns to adjust for, what they are, and what had to be left out or filled in."""
    hosts = sample.y.size
    names: list[Covariate] = []
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
            columns, names = filled[:, np.newaxis], [Covariate.PRE_PERIOD]
    dummies = stratum_columns(sample.strata)
    if dummies.shape[1]:
        smallest = min(
            int((sample.treated[sample.strata == name] == arm).sum())
            for name in np.unique(sample.strata)
            for arm in (False, True)
        )
        if hosts - columns.shape[1] - dummies.shape[1] - 2 >= LEAST_DF and smallest >= 1:
            columns, names = np.hstack((columns, dummies)), [*names, Covariate.STRATA]
        else:
            warnings.append("too few hosts in some stratum: strata were not adjusted for")
    return columns, tuple(names), tuple(warnings)
