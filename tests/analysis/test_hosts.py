"""The table of hosts: names of any kind are text, attempts and shares are counted by host, lost hosts are named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis import analyze
from analysis.aggregate import FIGURES
from analysis.errors import BadObservations
from analysis.frame import checked_observations, checked_periods, figures_of
from analysis.hosts import HostTable
from analysis.plan import AnalysisPlan, AssignedUnit, Direction, GuardrailPlan, MetricPlan, Role
from tests.analysis.fleet_data import fleet, plan

THROUGHPUT = MetricPlan(name="throughput", unit="", role=Role.SECONDARY)
MISSES = MetricPlan(name="misses", denominator="lookups", unit="", role=Role.SECONDARY)
UNITS = (
    AssignedUnit(host="1", stratum="web", arm="control"),
    AssignedUnit(host="2", stratum="web", arm="treatment"),
    AssignedUnit(host="10", stratum="web", arm="treatment"),
)


def row(period_id: int, host: object = "1", metric: object = "throughput", **more: object) -> dict[str, object]:
    arms = {"1": "control"}
    known: dict[str, object] = {
        "period_id": period_id, "host": host, "arm": arms.get(str(host), "treatment"), "kind": "measure", "block": 0,
        "attempt": 0, "position": 0, "seconds": 600.0, "metric": metric, "mean": 1.0,
    }  # fmt: skip
    return {**known, **more}


def period(period_id: int, host: object = "1", state: str = "complete", **more: object) -> dict[str, object]:
    known = {name: value for name, value in row(period_id, host).items() if name not in {"metric", "mean", "seconds"}}
    return {**known, "state": state, "reason": "", **more}


def table(
    rows: list[dict[str, object]], periods: list[dict[str, object]] | None = None, of: AnalysisPlan | None = None
) -> HostTable:
    told = of or plan(units=UNITS)
    seen = None if periods is None else checked_periods(pd.DataFrame(periods))
    return HostTable(checked_observations(pd.DataFrame(rows), told), told, seen)


def test_values_weigh_periods_by_their_seconds() -> None:
    rows = [row(1, mean=1.0, seconds=300.0), row(2, block=1, mean=4.0, seconds=600.0), row(3, "2", mean=5.0)]
    assert table(rows).values("throughput", "mean", "measure").to_dict() == {"1": 3.0, "2": 5.0}


def test_of_a_block_tried_again_the_last_attempt_counts() -> None:
    rows = [row(1, mean=1.0), row(2, attempt=1, mean=7.0), row(3, block=1, mean=9.0)]
    assert table(rows).values("throughput", "mean", "measure").to_dict() == {"1": 8.0}


def test_values_of_what_nobody_measured_are_empty() -> None:
    assert table([row(1)]).values("latency", "mean", "measure").empty
    assert table([row(1)]).values("throughput", "mean", "baseline").empty


def test_a_ratio_needs_both_parts_and_a_positive_one_below() -> None:
    rows = [
        row(1, metric="misses", mean=3.0), row(1, metric="lookups", mean=6.0),
        row(2, "2", metric="misses", mean=3.0), row(2, "2", metric="lookups", mean=0.0),
        row(3, "10", metric="misses", mean=3.0),
    ]  # fmt: skip
    found = table(rows).two_arms(MISSES, "treatment")
    assert (found.hosts.tolist(), found.y.tolist(), found.denominator.tolist()) == (["1"], [0.5], [6.0])


def test_hosts_that_are_due_are_named_and_those_that_never_reported_are_lost() -> None:
    later = AssignedUnit(host="3", stratum="web", arm="treatment", stage=1)
    found = table([row(1), row(2, "2")], of=plan(units=(*UNITS, later)))
    assert found.due_hosts("control") == ["1"]
    assert found.due_hosts("treatment") == ["10", "2"]
    assert (found.assigned("treatment"), found.lost("treatment"), found.lost("control")) == (2, 1, 0)


def test_at_an_early_look_hosts_still_measuring_are_not_due() -> None:
    early = plan(units=UNITS, unplanned_look=True)
    found = table([row(1), row(2, "2")], [period(1), period(2, "2"), period(3, "10", "running")], early)
    assert found.due_hosts("treatment") == ["2"]


def test_a_host_measured_under_another_arm_is_misplaced() -> None:
    assert table([row(1), row(2, "2", arm="control")]).misplaced == ("2",)


def test_counts_are_of_reporting_hosts_by_arm_stratum_and_stage() -> None:
    units = (*UNITS[:2], AssignedUnit(host="10", stratum="db", arm="treatment", stage=1))
    found = table([row(1), row(2, "2"), row(3, "10")], of=plan(units=units)).counts(("control", "treatment"))
    assert {name: numbers for name, (numbers, _) in found.items()} == {
        "": [1, 2], "stratum db": [0, 1], "stratum web": [1, 1], "stage 0": [1, 1], "stage 1": [0, 1],
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- shares
def test_a_share_counts_every_attempt_that_began_and_ended() -> None:
    periods = [
        period(1, state="invalid"), period(2, attempt=1), period(3, block=1), period(4, block=2, state="running"),
        period(5, block=3, state="planned"), period(6, "2"), period(7, "10", "invalid"),
    ]  # fmt: skip
    rows = [row(2, attempt=1), row(3, block=1), row(4, block=2), row(6, "2")]
    assert table(rows, periods).shares(THROUGHPUT).to_dict() == {"1": 2 / 3, "2": 1.0}


@pytest.mark.parametrize(("broken_by", "share"), [("run", 1.0), ("block", 1.0), ("host", 0.5), ("", 0.5), (None, 0.5)])
def test_periods_broken_by_the_run_or_the_rest_of_their_block_do_not_count(broken_by: str | None, share: float) -> None:
    periods = [period(1, state="invalid", broken_by=broken_by), period(2, attempt=1, broken_by=None)]
    assert table([row(2, attempt=1)], periods).shares(THROUGHPUT).to_dict() == {"1": share}


def test_a_complete_period_without_the_metric_lowers_the_share() -> None:
    rows = [row(1), row(2, block=1), row(3, "2", metric="other")]
    rows[1]["metric"] = "other"
    assert table(rows, [period(1), period(2, block=1), period(3, "2")]).shares(THROUGHPUT).to_dict() == {"1": 0.5}


def test_without_periods_shares_are_of_the_attempts_of_which_any_metric_is_known() -> None:
    rows = [row(1), row(1, metric="other"), row(2, metric="other", attempt=1), row(3, metric="other", block=1)]
    assert table([*rows, row(4, "2")]).shares(THROUGHPUT).to_dict() == {"1": 1 / 3, "2": 1.0}


def test_a_share_of_a_ratio_needs_both_parts_in_the_same_period() -> None:
    rows = [
        row(1, metric="misses"), row(1, metric="lookups"), row(2, metric="misses", block=1),
        row(3, metric="lookups", block=2), row(4, metric="misses", block=3),
        row(4, metric="lookups", block=3, mean=0.0),
    ]  # fmt: skip
    assert table(rows).shares(MISSES).to_dict() == {"1": 0.25}


def test_shares_of_baselines_are_their_own() -> None:
    rows = [row(1, kind="baseline", block=-1), row(2), row(3, metric="other", block=1)]
    found = table(rows)
    assert found.shares(THROUGHPUT, "baseline").to_dict() == {"1": 1.0}
    assert found.shares(THROUGHPUT).to_dict() == {"1": 0.5}


# ---------------------------------------------------------------------------------------------------------- names
NAMES = ("host", "arm", "kind", "metric")
WAYS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "categories": lambda frame: frame.astype(dict.fromkeys(NAMES, "category")),
    "unused categories": lambda frame: frame.assign(
        metric=pd.Categorical(frame["metric"], categories=["unused", *reversed(frame["metric"].unique())])
    ),
    "objects": lambda frame: frame.astype(dict.fromkeys(NAMES, object)),
    "other order": lambda frame: frame.sample(frac=1.0, random_state=1),
}


@pytest.mark.parametrize("way", WAYS)
def test_categories_objects_and_other_orders_give_the_answer_of_plain_text(way: str) -> None:
    hosts = fleet(12, 12, 2)
    draw = np.random.default_rng(3)
    before = draw.normal(100, 5, 24)
    rows = hosts.observations({"throughput": before + draw.normal(0, 2, 24)}, {"throughput": before})
    rows.loc[5, "mean"] = np.nan
    for told in (plan(), plan(units=hosts.units)):
        assert analyze(WAYS[way](rows), told) == analyze(rows, told)


@pytest.mark.parametrize("kind", ["int64", "Int64", "category", "object"])
def test_whole_numbers_as_hosts_are_their_text(kind: str) -> None:
    rows = pd.DataFrame([row(1), row(2, "2", mean=2.0), row(3, "10", mean=3.0)])
    numbered = rows.assign(host=rows["host"].astype("int64").astype(kind))
    periods = pd.DataFrame([period(1), period(2, "2"), period(3, "10"), period(4, "10", "invalid", attempt=1)])
    told = plan(units=UNITS)
    found = HostTable(
        checked_observations(numbered, told),
        told,
        checked_periods(periods.assign(host=numbered["host"].iloc[[0, 1, 2, 2]].to_numpy())),
    )
    sample = found.two_arms(THROUGHPUT, "treatment")
    assert (sample.hosts.tolist(), sample.y.tolist()) == (["1", "10", "2"], [1.0, 3.0, 2.0])
    assert found.shares(THROUGHPUT).to_dict() == {"1": 1.0, "10": 0.5, "2": 1.0}
    assert found.lost("treatment") == 0


@pytest.mark.parametrize("kind", [object, "category", "str"])
@pytest.mark.parametrize("column", NAMES)
def test_a_missing_name_is_told_by_column_and_row(column: str, kind: object) -> None:
    rows = pd.DataFrame([row(1), row(2, "2"), row(3, "10")], index=[7, 8, 9])
    names = rows[column].astype(object)
    names.loc[8] = None
    with pytest.raises(BadObservations, match=f"the {column} is missing .*column {column}, row 8"):
        checked_observations(rows.assign(**{column: names.astype(kind)}), plan(units=UNITS))


@pytest.mark.parametrize("host", [1.0, 1.5, True, b"1", ("1",)])
def test_a_host_that_is_neither_text_nor_a_whole_number_is_refused(host: object) -> None:
    rows = pd.DataFrame([row(1), row(2, "2")]).assign(host=pd.Series(["2", host], dtype=object))
    with pytest.raises(BadObservations, match=r"not a name of a host .*column host, row 1"):
        checked_observations(rows, plan(units=UNITS))


def test_the_first_copy_of_a_row_is_named() -> None:
    rows = [row(2, "2"), row(1), row(1, metric="other"), row(1, metric="other"), row(1)]
    with pytest.raises(BadObservations, match=r"'other' comes twice .*period 1"):
        checked_observations(pd.DataFrame(rows), plan(units=UNITS))


# --------------------------------------------------------------------------------------------------------- figures
def test_the_figures_that_a_plan_reads_give_the_answer_of_all_of_them() -> None:
    hosts = fleet(12, 12)
    rows = hosts.observations({"throughput": np.random.default_rng(5).normal(100, 5, 24)})
    guard = GuardrailPlan(metric="throughput", worse=Direction.DECREASE, tripwire=90.0)
    tail = MetricPlan(name="throughput", statistic="p99", unit="", role=Role.PRIMARY)
    for told, wanted in (
        (plan(), ("mean",)),
        (plan(metrics=(tail,)), ("mean", "p99")),
        (replace(plan(), guardrails=(guard,)), ("mean", "minimum", "maximum", "rise")),
    ):
        assert figures_of(told) == wanted
        needless = [name for name in FIGURES if name not in wanted and name in rows.columns]
        assert analyze(rows.drop(columns=needless), told) == analyze(rows, told)
