"""Switchback: arms alternate in time on a host; the block is the unit, and its contrast cancels what the arms share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.blocks import Cells, PairedBlocks, join_abba, join_hosts, paired
from analysis.carryover import CarryOver
from analysis.contrast import Contrast
from analysis.effect import Bounds, Effect
from analysis.estimates import estimate, no_estimate
from analysis.inference import FEW_UNITS, Inference
from analysis.look import Look, look_at
from analysis.matched import pair_contrast
from analysis.missing import fence
from analysis.plan import TOGETHER, AnalysisPlan, Direction, MetricPlan, Role
from analysis.randomisation_intervals import FlippedOrders
from analysis.results import BlockContrast, Estimate, EstimateKind
from analysis.strata import StratumEffects, StratumStanding

MIN_BLOCKS = 6
MIN_HOSTS = 6  # from here on the hosts are the units
PAIRED_T = "paired t on block contrasts"
SIGN_FLIP = "sign-flip randomisation test on block contrasts"
OVER_BLOCKS = "mean over blocks"
OVER_HOSTS = "mean over hosts of block contrasts"
_TESTED = (Role.PRIMARY, Role.SECONDARY, Role.GUARDRAIL)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockEffects:
    """One metric's answers for one treatment: the headline (None: no block has both arms), rows beside it, blocks."""

    effect: Effect | None
    rows: tuple[Estimate, ...] = ()
    contrasts: tuple[BlockContrast, ...] = ()
    still: bool = False  # every unit of both arms read one and the same value
    silent: bool = False  # under the treatment every unit read 0


def block_effects(
    cells: Cells, metric: MetricPlan, pair: tuple[str, str], plan: AnalysisPlan, look: Look | None = None
) -> BlockEffects:
    """Compare two arms, (control, treatment), over the blocks that have both.

    The unit is what one coin was thrown for: a block, two blocks in ABBA order, or a block of all hosts. `look` says at
    which level, where it is not the metric's own.
    """
    control, treatment = pair
    pairs = paired(cells.values, treatment, control)
    contrasts = tuple(
        BlockContrast(
            metric=metric.name, treatment=treatment, host=host, block=block, control_value=c, treatment_value=t
        )
        for host, block, c, t in zip(
            pairs.hosts, pairs.blocks, pairs.control.tolist(), pairs.treatment.tolist(), strict=True
        )
    )
    every, pairs = pairs, _thrown_together(pairs, plan)
    units = len(pairs.blocks)
    if units == 0:
        return BlockEffects(effect=None, contrasts=contrasts)
    few = units < MIN_BLOCKS
    warnings = (too_few_blocks(units),) if few else ()
    look = look or look_at(plan, metric.role, units)
    found, estimand = _inference(every, plan, tested=metric.role in _TESTED)
    if found is None:
        alone = no_estimate(
            metric,
            treatment=treatment,
            control=control,
            estimand=estimand,
            method=PAIRED_T,
            sizes=(units, units),
            means=(float(pairs.control.mean()), float(pairs.treatment.mean())),
            reason=too_few_blocks(units),
        )
        effect = Effect(estimate=alone, inference=None, look=look, few=True)
        return BlockEffects(effect=effect, contrasts=contrasts)
    headline = estimate(
        found,
        metric,
        look,
        treatment=treatment,
        control=control,
        estimand=estimand,
        method=PAIRED_T if found.drawn is None else f"{PAIRED_T} and sign-flip test",
        withhold_p=few,
        warnings=(*warnings, *look.warnings),
    )
    bounds = None if few else _bounds(cells, pair, plan, found)
    effect = Effect(
        estimate=headline,
        inference=None if few else found,
        look=look,
        bounds=bounds,
        few=few,
    )
    rows = [] if few or found.drawn is None else [_sign_flip_row(headline, found, look, units)]
    still = bool(np.ptp(np.concatenate((pairs.control, pairs.treatment))) == 0)
    return BlockEffects(
        effect=effect, rows=tuple(rows), contrasts=contrasts, still=still, silent=not pairs.treatment.any()
    )


def units_of(cells: Cells, pair: tuple[str, str], plan: AnalysisPlan) -> PairedBlocks:
    """What one coin was thrown for, (control, treatment) side by side: blocks, two in ABBA order, or of all hosts."""
    return _thrown_together(paired(cells.values, pair[1], pair[0]), plan)


def _thrown_together(pairs: PairedBlocks, plan: AnalysisPlan) -> PairedBlocks:
    if plan.order == TOGETHER:
        return join_hosts(pairs)
    return join_abba(pairs) if plan.order == "abba" else pairs


