"""`fleetexp.analyze`: a plain frame gets the findings that the same data get through a store, and no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fleetexp
from analysis.errors import AnalysisError, BadObservations, BadPlan
from analysis.results import HALVES, Cause, Decision, EstimateKind, Findings
from fleetexp.plain_frame import TAKEN_ON_TRUST
from tests.fleetexp.simulated_runs import RESPONSE, run_simulated, spec

METRICS = ("throughput", "memory_used_bytes")


def fleet(hosts: int = 24, effect: float = 0.1) -> pd.DataFrame:
    draw = np.random.default_rng(1)
    arms = draw.permutation(["4k", "2m"] * (hosts // 2))
    means = 100 * (1 + effect * (arms == "2m")) * draw.normal(1, 0.03, hosts)
    return pd.DataFrame({"host": [f"web-{n}" for n in range(hosts)], "arm": arms, "metric": "rate", "value": means})


def turns(hosts: int = 6, blocks: int = 8) -> pd.DataFrame:
    draw = np.random.default_rng(2)
    rows = [
        (f"web-{host}", block, 2 * block + place, arm, "rate", 100 + 10 * (arm == "2m") + draw.normal())
        for host in range(hosts)
        for block in range(blocks)
        for place, arm in enumerate(draw.permutation(["4k", "2m"]))
    ]
    return pd.DataFrame(rows, columns=["host", "block", "period", "arm", "metric", "value"])


def told(value: object) -> object:
    """Return what findings say, numbers to 9 figures: sums of floats follow the order of the rows."""
    if isinstance(value, float):
        return f"{value:.9g}"
    if isinstance(value, list | tuple):
        return [told(one) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: told(getattr(value, field.name)) for field in fields(value)}
    return value


def analysed(frame: pd.DataFrame, **more: object) -> Findings:
    return fleetexp.analyze(frame, **{"control": "4k", "better": "increase", "assigned": "at random", **more})


def test_three_lines_are_enough() -> None:
    found = analysed(fleet())
    assert (found.decision, found.arms[0].cause) == (Decision.SHIP, Cause.BETTER)
    (row,) = [row for row in found.estimates if row.headline]
    assert (row.metric, row.control, row.treatment) == ("rate", "4k", "2m")
    assert found.guardrails == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        spec(
            stages="[{share: 100%, hold: 3m}]", guardrails="[{metric: memory_used_bytes, worse: increase, margin: 10%}]"
        ),
        spec(design="switchback", stages="", baseline="", blocks="measure: 1m, blocks: 6, ").replace(
            "primary: throughput", "primary: throughput\n  secondary: [memory_used_bytes]"
        ),
    ],
    ids=["parallel", "switchback"],
)
def test_the_same_data_get_the_same_findings_through_a_store(text: str, tmp_path: Path) -> None:
    ran = run_simulated(tmp_path, text, hosts=12, response_model=RESPONSE)
    with ran.store() as store:
        stored = store.findings(ran.outcome.run_id)
        rows = store.observations(ran.outcome.run_id, metrics=METRICS)
    assert stored is not None
    switchback = "switchback" in text
    frame = rows[rows["kind"] != "washout"].rename(columns={"mean": "value", "position": "period"})
    frame = frame[["host", "arm", "metric", "value", "period", "kind", "seconds", *(["block"] if switchback else [])]]
    rails = {} if switchback else {"memory_used_bytes": 0.1}
    said = {"control": "control", "primary": "throughput", "better": "increase", "assigned": "at random"}
    found = fleetexp.analyze(frame, **said, guardrails=rails, seed=3)
    received = {EstimateKind.COMPLIERS, EstimateKind.DOSE_RESPONSE}  # by pages that the frame does not have
    # A host's one long period has halves by its readings: of those the frame has the mean alone.
    by_readings: set[EstimateKind] = set() if switchback else set(HALVES)
    assert {row.kind for row in stored.estimates} >= set(HALVES)
    assert not {row.kind for row in found.estimates} & by_readings
    rows_of = [row for row in stored.estimates if row.metric in METRICS and row.kind not in received | by_readings]
    ours = replace(stored, estimates=tuple(rows_of))
    for part in ("decision", "alpha", "estimates", "trades", "preference"):
        assert told(getattr(found, part)) == told(getattr(ours, part)), part
    assert told(found.contrasts) == told([row for row in stored.contrasts if row.metric in METRICS])
    assert [told(replace(arm, sentence="")) for arm in found.arms] == [
        told(replace(arm, sentence="")) for arm in stored.arms
    ]
    rails = [rail for rail in stored.guardrails if not rail.built_in]
    assert told(found.guardrails) == told(rails)
    # What only a run knows is left out: hosts that were planned, the ratio that was aimed at, what watching cost.
    halved = {"fading (throughput, big)"} | (set() if switchback else {"growing harm (memory_used_bytes, big)"})
    named = {check.name for check in found.checks} - (halved if by_readings else set())
    assert [one.passed for one in stored.checks if one.name in halved] == [True] * len(halved)
    tested, of_run = ([check for check in one.checks if check.passed is not None] for one in (found, stored))
    assert told(tested) == told([one for one in of_run if one.name in named and one.name != "sample-ratio mismatch"])


@pytest.mark.parametrize("climbs", [False, True])
def test_harm_that_climbs_from_period_to_period_does_not_pass_on_the_average(climbs: bool) -> None:
    """Memory 5 % up throughout, or climbing from nothing to 16 %: 8 % on the average, 12 % in the later half."""
    draw = np.random.default_rng(5)
    rows = []
    for place in range(40):
        arm, memory = ("control", "big")[place % 2], 64 * np.exp(draw.normal(0, 0.01))
        for period in range(12):
            harm = (0.16 * (period + 0.5) / 12 if climbs else 0.05) * (arm == "big")
            common = {"host": f"web-{place}", "arm": arm, "period": period}
            rows += [
                common | {"metric": "throughput", "value": (100 + 5 * (arm == "big")) * (1 + 0.01 * draw.normal())},
                common | {"metric": "memory_total", "value": memory * (1 + harm) * (1 + 0.01 * draw.normal())},
            ]
    better = {"throughput": "increase", "memory_total": "decrease"}
    said = {"control": "control", "primary": "throughput", "better": better, "assigned": "at random"}
    found = fleetexp.analyze(pd.DataFrame(rows), **said, guardrails={"memory_total": 0.1})
    whole = next(row for row in found.estimates if row.headline and row.metric == "memory_total")
    assert whole.lift_interval is not None and whole.lift_interval.high is not None
    assert whole.lift_interval.high < 0.1
    cause = Cause.GUARDRAIL_FAILED if climbs else Cause.BETTER
    assert (found.arms[0].decision.is_favourable, found.arms[0].cause) == (not climbs, cause)


def test_blocks_make_a_switchback() -> None:
    found = analysed(turns())
    assert found.decision is Decision.SHIP
    assert len(found.contrasts) == 48
    few = analysed(turns(hosts=2))
    assert few.decision is Decision.BETTER_HERE


def test_hosts_that_changed_arms_at_one_time_are_as_many_as_their_times() -> None:
    """What strikes all hosts at a time is no chance of each: so many copies of a host show no more than that host."""
    alone = turns(hosts=1, blocks=12)
    copies = pd.concat(alone.assign(host=f"web-{host}") for host in range(8))
    one, many = (next(row for row in analysed(frame).estimates if row.headline) for frame in (alone, copies))
    assert many.standard_error == pytest.approx(one.standard_error)
    carried = [next(check for check in analysed(frame).checks if "carry" in check.name) for frame in (alone, copies)]
    assert carried[0].p_value == pytest.approx(carried[1].p_value)
    carried_by_one = copies.assign(value=lambda rows: 100 + (rows["host"] == "web-0") * rows["value"])
    assert analysed(carried_by_one).decision is Decision.INCONCLUSIVE


def test_an_arm_that_always_comes_first_is_not_told_apart_from_time() -> None:
    drifting = turns(blocks=10).sort_values(["host", "block", "arm"]).assign(
        period=lambda rows: rows.groupby("host").cumcount(), value=lambda rows: 100 + rows["period"]
    )  # fmt: skip
    found = analysed(drifting)
    assert (found.decision, found.arms[0].cause) == (Decision.INCONCLUSIVE, Cause.CHECK_FAILED)
    assert found.arms[0].about == ("order of arms (2m)",)


@pytest.mark.parametrize("both", [0, 20])
def test_strata_that_hold_one_arm_are_no_comparison(both: int) -> None:
    frame = fleet(40 + both, effect=0)
    place = np.arange(len(frame))
    apart = frame.assign(
        stratum=np.where(place < 40, np.where(frame["arm"] == "2m", "new", "old"), "both"),
        value=frame["value"] + 50 * ((frame["arm"] == "2m") & (place < 40)),
    )
    found = analysed(apart)
    assert found.decision is Decision.INCONCLUSIVE
    assert found.arms[0].about == ("arms over strata",)
    singles = frame.assign(stratum=frame["host"])  # every host of its own kind: there chance does that
    assert [check.passed for check in analysed(singles).checks if check.name == "arms over strata"] == [True]


def test_what_a_frame_does_not_show_is_not_claimed() -> None:
    found = analysed(fleet())
    assert TAKEN_ON_TRUST in found.warnings
    (ratio,) = [check for check in found.checks if check.name == "sample-ratio mismatch"]
    assert ratio.passed is None  # nobody said what the sizes should have been
    assert not [check for check in found.checks if "lost" in check.name or "attrition" in check.name]
    tested = [check for check in analysed(fleet(), ratio={"4k": 1, "2m": 1}).checks if check.name == ratio.name]
    assert tested[0].passed is True
    lopsided = pd.concat([fleet(), fleet(60).query("arm == '2m'").assign(host=lambda rows: "more-" + rows["host"])])
    assert analysed(lopsided).decision is Decision.SHIP
    assert analysed(lopsided, ratio={"4k": 1, "2m": 1}).arms[0].cause is Cause.CHECK_FAILED


def test_a_value_that_is_missing_counts_as_lost_on_its_host() -> None:
    frame = fleet(effect=0.03)
    frame.loc[frame[frame["arm"] == "2m"].index[:5], "value"] = np.nan
    found = analysed(frame)
    assert found.decision is Decision.DO_NOT_SHIP
    assert found.arms[0].about == ("hosts_lost",)
    assert {(one.metric, one.arm, one.lost) for one in found.arms[0].missing} == {("rate", "2m", 5), ("rate", "4k", 0)}


def before_and_after(hosts: int = 60) -> pd.DataFrame:
    draw = np.random.default_rng(4)
    after = fleet(hosts, effect=0).assign(kind="measure", value=100 + draw.normal(0, 5, hosts))
    return pd.concat((after.assign(kind="baseline", value=100 + draw.normal(0, 1, hosts)), after), ignore_index=True)


def test_a_host_that_was_measured_before_and_not_after_is_lost() -> None:
    frame = before_and_after()
    treated = frame[(frame["kind"] == "measure") & (frame["arm"] == "2m")]
    worst = treated.nsmallest(12, "value").index
    found = analysed(frame.drop(worst).reset_index(drop=True))
    assert not found.decision.is_favourable
    (rail,) = found.guardrails
    assert "lost 12 of 30, control 0 of 30" in rail.reason
    nobody_knows = frame.drop(worst).assign(arm=lambda rows: rows["arm"].where(rows["kind"] == "measure", "4k"))
    assert analysed(nobody_knows.reset_index(drop=True)).guardrails == ()


def test_a_host_that_falls_silent_lacks_what_the_others_have() -> None:
    after = fleet(40, effect=0)
    frame = pd.concat([after.assign(period=period) for period in range(10)], ignore_index=True)
    silent = (frame["arm"] == "2m") & (frame["value"] < 100)
    found = analysed(frame[~silent | (frame["period"] < 4)])
    assert any(missing.lost > 1 for missing in found.arms[0].missing)
    one = frame[(frame["host"] != "web-3") | (frame["period"] > 5)]  # began later: that is no loss
    assert found.arms[0].missing and not analysed(one).arms[0].missing


def test_few_hosts_bear_no_claim() -> None:
    assert analysed(fleet(6)).arms[0].cause is Cause.TOO_FEW_UNITS


WRONG: dict[str, tuple[Callable[[], pd.DataFrame], dict[str, object], type[AnalysisError], str]] = {
    "nobody says how": (fleet, {"assigned": ""}, BadPlan, "say assigned='at random'"),
    "not by chance": (fleet, {"assigned": "by rack"}, BadPlan, "no difference can be put down to the arm"),
    "no column": (lambda: fleet().drop(columns="value"), {}, BadObservations, "no column 'value'.*rename"),
    "no rows": (lambda: fleet().head(0), {}, BadObservations, "no rows"),
    "no host": (lambda: fleet().assign(host=None), {}, BadObservations, "column host, row 0"),
    "text": (lambda: fleet().assign(value="fast"), {}, BadObservations, "'fast' is not a number.*column value, row 0"),
    "no such control": (fleet, {"control": "2M"}, BadPlan, "no row has the arm '2M'.*2m, 4k"),
    "no such metric": (fleet, {"primary": "speed"}, BadPlan, "no row has the metric 'speed'"),
    "no such guardrail": (fleet, {"guardrails": {"speed": 0.1}}, BadPlan, "no row has the metric 'speed'"),
    "which decides": (
        lambda: pd.concat([fleet(), fleet().assign(metric="other")]), {}, BadPlan, "2 metrics could be.*rate, other",
    ),
    "which way": (fleet, {"better": ""}, BadPlan, "which way rate is better.*'increase'"),
    "no direction": (fleet, {"better": "up"}, BadPlan, "'up' is not a direction"),
    "guardrail without direction": (
        lambda: pd.concat([fleet(), fleet().assign(metric="other")]), {"guardrails": {"other": 0.1}}, BadPlan,
        "which way other is better",
    ),
    "twice": (lambda: pd.concat([fleet(), fleet()]), {}, BadObservations, "two values of 'rate'.*column 'period'"),
    "two arms": (
        lambda: turns().drop(columns=["block", "period"]), {}, BadObservations, "under two arms.*'block' and 'period'",
    ),
    "no order": (lambda: turns().drop(columns="period"), {}, BadObservations, "which order.*column 'period'"),
    "one period, two arms": (lambda: turns().assign(period=1), {}, BadObservations, "number"),
    "two strata": (
        lambda: fleet().assign(host=lambda rows: rows["host"].where(rows["host"] != "web-1", "web-0"), period=range(24),
                               arm="4k", stratum=lambda rows: rows.index.astype(str)),
        {}, BadObservations, "in two strata",
    ),
    "an arm of its own before": (
        lambda: pd.concat([fleet(), fleet().assign(arm="before", kind="baseline")]).fillna({"kind": "measure"}),
        {}, BadObservations, "arm 'before' is not in the plan.*4k, 2m",
    ),
    "a host by two names": (
        lambda: pd.concat([fleet(), fleet().replace("web-3", "WEB-3")]), {}, BadObservations,
        "'web-3' and 'WEB-3' are one host",
    ),
    "with and without a domain": (
        lambda: pd.concat([fleet(), fleet().head(1).assign(host="web-7.dc1.example")]), {}, BadObservations,
        "'web-7' and 'web-7.dc1.example' are one host",
    ),
    "an arm by two names": (
        lambda: pd.concat([fleet(), fleet().head(1).assign(arm="2M")]), {}, BadObservations, "'2M' are one arm",
    ),
    "times for values": (
        lambda: fleet().assign(value=lambda rows: pd.to_datetime(rows["value"], unit="s")), {}, BadObservations,
        "is not a number.*column value, row 0",
    ),
    "percent for a share": (fleet, {"guardrails": {"rate": 10}, "primary": "rate"}, BadPlan, "10 is not a share"),
    "kind": (lambda: fleet().assign(kind="after"), {}, BadObservations, "'after' is not a kind"),
    "ratio": (fleet, {"ratio": {"4k": 1}}, BadPlan, "does not name each arm"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_an_error_names_the_column_or_the_argument_and_the_remedy(name: str) -> None:
    frame, more, kind, said = WRONG[name]
    with pytest.raises(kind, match=said) as caught:
        analysed(frame(), **more)
    assert caught.value.where and caught.value.remedy


def test_the_catalogue_knows_directions_and_units() -> None:
    frame = fleet().assign(metric="memory_used_bytes", value=lambda rows: rows["value"] * 2**20)
    found = fleetexp.analyze(frame, control="4k", assigned="at random")
    assert found.decision is Decision.DO_NOT_SHIP
    assert found.estimates[0].unit == "bytes"


def test_equal_frames_give_equal_findings_in_whatever_order() -> None:
    frame = turns()
    assert analysed(frame.sample(frac=1, random_state=1)) == analysed(frame)
