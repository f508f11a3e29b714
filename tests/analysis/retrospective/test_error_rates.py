"""Error rates on hosts whose days resemble each other and that were changed at several times, sketched.

The full tables are in tests/benchmarks/test_retrospective_simulations.py.
"""

from __future__ import annotations

import pytest

from tests.analysis.retrospective.rates import SMALL, rates


@pytest.mark.slow
def test_intervals_cover_and_bands_hold_and_pre_tests_keep_their_level() -> None:
    found = rates(SMALL, runs=200, seed=11)
    assert found.covered >= 0.90
    assert found.band_held >= 0.89
    assert found.contradicted <= 0.10
    assert found.drift_caught >= 0.95
    assert found.bounds_covered >= 0.93
