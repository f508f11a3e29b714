"""What may never change a decision, or only to the careful side; and in every row interval and test say the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from analysis import analyze
from analysis.plan import AnalysisPlan
from analysis.results import ArmDecision, EstimateKind, Findings
from analysis.welch import welch
from tests.analysis.matrix import holds
from tests.analysis.worlds import (
    BESIDE,
    CONTROL,
    MARGIN,
    PRIMARY,
    TREATMENT,
    Design,
    Estimand,
    Look,
    Planted,
    Trouble,
    World,
)

few = settings(max_examples=25, derandomize=True)
more = settings(few, max_examples=60)
most = settings(few, max_examples=120)
pytestmark = pytest.mark.slow

seeds = st.integers(0, 2**31 - 1)
parallel = st.builds(
    World,
    hosts=st.sampled_from([(4, 4), (5, 5), (8, 8), (8, 12), (20, 20), (25, 25), (40, 5)]),
    strata=st.sampled_from([1, 2, 3]),
    skewed=st.booleans(),
    before=st.booleans(),
    estimand=st.sampled_from(Estimand),
    look=st.sampled_from(Look),
    trouble=st.sampled_from([Trouble.NONE, Trouble.NONE, Trouble.AT_RANDOM, Trouble.HARMED_STRATUM, Trouble.DYING]),
    effect=st.sampled_from([-0.3, 0.0, 0.1, 0.2, 0.4, 1.0]),
    guarded=st.sampled_from([None, 0.0, 0.05, MARGIN]),
)
switchbacks = st.builds(
    World,
    design=st.just(Design.SWITCHBACK),
    hosts=st.sampled_from([(1, 6), (1, 8), (1, 24), (3, 8), (8, 6)]),
    strata=st.just(1),
    skewed=st.booleans(),
    before=st.booleans(),
    estimand=st.sampled_from([Estimand.MEAN, Estimand.HOST_RATIO]),
    look=st.sampled_from(Look),
    trouble=st.sampled_from([Trouble.NONE, Trouble.NONE, Trouble.AT_RANDOM, Trouble.DYING, Trouble.LAG]),
    effect=st.sampled_from([-0.1, 0.0, 0.02, 0.05, 0.1, 0.3]),
    guarded=st.sampled_from([None, 0.0, 0.05, MARGIN]),
)
worlds = parallel | switchbacks


def answer(planted: Planted) -> Findings:
    return analyze(planted.observations, planted.plan, planted.periods)


def parts(findings: Findings) -> list[ArmDecision]:
    """The decisions without their sentences: those show numbers."""
    return [replace(own, sentence="") for own in findings.arms]


def near(findings: Findings) -> bool:
    """Whether rounding, or the draws of a randomisation test, could turn some test around."""
    width = {EstimateKind.RANDOMISATION: 0.015}
    return any(
        row.p is not None and abs(row.p - findings.alpha) < width.get(row.kind, 1e-6) for row in findings.estimates
    )


# --- Interval and test
@given(world=worlds, seed=seeds, alpha=st.sampled_from([0.01, 0.05, 0.2]), pairs=st.booleans())
@more
def test_an_interval_leaves_out_zero_just_where_p_is_below_alpha(
    world: World, seed: int, alpha: float, pairs: bool
) -> None:
    planted = world.draw(seed)
    own = replace(planted.plan, alpha=alpha)
    if pairs and world.design is Design.PARALLEL and world.hosts[0] == world.hosts[1]:
        coins = [str(place % world.hosts[0]) for place in range(len(own.units))]
        own = replace(
            own,
            method="matched_pairs",
            units=tuple(replace(unit, pair=coin) for unit, coin in zip(own.units, coins, strict=True)),
        )
    findings = answer(replace(planted, plan=own))
    for row in findings.estimates:
        if row.p is None or abs(row.p - findings.alpha) < 1e-9:
            continue
        for interval in (row.difference_interval, row.lift_interval):
            if interval is not None:
                assert holds(interval, 0.0) == (row.p >= findings.alpha), row


# --- Deleting rows
def borderline(seed: int, sizes: tuple[int, int], strata: int, errors: float) -> Planted:
    """An A/A world moved so that the arms are this many standard errors apart."""
    planted = World(hosts=sizes, strata=strata, guarded=0.0).draw(seed)
    rows = planted.observations
    own = rows["metric"] == PRIMARY
    treated = own & (rows["arm"] == TREATMENT)
    found = welch(rows.loc[own & ~treated, "mean"].to_numpy(), rows.loc[treated, "mean"].to_numpy())
    moved = rows["mean"] + np.where(treated, errors * found.standard_error - found.difference, 0.0)
    return replace(planted, observations=rows.assign(mean=moved))


def deleted(rows: pd.DataFrame, how: str, count: int, seed: int) -> pd.DataFrame:
    """Take out some measured rows: at random, those that speak against the treatment, whole hosts, whole strata."""
    measured = rows[rows["kind"] == "measure"]
    own = measured[measured["metric"] == PRIMARY].sort_values("mean", kind="stable")
    treated, control = own[own["arm"] == TREATMENT], own[own["arm"] == CONTROL]
    random = np.random.default_rng(seed)
    gone: pd.Index
    if how == "any rows":
        gone = measured.index[random.permutation(len(measured))[:count]]
    elif how == "worst treated":
        gone = treated.index[:count]
    elif how == "best control":
        gone = control.index[::-1][:count]
    elif how == "both ends":
        gone = treated.index[:count].append(control.index[::-1][:count])
    elif how == "worst treated hosts":
        gone = measured.index[measured["host"].isin(treated["host"][:count])]
    elif how == "a stratum":
        gone = measured.index[measured["stratum"] == f"pool-{count % 3}"]
    else:
        gone = measured.index[(measured["metric"] == how) & measured["host"].isin(treated["host"][:count])]
    return rows.drop(index=gone).reset_index(drop=True)


HOW = ["any rows", "worst treated", "best control", "both ends", "worst treated hosts", "a stratum", "memory", BESIDE]


@given(
    seed=seeds, sizes=st.sampled_from([(5, 5), (8, 8), (20, 20), (30, 10), (60, 60)]), strata=st.sampled_from([1, 3]),
    errors=st.floats(0.5, 2.4), how=st.sampled_from(HOW), count=st.integers(1, 4),
)  # fmt: skip
@most
def test_deleting_rows_never_makes_a_decision_favourable(
    *, seed: int, sizes: tuple[int, int], strata: int, errors: float, how: str, count: int
) -> None:
    planted = borderline(seed, sizes, strata, errors)
    assume(not answer(planted).decision.is_favourable)
    lacking = replace(planted, observations=deleted(planted.observations, how, count, seed))
    assert not answer(lacking).decision.is_favourable


@given(seed=seeds, sizes=st.sampled_from([(8, 8), (20, 20)]), factor=st.sampled_from([0.05, 0.5]))
@few
def test_deleting_the_one_host_that_made_it_unclear_does_not_make_it_clear(
    seed: int, sizes: tuple[int, int], factor: float
) -> None:
    planted = borderline(seed, sizes, 1, 3.5)
    rows = planted.observations
    own = rows[(rows["metric"] == PRIMARY) & (rows["arm"] == TREATMENT)]
    rows.loc[own["mean"].idxmin(), "mean"] *= factor
    assume(not answer(planted).decision.is_favourable)
    assert not answer(replace(planted, observations=deleted(rows, "worst treated", 1, 0))).decision.is_favourable


@given(
    seed=seeds, size=st.sampled_from([(1, 8), (1, 16), (3, 8), (8, 6)]), effect=st.sampled_from([0.0, 0.02, 0.04]),
    how=st.sampled_from(["any rows", "worst treated", "best control", "both ends", "worst treated hosts"]),
    count=st.integers(1, 4),
)  # fmt: skip
@more
def test_deleting_periods_never_makes_a_switchback_favourable(
    *, seed: int, size: tuple[int, int], effect: float, how: str, count: int
) -> None:
    planted = World(design=Design.SWITCHBACK, hosts=size, effect=effect).draw(seed)
    assume(not answer(planted).decision.is_favourable)
    lacking = replace(planted, observations=deleted(planted.observations, how, count, seed))
    assert not answer(lacking).decision.is_favourable


# --- What changes no decision
def renamed(planted: Planted, hosts: Mapping[str, str], arms: Mapping[str, str]) -> Planted:
    """The same world under other names."""

    def frame(own: pd.DataFrame) -> pd.DataFrame:
        return own.assign(host=own["host"].map(hosts), arm=own["arm"].map(arms))

    units = tuple(
        replace(unit, host=hosts[unit.host], arm=None if unit.arm is None else arms[unit.arm])
        for unit in planted.plan.units
    )
    own: AnalysisPlan = replace(
        planted.plan,
        control=arms[planted.plan.control],
        arms=tuple(arms[arm] for arm in planted.plan.arms),
        units=units,
    )
    periods = None if planted.periods is None else frame(planted.periods)
    return replace(planted, observations=frame(planted.observations), plan=own, periods=periods)


def plain(findings: Findings, arms: Mapping[str, str], hosts: Mapping[str, str]) -> list[object]:
    """The parts of the decisions under the names they had."""
    back, home = {new: old for old, new in arms.items()}, {new: old for old, new in hosts.items()}
    return [
        (
            back[own.arm], own.decision, own.cause, len(own.about), own.scope.hosts, own.scope.periods,
            own.scope.strata, own.scope.without, own.scope.harmed,
            {home[name] for name in own.scope.host_names},
            {(m.metric, back[m.arm], m.units, round(m.lost, 9), m.due, m.stratum) for m in own.missing},
            {one.doubt for one in own.overturn},
        )
        for own in findings.arms
    ]  # fmt: skip


@given(world=worlds, seed=seeds)
@few
def test_names_of_arms_and_hosts_change_no_decision(world: World, seed: int) -> None:
    planted = world.draw(seed)
    names = sorted({unit.host for unit in planted.plan.units})
    same_arms = {CONTROL: CONTROL, TREATMENT: TREATMENT}
    same_hosts = dict(zip(names, names, strict=True))
    before = answer(planted)
    assume(not near(before))
    expected = plain(before, same_arms, same_hosts)
    for arms in ({CONTROL: "2m", TREATMENT: "1g"}, {CONTROL: "treatment", TREATMENT: "control"}):
        assert plain(answer(renamed(planted, same_hosts, arms)), arms, same_hosts) == expected
    turned = dict(zip(names, reversed(names), strict=True))
    assert plain(answer(renamed(planted, turned, same_arms)), same_arms, turned) == expected


@given(world=worlds, seed=seeds, scale=st.sampled_from([2.0**-20, 0.001, 1024.0, 1e9]))
@few
def test_units_change_no_decision(world: World, seed: int, scale: float) -> None:
    planted = world.draw(seed)
    numbers = ["mean", "minimum", "maximum", "p99"]
    scaled = planted.observations.assign(**{name: planted.observations[name] * scale for name in numbers})
    before = answer(planted)
    assume(not near(before))
    assert parts(answer(replace(planted, observations=scaled))) == parts(before)


@given(world=worlds, seed=seeds)
@few
def test_the_order_of_rows_changes_nothing(world: World, seed: int) -> None:
    planted = world.draw(seed)
    turned = planted.observations.sample(frac=1, random_state=seed % 1000)
    periods = None if planted.periods is None else planted.periods.sample(frac=1, random_state=seed % 999)
    assert answer(replace(planted, observations=turned, periods=periods)) == answer(planted)


@given(world=worlds, seed=seeds, label=st.sampled_from(["", "all", "zone \u2014 1"]))
@few
def test_a_stratum_that_splits_nothing_changes_no_decision(world: World, seed: int, label: str) -> None:
    planted = replace(world, strata=1, trouble=Trouble.NONE).draw(seed)
    units = tuple(replace(unit, stratum=label) for unit in planted.plan.units)
    own = replace(
        planted, observations=planted.observations.assign(stratum=label), plan=replace(planted.plan, units=units)
    )
    assert parts(answer(own)) == parts(answer(planted))
