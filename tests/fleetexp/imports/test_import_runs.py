"""Measurements that somebody brings, from files, frames and queries, to a run with its report."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from analysis.aggregate import FIGURES, summarise
from analysis.report import render_markdown
from analysis.results import Cause, Decision
from fleetexp.as_of import analysed_as_of
from fleetexp.cli.main import cli
from fleetexp.domain import Design, Origin, PeriodKind, PeriodState, RunState
from fleetexp.errors import DataRefused, RunError, StoreError
from fleetexp.experiment.mapping import parse_mapping
from fleetexp.imports.importer import ImportOutcome, import_tables, panel
from fleetexp.imports.tables import FrameTable, open_file
from fleetexp.reporting import report_content
from fleetexp.reporting.report import render_report
from fleetexp.store.store import Store, check, open_store, query
from tests.fleetexp.imports.rollout import (
    BEGINS,
    CHANGED,
    HOSTS,
    TREATED,
    long_frame,
    mapping,
    observed,
    wide_frame,
    write_csv,
)

Importing = Callable[..., ImportOutcome]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with contextlib.closing(open_store(url)) as opened:
        yield opened


@pytest.fixture
def importing(store: Store) -> Importing:
    def run(text: str, *sources: Path | pd.DataFrame) -> ImportOutcome:
        written = parse_mapping(text)
        tables = [
            FrameTable(one) if isinstance(one, pd.DataFrame) else open_file(one, written.mapping.read)
            for one in sources
        ]
        return import_tables(tables, written, store)

    return run


def test_a_long_csv_becomes_a_run_that_is_analysed_and_told_as_any_other(
    tmp_path: Path, store: Store, url: str, importing: Importing
) -> None:
    frame = long_frame()
    outcome = importing(mapping(), write_csv(tmp_path / "measured.csv", frame))
    assert (outcome.hosts, outcome.rows, outcome.values) == (len(HOSTS), len(frame), len(frame))
    assert outcome.findings.decision is Decision.SHIP
    assert store.findings(outcome.run_id) == outcome.findings
    (arm,) = outcome.findings.arms
    assert (arm.cause, arm.scope.hosts) == (Cause.BETTER, len(HOSTS))
    record = store.run(outcome.run_id)
    assert (record.origin, record.state, record.plan.design) == (Origin.IMPORT, RunState.COMPLETED, Design.PARALLEL)
    assert (record.started_at, record.plan.knobs) == (BEGINS, ())
    assert store.knob_changes(outcome.run_id) == []
    report = render_report(store, outcome.run_id)
    assert "IMPORTED" in report.markdown
    assert "fleetexp import" in report.markdown
    assert report.content.series  # before and after, over time
    assert query(url, "SELECT origin FROM run_summary", 9)[1] == [("import",)]
    assert check(url) == []


def test_what_is_kept_is_each_periods_sums_to_the_last_digit(
    tmp_path: Path, store: Store, importing: Importing
) -> None:
    frame = long_frame()
    run_id = importing(mapping(), write_csv(tmp_path / "measured.csv", frame)).run_id
    kept = store.observations(run_id).set_index(["host", "position", "metric"])
    hours = (frame["time"] - pd.Timestamp(BEGINS)) // pd.Timedelta("1h")
    groups = frame.groupby([frame["host"], hours, frame["metric"]])["value"]
    assert len(kept) == groups.ngroups
    for key, values in list(groups)[::31]:
        alone = summarise(np.arange(len(values)), values.to_numpy(), "gauge")
        assert kept.loc[key, [name for name in FIGURES if name != "rise"]].to_list() == pytest.approx(
            [getattr(alone, name) for name in FIGURES if name != "rise"], rel=1e-14
        )
        assert (kept.loc[key, "minimum"], kept.loc[key, "p99"]) == (alone.minimum, alone.p99)


@pytest.mark.parametrize("layout", ["wide csv", "wide parquet", "long parquet", "hosts", "split", "by host"])
def test_the_same_values_are_the_same_run_however_they_are_laid_out(
    layout: str, tmp_path: Path, store: Store, importing: Importing
) -> None:
    long, path = long_frame(), tmp_path / "again"
    expected = store.observations(importing(mapping(), long).run_id)
    text, sources = mapping("wide"), [path]
    match layout:
        case "wide csv":
            write_csv(path, wide_frame())
        case "wide parquet":
            wide_frame().to_parquet(path)
        case "long parquet":
            text = mapping()
            long.astype({"host": "category", "metric": "category"}).to_parquet(path)
        case "split":
            text = mapping()
            sources = [write_csv(tmp_path / f"{name}.csv", long[long["metric"] == name]) for name in ("memory", "p99")]
        case "by host":
            text = mapping()
            write_csv(path, long.sort_values(["host", "metric", "time"]))
        case "hosts":
            text = mapping("hosts").replace("  secondary: [memory]\n", "").replace(", memory: GB", "")
            expected = expected[expected["metric"] == "p99"].reset_index(drop=True)
            matrix = long[long["metric"] == "p99"].pivot_table(index="time", columns="host", values="value")
            write_csv(path, matrix.reset_index().rename_axis(columns=None))
    found = store.observations(importing(text, *sources).run_id)
    pd.testing.assert_frame_equal(found.drop(columns="period_id"), expected.drop(columns="period_id"), rtol=1e-12)


def test_a_table_with_a_row_a_host_has_one_period_without_a_time(store: Store, importing: Importing) -> None:
    frame = wide_frame().groupby("host", as_index=False)[["p99", "memory"]].mean()
    text = mapping("per_host").replace("changed_at: 2026-02-02T00:00:00+00:00\n", "")
    outcome = importing(text, frame)
    assert (outcome.periods, outcome.sums) == (len(HOSTS), 2 * len(HOSTS))
    assert store.run(outcome.run_id).started_at is None
    assert render_report(store, outcome.run_id).findings.estimates


def test_hosts_that_somebody_chose_are_described_and_nothing_leads_to_a_decision(
    tmp_path: Path, store: Store, importing: Importing
) -> None:
    outcome = importing(observed(), write_csv(tmp_path / "measured.csv", long_frame(effect=0.5)))
    assert outcome.design is Design.RETROSPECTIVE
    assert outcome.findings.decision is Decision.INCONCLUSIVE
    assert [arm.cause for arm in outcome.findings.arms] == [Cause.NOT_RANDOMISED]
    headline = next(row for row in outcome.findings.estimates if row.metric == "p99")
    assert headline.difference is not None
    assert (headline.p_value, headline.difference_interval, headline.lift_interval) == (None, None, None)
    assert "NOT RANDOMISED" in render_report(store, outcome.run_id).markdown
    said = render_markdown(report_content(store, outcome.run_id))
    assert "nobody drew which host got which arm" in said
    assert "clear" not in said.split("## What changed")[1].split("##")[0].replace("no clear change", "")


def test_the_panel_says_since_when_each_host_is_changed(tmp_path: Path, store: Store, importing: Importing) -> None:
    run_id = importing(observed(), write_csv(tmp_path / "measured.csv", long_frame())).run_id
    found = panel(store, run_id)
    assert list(found.columns) == [
        *("host", "period", "started_at", "ended_at", "metric", "value", "treated_from", "settled_from")
    ]
    assert len(found) == len(HOSTS) * 48 * 2
    since = found.groupby("host")["treated_from"].first()
    assert set(since.index[since.notna()]) == set(TREATED)
    assert set(since.dropna()) == {pd.Timestamp(CHANGED)}
    assert found["period"].dtype.kind == "i"
    assert found.loc[found["period"] == 24, "started_at"].unique().tolist() == [pd.Timestamp(CHANGED)]


def test_a_host_without_a_value_has_a_place_in_the_panel_and_values_count_once_they_settled(
    store: Store, importing: Importing
) -> None:
    silent = long_frame()
    silent.loc[silent["host"] == "web-07", "value"] = np.nan
    found = panel(store, importing(f"{observed()}settle: 90m\n", silent).run_id)
    assert found.loc[found["host"] == "web-07", "value"].isna().tolist() == [True]
    assert set(found.dropna()["settled_from"]) == {pd.Timestamp(CHANGED) + pd.Timedelta("90min")}


def test_a_metric_that_changes_its_unit_is_refused_and_time_without_values_is_told(
    store: Store, importing: Importing
) -> None:
    frame = long_frame()
    late = (frame["time"] >= pd.Timestamp(CHANGED)) & (frame["metric"] == "p99") & frame["host"].isin(TREATED)
    with pytest.raises(DataRefused, match=r"p99 is 1/.* from period 2026-02-02T00:00:00 UTC on, on 6 hosts"):
        importing(mapping(), frame.assign(value=frame["value"].where(~late, frame["value"] / 1000)))
    assert store.runs() == []
    told = importing(mapping(), frame[frame["time"].dt.hour < 12]).findings.warnings
    assert "for 33% of the time there is no value of any host: that time is in no period" in told


def test_hosts_changed_one_after_the_other_are_compared_once_all_are(store: Store, importing: Importing) -> None:
    lines = "\n".join(f"  {host}: 2026-02-02T{place:02d}:30:00Z" for place, host in enumerate(TREATED))
    text = mapping().replace("changed_at: 2026-02-02T00:00:00+00:00", f"settle: 1h\nchanged:\n{lines}")
    run_id = importing(text, long_frame()).run_id
    kinds = store.periods_frame(run_id).groupby("kind")["position"].agg(["min", "max", "nunique"])
    assert kinds.loc[PeriodKind.BASELINE.value].tolist() == [0, 23, 24]
    assert kinds.loc[PeriodKind.WASHOUT.value].tolist() == [24, 30, 7]  # 00:30 to 05:30, and an hour to settle
    assert kinds.loc[PeriodKind.MEASURE.value].tolist() == [31, 47, 17]


def test_what_was_not_read_is_missing_with_the_reason_and_never_zero(store: Store, importing: Importing) -> None:
    frame = long_frame()
    gone = (frame["host"] == HOSTS[9]) & (frame["time"] >= pd.Timestamp(CHANGED)) & (frame["metric"] == "p99")
    frame.loc[frame.index[gone][::2], "value"] = np.nan
    frame = frame[~((frame["host"] == HOSTS[3]) & (frame["time"] >= pd.Timestamp("2026-02-02T20:00Z")))]
    outcome = importing(mapping(), frame)
    lost = store.periods_frame(outcome.run_id).query("state == 'invalid'")
    assert set(lost["host"]) == {HOSTS[3]}
    assert len(lost) == 4
    kept = store.observations(outcome.run_id, ["p99"]).set_index(["host", "position"])["n"]
    assert 0 < kept[HOSTS[9], 30] < 4
    assert {one.arm for one in outcome.findings.arms[0].missing if one.lost} == {"control"}
    assert PeriodState.INVALID.value == lost["state"].iloc[0]


def test_arms_changes_and_strata_may_stand_in_columns(store: Store, importing: Importing) -> None:
    frame = long_frame()
    treated = frame["host"].isin(TREATED)
    frame["group"] = np.where(treated, "treatment", "control")
    frame["since"] = pd.Series(pd.Timestamp(CHANGED), index=frame.index).where(treated)
    frame["pool"] = np.where(frame["host"].str[-1].astype(int) % 2, "a", "b")
    text = mapping()
    text = text[: text.index("arms:")] + "arms: {control: [], treatment: []}\n" + text[text.index("assigned:") :]
    outcome = importing(text + "columns: {arm: group, changed: since, stratum: pool}\n", frame)
    units = {unit.host: (unit.arm, unit.stratum) for unit in store.run(outcome.run_id).plan.units}
    assert units[HOSTS[0]] == ("control", "b")
    assert units[HOSTS[9]] == ("treatment", "a")
    assert set(store.changed_at(outcome.run_id)) == set(TREATED)
    assert outcome.findings.decision is Decision.SHIP


def test_the_same_data_are_not_entered_twice_and_another_mapping_is_another_import(
    tmp_path: Path, store: Store, importing: Importing
) -> None:
    path = write_csv(tmp_path / "measured.csv", long_frame())
    first = importing(mapping(), path).run_id
    moved = path.rename(tmp_path / "moved.csv")
    with pytest.raises(StoreError, match=rf"run {first}\b"):
        importing(mapping(), moved)
    second = importing(mapping().replace("period: 1h", "period: 2h"), moved).run_id
    assert [run.run_id for run in store.runs()] == [first, second]
    assert [source.name for source in store.import_sources(second)] == [str(moved)]


def test_an_import_that_is_cut_off_leaves_nothing(
    store: Store, importing: Importing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "save_findings", broken)
    with pytest.raises(KeyboardInterrupt):
        importing(mapping(), long_frame())
    for table in ("run", "experiment", "host", "assignment", "period", "observation", "import_source"):
        assert store.select(f"SELECT count(*) FROM {table}") == [(0,)]  # noqa: S608 - our own names
    monkeypatch.undo()
    assert importing(mapping(), long_frame()).run_id == 1


def test_an_import_has_no_earlier_moments_to_go_back_to(store: Store, importing: Importing) -> None:
    run_id = importing(mapping(), long_frame()).run_id
    with pytest.raises(RunError, match="was imported whole"):
        analysed_as_of(store, run_id, CHANGED)


def test_the_command_line_imports_reports_and_exports(tmp_path: Path, url: str) -> None:
    path = write_csv(tmp_path / "measured.csv", long_frame())
    (tmp_path / "mapping.yaml").write_text(mapping())

    def invoke(*words: str) -> str:
        result = CliRunner().invoke(cli, [*words, "--store", url])
        assert result.exit_code == 0, result.output
        return result.output

    said = json.loads(invoke("import", str(path), "--as", str(tmp_path / "mapping.yaml"), "--json"))
    assert (said["run_id"], said["findings"]["decision"]) == (1, "ship")
    assert "(imported)" in invoke("runs")
    assert "imported" in invoke("status", "1")
    assert "fell by" in (report := invoke("report", "1"))
    assert "was said of these data" in report
    invoke("export", "1", "--to", str(tmp_path / "out"))
    assert len(pd.read_parquet(tmp_path / "out/import_source.parquet")) == 1
