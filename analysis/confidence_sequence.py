"""Looking at any moment: intervals that hold at all of them together, for alarms that may stop a run."""

from __future__ import annotations

import math

from analysis.errors import BadPlan

FEWEST_HOSTS = 20


def widening(n: float, alpha: float, tuned_for: float) -> float:
    """How many standard errors wide an asymptotic confidence sequence is at n units, narrowest near `tuned_for`.

    sqrt((n r + 1) / (n r) log((n r + 1) / alpha^2)) with r = rho^2. Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas
    (2024), Time-uniform central limit theory and asymptotic confidence sequences, Ann. Statist. 52:2613-2640.
    """
    if not (0 < n < math.inf and 0 < alpha < 1 and 0 < tuned_for < math.inf):
        raise BadPlan(f"no sequence at {n:g} units and alpha {alpha:g}", "confidence sequence", "give positive numbers")
    scaled = n * _rho_squared(tuned_for, alpha)
    return math.sqrt((scaled + 1) / scaled * math.log((scaled + 1) / alpha**2))


def sequence_level(n: int, alpha: float, planned_hosts: float | None = None) -> float:
    """The fixed two-sided error rate whose normal interval is as wide: lets every other interval follow."""
    return math.erfc(widening(n, alpha, planned_hosts or n) / math.sqrt(2))


def _rho_squared(tuned_for: float, alpha: float) -> float:
    """The rho^2 that makes the sequence narrowest near that n; the paper's closed form, without Lambert's W."""
    return (2 * math.log(1 / alpha) + math.log(1 + 2 * math.log(1 / alpha))) / tuned_for
