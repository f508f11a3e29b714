"""Worlds to test statistics in: hosts with autocorrelated samples, skewed hosts, switchbacks; and binomial bands."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import signal, stats

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
