"""The promise of `analysis.rule_power` against runs of the rule, design by design: within 3 points.

Prints every design. About 15 minutes on one core.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from analysis.rule_power import ParallelShape, Shape, SwitchbackShape, rule_detectable
from tests.analysis.rule_runs import log_normal, seen_rate

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(900)]
RUNS = 4_000
LOOKS = (0.3, 0.6, 1.0)
SIZES = (4, 6, 8, 12, 19, 20, 40)
DESIGNS: dict[str, Shape] = {
    **{f"{n} + {n}": ParallelShape(strata=((n, n),)) for n in SIZES},
    "8 + 80": ParallelShape(strata=((8, 80),)),
    "80 + 8": ParallelShape(strata=((80, 8),)),
    "canary 396 + 5": ParallelShape(strata=((396, 5),)),
    "30 + 90": ParallelShape(strata=((30, 90),)),
    "220 + 110": ParallelShape(strata=((220, 110),)),
    "3 arms, 8 each": ParallelShape(strata=((8, 8),), comparisons=2),
    "3 arms, 7 + 9": ParallelShape(strata=((7, 9),), comparisons=2),
    "3 looks, 12 + 12": ParallelShape(strata=((12, 12),), fractions=LOOKS),
    "3 looks, 40 + 40": ParallelShape(strata=((40, 40),), fractions=LOOKS),
    "3 strata, 4 + 4 each": ParallelShape(strata=((4, 4),) * 3),
    "3 strata, 15 + 15 each": ParallelShape(strata=((15, 15),) * 3),
    "3 strata, two of them small": ParallelShape(strata=((10, 9), (1, 2), (2, 1))),
    "pre-period .8, 6 + 6": ParallelShape(strata=((6, 6),), correlation=0.8),
    "pre-period .8, 20 + 20": ParallelShape(strata=((20, 20),), correlation=0.8),
    "pre-period .8, 3 strata, 3 arms": ParallelShape(strata=((5, 4), (4, 5), (6, 6)), correlation=0.8, comparisons=2),
    "pre-period .8, 3 strata, 60 + 60": ParallelShape(strata=((20, 20),) * 3, correlation=0.8),
    **{f"{n} blocks": SwitchbackShape(blocks=n) for n in (6, 8, 12, 20)},
    "12 blocks, 3 arms, 3 looks": SwitchbackShape(blocks=12, comparisons=2, fractions=LOOKS),
    "3 hosts, 2 blocks each": SwitchbackShape(hosts=3, blocks=2),
    "5 hosts, 4 blocks each": SwitchbackShape(hosts=5, blocks=4),
    "8 hosts, 3 blocks each": SwitchbackShape(hosts=8, blocks=3),
}


@pytest.mark.parametrize("skewed", [False, True], ids=["normal", "log-normal"])
@pytest.mark.parametrize("name", DESIGNS)
def test_promise_and_truth_agree_within_3_points(name: str, skewed: bool) -> None:
    promise_and_truth(name, DESIGNS[name], skewed=skewed)


@pytest.mark.parametrize("name", ["80 + 8", "220 + 110"])
def test_they_agree_where_the_treatment_makes_less_of_a_skewed_metric(name: str) -> None:
    promise_and_truth(name, DESIGNS[name], skewed=True, sign=-1)


def promise_and_truth(name: str, shape: Shape, *, skewed: bool, sign: int = 1) -> None:
    values = tuple(log_normal(np.random.default_rng(8), 100_000).tolist()) if skewed else ()
    began = time.process_time()
    effect = rule_detectable(1.0, shape, values=values, falls=sign < 0)
    took = time.process_time() - began
    assert effect is not None
    seen = seen_rate(shape, sign * effect, runs=RUNS, seed=4, skewed=skewed)
    law = "log-normal" if skewed else "normal"
    print(f"\n{name}, {law}: {effect:.3f} SD promised 0.800, seen {seen:.3f}, {took:.2f} s")
    assert seen == pytest.approx(0.8, abs=0.03)
    assert took < 1.5
