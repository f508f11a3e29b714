"""Series whose unit changes, and totals that are taken for levels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import fleetexp
from analysis.errors import BadObservations
from analysis.odd_series import only_rises, unit_jump

DRAW = np.random.default_rng(5)
LEVELS = 100 * np.exp(DRAW.normal(0, 0.3, (12, 1)) + DRAW.normal(0, 0.1, (12, 20)))
SINCE = np.arange(20) >= 8


@pytest.mark.parametrize("factor", [1e3, 1e-3, 1024.0, 1e-6, 1e9])
def test_a_prefix_that_changes_on_some_hosts_is_found_with_its_period(factor: float) -> None:
    values = LEVELS.copy()
    values[:5, SINCE] *= factor
    values[3, 6:10] = np.nan
    jump = unit_jump(values)
    assert jump is not None
    assert (jump.hosts, jump.period) == ((0, 1, 2, 4), 8)
    assert abs(np.log10(jump.factor / factor)) < 0.04


@pytest.mark.parametrize("percent_first", [True, False])
def test_a_share_that_becomes_percent_changed_its_unit(percent_first: bool) -> None:
    shares = np.clip(LEVELS / 300, 0, 1)
    values = shares.copy()
    values[:5] *= np.where(percent_first != SINCE, 100, 1)
    jump = unit_jump(values)
    assert jump is not None
    assert (jump.hosts, jump.period) == ((0, 1, 2, 3, 4), 8)
    assert unit_jump(np.where(SINCE, shares, shares / 100)) is None  # both may be shares


@pytest.mark.parametrize("factor", [1.0, 0.5, 0.01, 100.0, 3e-4])
def test_what_moves_by_another_factor_changed_no_unit(factor: float) -> None:
    assert unit_jump(np.where(SINCE, LEVELS * factor, LEVELS)) is None


def test_hosts_that_have_none_of_it_before_heavy_tails_and_one_host_changed_no_unit() -> None:
    assert unit_jump(np.where(SINCE, LEVELS * 1e9, 0.0)) is None
    assert unit_jump(np.exp(DRAW.normal(0, 3, (40, 60)))) is None
    assert unit_jump(np.vstack((LEVELS[0] * np.where(SINCE, 1e3, 1), LEVELS[1:]))) is None
    assert unit_jump(np.full((3, 5), np.nan)) is None


def test_totals_rise_on_every_host_and_levels_do_not() -> None:
    assert only_rises(np.cumsum(LEVELS, axis=1))
    assert not only_rises(LEVELS)
    assert not only_rises(np.cumsum(LEVELS, axis=1)[:, :8])


@pytest.mark.parametrize("assigned", ["at random", "not at random"])
def test_no_effect_is_read_off_a_unit_and_a_total_is_told_as_one(assigned: str) -> None:
    host, period = np.indices(LEVELS.shape)
    frame = pd.DataFrame({"host": [f"h{n}" for n in host.ravel()], "period": period.ravel(), "metric": "p99"})
    changed = host.ravel() < 6
    if assigned == "at random":
        more = {"control": "old"}
        frame["arm"] = np.where(changed, "new", "old")
        frame["kind"] = np.where(SINCE, "measure", "baseline")[period.ravel()]
    else:
        more = {}
        frame["treated_from"] = np.where(changed, 8, np.nan)
    told = {"assigned": assigned, "better": "decrease", **more}
    jumping = np.where(SINCE & (host < 6), LEVELS / 1000, LEVELS)
    with pytest.raises(BadObservations, match=r"p99 is 1/.* from period 8 on, on 6 hosts .h0 among them.: its unit"):
        fleetexp.analyze(frame.assign(value=jumping.ravel()), **told)
    totals = fleetexp.analyze(frame.assign(value=np.cumsum(LEVELS, axis=1).ravel()), **told)
    assert "p99 rises in every period on every host: if it is a counter, bring its rate" in totals.warnings
