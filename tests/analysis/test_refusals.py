"""Each estimator on its own, as in a notebook: what is not a number gets a typed error, never a NaN in an answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.adjustment import ancova
from analysis.confidence_sequence import widening
from analysis.errors import AnalysisError, BadObservations, BadPlan, NotEnoughData
from analysis.estimators.bootstrap import bca
from analysis.estimators.hodges_lehmann import hodges_lehmann
from analysis.estimators.winsorised import winsorised
from analysis.exposure import ExposureArm, dose_response, wald
from analysis.heterogeneity import heterogeneity
from analysis.multiplicity import benjamini_hochberg, holm
from analysis.rule_power import ParallelShape, rule_detectable, rule_hosts_needed, rule_power
from analysis.sequential import bounds, spent
from analysis.srm import ratio_p
from analysis.trade import servers_per_1000
from analysis.welch import fleet_ratio, welch
from tests.analysis.simulation import randomisation_p, sign_flip_p

Floats = NDArray[np.float64]
GOOD = np.arange(1.0, 25.0)
EMPTY = np.empty(0)
TREATED = np.arange(24) < 12
FIVE = ParallelShape(strata=((5, 5),))
ONE = np.array(["a"] * 24)
OF_VALUES: dict[str, Callable[[Floats], object]] = {
    "welch": lambda bad: welch(GOOD, bad),
    "fleet ratio, above": lambda bad: fleet_ratio((GOOD, GOOD), (bad, GOOD)),
    "fleet ratio, below": lambda bad: fleet_ratio((GOOD, GOOD), (GOOD, bad)),
    "ancova": lambda bad: ancova(bad, TREATED, GOOD[:, np.newaxis]),
    "ancova, covariate": lambda bad: ancova(GOOD, TREATED, bad[:, np.newaxis]),
    "hodges-lehmann": lambda bad: hodges_lehmann(GOOD, bad, 0.95),
    "winsorised": lambda bad: winsorised(GOOD, bad, GOOD),
    "winsorised, reference": lambda bad: winsorised(GOOD, GOOD, bad),
    "bootstrap": lambda bad: bca(GOOD, bad, 0.95, 0),
    "randomisation": lambda bad: randomisation_p(bad, TREATED, ONE, 0),
    "sign-flip": lambda bad: sign_flip_p(bad, 0),
    "heterogeneity": lambda bad: heterogeneity(bad.tolist(), GOOD.tolist()),
    "heterogeneity, variance": lambda bad: heterogeneity(GOOD.tolist(), bad.tolist()),
    "wald": lambda bad: wald(ExposureArm(outcome=GOOD, dose=GOOD), ExposureArm(outcome=bad, dose=2 * GOOD), 0.95),
    "wald, dose": lambda bad: wald(ExposureArm(outcome=GOOD, dose=GOOD), ExposureArm(outcome=GOOD, dose=bad), 0.95),
    "dose-response": lambda bad: dose_response(bad, GOOD, 0.95),
}


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", OF_VALUES)
def test_a_value_that_is_no_number_is_refused(name: str, wrong: float) -> None:
    bad = GOOD.copy()
    bad[3] = wrong
    with pytest.raises(BadObservations, match="finite"):
        OF_VALUES[name](bad)


@pytest.mark.parametrize(
    "call",
    [
        lambda: welch(GOOD, EMPTY),
        lambda: welch(GOOD, np.ones(1)),
        lambda: hodges_lehmann(GOOD, EMPTY, 0.95),
        lambda: winsorised(GOOD, GOOD, EMPTY),
        lambda: randomisation_p(GOOD, np.zeros(24, dtype=bool), ONE, 0),
        lambda: randomisation_p(EMPTY, np.zeros(0, dtype=bool), ONE[:0], 0),
        lambda: sign_flip_p(EMPTY, 0),
        lambda: heterogeneity([], []),
    ],
)
def test_an_empty_arm_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(NotEnoughData):
        call()


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1.0])
def test_a_plan_that_is_no_number_is_refused(wrong: float) -> None:
    calls: list[Callable[[], object]] = [
        lambda: rule_power(1.0, wrong, FIVE),
        lambda: rule_power(1.0, 1.0, replace(FIVE, alpha=wrong)),
        lambda: rule_detectable(wrong, FIVE),
        lambda: rule_detectable(1.0, replace(FIVE, alpha=wrong)),
        lambda: rule_hosts_needed(1.0, wrong, FIVE),
        lambda: rule_hosts_needed(1.0, 1.0, FIVE, wrong),
        lambda: spent(wrong, 0.05),
        lambda: spent(0.5, wrong),
        lambda: bounds((0.5, wrong), 0.05),
        lambda: bounds((0.5, 1.0), wrong),
        lambda: widening(wrong, 0.05, 100),
        lambda: ratio_p([5, 5], [1, wrong]),
        lambda: holm([0.5, wrong]),
        lambda: benjamini_hochberg([0.5, wrong]),
    ]
    for call in calls:
        with pytest.raises(AnalysisError):
            call()


def test_looks_out_of_order_and_counts_without_odds_are_refused() -> None:
    with pytest.raises(BadPlan, match="rise"):
        bounds((0.5, 0.4, 1.0), 0.05)
    with pytest.raises(BadPlan, match="fit"):
        ratio_p([1, 5], [1, 1, 1])
    with pytest.raises(BadPlan, match="fit"):
        ratio_p([-1, 5], [1, 1])
    with pytest.raises(BadPlan, match="finite"):
        servers_per_1000("t", (math.nan, None), (0.0, None), 0.5)
