"""The large simulations: the error rates, coverages that the small ones in tests/analysis only sketch.

Prints every rate with its binomial band. About 5 minutes on two cores.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis import analyze
from analysis.adjustment import ancova
from analysis.blocks import PairedBlocks
from analysis.confidence_sequence import widening
from analysis.plan import MetricPlan, Role
from analysis.results import Interval
from analysis.sequential import level_at
from analysis.switchback import block_contrast
from analysis.welch import welch
from tests.analysis.fleet_data import fleet, plan
from tests.analysis.simulation import band, host_levels, randomisation_p, sampled, sign_flip_p

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(900)]
ALPHA, RUNS = 0.05, 10_000
Draw = np.random.Generator


def holds(interval: Interval | None, truth: float) -> bool:
    assert interval is not None
    low = -np.inf if interval.low is None else interval.low
    high = np.inf if interval.high is None else interval.high
    return (low <= truth <= high) != interval.excludes


def alarm_rate(p_of: Callable[[Draw], float | None], runs: int, seed: int) -> float:
    draw = np.random.default_rng(seed)
    found = [p_of(draw) for _ in range(runs)]
    return sum(p is not None and p < ALPHA for p in found) / runs


def by_t(draw: Draw, skewed: bool) -> float | None:
    y = sampled(draw, host_levels(draw, 24, 0.5, skewed=skewed))
    return welch(y[:12], y[12:]).p_value()


def by_ancova(draw: Draw, skewed: bool) -> float | None:
    levels = host_levels(draw, 24, 0.5, skewed=skewed)
    before, after = sampled(draw, levels), sampled(draw, levels)
    return ancova(after, np.arange(24) < 12, before[:, None]).p_value()


def by_randomisation(draw: Draw, skewed: bool) -> float | None:
    y = sampled(draw, host_levels(draw, 12, 0.5, skewed=skewed))
    return randomisation_p(y, np.arange(12) < 6, np.array(["a"] * 12), seed=0)


def blocks_of(draw: Draw, skewed: bool) -> PairedBlocks:
    drift = np.cumsum(draw.normal(0, 0.02, 24))
    level = np.exp(draw.normal(0, 0.5, 24)) if skewed else 1.0
    periods = sampled(draw, level + drift).reshape(12, 2)
    order = draw.integers(0, 2, 12)
    rows = np.arange(12)
    return PairedBlocks(
        hosts=("h",) * 12, blocks=tuple(range(12)), control=periods[rows, order], treatment=periods[rows, 1 - order]
    )


def by_paired_t(draw: Draw, skewed: bool) -> float | None:
    found, _ = block_contrast(blocks_of(draw, skewed))
    return None if found is None else found.p_value()


def by_sign_flip(draw: Draw, skewed: bool) -> float | None:
    pairs = blocks_of(draw, skewed)
    return sign_flip_p(pairs.treatment - pairs.control, seed=0)


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize(
    ("path", "runs"),
    [(by_t, RUNS), (by_ancova, RUNS), (by_randomisation, 2_000), (by_paired_t, RUNS), (by_sign_flip, RUNS)],
)
def test_a_a_false_positives(path: Callable[[Draw, bool], float | None], runs: int, skewed: bool) -> None:
    rate = alarm_rate(lambda draw: path(draw, skewed), runs, seed=1)
    low, high = band(runs, ALPHA)
    print(f"\nA/A {path.__name__}, {'skewed' if skewed else 'normal'}: {rate:.4f} (band {low:.4f} to {high:.4f})")
    assert rate <= high
    if not skewed and path not in {by_randomisation, by_sign_flip}:  # exact tests have steps, skewed t is cautious
        assert rate >= low


def levels(draw: Draw, hosts: int, cv: float, skewed: bool) -> NDArray[np.float64]:
    return host_levels(draw, hosts, cv, skewed=skewed)


@pytest.mark.parametrize("adjusted", [False, True])
@pytest.mark.parametrize("hosts", [5, 10, 50])
@pytest.mark.parametrize(("cv", "skewed"), [(0.2, False), (1.0, False), (0.5, True), (1.0, True)])
def test_coverage(hosts: int, cv: float, skewed: bool, adjusted: bool) -> None:
    draw = np.random.default_rng(hosts)
    runs = RUNS
    of_difference = of_lift = 0
    treated = np.arange(2 * hosts) >= hosts
    for _ in range(runs):
        y = levels(draw, 2 * hosts, cv, skewed)
        before = y * np.exp(draw.normal(0, 0.2, 2 * hosts))
        y = np.where(treated, 1.06 * y, y)
        if adjusted:
            found = ancova(y, treated, before[:, None], interact=hosts >= 20)
        else:
            found = welch(y[~treated], y[treated])
        of_difference += holds(found.interval(0.95), 0.06)
        of_lift += holds(found.lift_interval(0.95), 0.06)
    print(
        f"\ncoverage, {hosts} hosts, CV {cv}, {'log-normal' if skewed else 'normal'}, "
        f"{'ANCOVA' if adjusted else 'Welch'}: difference {of_difference / runs:.4f}, lift {of_lift / runs:.4f}"
    )
    for rate in (of_difference / runs, of_lift / runs):
        assert band(runs, 0.94)[0] <= rate <= band(runs, 0.98)[1]


def test_ten_looks() -> None:
    draw = np.random.default_rng(3)
    fractions = tuple((place + 1) / 10 for place in range(10))
    shares = [level_at(fractions, look, ALPHA) for look in range(10)]
    planned = naive = always = 0
    runs = 4_000
    for _ in range(runs):
        control, treatment = draw.normal(1, 0.2, 100), draw.normal(1, 0.2, 100)
        looks = [welch(control[: 10 * (k + 1)], treatment[: 10 * (k + 1)]) for k in range(10)]
        values = [look.p_value() or 1.0 for look in looks]
        planned += any(p < share for p, share in zip(values, shares, strict=True))
        naive += min(values) < ALPHA
        wide = [widening(20 * (k + 1), ALPHA, 200) * look.standard_error for k, look in enumerate(looks)]
        always += any(abs(look.difference) > half for look, half in zip(looks, wide, strict=True))
    print(f"\nten looks: planned {planned / runs:.4f}, at any moment {always / runs:.4f}, naive {naive / runs:.4f}")
    assert planned / runs <= band(runs, ALPHA)[1]
    assert always / runs <= band(runs, ALPHA)[1]


def test_planted_rollout_over_200_seeds_through_everything() -> None:
    hosts = fleet(100, 100, 4)
    treated = hosts.is_treated()
    truth = {"memory": 233 / 217 - 1, "dtlb": -0.26, "throughput": 0.059}
    metrics = tuple(
        MetricPlan(name=name, unit="", role=Role.PRIMARY if name == "throughput" else Role.SECONDARY) for name in truth
    )
    covered, runs = dict.fromkeys(truth, 0), 200
    for seed in range(runs):
        draw = np.random.default_rng(1000 + seed)
        before, after = {}, {}
        for name, (level, cv) in {"memory": (217.0, 0.08), "dtlb": (5.0, 0.3), "throughput": (100.0, 0.2)}.items():
            lasting = level * host_levels(draw, 200, cv, skewed=name == "dtlb")
            before[name] = lasting * draw.normal(1, cv / 3, 200)
            after[name] = lasting * draw.normal(1, cv / 3, 200) * (1 + truth[name] * treated)
        for row in analyze(hosts.observations(after, before), plan(units=hosts.units, metrics=metrics)).estimates:
            covered[row.metric] += row.headline and holds(row.lift_interval, truth[row.metric])
    print("\nplanted: " + ", ".join(f"{name} {count}/{runs}" for name, count in covered.items()))
    low, high = band(runs, 0.95)
    assert all(low <= count / runs <= high for count in covered.values())
