"""What should have been measured and was not, metric by metric and arm by arm: how much, and how much it could hide.

A host that is lost, a metric that a host does not have, a period that broke and was repeated until one survived: each
is a value that the arm would have had. The worst case puts it at the end of what the metric can be taken to reach.
Horowitz and Manski (2000), J. Am. Stat. Assoc. 95:77-84; Lee (2009), Rev. Econ. Stud. 76:1071-1102.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.effect import Bounds
from analysis.headline import MOST_MISSING, Redraws, headline, linearised
from analysis.hosts import HostTable, TwoArms
from analysis.plan import Estimand, MetricPlan
from analysis.results import Missing, Units

_Floats = NDArray[np.float64]
WIDENED_BELOW = 10  # values: so few show half of what they reach; each further one shows more


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """One metric's gaps in two arms: all hosts that should have it, NaN where not, and the share that is known."""

    sample: TwoArms
    share: _Floats

    @property
    def lost(self) -> tuple[float, float]:
        """Hosts' worth of values that are missing: control, treatment."""
        gap = 1 - self.share
        treated = self.sample.treated
        return float(gap[~treated].sum()), float(gap[treated].sum())

    @property
    def any(self) -> bool:
        return bool((self.share < 1).any())

    def p_value(self) -> float | None:
        """Exact test that what is missing has nothing to do with the arm, within strata; None where nothing is."""
        gap, treated, strata = self.share < 1, self.sample.treated, self.sample.strata
        tables = []
        for name in np.unique(strata):
            here = strata == name
            tables.append(
                (
                    int((gap & here & treated).sum()),
                    int((here & treated).sum()),
                    int((gap & here).sum()),
                    int(here.sum()),
                )
            )
        return stratified_exact_p(tables)

    def missing(self, metric: str) -> tuple[Missing, ...]:
        """List what is missing by arm, and by stratum where there are several."""
        out = []
        names = np.unique(self.sample.strata).tolist()
        for place, arm in ((False, self.sample.control), (True, self.sample.treatment)):
            own = self.sample.treated == place
            for stratum in ("", *(names if len(names) > 1 else ())):
                here = own & (self.sample.strata == stratum) if stratum else own
                lost = float((1 - self.share[here]).sum())
                if lost > 0 or (stratum == "" and self.any):
                    out.append(
                        Missing(
                            metric=metric,
                            arm=arm,
                            units=Units.HOSTS,
                            lost=lost,
                            due=int(here.sum()),
                            stratum=str(stratum),
                        )
                    )
        return tuple(out)


def gaps_of(table: HostTable, sample: TwoArms, metric: MetricPlan) -> Gaps:
    """Set the hosts that should have the metric beside those of the sample that have it."""
    hosts = sorted({*table.due_hosts(sample.control), *table.due_hosts(sample.treatment), *sample.hosts.tolist()})
    shares = table.shares(metric).reindex(hosts).to_numpy(dtype=np.float64)
    place = {host: number for number, host in enumerate(sample.hosts.tolist())}
    found = np.array([place.get(host, -1) for host in hosts], dtype=np.intp)
    known = found >= 0
    units = {unit.host: unit for unit in table.units}

    def spread(values: _Floats) -> _Floats:
        out = np.full(len(hosts), np.nan)
        out[known] = values[found[known]]
        return out

    before = table.before(metric).reindex(hosts).to_numpy(dtype=np.float64)
    whole = TwoArms(
        control=sample.control,
        treatment=sample.treatment,
        hosts=np.array(hosts, dtype=np.str_),
        treated=np.array([units[host].arm == sample.treatment for host in hosts], dtype=np.bool_),
        strata=np.array([units[host].stratum for host in hosts], dtype=np.str_),
        y=spread(sample.y),
        before=before,
        numerator=spread(sample.numerator),
        denominator=spread(sample.denominator),
    )
    return Gaps(sample=whole, share=np.where(known, np.where(np.isfinite(shares), shares, 1.0), 0.0))


def bounds_of(gaps: Gaps, metric: MetricPlan, redraws: Redraws) -> Bounds | None:
    """Complete the sample at either end and estimate it as the headline is; None where nothing is missing."""
    if not gaps.any:
        return None
    plain = replace(metric, denominator=None, estimand=Estimand.MEAN_OVER_HOSTS)
    low, high = (headline(completed(gaps, metric, up=up), plain, redraws).inference for up in (False, True))
    return Bounds(low=low, high=high)


