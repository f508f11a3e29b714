"""Worked examples whose answers were printed elsewhere; the source stands beside each, the digits are theirs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.adjustment import ancova
from analysis.attrition import attrition_check
from analysis.blocks import PairedBlocks
from analysis.estimators.hodges_lehmann import hodges_lehmann
from analysis.exposure import ExposureArm, wald
from analysis.heterogeneity import heterogeneity
from analysis.multiplicity import benjamini_hochberg, holm
from analysis.rule_power import ParallelShape, rule_detectable, rule_hosts_needed, rule_power
from analysis.sequential import bounds, spent
from analysis.srm import ratio_p
from analysis.switchback import block_contrast
from analysis.welch import welch
from tests.analysis.simulation import sign_flip_p

# Student (1908), Biometrika 6; R's data set `sleep`: extra hours of sleep under two drugs, ten patients.
SLEEP_1 = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
SLEEP_2 = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])


def test_welch_on_sleep_as_printed_by_r_t_test() -> None:
    """R's documentation of t.test: t = -1.8608, df = 17.776, p-value = 0.07939, -3.3654832 0.2054832."""
    found = welch(SLEEP_2, SLEEP_1)
    interval = found.interval(0.95)
    assert found.difference / found.standard_error == pytest.approx(-1.8608, abs=5e-5)
    assert found.df == pytest.approx(17.776, abs=5e-4)
    assert found.p_value() == pytest.approx(0.07939, abs=5e-6)
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((-3.3654832, 0.2054832), abs=5e-8)


def test_paired_blocks_on_sleep_as_printed_by_r_t_test() -> None:
    """R's documentation of t.test, paired: t = -4.0621, df = 9, p-value = 0.002833, -2.4598858 -0.7001142."""
    pairs = PairedBlocks(hosts=("h",) * 10, blocks=tuple(range(10)), control=SLEEP_2, treatment=SLEEP_1)
    found, estimand = block_contrast(pairs)
    assert found is not None
    interval = found.interval(0.95)
    assert estimand == "mean over blocks"
    assert found.difference / found.standard_error == pytest.approx(-4.0621, abs=5e-5)
    assert found.df == 9
    assert found.p_value() == pytest.approx(0.002833, abs=5e-7)
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((-2.4598858, -0.7001142), abs=5e-8)


def test_sign_flip_on_darwins_maize() -> None:
    """Fisher (1935), The Design of Experiments, section 21: 1,726 of 32,768 patterns, 5.267 per cent."""
    maize = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48], dtype=float)
    assert maize.sum() == 314
    assert sign_flip_p(maize, seed=0) == 1726 / 32768
    assert sign_flip_p(maize, seed=0) == pytest.approx(0.05267, abs=5e-6)


def test_hodges_lehmann_on_permeability() -> None:
    """Hollander and Wolfe (1973), p. 69; R's wilcox.test: W = 35, one-sided p = 0.1272 (here two-sided: twice)."""
    term = np.array([0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46])
    early = np.array([1.15, 0.88, 0.90, 0.74, 1.21])
    shift, interval, p = hodges_lehmann(early, term, 0.95)
    assert p == pytest.approx(2 * 0.1272, abs=1e-4)
    assert shift == pytest.approx(0.305)
    assert interval.low is not None
    assert interval.high is not None
    assert interval.low < 0 < interval.high


def test_benjamini_hochberg_on_the_example_of_1995() -> None:
    """Benjamini and Hochberg (1995), section 4.1: BH rejects four hypotheses at .05, Bonferroni-type methods three."""
    values = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
        0.7590, 1.0000,
    ]  # fmt: skip
    assert [p < 0.05 for p in benjamini_hochberg(values)] == [True] * 4 + [False] * 11
    assert [p < 0.05 for p in holm(values)] == [True] * 3 + [False] * 12


BCG = np.array(
    [
        (4, 119, 11, 128), (6, 300, 29, 274), (3, 228, 11, 209), (62, 13536, 248, 12619), (33, 5036, 47, 5761),
        (180, 1361, 372, 1079), (8, 2537, 10, 619), (505, 87886, 499, 87892), (29, 7470, 45, 7232),
        (17, 1699, 65, 1600), (186, 50448, 141, 27197), (5, 2493, 3, 2338), (27, 16886, 29, 17825),
    ],
    dtype=float,
)  # fmt: skip


def test_heterogeneity_on_the_bcg_trials_as_printed_by_metafor() -> None:
    """Colditz et al. (1994), JAMA 271; metafor's rma(method="DL"): tau^2 0.3088, I^2 92.12 %, Q(12) 152.2330,
    -0.7141 (0.1787) [-1.0644, -0.3638]; method="EE": -0.4303 (0.0405)."""
    tpos, tneg, cpos, cneg = BCG.T
    effects = np.log((tpos / (tpos + tneg)) / (cpos / (cpos + cneg)))
    variances = 1 / tpos - 1 / (tpos + tneg) + 1 / cpos - 1 / (cpos + cneg)
    found = heterogeneity(effects.tolist(), variances.tolist())
    assert found.q == pytest.approx(152.2330, abs=5e-5)
    assert found.df == 12
    assert found.tau2 == pytest.approx(0.3088, abs=5e-5)
    assert found.i2 == pytest.approx(0.9212, abs=5e-5)
    assert (found.random, found.random_se) == pytest.approx((-0.7141, 0.1787), abs=5e-5)
    # metafor's rma(method="DL", test="knha"): -0.7141 (0.1807) on 12 df.
    assert found.spread_se == pytest.approx(0.1807, abs=5e-5)
    assert found.random_interval(0.95) == pytest.approx((-1.1078, -0.3204), abs=2e-4)
    assert (found.fixed, found.fixed_se) == pytest.approx((-0.4303, 0.0405), abs=5e-5)


