"""How small an effect a fleet can show, and how many hosts an effect needs: before anything is launched."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from analysis.errors import BadPlan, NotEnoughData
from analysis.finite import refuse_not_finite

_Floats = NDArray[np.float64]
MOST_HOSTS = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What pre-period data say of a metric: its mean, its host-to-host SD, and what is left of that once adjusted."""

    mean: float
    sd: float
    correlation: float | None  # between two windows of the same hosts
    hosts: int

    @property
    def adjusted_sd(self) -> float:
        return self.sd if self.correlation is None else self.sd * math.sqrt(max(0.0, 1 - self.correlation**2))


def spread_of(later: _Floats, earlier: _Floats | None = None) -> Spread:
    """Measure the spread of hosts over a window, and how well an earlier window of the same hosts foretells it."""
    refuse_not_finite("power", later, *([] if earlier is None else [earlier]))
    if later.size < 3:
        raise NotEnoughData(f"{later.size} hosts give no spread", "power", "measure at least three hosts")
    correlation = None
    if earlier is not None and later.std() > 0 and earlier.std() > 0:
        correlation = float(np.clip(np.corrcoef(later, earlier)[0, 1], -1.0, 1.0))
    return Spread(mean=float(later.mean()), sd=float(later.std(ddof=1)), correlation=correlation, hosts=later.size)


def power(effect: float, sd: float, hosts: tuple[int, int], alpha: float = 0.05) -> float:
    """Chance that a two-sided t-test at alpha sees a true difference `effect`; hosts are (control, treatment).

    From the noncentral t. Cohen (1988), Statistical Power Analysis, chapter 2.
    """
    n, m = hosts
    if min(n, m) < 2 or not 0 < sd < math.inf:
        raise BadPlan("power needs two hosts an arm and a positive SD", "power", "measure the spread first")
    if not (math.isfinite(effect) and 0 < alpha < 1):
        raise BadPlan(f"no power for an effect of {effect:g} at alpha {alpha:g}", "power", "give finite numbers")
    df = n + m - 2
    shift = abs(effect) / (sd * math.sqrt(1 / n + 1 / m))
    return _from_shift(shift, df, alpha)


def detectable(sd: float, hosts: tuple[int, int], alpha: float = 0.05, wanted: float = 0.8) -> float:
    """Minimum detectable effect (MDE), in the metric's unit: the difference seen with probability `wanted`."""
    _check_wanted(wanted, alpha)
    power(0.0, sd, hosts, alpha)  # refuses what has no power
    unit = sd * math.sqrt(1 / hosts[0] + 1 / hosts[1])

    def missing(effect: float) -> float:
        return power(effect * unit, sd, hosts, alpha) - wanted

    return float(optimize.brentq(missing, 1e-9, 1e4, xtol=1e-9)) * unit


def paired_power(effect: float, sd: float, units: int, alpha: float = 0.05) -> float:
    """Chance that a two-sided paired t-test sees a true difference; `sd` is that of one unit's contrast.

    The units are the blocks of a switchback, or matched pairs. Cohen (1988), section 2.3.
    """
    if units < 2 or sd <= 0:
        raise BadPlan("power needs two contrasts and a positive SD", "power", "measure the spread first")
    return _from_shift(abs(effect) / sd * math.sqrt(units), units - 1, alpha)


def paired_detectable(sd: float, units: int, alpha: float = 0.05, wanted: float = 0.8) -> float:
    """Minimum detectable effect of a paired t-test on `units` contrasts, in the metric's unit."""
    _check_wanted(wanted, alpha)
    unit = sd / math.sqrt(units)

    def missing(effect: float) -> float:
        return paired_power(effect * unit, sd, units, alpha) - wanted

    return float(optimize.brentq(missing, 1e-9, 1e6, xtol=1e-9)) * unit


def units_needed(effect: float, sd: float, alpha: float = 0.05, wanted: float = 0.8) -> int:
    """Fewest contrasts (blocks, pairs) that see a difference `effect` with probability `wanted`."""
    _check_wanted(wanted, alpha)
    if effect == 0 or sd <= 0:
        raise BadPlan("no number of blocks shows an effect of 0", "units_needed", "say which effect would matter")
    return _fewest(lambda units: paired_power(effect, sd, units, alpha) >= wanted, effect)


def hosts_needed(
    effect: float, sd: float, alpha: float = 0.05, wanted: float = 0.8, treated_per_control: float = 1.0
) -> tuple[int, int]:
    """Fewest hosts (control, treatment) that see a difference `effect` with probability `wanted`."""
    _check_wanted(wanted, alpha)
    if effect == 0 or not 0 < sd < math.inf or treated_per_control <= 0:
        raise BadPlan("no number of hosts shows an effect of 0", "hosts_needed", "say which effect would matter")

    def sizes(control: int) -> tuple[int, int]:
        return control, max(2, math.ceil(control * treated_per_control - 1e-9))

    return sizes(_fewest(lambda control: power(effect, sd, sizes(control), alpha) >= wanted, effect))


def _fewest(enough: Callable[[int], bool], effect: float) -> int:
    low, high = 2, 2
    while not enough(high):
        low, high = high, high * 2
        if high > MOST_HOSTS:
            raise BadPlan(f"an effect of {effect:g} needs more than {MOST_HOSTS} hosts", "hosts_needed", "adjust more")
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


def _from_shift(shift: float, df: float, alpha: float) -> float:
    """Power of a two-sided t-test whose statistic is a noncentral t."""
    critical = float(stats.t.isf(alpha / 2, df))
    both = stats.nct.sf(critical, df, shift) + stats.nct.cdf(-critical, df, shift)
    if not math.isfinite(both):  # far out, the noncentral t gives up where the normal is exact
        both = stats.norm.sf(critical - shift)
    return float(min(1.0, both))


def _check_wanted(wanted: float, alpha: float) -> None:
    if not 0 < alpha < wanted < 1:
        raise BadPlan(f"power {wanted:g} is not between alpha and 1", "power", "such as 0.8")
