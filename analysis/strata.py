"""Strata: the effect in each and where it stands, and estimates combined with declared weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.contrast import Contrast, t_quantile
from analysis.errors import NotEnoughData
from analysis.headline import Redraws
from analysis.hosts import TwoArms
from analysis.inference import MIN_HOSTS, Inference, is_delicate
from analysis.multiplicity import holm
from analysis.plan import Direction
from analysis.welch import satterthwaite, welch

_Floats = NDArray[np.float64]


def within_strata(y: _Floats, treated: NDArray[np.bool_], strata: NDArray[np.str_]) -> dict[str, Contrast]:
    """Welch's contrast inside each stratum that has two hosts of each arm."""
    out = {}
    for name in np.unique(strata).tolist():
        here = strata == name
        control, treatment = y[here & ~treated], y[here & treated]
        if min(control.size, treatment.size) >= 2:
            out[str(name)] = welch(control, treatment)
    return out


def combine(parts: Mapping[str, Contrast], weights: Mapping[str, float]) -> Contrast:
    """Combine independent strata: means and variances by weight, df by Satterthwaite over all cells.

    Weights are scaled to sum 1. Raises NotEnoughData without a stratum of positive weight.
    """
    used = [(part, weights.get(name, 0.0)) for name, part in parts.items() if weights.get(name, 0.0) > 0]
    total = sum(weight for _, weight in used)
    if not used:
        raise NotEnoughData("no stratum has both arms and a weight", "strata", "declare weights for the strata")
    if len(used) == 1:
        return used[0][0]
    shares = [weight / total for _, weight in used]
    rows = [part for part, _ in used]
    cells = [share**2 * row.control_variance for share, row in zip(shares, rows, strict=True)]
    cells += [share**2 * row.treatment_variance for share, row in zip(shares, rows, strict=True)]
    sizes = [row.n_control for row in rows] + [row.n_treatment for row in rows]
    return Contrast(
        control=sum(share * row.control for share, row in zip(shares, rows, strict=True)),
        treatment=sum(share * row.treatment for share, row in zip(shares, rows, strict=True)),
        control_variance=sum(cells[: len(rows)]),
        treatment_variance=sum(cells[len(rows) :]),
        df=satterthwaite(cells, [size - 1 for size in sizes]),
        n_control=sum(row.n_control for row in rows),
        n_treatment=sum(row.n_treatment for row in rows),
    )


def host_weights(strata: NDArray[np.str_]) -> dict[str, float]:
    """Weigh every stratum by its hosts."""
    names, counts = np.unique(strata, return_counts=True)
    return {str(name): float(count) for name, count in zip(names.tolist(), counts.tolist(), strict=True)}


class StratumStanding(StrEnum):
    """What is known of a stratum."""

    BETTER = "better"  # shown in it alone
    SOUND = "sound"  # harm as large as the whole fleet's gain is ruled out
    OPEN = "open"  # it is not
    HARMED = "harmed"  # shown in it alone


@dataclass(frozen=True, slots=True, kw_only=True)
class StratumEffects:
    """The strata of one comparison: the effect in each, where each stands, and whether they differ."""

    contrasts: Mapping[str, Inference]
    standing: Mapping[str, StratumStanding]
    interaction_p: float | None
    alpha: float  # what a claim had to be below, at this look

    @property
    def differ(self) -> bool:
        """Whether the effect was shown not to be the same in every stratum."""
        return self.interaction_p is not None and self.interaction_p < self.alpha

    def named(self, *standings: StratumStanding) -> tuple[str, ...]:
        return tuple(name for name, standing in self.standing.items() if standing in standings)


REST = "the small strata"  # those with fewer than two hosts of an arm, together