def _inference(pairs: PairedBlocks, plan: AnalysisPlan, *, tested: bool = True) -> tuple[Inference | None, str]:
    """Infer from blocks as the plan's coins were thrown.

    Where one coin decided for all hosts, what struck them all at a time is seen between blocks, and what sets hosts
    apart between hosts: the wider of both errors counts.
    """
    found, estimand = block_inference(_thrown_together(pairs, plan), plan.seed, tested=tested)
    if plan.order == TOGETHER and found is not None:
        over_hosts, of_hosts = block_contrast(pairs)
        if over_hosts is not None and over_hosts.variance > found.contrast.variance:
            return replace(found, contrast=over_hosts), of_hosts
    return found, estimand


def block_inference(pairs: PairedBlocks, seed: int, *, tested: bool = True) -> tuple[Inference | None, str]:
    """The mean contrast with paired errors, a sign-flip test beside it where units are few, and the estimand."""
    contrast, estimand = block_contrast(pairs)
    if contrast is None:
        return None, estimand
    names, host_of, counts = np.unique(np.array(pairs.hosts, dtype=object), return_inverse=True, return_counts=True)
    units = len(names) if len(names) >= MIN_HOSTS else len(pairs.blocks)
    if not tested or contrast.variance == 0 or units >= FEW_UNITS:
        return Inference(contrast=contrast), estimand
    weights = 1 / counts[host_of]
    drawn = FlippedOrders(control=pairs.control, treatment=pairs.treatment, weights=weights, seed=seed)
    return Inference(contrast=contrast, drawn=drawn), estimand


def block_contrast(pairs: PairedBlocks) -> tuple[Contrast | None, str]:
    """Mean contrast with paired errors, and its estimand.

    One host: its blocks are the units. From 6 hosts: the hosts are. Between: the hosts are taken as they are, each
    with its own spread of blocks, combined by Satterthwaite's df. None where no spread can be computed.
    """
    names, host_of = np.unique(np.array(pairs.hosts, dtype=object), return_inverse=True)
    if len(names) == 1:
        return _paired(pairs.control, pairs.treatment), OVER_BLOCKS
    counts = np.bincount(host_of)
    means = np.array([np.bincount(host_of, weights=side) / counts for side in (pairs.control, pairs.treatment)])
    if len(names) >= MIN_HOSTS:
        return _paired(means[0], means[1]), OVER_HOSTS
    if (counts < 2).any():
        return None, OVER_HOSTS
    within = [
        _paired(pairs.control[host_of == place], pairs.treatment[host_of == place]) for place in range(len(names))
    ]
    return mean_of_hosts([part for part in within if part is not None]), OVER_HOSTS


def mean_of_hosts(parts: Sequence[Contrast]) -> Contrast:
    """The mean contrast of hosts that are taken as they are, each with its own spread; df by Satterthwaite."""
    hosts = len(parts)
    spread = sum(part.variance for part in parts)
    rest = sum(part.variance**2 / part.df for part in parts)
    return Contrast(
        control=sum(part.control for part in parts) / hosts,
        treatment=sum(part.treatment for part in parts) / hosts,
        control_variance=sum(part.control_variance for part in parts) / hosts**2,
        treatment_variance=sum(part.treatment_variance for part in parts) / hosts**2,
        covariance=sum(part.covariance for part in parts) / hosts**2,
        df=spread**2 / rest if rest > 0 else float(sum(part.df for part in parts)),
        n_control=sum(part.n_control for part in parts),
        n_treatment=sum(part.n_treatment for part in parts),
    )


def _paired(control: NDArray[np.float64], treatment: NDArray[np.float64]) -> Contrast | None:
    return None if control.size < 2 else pair_contrast(control, treatment)


def block_strata(
    cells: Cells, metric: MetricPlan, pair: tuple[str, str], plan: AnalysisPlan, strata: Mapping[str, str]
) -> StratumEffects | None:
    """The effect in each stratum of hosts, and where harm is shown; None where there is but one.

    The hosts of a stratum are compared with themselves, so that a harmed pool shows, and one without a sign of harm
    counts as sound. To name harm is to be careful, no claim: the t-test of the stratum does, at any look.
    """
    pairs = paired(cells.values, pair[1], pair[0])
    own = np.array([strata.get(host, "") for host in pairs.hosts], dtype=object)
    names = sorted(set(own.tolist()))
    if len(names) < 2 or metric.better is None:
        return None
    contrasts = {name: _inference(pairs.only(own == name), plan)[0] for name in names}
    known = {name: found for name, found in contrasts.items() if found is not None}
    tested = {name: p for name, found in known.items() if (p := found.contrast.p_value()) is not None}
    up = metric.better is Direction.INCREASE
    standing = {
        name: StratumStanding.SOUND
        if tested.get(name, 1.0) >= plan.alpha
        else StratumStanding.BETTER
        if (known[name].difference > 0) == up
        else StratumStanding.HARMED
        for name in names
    }
    return StratumEffects(contrasts=known, standing=standing, interaction_p=None, alpha=plan.alpha)


