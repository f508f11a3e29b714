"""Error rates on hosts whose days resemble each other and that were changed at several times, sketched.

The full tables are in tests/benchmarks/test_retrospective_simulations.py.
"""

from __future__ import annotations

import pytest

from tests.analysis.retrospective.rates import FEW, SMALL, false_alarms, rates


@pytest.mark.slow
def test_intervals_cover_and_bands_hold_and_pre_tests_keep_their_level() -> None:
    found = rates(SMALL, runs=200, seed=11)
    assert found.covered >= 0.90
    assert found.band_held >= 0.89
    assert found.contradicted <= 0.10
    assert found.drift_caught >= 0.95
    assert found.bounds_covered >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_with_few_changed_hosts_intervals_cover_and_no_check_cries_wolf(name: str) -> None:
    """No check at more than twice its nominal share, and a plain drift is still caught."""
    kind = FEW[name]
    found = false_alarms(kind, runs=300, seed=5)
    assert found.covered >= 0.93
    assert found.gap <= 0.10
    assert found.slope <= 0.10
    assert found.dates <= 0.05
    assert found.contradicted <= (0.08 if kind.noise > 1 else 0.055)
    assert found.drift_caught >= (0.75 if kind.drift else 0)
