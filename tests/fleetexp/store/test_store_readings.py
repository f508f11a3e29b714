"""What every store does with samples, measurements and host events: in once, out as series and frames."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.messages import Reading
from analysis.aggregate import Summary
from analysis.results import Decision, EstimateKind, Preference
from fleetexp.domain import PeriodState, RunState
from fleetexp.errors import NoSuchRun, StoreError
from fleetexp.store.store import Store, query
from fleetexp.store.tables import METRIC_COLUMNS
from tests.fleetexp.store.rows import NOW, decided, findings, host_event, make_plan, measurement, new_run, sample
from tests.fleetexp.store.single import end_period, save_observations, start_period

SUMMARY = Summary(n=3, mean=1.5, variance=0.25, minimum=1.0, maximum=2.0, p50=1.5, p99=2.0)


@pytest.fixture
def period_id(store: Store) -> int:
    return store.periods(new_run(store))[0].period_id


def counts(url: str) -> dict[str, int]:
    tables = ("sample", "measurement", "event")
    return {table: query(url, f"select count(*) from {table} where true", 1)[1][0][0] for table in tables}  # noqa: S608


def test_readings_come_back_one_series_per_metric(store: Store, period_id: int) -> None:
    batch: list[Reading] = [
        sample(period_id, 1, pgfault=10.0, thp_64kB_split=1.0, thp_2048kB_split=5.0),
        measurement(period_id, 2, 0.5),
        sample(period_id, 3, pgfault=30.0, thp_64kB_split=4.0),
    ]
    assert store.append("h1", batch) == 3
    readings = store.period_readings(period_id)
    assert set(readings.samples) == {"pgfault", "thp_64kB_split", "thp_2048kB_split"}
    assert readings.samples["pgfault"].seconds.tolist() == [1001.0, 1003.0]
    assert readings.samples["pgfault"].values.tolist() == [10.0, 30.0]
    assert readings.samples["thp_64kB_split"].values.tolist() == [1.0, 4.0]
    assert readings.samples["thp_2048kB_split"].seconds.tolist() == [1001.0]  # missing afterwards: missing, not zero
    assert readings.measured["access_seconds"].values.tolist() == [0.5]
    assert readings.measured["access_seconds"].seconds.tolist() == [(NOW + timedelta(seconds=2)).timestamp()]


def test_a_period_without_readings_has_no_series(store: Store, period_id: int) -> None:
    readings = store.period_readings(period_id)
    assert (readings.samples, readings.measured) == ({}, {})
    assert store.append("h1", []) == 0


def test_values_come_back_bit_by_bit(store: Store, period_id: int) -> None:
    values = (1 / 3, 1e-300, 1.7976931348623157e308, 2.0**53 + 2, -0.1, 5e-324)
    store.append("h1", [sample(period_id, i, pgfault=x, thp_64kB_split=x) for i, x in enumerate(values, start=1)])
    readings = store.period_readings(period_id)
    assert readings.samples["pgfault"].values.tolist() == list(values)
    assert readings.samples["thp_64kB_split"].values.tolist() == list(values)


def test_a_batch_sent_again_adds_nothing_and_a_longer_one_adds_the_rest(
    store: Store, store_url: str, period_id: int
) -> None:
    batch: list[Reading] = [
        sample(period_id, 1),
        measurement(period_id, 2),
        host_event(period_id, 3),
        host_event(0, 1),
    ]
    assert store.append("h1", batch) == 4
    assert store.append("h1", batch) == 0
    assert store.append("h1", [*batch, sample(period_id, 4), measurement(period_id, 5), host_event(0, 2)]) == 3
    assert store.append("h1", [sample(period_id, 6), sample(period_id, 6)]) == 1
    assert counts(store_url) == {"sample": 3, "measurement": 2, "event": 4}  # of the events, one is the launch


def test_what_was_stored_first_stays(store: Store, period_id: int) -> None:
    store.append("h1", [sample(period_id, 1, pgfault=1.0)])
    store.append("h1", [sample(period_id, 1, pgfault=2.0), sample(period_id, 2, pgfault=3.0)])
    assert store.period_readings(period_id).samples["pgfault"].values.tolist() == [1.0, 3.0]


def test_what_is_not_finite_was_not_measured(store: Store, period_id: int) -> None:
    batch: list[Reading] = [
        sample(period_id, 1, pgfault=math.nan, pswpin=2.0, thp_64kB_split=math.inf),
        sample(period_id, 2, pgfault=math.inf),
        measurement(period_id, 3, math.nan),
    ]
    assert store.append("h1", batch) == 2
    readings = store.period_readings(period_id)
    assert set(readings.samples) == {"pswpin"}
    assert readings.measured == {}


def test_host_events_find_their_run(store: Store, store_url: str) -> None:
    run_id = new_run(store)
    period_id = store.periods(run_id)[0].period_id
    store.append("h1", [host_event(period_id, 1, "in the period"), host_event(0, 1, "before the run was live")])
    store.set_run_state(run_id, RunState.RUNNING)
    store.append("h1", [host_event(0, 2, "outside any period")])
    _, rows = query(
        store_url, "select detail, run_id, period_id from event where kind = 'drift' order by at, detail", 9
    )
    assert rows == [
        ("before the run was live", None, None),
        ("in the period", run_id, period_id),
        ("outside any period", run_id, None),
    ]


def test_equal_events_of_different_hosts_are_different(store: Store, store_url: str) -> None:
    new_run(store, make_plan(["h1", "h2"]))
    assert store.append("h1", [host_event(0, 1)]) == 1
    assert store.append("h2", [host_event(0, 1)]) == 1


def test_readings_of_an_unknown_period_are_refused_whole(store: Store, store_url: str, period_id: int) -> None:
    with pytest.raises(NoSuchRun, match="there is no period 4711"):
        store.append("h1", [sample(period_id, 1), sample(4711, 1)])
    assert counts(store_url)["sample"] == 0


def test_readings_under_another_hosts_period_are_refused_whole(store: Store, store_url: str) -> None:
    records = store.periods(new_run(store, make_plan(["h1", "h2"])))
    of_h2 = next(record.period_id for record in records if record.host == "h2")
    with pytest.raises(StoreError, match="is one of h2"):
        store.append("h1", [sample(of_h2, 1)])
    assert counts(store_url)["sample"] == 0


def test_measured_values_of_one_instant_get_rising_seconds(store: Store, period_id: int) -> None:
    batch = [measurement(period_id, i, float(i)) for i in (1, 2, 3)]
    same = [replace(one, taken_at=NOW) for one in batch]
    back = replace(measurement(period_id, 4, 4.0), taken_at=NOW - timedelta(seconds=9))
    store.append("h1", [*same, back])
    series = store.period_readings(period_id).measured["access_seconds"]
    assert series.values.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert (np.diff(series.seconds) > 0).all()
    assert series.seconds[-1] - NOW.timestamp() < 1e-5


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(
        st.lists(st.tuples(st.sampled_from("smeo"), st.integers(1, 12)), min_size=1, max_size=12), max_size=8
    )
)
def test_any_interleaving_of_overlapping_batches_gives_each_reading_once(
    store: Store, batches: list[list[tuple[str, int]]]
) -> None:
    host = f"host-{len(store.runs())}"
    run_id = new_run(store, make_plan([host]))
    store.set_run_state(run_id, RunState.RUNNING)
    period_id = store.periods(run_id)[0].period_id
    make: dict[str, Callable[[int], Reading]] = {
        "s": lambda n: sample(period_id, n),
        "m": lambda n: measurement(period_id, n + 100),
        "e": lambda n: host_event(period_id, n + 200),
        "o": lambda n: host_event(0, n),
    }
    new = sum(store.append(host, [make[kind](number) for kind, number in batch]) for batch in batches)
    sent = {one for batch in batches for one in batch}
    readings = store.period_readings(period_id)
    stored = {("s", int(at - 1000)) for at in readings.samples["pgfault"].seconds} if readings.samples else set()
    assert new == len(sent)
    assert stored == {one for one in sent if one[0] == "s"}
    assert sum(series.values.size for series in readings.measured.values()) == sum(kind == "m" for kind, _ in sent)
    drifts = [event.period_id for event in store.events(run_id) if event.kind == "drift"]
    assert sorted(drifts) == sorted({"e": period_id, "o": 0}[kind] for kind, _ in sent if kind in "eo")


def complete(store: Store, period_id: int, seconds: float = 30.0) -> None:
    start_period(store, period_id, NOW, "boot-1")
    end_period(store, period_id, NOW + timedelta(seconds=seconds), PeriodState.COMPLETE)


def test_observations_are_rows_of_complete_periods(store: Store) -> None:
    run_id = new_run(store, make_plan(["h1"], blocks=1))
    first, second = (record.period_id for record in store.periods(run_id))
    complete(store, second, 29.5)
    for period_id in (first, second):
        save_observations(store, period_id, {"pgfault": SUMMARY, "access_seconds": SUMMARY})
    frame = store.observations(run_id)
    of_period = ["period_id", "host", "stratum", "arm", "kind", "stage", "block", "attempt", "position", "seconds"]
    figures = ["metric", "n", "mean", "variance", "minimum", "maximum", "p50", "p99", "rise"]
    assert list(frame.columns) == of_period + figures
    assert frame["metric"].tolist() == ["access_seconds", "pgfault"]
    row = frame.iloc[0]
    assert (row.period_id, row.host, row.stratum, row.arm, row.kind) == (second, "h1", "web|sku1", "always", "measure")
    assert (row.stage, row.block, row.attempt, row.position, row.seconds) == (0, 0, 0, 1, 29.5)
    assert (row.n, row["mean"], row.variance, row.minimum, row.maximum, row.p50, row.p99) == (
        3, 1.5, 0.25, 1.0, 2.0, 1.5, 2.0,
    )  # fmt: skip
    assert store.observations(run_id, ["pgfault"])["metric"].tolist() == ["pgfault"]
    assert store.observations(run_id, complete_only=False)["period_id"].tolist() == [first, first, second, second]


def test_observations_can_be_read_with_few_figures_and_across_many_slices(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = new_run(store, make_plan(["h2", "h1", "h3"], blocks=2))
    for number, record in enumerate(store.periods(run_id)):
        complete(store, record.period_id)
        values = replace(SUMMARY, mean=float(number), rise=None if number % 2 else 4.0)
        save_observations(store, record.period_id, {"pswpin": values, "pgfault": values})
    whole = store.observations(run_id)
    assert whole["host"].tolist() == ["h1"] * 8 + ["h2"] * 8 + ["h3"] * 8
    assert whole["rise"].isna().sum() == 12
    few = store.observations(run_id, figures=["rise", "mean"])
    assert few.equals(whole.drop(columns=["n", "variance", "minimum", "maximum", "p50", "p99"]))
    monkeypatch.setattr("fleetexp.store.observed._PERIODS_AT_ONCE", 5)
    assert store.observations(run_id).equals(whole)
    with pytest.raises(StoreError, match="observations have no p95"):
        store.observations(run_id, figures=["p95"])


def test_observations_of_a_period_are_replaced(store: Store) -> None:
    run_id = new_run(store)
    period_id = store.periods(run_id)[0].period_id
    complete(store, period_id)
    save_observations(store, period_id, {"pgfault": SUMMARY, "pswpin": SUMMARY})
    save_observations(store, period_id, {"pgfault": SUMMARY})
    assert store.observations(run_id)["metric"].tolist() == ["pgfault"]
    save_observations(store, period_id, {})
    assert store.observations(run_id).empty


def test_a_run_without_data_gives_empty_frames_with_their_columns(store: Store) -> None:
    run_id = new_run(store)
    assert store.observations(run_id).empty
    assert "metric" in store.observations(run_id).columns
    assert store.samples(run_id, extra=True).empty
    assert {"period_id", "pgfault"} <= set(store.samples(run_id).columns)
    assert store.periods_frame(99).empty


def test_the_frame_of_periods_has_all_states_with_reasons(store: Store) -> None:
    run_id = new_run(store)
    first, second = (record.period_id for record in store.periods(run_id))
    start_period(store, first, NOW, "boot-1")
    end_period(store, first, NOW + timedelta(seconds=7), PeriodState.INVALID, "drift")
    frame = store.periods_frame(run_id)
    assert frame["period_id"].tolist() == [first, second]
    assert frame["state"].tolist() == ["invalid", "planned"]
    assert frame["reason"].tolist() == ["drift", ""]
    assert frame["seconds"].tolist()[0] == 7.0
    assert math.isnan(frame["seconds"].tolist()[1])
    assert frame["started_at"].iloc[0] == pd.Timestamp(NOW)
    assert {"host", "stratum", "arm", "kind", "stage", "block", "attempt", "position", "planned_seconds"} <= set(frame)


def test_samples_come_as_a_frame_by_metric_name(store: Store) -> None:
    run_id = new_run(store, make_plan(["h1", "h2"]))
    by_host = {record.host: record.period_id for record in store.periods(run_id)}
    store.append("h1", [sample(by_host["h1"], 1), sample(by_host["h1"], 2)])
    store.append("h2", [sample(by_host["h2"], 1, thp_2048kB_split=3.0)])
    frame = store.samples(run_id)
    assert set(METRIC_COLUMNS) <= set(frame.columns)
    assert frame["thp_2048kB_split"].tolist()[2] == 3.0
    assert frame["pgfault"].tolist()[:2] == [10.0, 20.0]
    assert str(frame["taken_at"].dtype).endswith("UTC]")
    assert "thp_64kB_split" not in frame
    assert store.samples(run_id, host="h1", extra=True)["thp_64kB_split"].tolist() == [1.0, 2.0]
    assert store.samples(run_id, period_ids=[by_host["h2"]])["host"].tolist() == ["h2"]


def test_findings_come_back_whole_and_are_replaced(store: Store, store_url: str) -> None:
    run_id = new_run(store)
    assert store.findings(run_id) is None
    store.save_findings(run_id, findings())
    store.save_findings(run_id, findings(Decision.INCONCLUSIVE))
    assert store.findings(run_id) == findings(Decision.INCONCLUSIVE)
    record = store.run(run_id)
    assert (record.decision, record.decision_reason) == ("inconclusive", "the primary metric moved")
    for table, rows in (("estimate", 2), ("guardrail_check", 1), ("finding", 0)):
        assert query(store_url, f"select count(*) from {table} where true", 1)[1] == [(rows,)]  # noqa: S608
    with pytest.raises(NoSuchRun):
        store.save_findings(99, findings())


def test_findings_without_rows_are_stored_too(store: Store) -> None:
    run_id = new_run(store)
    none = replace(findings(), estimates=(), guardrails=())
    store.save_findings(run_id, none)
    assert store.findings(run_id) == none


def test_each_arm_is_a_row_and_each_estimate_says_its_kind(store: Store, store_url: str) -> None:
    run_id = new_run(store)
    store.save_findings(run_id, decided())
    store.save_findings(run_id, decided())  # in place of what was there
    assert store.findings(run_id) == decided()
    assert store.run(run_id).decision is Decision.BETTER_HERE
    kinds = query(store_url, "select kind, headline from effects order by kind", 9)[1]
    assert kinds == [(EstimateKind.HEADLINE, 1), (EstimateKind.UNADJUSTED, 0)]
    rails = query(store_url, "select metric, built_in from guardrail_looks order by metric", 9)[1]
    assert rails == [("hosts_lost", 1), ("memory_used_bytes", 0)]
    columns, rows = query(store_url, "select * from decisions order by arm", 9)
    always, madvise = (dict(zip(columns, row, strict=True)) for row in rows)
    assert (always["arm"], always["decision"], always["cause"]) == ("always", "better_here", "better")
    assert (always["hosts"], always["periods"], always["seconds"], always["preferred"]) == (2, 24, 720.0, 1)
    documents = {
        "about": ["memory_used_bytes"],
        "host_names": ["h1", "h2"],
        "strata": ["web|sku1"],
        "without": ["db|sku1", "db|sku2"],
        "harmed": ["db|sku2"],
        "missing": [
            {
                "metric": "access_seconds",
                "arm": "always",
                "units": "periods",
                "lost": 1.5,
                "due": 12,
                "stratum": "web|sku1",
            }
        ],
        "overturn": [
            {"doubt": "few_hosts", "about": ""},
            {"doubt": "stratum_not_ruled_out", "about": "db|sku1"},
        ],
    }
    assert {name: json.loads(always[name]) for name in documents} == documents
    assert always["sentence"] == "always is better on these hosts."
    assert (madvise["arm"], madvise["decision"], madvise["preferred"]) == ("madvise", "inconclusive", 0)


@pytest.mark.parametrize(
    "preference", [None, Preference(arm=None, over=("always", "madvise")), Preference(arm="always", over=())]
)
def test_an_arm_that_is_not_told_apart_is_neither_preferred_nor_not(
    store: Store, store_url: str, preference: Preference | None
) -> None:
    run_id = new_run(store)
    store.save_findings(run_id, replace(decided(), preference=preference))
    chosen = 1 if preference is not None and preference.arm == "always" else None
    assert query(store_url, "select arm, preferred from decisions order by arm", 9)[1] == [
        ("always", chosen),
        ("madvise", None),
    ]
