"""Worlds to test statistics in: hosts with autocorrelated samples, skewed hosts, switchbacks; and binomial bands."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import signal, stats

from analysis.assignment_redraws import Replay, WithinStrata, redrawn
from analysis.hosts import TwoArms
from analysis.missing import Gaps
from analysis.randomisation_intervals import FlippedOrders, HostDraws
from analysis.rows import host_means

Floats = NDArray[np.float64]


def band(runs: int, rate: float, confidence: float = 0.999) -> tuple[float, float]:
    """What a true rate may look like in so many runs."""
    low, high = stats.binom.interval(confidence, runs, rate)
    return low / runs, high / runs


def host_levels(draw: np.random.Generator, hosts: int, cv: float, *, skewed: bool) -> Floats:
    """Mean of each host around 1, with this coefficient of variation."""
    if not skewed:
        return draw.normal(1, cv, hosts)
    sigma = math.sqrt(math.log(1 + cv**2))
    return np.exp(draw.normal(-(sigma**2) / 2, sigma, hosts))


def sampled(
    draw: np.random.Generator, levels: Floats, samples: int = 60, phi: float = 0.9, noise: float = 0.1
) -> Floats:
    """Host means of AR(1) samples around each level, by way of the rows."""
    shocks = draw.normal(0, noise, (levels.size, samples))
    rows = levels[:, np.newaxis] + signal.lfilter([1.0], [1.0, -phi], shocks, axis=1)
    hosts = np.repeat(np.arange(levels.size), samples)
    return host_means(hosts, rows.reshape(-1, 1)).means[:, 0]


def gaps(control: Floats, treatment: Floats, lost: tuple[int, int]) -> Gaps:
    """Two arms of hosts, so many more of each without a value."""
    y = np.concatenate((control, np.full(lost[0], np.nan), treatment, np.full(lost[1], np.nan)))
    sample = TwoArms(
        control="c",
        treatment="t",
        hosts=np.array([f"h{place:03d}" for place in range(y.size)]),
        treated=np.arange(y.size) >= control.size + lost[0],
        strata=np.array(["all"] * y.size),
        y=y,
        before=np.full(y.size, np.nan),
        numerator=y,
        denominator=np.ones(y.size),
    )
    return Gaps(sample=sample, share=np.isfinite(y).astype(np.float64))


def randomisation_p(
    y: Floats, treated: NDArray[np.bool_], strata: NDArray[np.str_], seed: int, *, replay: Replay | None = None
) -> float:
    """The p of the randomisation test of these values, the arms drawn within strata or as `replay` says."""
    draws, counted_in = redrawn(replay or WithinStrata(treated, strata), y.size, seed)
    nothing = np.empty((y.size, 0))
    return HostDraws(
        top=y, bottom=np.ones(y.size), treated=treated, draws=draws, counted_in=counted_in, basis=nothing
    ).p_value


def possible_assignments(treated: NDArray[np.bool_], strata: NDArray[np.str_]) -> int:
    return WithinStrata(treated, strata).possible()


def sign_flip_p(contrasts: Floats, seed: int, weights: Floats | None = None) -> float:
    """The p of the sign-flip test of these contrasts."""
    ones = np.ones(contrasts.size)
    return FlippedOrders(
        control=np.zeros(contrasts.size), treatment=contrasts, weights=ones if weights is None else weights, seed=seed
    ).p_value