def _bounds(cells: Cells, pair: tuple[str, str], plan: AnalysisPlan, seen: Inference) -> Bounds | None:
    """The contrast had every broken or missing period been at either end; None where nothing is missing."""
    if not cells.gaps(pair):
        return None
    found = []
    for up in (False, True):
        inference, _ = _inference(completed(cells, pair, up=up), plan)
        found.append(inference or replace(seen, wanting=True))
    return Bounds(low=found[0], high=found[1])


def completed(cells: Cells, pair: tuple[str, str], *, up: bool) -> PairedBlocks:
    """Fill what is missing in each block: under the treatment at the upper end (`up`) or the lower one.

    Under the control it is the other end. The ends are those of the host's own values, or of all hosts' where it has
    fewer than four.
    """
    control, treatment = pair
    wide = cells.known.unstack("arm").reindex(index=cells.begun_blocks(pair), columns=[control, treatment])
    share = cells.share.unstack("arm").reindex(index=wide.index, columns=[control, treatment]).fillna(0.0)
    values, known = wide.to_numpy(dtype=np.float64), share.to_numpy(dtype=np.float64)
    known = np.where(np.isfinite(values), np.clip(known, 0.0, 1.0), 0.0)
    hosts = wide.index.get_level_values("host").to_numpy()
    every = values[np.isfinite(values)]
    out = np.where(np.isfinite(values), values, 0.0)
    for host in pd.unique(hosts):
        here = hosts == host
        own = values[here][np.isfinite(values[here])]
        low, high = fence(own if own.size >= 4 else every)
        low = max(low, 0.0) if (every >= 0).all() else low
        worst = np.array([low, high] if up else [high, low])
        out[here] = known[here] * out[here] + (1 - known[here]) * worst
    return PairedBlocks(
        hosts=tuple(str(host) for host in hosts),
        blocks=tuple(int(block) for block in wide.index.get_level_values("block")),
        control=out[:, 0],
        treatment=out[:, 1],
    )


def with_carry_over(effect: Effect, carried: CarryOver | None) -> tuple[Inference | None, Bounds | None]:
    """What a guardrail is judged by: the contrast, and bounds that allow for what the arm before left behind.

    A fleet that keeps the arm has the arm before every period: there the effect is the contrast and what it carries
    over. Where that could not be estimated nothing is ruled out.
    """
    if effect.inference is None:
        return None, None
    if carried is None:
        return effect.inference, effect.bounds
    if carried.standard_error is None:
        return replace(effect.inference, wanting=True), effect.bounds
    low, high = (
        (effect.inference, effect.inference) if effect.bounds is None else (effect.bounds.low, effect.bounds.high)
    )
    return effect.inference, Bounds(low=lasting(low, carried), high=lasting(high, carried))


def lasting(inference: Inference, carried: CarryOver) -> Inference:
    """The contrast of arms that are kept: shifted by what is carried over, and as uncertain."""
    contrast = inference.contrast
    shift, variance = carried.lasting, carried.lasting_variance
    total = contrast.variance + variance
    df = total**2 / (contrast.variance**2 / contrast.df + variance**2 / carried.df) if total > 0 else contrast.df
    return Inference(
        contrast=replace(
            contrast,
            treatment=contrast.treatment + shift,
            treatment_variance=contrast.treatment_variance + variance,
            df=df,
        )
    )


def _sign_flip_row(headline: Estimate, found: Inference, look: Look, units: int) -> Estimate:
    """The headline's question answered by what only the drawn order justifies."""
    assert found.drawn is not None  # noqa: S101 - the caller asked
    p = found.drawn.p_value
    return replace(
        headline,
        kind=EstimateKind.RANDOMISATION,
        method=SIGN_FLIP,
        difference_interval=None,
        lift_interval=None,
        standard_error=None,
        df=None,
        p_value=p,
        p_adjusted=look.p_adjusted(p),
        warnings=(f"{units} blocks can't get below p = {2.0 ** (1 - units):.2g}",),
    )


def too_few_blocks(blocks: int) -> str:
    """Say that so many blocks bear no claim."""
    return f"{blocks} whole blocks of at least {MIN_BLOCKS}: nothing is called significant"
