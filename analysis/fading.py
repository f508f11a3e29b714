"""Does the effect stay? The later half of the measured time against the earlier one, within the same units.

A mean over the whole time ships what has gone by its end: novelty, caches that were warmed, big pages that fragment. A
rollout is kept, so that what counts is what is there in the later half. It faded where it is clearly smaller there, in
the metric's own unit and relative to the control alike: where load rises or falls, one of these moves by itself. What
moves both arms alike (the time of day) cancels, and what is still on its way in at the start grows: it does not fade.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.blocks import PairedBlocks
from analysis.contrast import Contrast
from analysis.effect import Effect
from analysis.estimates import estimate
from analysis.halves import in_later_half
from analysis.headline import Redraws, headline, linearised
from analysis.hosts import HostTable
from analysis.inference import MIN_HOSTS, Inference
from analysis.matched import pair_contrast
from analysis.plan import Estimand, MetricPlan
from analysis.quantities import counted
from analysis.results import HALVES, Check, Estimate, EstimateKind
from analysis.switchback import MIN_HOSTS as HOSTS_AS_UNITS
from analysis.switchback import block_contrast, mean_of_hosts
from analysis.welch import welch
from analysis.wording import halves_words

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Halves:
    """The effect in the earlier and in the later half, and the later less the earlier in each way it was looked at."""

    earlier: Inference
    later: Inference
    changes: tuple[Inference, ...]  # the first in the metric's own unit, then relative to the control where that is > 0
    left_out: int = 0  # hosts of which a half is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Fading:
    """What became of one treatment's clear effect: `faded`, and whether the later half alone still shows it."""

    rows: tuple[Estimate, ...]  # earlier half, later half
    check: Check
    faded: bool = False
    lasts: bool = True

    @property
    def gone(self) -> bool:
        """Whether nothing may be concluded from the mean over the whole time."""
        return self.faded and not self.lasts


def fading_of(effect: Effect, halves: Halves | None, metric: MetricPlan, alpha: float) -> Fading:
    """Judge whether an effect stayed. Only one that is clear over the whole time can have faded."""
    main = effect.estimate
    name = f"fading ({main.metric}, {main.treatment})"
    if halves is None:
        said = "Not testable: too few units have both an earlier and a later half of their measured time."
        return Fading(rows=(), check=Check(name=name, passed=None, p_value=None, detail=said))
    rows = tuple(
        _row(effect, metric, half, kind) for half, kind in zip((halves.earlier, halves.later), HALVES, strict=True)
    )
    told = f"{halves_words(rows)}."
    if halves.left_out:
        told += f" {counted(halves.left_out, 'host')} without both halves left out."
    if main.p is None or main.p >= alpha or main.difference is None:
        said = f"Not testable without a clear change over the whole time. {told}"
        return Fading(rows=rows, check=Check(name=name, passed=None, p_value=None, detail=said))
    rose = main.difference > 0
    p = [1.0 if (found := one.p_value()) is None else found for one in halves.changes]
    faded = max(p) < alpha and all((one.difference < 0) == rose for one in halves.changes)
    later = rows[1]
    lasts = later.p is not None and later.p < alpha and later.difference is not None and (later.difference > 0) == rose
    words = "faded, and is still clear" if lasts else "faded, and the later half alone does not show it"
    check = Check(
        name=name,
        passed=lasts or not faded,
        p_value=max(p),
        detail=f"The change {words if faded else 'is not clearly smaller in the later half'}. {told}",
    )
    return Fading(rows=rows, check=check, faded=faded, lasts=lasts)


def _row(effect: Effect, metric: MetricPlan, half: Inference, kind: EstimateKind) -> Estimate:
    main = effect.estimate
    return estimate(
        half,
        replace(metric, name=main.metric),
        effect.look,
        treatment=main.treatment,
        control=main.control,
        estimand=main.estimand,
        method=f"the same in the {kind.value.replace('_', ' ')} of each unit's measured time",
        kind=kind,
    )


# ---------------------------------------------------------------------------- hosts as units
def host_halves(table: HostTable, metric: MetricPlan, treatment: str, redraws: Redraws) -> Halves | None:
    """Compare the arms in either half of each host's periods; None below 4 hosts an arm that have both halves."""
    samples = table.halves(metric, treatment)
    earlier, later = samples
    if min(earlier.sizes) < MIN_HOSTS:
        return None
    by_host = [linearised(one) if metric.estimand == Estimand.FLEET_RATIO else one.y for one in samples]
    changes = [by_host[1] - by_host[0]]
    means = [float(values[~later.treated].mean()) for values in by_host]
    if min(means) > 0:
        changes.append(by_host[1] / means[1] - by_host[0] / means[0])
    alike = replace(metric, denominator=None, estimand=Estimand.MEAN_OVER_HOSTS)
    return Halves(
        earlier=headline(earlier, metric, redraws).inference,
        later=headline(later, metric, redraws).inference,
        # Where load moves, hosts change by their own level: by the pre-period that is adjusted for.
        changes=tuple(headline(replace(later, y=values), alike, redraws).inference for values in changes),
        left_out=table.two_arms(metric, treatment).y.size - later.y.size,
    )


# ---------------------------------------------------------------------------- blocks as units
def block_halves(pairs: PairedBlocks) -> Halves | None:
    """Compare the arms in either half of each host's blocks; None for blocks too few to give each half an error.

    By t-tests alone: half of a few blocks has too few orders for a sign-flip test, which the whole has passed.
    """
    _, host_of = np.unique(np.array(pairs.hosts, dtype=object), return_inverse=True)
    blocks = np.array(pairs.blocks, dtype=np.intp)
    late = in_later_half(np.asarray(host_of, dtype=np.intp), blocks)
    both = np.isin(host_of, host_of[late])
    halves = [pairs.only(both & ~late), pairs.only(both & late)]
    effects = [block_contrast(half)[0] for half in halves] if late.any() else [None]
    changes = [_change(halves)]
    if min(pairs.control, default=0.0) > 0:
        changes.append(_change([_relative(half) for half in halves]))
    found = [one for one in (*effects, *changes) if one is not None]
    if len(found) < len(effects) + len(changes):
        return None
    return Halves(
        earlier=Inference(contrast=found[0]),
        later=Inference(contrast=found[1]),
        changes=tuple(Inference(contrast=one) for one in found[2:]),
    )


def _relative(pairs: PairedBlocks) -> PairedBlocks:
    """Values relative to the host's mean under control."""
    _, host_of = np.unique(np.array(pairs.hosts, dtype=object), return_inverse=True)
    means = (np.bincount(host_of, weights=pairs.control) / np.bincount(host_of))[host_of]
    return replace(pairs, control=pairs.control / means, treatment=pairs.treatment / means)


def _change(halves: list[PairedBlocks]) -> Contrast | None:
    """The mean contrast of later blocks less that of earlier ones; the hosts are the units from 6 on."""
    by_host: list[list[_Floats]] = []
    for half in halves:
        own = np.array(half.hosts, dtype=object)
        by_host.append([(half.treatment - half.control)[own == host] for host in sorted(set(half.hosts))])
    earlier, later = by_host
    if len(later) >= HOSTS_AS_UNITS:
        return pair_contrast(*(np.array([one.mean() for one in half]) for half in by_host))
    if not later or min(one.size for half in by_host for one in half) < 2:
        return None
    return mean_of_hosts([welch(before, after) for before, after in zip(earlier, later, strict=True)])
