"""The large simulations of rollouts already made: coverage, bands, pre-tests and bounds, each printed with its band.

Errors of a host are AR(1), starts are staggered, effects grow. About 5 minutes on two cores.
"""

from __future__ import annotations

import math

import pytest

from tests.analysis.retrospective.rates import Rollouts, rates

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(900)]
RUNS = 1_000
KINDS = {
    "5 + 5 hosts, one start": Rollouts(changed=5, others=5, periods=8, starts=(4,), correlation=0.5, drift=2.0),
    "12 + 10, three starts": Rollouts(changed=12, others=10, periods=12, starts=(6, 7, 9), correlation=0.6, drift=0.8),
    "10 + 60, five starts, long memory": Rollouts(
        changed=10, others=60, periods=20, starts=(8, 9, 10, 11, 12), correlation=0.9, drift=0.4
    ),
    "100 + 60, three starts": Rollouts(
        changed=100, others=60, periods=28, starts=(14, 16, 18), correlation=0.6, drift=0.15
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_error_rates(name: str) -> None:
    runs = RUNS if KINDS[name].changed < 100 else RUNS // 4
    found = rates(KINDS[name], runs=runs, seed=2026)
    band = 2.6 * math.sqrt(0.05 * 0.95 / runs)  # 99 %
    print(
        f"\n{name}: interval covers {found.covered:.1%}, band holds at all times {found.band_held:.1%}, "
        f"assumptions contradicted {found.contradicted:.1%} (drift: {found.drift_caught:.1%}), "
        f"bounds cover {found.bounds_covered:.1%}; 95 % is good to {band:.1%}"
    )
    assert found.covered >= 0.94 - band
    assert found.band_held >= 0.93 - band
    assert found.contradicted <= 0.06 + band
    assert found.bounds_covered >= 0.95 - band
    assert found.drift_caught >= 0.9
