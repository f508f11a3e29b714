"""Switchback: arms alternate in time on a host; the block is the unit, and its contrast cancels what the arms share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.blocks import PairedBlocks, arm_values, join_abba, paired
from analysis.contrast import Contrast, estimate, no_estimate
from analysis.decision import RANDOMISATION
from analysis.look import look_at
from analysis.matched import pair_contrast
from analysis.plan import AnalysisPlan, MetricPlan, Role
from analysis.results import BlockContrast, Estimate
from analysis.signflip import sign_flip_p

MIN_BLOCKS = 6
MIN_HOSTS = 6  # from here on the hosts are the units
PAIRED_T = "paired t on block contrasts"
SIGN_FLIP = f"sign-flip {RANDOMISATION} on block contrasts"
OVER_BLOCKS = "mean over blocks"
OVER_HOSTS = "mean over hosts of block contrasts"
_TESTED = (Role.PRIMARY, Role.SECONDARY, Role.GUARDRAIL)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockEffects:
    """One metric's answers for one treatment: headline first, the randomisation test beside it, the blocks."""

    estimates: tuple[Estimate, ...]
    contrasts: tuple[BlockContrast, ...]
    bounds: Contrast | None


def block_effects(rows: pd.DataFrame, metric: MetricPlan, treatment: str, plan: AnalysisPlan) -> BlockEffects:
    """Compare one treatment with the control over the blocks in `rows` that have both.

    The unit is what one coin was thrown for: a block, or two blocks in ABBA order.
    """
    pairs = paired(arm_values(rows, metric), treatment, plan.control)
    contrasts = tuple(
        BlockContrast(
            metric=metric.name, treatment=treatment, host=host, block=block, control_value=c, treatment_value=t
        )
        for host, block, c, t in zip(
            pairs.hosts, pairs.blocks, pairs.control.tolist(), pairs.treatment.tolist(), strict=True
        )
    )
    if not contrasts:
        return BlockEffects(estimates=(), contrasts=(), bounds=None)
    if plan.order == "abba":
        pairs = join_abba(pairs)
    units = len(pairs.blocks)
    few = units < MIN_BLOCKS
    warnings = (_too_few(units),) if few else ()
    if units == 0:
        return BlockEffects(estimates=(), contrasts=contrasts, bounds=None)
    found, estimand = block_contrast(pairs)
    if found is None:
        alone = no_estimate(
            metric,
            treatment=treatment,
            control=plan.control,
            estimand=estimand,
            method=PAIRED_T,
            n_control=units,
            n_treatment=units,
            control_mean=float(pairs.control.mean()),
            treatment_mean=float(pairs.treatment.mean()),
            reason=_too_few(units),
        )
        return BlockEffects(estimates=(alone,), contrasts=contrasts, bounds=None)
    look = look_at(plan, metric.role, units)
    headline = estimate(
        found,
        metric,
        treatment=treatment,
        control=plan.control,
        estimand=estimand,
        method=PAIRED_T,
        level=look.level,
        withhold_p=few or look.blind,
        warnings=(*warnings, *look.warnings),
    )
    headline = replace(headline, p_adjusted=look.p_adjusted(headline))
    estimates = [headline]
    if metric.role in _TESTED and not few:
        flip = _sign_flip_row(headline, pairs, plan.seed)
        estimates.append(replace(flip, p_adjusted=look.p_adjusted(flip)))
    return BlockEffects(estimates=tuple(estimates), contrasts=contrasts, bounds=None if few else found)


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
    parts = [part for part in within if part is not None]
    hosts = len(parts)
    spread = sum(part.variance for part in parts)
    rest = sum(part.variance**2 / part.df for part in parts)
    return (
        Contrast(
            control=float(means[0].mean()),
            treatment=float(means[1].mean()),
            control_variance=sum(part.control_variance for part in parts) / hosts**2,
            treatment_variance=sum(part.treatment_variance for part in parts) / hosts**2,
            covariance=sum(part.covariance for part in parts) / hosts**2,
            df=spread**2 / rest if rest > 0 else float(sum(part.df for part in parts)),
            n_control=len(pairs.blocks),
            n_treatment=len(pairs.blocks),
        ),
        OVER_HOSTS,
    )


def _paired(control: NDArray[np.float64], treatment: NDArray[np.float64]) -> Contrast | None:
    return None if control.size < 2 else pair_contrast(control, treatment)


def _sign_flip_row(headline: Estimate, pairs: PairedBlocks, seed: int) -> Estimate:
    """Repeat the headline with the p-value that only the drawn order justifies."""
    _, host_of, counts = np.unique(np.array(pairs.hosts, dtype=object), return_inverse=True, return_counts=True)
    p = sign_flip_p(pairs.treatment - pairs.control, seed, 1 / counts[host_of])
    return Estimate(
        metric=headline.metric,
        unit=headline.unit,
        role=headline.role,
        treatment=headline.treatment,
        control=headline.control,
        estimand=headline.estimand,
        method=SIGN_FLIP,
        n_control=headline.n_control,
        n_treatment=headline.n_treatment,
        control_mean=headline.control_mean,
        treatment_mean=headline.treatment_mean,
        difference=headline.difference,
        difference_interval=None,
        lift=headline.lift,
        lift_interval=None,
        standard_error=None,
        df=None,
        p_value=p,
        headline=False,
        warnings=(f"{len(pairs.blocks)} blocks can't get below p = {2.0 ** (1 - len(pairs.blocks)):.2g}",),
    )


def _too_few(blocks: int) -> str:
    return f"{blocks} whole blocks of at least {MIN_BLOCKS}: nothing is called significant"
