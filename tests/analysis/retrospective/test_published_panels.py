"""Published worked examples, to their printed digits; `published/README.md` says where each is printed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.retrospective.event_study import event_study
from analysis.retrospective.group_time import Controls, HostContrasts, host_contrasts
from analysis.retrospective.panel import Panel
from analysis.retrospective.pre_trend import wald
from analysis.retrospective.relative_magnitudes import steps_of
from analysis.retrospective.two_way import clustered_covariance, two_way
from tests.analysis.retrospective.panels import PUBLISHED, medicaid, teen_employment


def in_cell(found: HostContrasts, start: int, period: int) -> tuple[float, float]:
    one = found.aggregate(found.in_cell(start, period), corrected=False)
    return one.estimate, one.variance**0.5


@pytest.fixture(scope="module")
def counties() -> tuple[HostContrasts, list[int]]:
    panel, years = teen_employment()
    return host_contrasts(panel, Controls.NEVER), years


@pytest.mark.parametrize(
    ("group", "year", "printed"),
    [
        (2004, 2004, "-0.0105"),
        (2004, 2005, "-0.0704"),
        (2004, 2006, "-0.1373"),
        (2004, 2007, "-0.1008"),
        (2006, 2006, "-0.0046"),
        (2006, 2007, "-0.0412"),
        (2007, 2007, "-0.0261"),
    ],
)
def test_teen_employment_by_group_and_time_after_the_change(
    counties: tuple[HostContrasts, list[int]], group: int, year: int, printed: str
) -> None:
    found, years = counties
    assert f"{in_cell(found, years.index(group), years.index(year))[0]:.4f}" == printed


@pytest.mark.parametrize(
    ("group", "year", "printed"),
    [
        (2006, 2004, "0.0065"),
        (2006, 2005, "-0.0028"),
        (2007, 2004, "0.0305"),
        (2007, 2005, "-0.0027"),
        (2007, 2006, "-0.0311"),
    ],
)
def test_teen_employment_by_group_and_time_before_the_change(
    counties: tuple[HostContrasts, list[int]], group: int, year: int, printed: str
) -> None:
    """R counts these from the period before each, here all are counted from the last before the change."""
    found, years = counties
    start, period = years.index(group), years.index(year)
    later = 0.0 if period == start - 1 else in_cell(found, start, period)[0]
    assert f"{later - in_cell(found, start, period - 1)[0]:.4f}" == printed


def test_teen_employment_pre_test(counties: tuple[HostContrasts, list[int]]) -> None:
    found, _ = counties
    cells = [(start, period) for start in found.panel.starts for period in range(start - 1)]
    tested = wald([found.aggregate(found.in_cell(*cell), corrected=False) for cell in cells])
    assert tested is not None
    assert f"{tested[1]:.5f}" == "0.16812"


def test_teen_employment_event_study(counties: tuple[HostContrasts, list[int]]) -> None:
    study = event_study(counties[0], least=1)
    after = {event: study.effects[study.events.index(event)].estimate for event in study.after}
    assert [f"{effect:.4f}" for effect in after.values()] == ["-0.0199", "-0.0510", "-0.1373", "-0.1008"]
    assert f"{study.combined(dict.fromkeys(after, 0.25)).estimate:.4f}" == "-0.0772"


def test_teen_employment_overall_and_by_group(counties: tuple[HostContrasts, list[int]]) -> None:
    found, years = counties
    overall = found.aggregate(found.over_groups(), corrected=False)
    assert f"{overall.estimate:.3f}" == "-0.031"
    # The printed errors are bootstrapped: 0.0126 here, which draws differ from by some percent.
    assert overall.variance**0.5 == pytest.approx(0.0126, rel=0.03)
    for group, printed in ((2004, "-0.0797"), (2006, "-0.0229"), (2007, "-0.0261")):
        share = found.over_groups() * (found.panel.start == years.index(group))[:, np.newaxis]
        assert f"{found.aggregate(share).estimate:.4f}" == printed


# Stata's csdid, analytic errors: group, period, effect, error as printed.
CSDID = [
    (2014, 2014, ".0467024", ".0083971"),
    (2014, 2015, ".0692062", ".0100181"),
    (2014, 2016, ".0785134", ".0102957"),
    (2014, 2017, ".0725053", ".0105766"),
    (2014, 2018, ".0738091", ".0122118"),
    (2014, 2019, ".0803199", ".0102929"),
    (2015, 2015, ".0490817", ".0204309"),
    (2015, 2016, ".0526184", ".0137521"),
    (2015, 2017, ".0681601", ".0094088"),
    (2015, 2018, ".0663169", ".011487"),
    (2015, 2019, ".0737712", ".0111886"),
]


@pytest.mark.parametrize(("group", "year", "effect", "error"), CSDID)
def test_medicaid_against_states_not_yet_changed_with_errors(group: int, year: int, effect: str, error: str) -> None:
    panel, years = medicaid()
    found = in_cell(host_contrasts(panel, Controls.NOT_YET), years.index(group), years.index(year))
    assert found[0] == pytest.approx(float(effect), abs=6e-8)
    assert found[1] == pytest.approx(float(error), abs=6e-8)


@pytest.mark.parametrize(("never", "printed"), [(True, "0.0680"), (False, "0.0728")])
def test_medicaid_simple_average_with_and_without_states_never_changed(never: bool, printed: str) -> None:
    panel, _ = medicaid()
    panel = panel if never else panel.of(panel.changed)
    after = (np.arange(panel.periods) >= panel.start[:, np.newaxis]).astype(float)
    assert f"{host_contrasts(panel, Controls.NOT_YET).aggregate(after).estimate:.4f}" == printed


def test_medicaid_two_way_regression_with_errors_clustered_by_state() -> None:
    slope, error = two_way(medicaid()[0])
    assert (f"{slope:.6f}", f"{error:.6f}") == ("0.070321", "0.007401")


def test_house_prices_near_an_incinerator_with_clustered_errors() -> None:
    cells = pd.read_csv(PUBLISHED / "house_prices.csv")
    rows = cells.loc[cells.index.repeat(cells["houses"])]
    near, later, price = (rows[name].to_numpy(dtype=float) for name in ("near", "later", "mean_price"))
    x = np.column_stack((np.ones(near.size), near, later, near * later))
    slopes = np.linalg.lstsq(x, price, rcond=None)[0]
    assert [f"{slope:.3f}" for slope in slopes] == ["82517.228", "-18824.370", "18790.286", "-11863.903"]
    errors = np.sqrt(np.diag(clustered_covariance(x, price - x @ slopes, rows["cluster"].to_numpy())))
    assert [f"{error:.3f}" for error in errors] == ["3221.924", "7796.294", "5154.864", "6621.818"]


def test_fast_food_jobs_by_four_means() -> None:
    """Card and Krueger (1994), American Economic Review 84:772-793, table 3: stores measured before and after."""
    before, gained = {"Pennsylvania": 23.380, "New Jersey": 23.380 - 2.949}, (-2.2833333, 0.4666667)
    values = [[level, level + more] for level, more in zip(before.values(), gained, strict=True) for _ in range(2)]
    panel = Panel(values=np.array(values), start=np.array([2, 2, 1, 1]))
    contrasts = host_contrasts(panel, Controls.NEVER)
    assert f"{contrasts.aggregate(contrasts.over_groups()).estimate:.2f}" == "2.75"


def test_bounds_hold_the_published_conditional_ones_and_are_little_wider() -> None:
    """Rambachan and Roth's own sets (C-LF, README of HonestDiD) use more of the data: ours must hold them."""
    panel, years = medicaid()
    kept = panel.start != years.index(2015)
    panel = panel.of(kept).until(years.index(2016))
    changes = np.delete(panel.values - panel.values[:, [years.index(2013)]], years.index(2013), axis=1)
    first, others = changes[panel.changed], changes[~panel.changed]
    gaps = first.mean(axis=0) - others.mean(axis=0)
    hosts, rows = panel.hosts, panel.values.size
    spread = sum(np.cov(part.T, ddof=0) / len(part) for part in (first, others))
    covariance = spread * hosts / (hosts - 1) * (rows - 1) / (rows - 15)  # as fixest scales it
    steps = steps_of(gaps, covariance, before=5, weights=(1.0, 0.0), df=1e9)
    for size, low, high in (
        (0.5, 0.0241, 0.0673),
        (1.0, 0.0171, 0.0720),
        (1.5, 0.00859, 0.0796),
        (2.0, -0.00107, 0.0883),
    ):
        found = steps.interval(size, 0.95)
        assert found.low is not None
        assert found.high is not None
        assert found.low <= low
        assert found.high >= high
        assert found.high - found.low < 1.15 * (high - low)
