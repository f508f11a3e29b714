"""The mean of a population of strata, and how much the strata differ: I2 and tau2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis.errors import NotEnoughData
from analysis.validation import refuse_not_finite


@dataclass(frozen=True, slots=True, kw_only=True)
class Heterogeneity:
    """Cochran's Q with its df; I2, the share of spread beyond chance; tau2, the variance between strata; both means."""

    q: float
    df: int
    i2: float
    tau2: float
    fixed: float
    fixed_se: float
    random: float
    random_se: float  # by DerSimonian and Laird, as if the variances were known
    spread_se: float  # by Hartung and Knapp, from how the strata scatter

    def random_interval(self, level: float) -> tuple[float, float]:
        half = float(stats.t.ppf(0.5 + level / 2, self.df)) * max(self.random_se, self.spread_se)
        return self.random - half, self.random + half


def heterogeneity(effects: Sequence[float], variances: Sequence[float]) -> Heterogeneity:
    """Pool independent effects; random effects by DerSimonian and Laird, their interval with the larger of its errors.

    Cochran (1954), Biometrics 10:101-129; Higgins and Thompson (2002), Stat. Med. 21:1539-1558; DerSimonian and Laird
    (1986), Control. Clin. Trials 7:177-188; Knapp and Hartung (2003), Stat. Med. 22:2693-2710. Q is not a test here:
    with a few hosts a stratum its variances are far from known. Raises NotEnoughData below two effects or for a
    variance of 0.
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
    random = float(wide @ y / wide.sum())
    return Heterogeneity(
        q=q,
        df=df,
        i2=max(0.0, (q - df) / q) if q > 0 else 0.0,
        tau2=tau2,
        fixed=fixed,
        fixed_se=math.sqrt(1 / w.sum()),
        random=random,
        random_se=math.sqrt(1 / wide.sum()),
        spread_se=math.sqrt(float(wide @ (y - random) ** 2) / df / wide.sum()),
    )
