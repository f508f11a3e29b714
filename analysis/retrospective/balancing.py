"""Controls weighted until they resemble the changed hosts before the change, in level and trend.

Entropy balancing (Hainmueller 2012, Political Analysis 20:25-46) rather than matching or a propensity model: it hits
the moments exactly, has no caliper to choose, and keeps the weights as even as they can be. Hosts whose level before
was high by chance fall back afterwards, and weights by level pick those (Daw and Hatfield 2018, Health Services
Research 53:4138-4156): so it stands beside the estimate, not in its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analysis.contrast import Contrast
from analysis.errors import NotEnoughData
from analysis.inference import MIN_HOSTS
from analysis.retrospective.group_time import Controls, host_contrasts
from analysis.retrospective.panel import Panel
from analysis.welch import even_df

_Floats = NDArray[np.float64]
FOLDS = 40  # of the jackknife at most
_SETTLED, _MOST_STEPS = 1e-9, 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Balanced:
    """The effect against weighted controls. `effective` is how many evenly weighted controls would say as much."""

    contrast: Contrast
    effective: float


def balanced_effect(panel: Panel) -> Balanced:
    """Estimate the effect with balanced controls, its error by a jackknife over hosts that weighs anew each time.

    Raises NotEnoughData where no weights make the controls alike, or all rests on few of them.
    """
    estimate, level, weights = _effect(panel)
    counted = weights[~panel.changed]
    effective = float(counted.sum() ** 2 / (counted @ counted))
    if effective < MIN_HOSTS:
        raise NotEnoughData(f"the weights rest on {effective:.1f} hosts", "balancing", "compare with more alike hosts")
    folds = _folds(panel)
    count = int(folds.max()) + 1
    if panel.changed.sum() < 2:
        raise NotEnoughData("one changed host shows no spread between such hosts", "balancing", "change more hosts")
    left = np.array([_effect(panel.of(folds != fold))[:2] for fold in range(count)])
    covariance = (count - 1) * np.cov(left.T, ddof=0)
    spread = float(covariance[0, 0])
    without = spread + float(covariance[1, 1]) - 2 * float(covariance[0, 1])
    contrast = Contrast(
        control=level - estimate,
        treatment=level,
        control_variance=without,
        treatment_variance=float(covariance[1, 1]),
        covariance=float(covariance[1, 1] - covariance[0, 1]),
        df=min(count - 1, even_df((int(panel.changed.sum()), effective))),
        n_control=int((~panel.changed).sum()),
        n_treatment=int(panel.changed.sum()),
    )
    return Balanced(contrast=contrast, effective=effective)


def entropy_weights(controls: _Floats, wanted: _Floats) -> _Floats:
    """Weights of controls [host, moment] whose means are those wanted, as even as can be; they sum to 1.

    Raises NotEnoughData where the wanted means lie outside what the controls reach.
    """
    spread = controls.std(axis=0)
    live = spread > 1e-12 * np.maximum(np.abs(controls).max(axis=0), 1e-300)
    if not live.any():
        return np.full(controls.shape[0], 1 / controls.shape[0])
    moments = (controls[:, live] - wanted[live]) / spread[live]

    tilt, weights = np.zeros(moments.shape[1]), np.full(moments.shape[0], 1 / moments.shape[0])
    for _ in range(_MOST_STEPS):  # Newton's, on the dual: its gradient is what is still missing
        missing = weights @ moments
        if np.abs(missing).max() < _SETTLED:
            return weights
        curve = (weights[:, np.newaxis] * (moments - missing)).T @ (moments - missing)
        step = np.linalg.lstsq(curve, missing, rcond=None)[0]
        tilt = tilt - step * min(1.0, 1.0 / max(float(np.abs(step).max()), 1e-300))
        weights = special.softmax(moments @ tilt)
    raise NotEnoughData(
        "no weights make the others resemble the changed hosts before the change",
        "balancing",
        "compare with hosts of the same kind",
    )


def _effect(panel: Panel) -> tuple[float, float, _Floats]:
    """The effect, what changed hosts measured, and the weights [host] behind it."""
    first = min(panel.starts)
    before = panel.values[:, :first]
    usable = np.logical_and.reduce(np.isfinite(before), axis=1)
    whole = panel.of(usable)
    if not whole.changed.any() or (~whole.changed).sum() < MIN_HOSTS:
        raise NotEnoughData("too few hosts have every value before the first change", "balancing", "fill the gaps")
    before = before[usable]
    half = first // 2
    trend = before[:, half:].mean(axis=1) - before[:, :half].mean(axis=1) if half else np.zeros(whole.hosts)
    moments = np.column_stack((before.mean(axis=1), trend))
    weights = np.zeros(whole.hosts)
    weights[~whole.changed] = entropy_weights(moments[~whole.changed], moments[whole.changed].mean(axis=0))
    contrasts = host_contrasts(whole, Controls.NEVER, weights)
    found = contrasts.aggregate(contrasts.over_groups())
    of_all = np.zeros(panel.hosts)
    of_all[usable] = weights
    return found.estimate, found.level, of_all


def _folds(panel: Panel) -> NDArray[np.int64]:
    """Deal hosts into folds, each start's hosts and the unchanged ones evenly."""
    order = np.argsort(panel.start, kind="stable")
    count = min(FOLDS, panel.hosts)
    folds = np.empty(panel.hosts, dtype=np.int64)
    folds[order] = np.arange(panel.hosts) % count
    return folds
