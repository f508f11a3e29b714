"""Do strata tell the same story? Cochran's Q, I2, and the mean of a population of strata."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis.errors import NotEnoughData
from analysis.finite import refuse_not_finite


@dataclass(frozen=True, slots=True, kw_only=True)
class Heterogeneity:
    """Q with its df and p; I2, the share of spread beyond chance; tau2, the variance between strata; both means."""

    q: float
    df: int
    p_value: float
    i2: float
    tau2: float
    fixed: float
    fixed_se: float
    random: float
    random_se: float  # Hartung-Knapp-Sidik-Jonkman is not used: it can be shorter than the fixed one
    opposite_signs: bool  # two strata clearly on different sides of 0

    def random_interval(self, level: float) -> tuple[float, float]:
        half = float(stats.norm.ppf(0.5 + level / 2)) * self.random_se
        return self.random - half, self.random + half


def heterogeneity(effects: Sequence[float], variances: Sequence[float], alpha: float = 0.05) -> Heterogeneity:
    """Compare independent effects with known variances; random effects by DerSimonian and Laird.

    Cochran (1954), Biometrics 10:101-129; Higgins and Thompson (2002), Stat. Med. 21:1539-1558; DerSimonian and Laird
    (1986), Control. Clin. Trials 7:177-188. Raises NotEnoughData below two effects or for a variance of 0.
    """
    y, v = np.asarray(effects, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    refuse_not_finite("heterogeneity", y, v)
    if y.size < 2 or not (v > 0).all():
        raise NotEnoughData("two strata with some spread are needed", "heterogeneity", "leave constant strata out")
    w = 1 / v
    fixed = float(w @ y / w.sum())
    q = float(w @ (y - fixed) ** 2)
    df = y.size - 1
    shares = w / w.sum()
    scale = float(w.sum() * (shares @ (1 - shares)))
    tau2 = max(0.0, (q - df) / scale) if scale > 0 else 0.0  # one stratum outweighs all: nothing to tell apart
    wide = 1 / (v + tau2)
    clear = np.abs(y) > stats.norm.ppf(1 - alpha / 2) * np.sqrt(v)
    return Heterogeneity(
        q=q,
        df=df,
        p_value=float(stats.chi2.sf(q, df)),
        i2=max(0.0, (q - df) / q) if q > 0 else 0.0,
        tau2=tau2,
        fixed=fixed,
        fixed_se=math.sqrt(1 / w.sum()),
        random=float(wide @ y / wide.sum()),
        random_se=math.sqrt(1 / wide.sum()),
        opposite_signs=bool((y[clear] > 0).any() and (y[clear] < 0).any()),
    )