def completed(gaps: Gaps, metric: MetricPlan, *, up: bool, ends: tuple[float, float] | None = None) -> TwoArms:
    """Fill the gaps: those of the treatment at the upper end (`up`) or the lower one, those of the control opposite.

    `ends` are those of the metric, where it has any; else they are taken from what was seen.
    """
    sample = gaps.sample
    known = np.isfinite(sample.y)
    y = sample.y
    if metric.denominator is not None and metric.estimand == Estimand.FLEET_RATIO:
        y = np.full(y.size, np.nan)
        y[known] = linearised(sample.only(known))
    told = _foretold(sample, y, known)
    rest = (y - told)[known]
    low, high = fence(rest) if ends is None else ends
    floor = 0.0 if (y[known] >= 0).all() else -np.inf  # what was never negative is not taken to be
    worst = np.maximum(told + np.where(sample.treated == up, high, low), floor)
    share = gaps.share
    filled = np.where(known, share * np.where(known, y, 0.0) + (1 - share) * worst, worst)
    ones = np.ones(filled.size)
    return replace(sample, y=filled, numerator=filled, denominator=ones)


def fence(values: _Floats) -> tuple[float, float]:
    """The range that a value which was not seen is taken to lie in: that of the seen ones, wider the fewer they are.

    One more value lies beyond the range of n with a chance of 2 / (n + 1), and the further out the fewer were seen:
    the range is widened on each side by itself up to ten values, beyond by a share that falls with their number.
    """
    low, high = float(values.min()), float(values.max())
    wider = (high - low) * min(1.0, WIDENED_BELOW / values.size)
    return low - wider, high + wider


def trimmed(gaps: Gaps, level: float) -> tuple[float, float] | None:
    """Lee's bounds of the difference, had the arm only ever cost hosts (or only saved them): for hosts of either fate.

    The arm that kept the larger share loses the surplus from its top, or from its bottom. None without a surplus.
    """
    sample = gaps.sample
    known = np.isfinite(sample.y)
    kept = [float(known[sample.treated == arm].mean()) for arm in (False, True)]
    sides = [np.sort(sample.y[known & (sample.treated == arm)]) for arm in (False, True)]
    if min(side.size for side in sides) == 0 or kept[0] == kept[1]:
        return None
    more = int(kept[1] > kept[0])
    cut = int(np.floor((1 - kept[1 - more] / kept[more]) * sides[more].size + 1e-9))
    if cut >= sides[more].size:
        return None
    whole = sides[more]
    ends = [float(part.mean()) for part in (whole[: whole.size - cut], whole[cut:])]
    other = float(sides[1 - more].mean())
    found = [end - other for end in ends] if more else [other - end for end in ends]
    return min(found), max(found)


def stratified_exact_p(tables: Sequence[tuple[int, int, int, int]]) -> float | None:
    """Two-sided exact p that a mark is spread over two arms by chance within strata; None where no unit bears it.

    Each table is (marked treated, treated, marked, all). The sum over strata of hypergeometric counts, given the
    margins; as extreme is what is not likelier. With one stratum it is Fisher's test. Mehta, Patel and Gray (1985),
    J. Am. Stat. Assoc. 80:969-973.
    """
    law, start, seen = np.ones(1), 0, 0
    for marked_treated, treated, marked, every in tables:
        low, high = max(0, marked - (every - treated)), min(marked, treated)
        law = np.convolve(law, stats.hypergeom.pmf(np.arange(low, high + 1), every, marked, treated))
        start, seen = start + low, seen + marked_treated
    if not any(table[2] for table in tables):
        return None
    return float(min(1.0, law[law <= law[seen - start] * (1 + 1e-9)].sum()))


def _foretold(sample: TwoArms, y: _Floats, known: NDArray[np.bool_]) -> _Floats:
    """What the pre-period foretells of each host, by the slope within the arms; without one the same of all hosts."""
    before = sample.before
    told = np.zeros(y.size)
    seen = np.isfinite(before)
    if not seen[~known].all() or seen.mean() < 1 - MOST_MISSING:
        return told
    both = known & seen
    arms = [both & (sample.treated == arm) for arm in (False, True)]
    if min(int(arm.sum()) for arm in arms) < 2:
        return told
    x, centred = np.zeros(y.size), np.zeros(y.size)
    for arm in arms:
        x[arm], centred[arm] = before[arm] - before[arm].mean(), y[arm] - y[arm].mean()
    square = float(x @ x)
    slope = float(x @ centred) / square if square > 1e-18 * float(before[both] @ before[both]) else 0.0
    told[seen] = slope * before[seen]
    return told