def judged_strata(
    sample: TwoArms, better: Direction, redraws: Redraws, *, alpha: float, gain: float | None
) -> StratumEffects | None:
    """Judge the effect in each stratum; None where there is but one.

    Strata with fewer than two hosts of an arm are taken together. Harmed and better: shown within the stratum, Holm
    over the strata. Sound: harm as large as `gain`, the difference over all hosts (None: any harm), is ruled out
    one-sided at alpha; an effect on the whole fleet can hide the loss of a part of it, and only data of that part can
    tell. `alpha` is what this look leaves. They differ: F-test of the interaction of arm and stratum.
    """
    groups = _groups(sample)
    if len(np.unique(groups)) < 2:
        return None
    y = _told_apart(sample, groups)
    sign = 1.0 if better is Direction.INCREASE else -1.0
    contrasts: dict[str, Inference] = {}
    for name in np.unique(groups).tolist():
        here = groups == name
        control, treatment = y[here & ~sample.treated], y[here & sample.treated]
        if min(control.size, treatment.size) >= 2:
            contrasts[str(name)] = _within(sample, y, here, redraws)
    tested = {name: p for name, found in contrasts.items() if (p := _own_p(found)) is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    standing = {}
    for name in np.unique(groups).tolist():
        found = contrasts.get(str(name))
        if found is None:
            standing[str(name)] = StratumStanding.OPEN
            continue
        shown = adjusted.get(str(name), 1.0) < alpha
        if shown:
            standing[str(name)] = StratumStanding.BETTER if sign * found.difference > 0 else StratumStanding.HARMED
        else:
            sound = _ruled_out(found.contrast, sign, abs(gain or 0.0), alpha)
            standing[str(name)] = StratumStanding.SOUND if sound else StratumStanding.OPEN
    return StratumEffects(
        contrasts=contrasts,
        standing=standing,
        interaction_p=interaction_p(y, sample.treated, groups),
        alpha=alpha,
    )


def interaction_p(y: _Floats, treated: NDArray[np.bool_], strata: NDArray[np.str_]) -> float | None:
    """F-test of `the effect is the same in every stratum`; None without spread or hosts to spare.

    Of strata that have both arms. Scheffe (1959), The Analysis of Variance, section 4.4, unequal numbers.
    """
    names = [n for n in np.unique(strata) if treated[strata == n].any() and not treated[strata == n].all()]
    kept = np.isin(strata, names)
    y, treated, strata = y[kept], treated[kept], strata[kept]
    if len(names) < 2:
        return None
    cells = {(n, a): y[(strata == n) & (treated == a)] for n in names for a in (False, True)}
    within = sum(float(((cell - cell.mean()) ** 2).sum()) for cell in cells.values())
    df = y.size - len(cells)
    gaps = np.array([cells[n, True].mean() - cells[n, False].mean() for n in names])
    weights = np.array([1 / (1 / cells[n, True].size + 1 / cells[n, False].size) for n in names])
    if df < 1 or not within > 1e-18 * float(y @ y):
        return None
    between = float(weights @ (gaps - weights @ gaps / weights.sum()) ** 2)
    return float(stats.f.sf(between / (len(names) - 1) / (within / df), len(names) - 1, df))


def _groups(sample: TwoArms) -> NDArray[np.str_]:
    """Each host's stratum; those with fewer than two hosts of an arm are one."""
    out = sample.strata.astype(object)
    for name in np.unique(sample.strata):
        here = sample.strata == name
        if min(int((here & sample.treated).sum()), int((here & ~sample.treated).sum())) < 2:
            out[here] = REST
    return out.astype(np.str_)


def _told_apart(sample: TwoArms, groups: NDArray[np.str_]) -> _Floats:
    """Values less what the pre-period foretells of them, by the common slope within arms and strata."""
    before = sample.before
    if not np.isfinite(before).all():
        return sample.y
    x, y = before.copy(), sample.y.copy()
    for name in np.unique(groups):
        for arm in (False, True):
            cell = (groups == name) & (sample.treated == arm)
            if cell.any():
                x[cell], y[cell] = x[cell] - x[cell].mean(), y[cell] - y[cell].mean()
    square = float(x @ x)
    if not square > 1e-18 * float(before @ before):
        return sample.y
    centred = before - before.mean()
    told: _Floats = sample.y - float(x @ y) / square * centred
    return told


def _within(sample: TwoArms, y: _Floats, here: NDArray[np.bool_], redraws: Redraws) -> Inference:
    """Welch's contrast of one stratum, with the randomisation test beside it where its hosts are few or skewed."""
    control, treatment = y[here & ~sample.treated], y[here & sample.treated]
    contrast = welch(control, treatment)
    if not is_delicate(control, treatment) or contrast.variance == 0:
        return Inference(contrast=contrast)
    part = sample.only(here)
    try:
        drawn = redraws.test(part, y[here], np.ones(int(here.sum())), np.empty((int(here.sum()), 0)))
    except NotEnoughData:
        return Inference(contrast=contrast, wanting=True)
    return Inference(contrast=contrast, drawn=drawn)


def _own_p(found: Inference) -> float | None:
    """A claim on one stratum needs as many hosts as a claim on the fleet."""
    return found.p_value() if min(found.contrast.n_control, found.contrast.n_treatment) >= MIN_HOSTS else None


def _ruled_out(contrast: Contrast, sign: float, harm: float, alpha: float) -> bool:
    if contrast.variance == 0:
        return sign * contrast.difference >= 0
    return sign * contrast.difference - t_quantile(1 - 2 * alpha, contrast.df) * contrast.standard_error > -harm
