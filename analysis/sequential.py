"""Looking early at planned moments: how much of alpha each look may spend, and the bound that spends just that."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from analysis.errors import BadPlan

_Floats = NDArray[np.float64]

LARGEST_Z = 8.0  # an early look that may spend less than 1e-15 stops nothing
_NODES = 256


def spent(fraction: float, alpha: float) -> float:
    """Two-sided alpha spent by an information fraction: O'Brien-Fleming type, alpha / 2 on each side.

    Lan and DeMets (1983), Biometrika 70:659-663. Rises from 0 to alpha.
    """
    if not 0 < fraction <= 1:
        raise BadPlan(f"information fraction {fraction:g} is not in (0, 1]", "information_fractions", "end with 1")
    if not 0 < alpha < 1:
        raise BadPlan(f"alpha {alpha:g} is not in (0, 1)", "alpha", "such as 0.05")
    return 4 * float(stats.norm.sf(stats.norm.isf(alpha / 4) / math.sqrt(fraction)))


@lru_cache(maxsize=256)
def bounds(fractions: tuple[float, ...], alpha: float) -> tuple[float, ...]:
    """Critical |z| at each look, so that the chance ever to cross is what was spent up to there.

    The exit probabilities are integrated look by look (Armitage, McPherson and Rowe 1969, J. R. Stat. Soc. A
    132:235-244) by Gauss-Legendre over the region where the run went on.
    """
    if any(later <= earlier for earlier, later in pairwise(fractions)):
        raise BadPlan("the looks do not rise", "information_fractions", "such as (0.25, 0.5, 1.0)")
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    out: list[float] = []
    before, mass = np.zeros(1), np.ones(1)  # Brownian motion at 0, and the weight of each point
    time, used = 0.0, 0.0
    for fraction in fractions:
        allowed = spent(fraction, alpha)
        step, root = math.sqrt(fraction - time), math.sqrt(fraction)
        z = _crossed_with(allowed - used, before / step, mass, root / step)
        out.append(z)
        here = nodes * z * root
        density = stats.norm.pdf((here[:, np.newaxis] - before) / step) / step
        mass = (density @ mass) * weights * z * root
        before, time, used = here, fraction, allowed
    return tuple(out)


def _crossed_with(chance: float, start: _Floats, mass: _Floats, scale: float) -> float:
    """Find the |z| that is crossed with this chance in one step from where the run stands."""

    def excess(z: float) -> float:
        return float(mass @ (stats.norm.sf(z * scale - start) + stats.norm.cdf(-z * scale - start))) - chance

    return LARGEST_Z if excess(LARGEST_Z) > 0 else float(optimize.brentq(excess, 0.0, LARGEST_Z, xtol=1e-12))


def level_at(fractions: tuple[float, ...], look: int, alpha: float) -> float:
    """Two-sided error rate that a single look may use; its interval has 1 minus this."""
    return alpha if len(fractions) == 1 else 2 * float(stats.norm.sf(bounds(fractions, alpha)[look]))
