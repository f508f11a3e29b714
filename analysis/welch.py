"""Two arms of hosts without more: Welch's comparison of means, and of fleet ratios by their linearisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.contrast import Contrast
from analysis.errors import NotEnoughData
from analysis.validation import refuse_not_finite

_Floats = NDArray[np.float64]


def welch(control: _Floats, treatment: _Floats) -> Contrast:
    """Compare the means of two arms, one value per host. Welch (1947), Biometrika 34:28-35.

    Raises NotEnoughData below two hosts in an arm, BadObservations for a value that is not finite.
    """
    _refuse_few(control, treatment)
    return from_means(
        (float(control.mean()), float(treatment.mean())),
        (float(control.var(ddof=1)) / control.size, float(treatment.var(ddof=1)) / treatment.size),
        (control.size, treatment.size),
    )


def fleet_ratio(control: tuple[_Floats, _Floats], treatment: tuple[_Floats, _Floats]) -> Contrast:
    """Compare sum(numerator) / sum(denominator) of two arms; each side is (numerators, denominators) by host.

    The error is that of the linearised ratio. Deng, Knoblich and Lu (2018), Applying the Delta Method in Metric
    Analytics, KDD. Raises NotEnoughData below two hosts in an arm or where a denominator sums to 0.
    """
    _refuse_few(control[0], treatment[0])
    refuse_not_finite("fleet ratio", control[1], treatment[1])
    ratios, variances = [], []
    for top, bottom in (control, treatment):
        if not bottom.sum() > 0:
            raise NotEnoughData("a ratio's denominator sums to 0", "fleet ratio", "leave the metric out")
        ratio = top.sum() / bottom.sum()
        linear = (top - ratio * bottom) / bottom.mean()
        ratios.append(float(ratio))
        variances.append(float(linear.var(ddof=1)) / top.size)
    return from_means((ratios[0], ratios[1]), (variances[0], variances[1]), (control[0].size, treatment[0].size))


def from_means(means: tuple[float, float], variances: tuple[float, float], sizes: tuple[int, int]) -> Contrast:
    """Build the contrast of independent means from the variances of these means, with Welch-Satterthwaite df."""
    return Contrast(
        control=means[0],
        treatment=means[1],
        control_variance=variances[0],
        treatment_variance=variances[1],
        df=satterthwaite(variances, [size - 1 for size in sizes]),
        n_control=sizes[0],
        n_treatment=sizes[1],
    )


def satterthwaite(variances: Sequence[float], dfs: Sequence[float]) -> float:
    """Degrees of freedom of a sum of independent variances; the sum of `dfs` where there is no variance."""
    largest = max(variances)
    if not largest > 0:
        return float(sum(dfs))
    shares = [variance / largest for variance in variances]  # squares of tiny variances would underflow
    return sum(shares) ** 2 / sum(share**2 / df for share, df in zip(shares, dfs, strict=True))


def even_df(sizes: Sequence[float]) -> float:
    """Degrees of freedom of a difference between arms of so many hosts each, all of equal noise.

    Bell and McCaffrey (2002), Bias Reduction in Standard Errors for Linear Regression with Multi-Stage Samples, Survey
    Methodology 28:169-181, where hosts weigh alike.
    """
    return satterthwaite([1 / size for size in sizes], [size - 1 for size in sizes])


def wary_df(variances: Sequence[float], sizes: Sequence[float]) -> float:
    """Degrees of freedom by Welch and Satterthwaite, at most those of hosts of equal noise.

    Few hosts that chance to be alike hide that they are few: their share of the variance looks small, and the many
    others seem to be what it rests on. Below what equal noise gives, changed hosts that are noisier still count.
    """
    return min(even_df(sizes), satterthwaite(variances, [size - 1 for size in sizes]))


def _refuse_few(control: _Floats, treatment: _Floats) -> None:
    if min(control.size, treatment.size) < 2:
        raise NotEnoughData(
            f"{control.size} and {treatment.size} hosts give no error", "two arms of hosts", "at least two in each"
        )
    refuse_not_finite("two arms of hosts", control, treatment)