@pytest.mark.parametrize(
    ("looks", "printed"),
    [
        (5, (4.877, 3.357, 2.680, 2.290, 2.031)),
        (4, (4.333, 2.963, 2.359, 2.014)),
        (2, (2.963, 1.969)),
        (1, (1.960,)),
    ],
)
def test_obrien_fleming_bounds_as_printed(looks: int, printed: tuple[float, ...]) -> None:
    """Lan-DeMets O'Brien-Fleming bounds at two-sided .05, equal spacing: Reboussin et al. (2000), Control. Clin.
    Trials 21:190-207 (program ld98); gsDesign's sfLDOF prints the same."""
    fractions = tuple((place + 1) / looks for place in range(looks))
    assert bounds(fractions, 0.05) == pytest.approx(printed, abs=6e-4)
    assert spent(1.0, 0.05) == pytest.approx(0.05)


def test_power_as_printed_by_r() -> None:
    """R's documentation of power.t.test: n = 20, delta = 1: power = 0.8689528; power .90, delta 1: n = 22.02110;
    Cohen (1988), d = .5, power .8: 64 in each arm (pwr.t.test: 63.76561)."""
    size = ParallelShape(strata=((20, 20),))
    assert rule_power(1.0, 1.0, size) == pytest.approx(0.8689528, abs=1e-7)
    assert rule_hosts_needed(1.0, 1.0, size, wanted=0.90) == (23, 23)
    assert rule_hosts_needed(0.5, 1.0, size) == (64, 64)
    assert rule_detectable(1.0, size.resized(64, 64)) == pytest.approx(0.5, abs=2e-3)


def test_ancova_on_the_leprosy_trial_as_printed_by_sas() -> None:
    """Snedecor and Cochran (1967), p. 422; SAS/STAT PROC GLM, Analysis of Covariance: Drug A -3.446138280 and Drug D
    -3.337166948 against F."""
    a = [(11, 6), (8, 0), (5, 2), (14, 8), (19, 11), (6, 4), (10, 13), (6, 1), (11, 8), (3, 0)]
    d = [(6, 0), (6, 2), (7, 3), (8, 1), (18, 18), (8, 4), (19, 14), (8, 9), (5, 1), (15, 9)]
    f = [(16, 13), (13, 10), (11, 18), (9, 5), (21, 23), (16, 12), (12, 5), (12, 16), (7, 1), (12, 20)]
    before, after = np.array([*a, *d, *f], dtype=float).T
    drug = np.repeat(["A", "D", "F"], 10)
    for own, other, printed in (("A", "D", -3.446138280), ("D", "A", -3.337166948)):
        covariates = np.column_stack((before, drug == other))
        found = ancova(after, drug == own, covariates)
        assert found.difference == pytest.approx(printed, abs=5e-9)


def test_complier_effect_on_the_vitamin_a_trial() -> None:
    """Sommer and Zeger (1991), Stat. Med. 10:45-52; Imbens and Rubin (1997), Ann. Statist. 25:305-327: survival of
    compliers rises by 0.0032, by intention to treat by 0.0026."""
    control = ExposureArm(outcome=np.repeat([0.0, 1.0], [74, 11_514]), dose=np.zeros(11_588))
    dose = np.repeat([0.0, 1.0], [2_419, 9_675])
    outcome = np.concatenate((np.repeat([0.0, 1.0], [34, 2_385]), np.repeat([0.0, 1.0], [12, 9_663])))
    found = wald(control, ExposureArm(outcome=outcome, dose=dose), 0.95)
    assert found.effect == pytest.approx(0.0032, abs=5e-5)
    assert found.effect * found.first_stage == pytest.approx(0.0026, abs=5e-5)
    assert not found.weak


def test_sample_ratio_mismatch_as_printed() -> None:
    """Kohavi, Tang and Xu (2020), Trustworthy Online Controlled Experiments, ch. 3: 821,588 and 815,482 users, equal
    odds: p = 1.8E-6."""
    assert ratio_p([821_588, 815_482], [1, 1]) == pytest.approx(1.8e-6, abs=5e-8)


def test_fishers_exact_on_the_tea_tasting() -> None:
    """Fisher (1935), section 5; R's fisher.test on TeaTasting: p = 0.4857 two-sided."""
    assert attrition_check((1, 3), (4, 4), "treatment").p_value == pytest.approx(0.4857, abs=5e-5)


def test_hosts_needed_of_the_512_mb_rollout() -> None:
    """+5.9 % at a host-to-host CV of 20 % needs 181 hosts an arm by the normal approximation, 35 with a
    pre-period correlated .9; the t-test asks for one more."""
    size = ParallelShape(strata=((1, 1),))
    assert rule_hosts_needed(0.059, 0.20, size) == (182, 182)
    assert rule_hosts_needed(0.059, 0.20, replace(size, correlation=0.9)) == (36, 36)
