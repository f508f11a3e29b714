"""Two means and what is known of their errors: from there, every method answers the same way.

Welch, paired, adjusted, stratified and ratio estimates differ only in how they come to a `Contrast`. The difference,
the t-test with its interval and Fieller's set for the lift follow from it in this one place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import special

from analysis.results import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """The means of two arms, the variances and the covariance of these means, and their degrees of freedom."""

    control: float
    treatment: float
    control_variance: float
    treatment_variance: float
    df: float
    n_control: int
    n_treatment: int
    covariance: float = 0.0

    @property
    def difference(self) -> float:
        return self.treatment - self.control

    @property
    def variance(self) -> float:
        """Squared standard error of the difference; what is left of rounding is 0."""
        total = self.control_variance + self.treatment_variance - 2 * self.covariance
        dust = 1e-24 * max(self.control**2, self.treatment**2)
        return total if total > dust else 0.0

    @property
    def standard_error(self) -> float:
        return math.sqrt(self.variance)

    def p_value(self, null: float = 0.0) -> float | None:
        """Two-sided p of `difference == null`. None without any spread: a t-test has nothing to measure with."""
        if self.variance == 0 or self.df <= 0:
            return None
        return float(2 * special.stdtr(self.df, -abs(self.difference - null) / self.standard_error))

    def interval(self, level: float) -> Interval | None:
        """Confidence interval of the difference; None without any spread."""
        if self.variance == 0 or self.df <= 0:
            return None
        half = t_quantile(level, self.df) * self.standard_error
        return Interval(low=self.difference - half, high=self.difference + half, level=level)

    def lift(self) -> float | None:
        """Relative difference; None where the control mean is 0 but for rounding."""
        if abs(self.control) <= 1e-12 * abs(self.treatment):
            return None
        lift = self.treatment / self.control - 1
        return lift if math.isfinite(lift) else None

    def lift_interval(self, level: float) -> Interval | None:
        """Fieller's confidence set of the lift, shifted by 1 from that of the ratio of means."""
        if self.variance == 0 or self.df <= 0:
            return None
        ratio = fieller(self, level)
        low = None if ratio.low is None else ratio.low - 1
        high = None if ratio.high is None else ratio.high - 1
        return Interval(low=low, high=high, level=level, excludes=ratio.excludes)


def t_quantile(level: float, df: float) -> float:
    """Half-width of a two-sided interval in standard errors."""
    return float(-special.stdtrit(df, (1 - level) / 2))


def fieller(contrast: Contrast, level: float) -> Interval:
    """Every ratio r of means that the test of `treatment - r * control == 0` does not reject.

    Bounded where the control mean differs from 0; else the outside of an interval (`excludes`), a half-line, or
    everything. Fieller (1954), Some problems in interval estimation, J. R. Stat. Soc. B 16:175-185.
    """
    t2 = t_quantile(level, contrast.df) ** 2
    c, t = contrast.control, contrast.treatment
    scale = max(abs(c), abs(t), math.sqrt(max(contrast.control_variance, contrast.treatment_variance)))
    if scale == 0:
        return Interval(low=None, high=None, level=level)
    c, t = c / scale, t / scale  # the discriminant is of the fourth degree: keep it in range
    a = c * c - t2 * (contrast.control_variance / scale / scale)
    b = c * t - t2 * (contrast.covariance / scale / scale)
    k = t * t - t2 * (contrast.treatment_variance / scale / scale)
    discriminant = b * b - a * k
    if a == 0:  # exactly at the border: one root has gone to infinity
        if b == 0:
            return Interval(low=None, high=None, level=level)
        root = k / (2 * b)
        return Interval(low=root if b > 0 else None, high=None if b > 0 else root, level=level)
    if a < 0 and discriminant <= 0:
        return Interval(low=None, high=None, level=level)
    # The larger root first and the other from their product: no cancellation.
    spread = math.sqrt(max(discriminant, 0.0))
    far = b + math.copysign(spread, b)
    roots = sorted((far / a, k / far)) if far != 0 else [0.0, 0.0]
    if not all(math.isfinite(root) for root in roots):
        return Interval(low=None, high=None, level=level)
    return Interval(low=roots[0], high=roots[1], level=level, excludes=a < 0)
