"""Does the effect stay, does harm grow? The later half of the measured time against the earlier, in the same units.

A mean over the whole time ships what has gone by its end: novelty, caches that were warmed, big pages that fragment. A
rollout is kept, so that what counts is what is there in the later half. It faded where it is clearly smaller there, in
the metric's own unit and relative to the control alike: where load rises or falls, one of these moves by itself. What
moves both arms alike (the time of day) cancels, and what is still on its way in at the start grows: it does not fade.

Harm to what a guardrail watches is looked at in the same way, for the opposite: a leak, or memory that fragments,
passes on an average that its later half has left behind. Where it clearly grew, the later half must pass by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.blocks import PairedBlocks
from analysis.contrast import Contrast
from analysis.effect import Effect
from analysis.estimates import estimate
from analysis.guardrails import margin_verdict
from analysis.halves import in_later_half
from analysis.headline import Redraws, headline, linearised
from analysis.hosts import HostTable
from analysis.inference import MIN_HOSTS, Inference
from analysis.look import guardrail_look
from analysis.matched import pair_contrast
from analysis.multiplicity import holm
from analysis.plan import AnalysisPlan, Direction, Estimand, GuardrailPlan, MetricPlan
from analysis.quantities import counted
from analysis.results import HALVES, Check, Estimate, EstimateKind, Verdict
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

    @property
    def p(self) -> float:
        """P-value of a change, in each way it was looked at; 1 where one could not be tested."""
        return max(1.0 if (found := one.p_value()) is None else found for one in self.changes)

    def moved(self, *, up: bool) -> bool:
        """Whether the effect moved that way, in each way it was looked at."""
        return all((one.difference > 0) == up for one in self.changes)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Growing:
    """What became of the harm to one guarded metric under one treatment.

    `later` is what the later half alone says of the margin, and why; None where harm did not clearly grow.
    """

    metric: str
    rows: tuple[Estimate, ...]  # earlier half, later half
    check: Check
    later: tuple[Verdict, str] | None = None

    @property
    def blocks(self) -> bool:
        """Whether the average over the whole time may not pass."""
        return self.later is not None and self.later[0] is not Verdict.PASS


def fading_of(effect: Effect, halves: Halves | None, metric: MetricPlan, alpha: float) -> Fading:
    """Judge whether an effect stayed. Only one that is clear over the whole time can have faded."""
    main = effect.estimate
    name = f"fading ({main.metric}, {main.treatment})"
    if halves is None:
        return Fading(rows=(), check=_untested(name))
    rows, told = _told(effect, halves, metric)
    if main.p is None or main.p >= alpha or main.difference is None:
        said = f"Not testable without a clear change over the whole time. {told}"
        return Fading(rows=rows, check=Check(name=name, passed=None, p_value=None, detail=said))
    rose = main.difference > 0
    faded = halves.p < alpha and halves.moved(up=not rose)
    later = rows[1]
    lasts = later.p is not None and later.p < alpha and later.difference is not None and (later.difference > 0) == rose
    words = "faded, and is still clear" if lasts else "faded, and the later half alone does not show it"
    check = Check(
        name=name,
        passed=lasts or not faded,
        p_value=halves.p,
        detail=f"The change {words if faded else 'is not clearly smaller in the later half'}. {told}",
    )
    return Fading(rows=rows, check=check, faded=faded, lasts=lasts)


def growing_harms(
    plan: AnalysisPlan,
    effects: Mapping[tuple[str, str], Effect],
    halves: Mapping[tuple[str, str], Halves | None],
    metrics: Mapping[str, MetricPlan],
) -> dict[tuple[GuardrailPlan, str], Growing]:
    """Judge, for every guardrail with a margin and every treatment, whether harm grew, and what the later half bears.

    Keys are a metric's label and the treatment. All that can be tested share alpha (Holm): where no harm grows, one is
    taken for growing in at most alpha / 2 of runs, and blocks only where the later half does not rule out the margin.
    """
    own = {
        (rail, treatment): (label, treatment)
        for rail in plan.guardrails
        if rail.margin is not None
        for label, treatment in effects
        if metrics[label].name == rail.metric
    }
    tested = {key: found for key, of in own.items() if (found := halves[of]) is not None}
    worse = {key: found.moved(up=key[0].worse is Direction.INCREASE) for key, found in tested.items()}
    p = dict(zip(tested, holm([one.p if worse[key] else 1.0 for key, one in tested.items()]), strict=True))
    return {
        key: _growing(plan, key[0], effects[of], tested.get(key), metric=metrics[of[0]], p=p.get(key, 1.0))
        for key, of in own.items()
    }


def _growing(
    plan: AnalysisPlan, rail: GuardrailPlan, effect: Effect, halves: Halves | None, *, metric: MetricPlan, p: float
) -> Growing:
    name = f"growing harm ({effect.estimate.metric}, {effect.estimate.treatment})"
    if halves is None:
        return Growing(metric=effect.estimate.metric, rows=(), check=_untested(name))
    rows, told = _told(effect, halves, metric)
    if p >= plan.alpha:
        check = Check(name=name, passed=True, p_value=p, detail=f"Harm is not clearly larger in the later half. {told}")
        return Growing(metric=effect.estimate.metric, rows=rows, check=check)
    units = rows[1].n_control + (rows[1].n_treatment if plan.design == "parallel" else 0)
    look = guardrail_look(plan, units, sum(unit.arm is not None for unit in plan.units) or None)
    verdict, reason = margin_verdict(rail, rows[1], None if look.blind else halves.later.lift_interval(look.level))
    said = f"Harm grew: {told} Of the later half alone: {reason}"
    check = Check(name=name, passed=verdict is Verdict.PASS, p_value=p, detail=said)
    return Growing(metric=effect.estimate.metric, rows=rows, check=check, later=(verdict, said))


def _untested(name: str) -> Check:
    said = "Not testable: too few units have both an earlier and a later half of their measured time."
    return Check(name=name, passed=None, p_value=None, detail=said)


def _told(effect: Effect, halves: Halves, metric: MetricPlan) -> tuple[tuple[Estimate, ...], str]:
    """The rows of both halves, and what is said of them."""
    rows = tuple(
        _row(effect, metric, half, kind) for half, kind in zip((halves.earlier, halves.later), HALVES, strict=True)
    )
    told = f"{halves_words(rows)}."
    if halves.left_out:
        told += f" {counted(halves.left_out, 'host')} without both halves left out."
    return rows, told


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
