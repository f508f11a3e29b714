"""How many draws a property is attacked with: a hundred in the quick suite, four hundred more in a slow test."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

quick_and_slow = pytest.mark.parametrize("examples", [100, pytest.param(400, marks=pytest.mark.slow)])


def draws(examples: int) -> settings:
    """Return the settings of a property that is made anew for each test."""
    return settings(max_examples=examples, suppress_health_check=list(HealthCheck))
