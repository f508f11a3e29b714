"""A gallery of mappings and files that are wrong: each is told with its place and what to write instead."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fleetexp.errors import ConfigError, DataRefused, FleetexpError
from fleetexp.experiment.mapping import parse_mapping, read_mapping
from fleetexp.imports.importer import import_tables
from fleetexp.imports.tables import open_file
from fleetexp.store.store import Store, open_store
from tests.fleetexp.imports.rollout import HOSTS, long_frame, mapping, wide_frame, write_csv

FRAME = long_frame()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with contextlib.closing(open_store(f"sqlite:///{tmp_path_factory.mktemp('kept') / 'store.db'}")) as opened:
        yield opened


# ------------------------------------------------------------------ mappings that no data are needed for
MAPPINGS = {
    "a key that is none": (lambda text: text.replace("period:", "perod:"), "3:1", "did you mean 'period'?"),
    "a layout that is none": (lambda text: text.replace("long", "tall"), "2:", "long"),
    "no metric": (lambda text: text[: text.index("metrics:")], "1:1", "add 'metrics"),
    "the control is no arm": (lambda text: text + "control: before\n", "15:1", "control: ARM"),
    "one arm only": (
        lambda text: text.replace('  treatment: [web-06, web-07, web-08, web-09, "web-1?"]\n', ""),
        "4:1",
        "at least one other arm",
    ),
    "a host in two arms": (lambda text: text.replace("[web-06,", '["web-0[0-5]",'), "6:", "list it under one arm"),
    "an arm without hosts": (lambda text: text.replace('["web-0[0-5]"]', "[]"), "5:", "columns.arm"),
    "lists and a column": (lambda text: text + "columns: {arm: group}\n", "5:", "keep one"),
    "an instant without a zone": (lambda text: text.replace("T00:00:00+00:00", "T00:00:00"), "7:1", "+00:00"),
    "no instant": (lambda text: text.replace("2026-02-02T00:00:00+00:00", "tuesday"), "7:1", "write for example"),
    "two ways to say when": (lambda text: text + "changed: {web-06: 2026-02-02T00:00:00Z}\n", "15:1", "keep one"),
    "chance without how": (lambda text: text.replace("drawn: random.shuffle of all hosts\n", ""), "8:1", "'drawn'"),
    "how without chance": (lambda text: text.replace("at random", "not at random"), "9:1", "drop it"),
    "which way is better": (lambda text: text.replace("  better: {p99: decrease}\n", ""), "11:3", "better: {p99"),
    "units of a stranger": (lambda text: text.replace("memory: GB", "memry: GB"), "14:", "did you mean 'memory'?"),
    "a zone that is none": (lambda text: text.replace("layout: long", "zone: Mars/Base"), "2:8", "Europe/Berlin"),
    "seconds with a zone": (lambda text: text.replace("layout: long", "zone: UTC, unix: seconds"), "2:", "drop zone"),
    "a comma for both": (lambda text: text.replace("layout: long", 'decimal: ","'), "2:", "delimiter"),
    "a period without a unit": (lambda text: text.replace("period: 1h", "period: 60"), "3:1", "'60s'"),
    "two metrics of one column": (lambda text: text + "  called: {p99: x, memory: x}\n", "15:3", "each column once"),
    "a ratio of other arms": (lambda text: text + "ratio: {control: 1}\n", "15:1", "control, treatment"),
    "many metrics of a matrix": (lambda text: text.replace("long", "hosts"), "2:", "the primary alone"),
    "changes without times": (lambda text: text.replace("long", "per_host"), "7:1", "drop it"),
    "no YAML": (lambda text: text.replace("arms:", "arms: ["), "", "indentation"),
    "nothing": (lambda text: "", "1:1", "fleetexp example"),
}


@pytest.mark.parametrize("name", MAPPINGS)
def test_a_wrong_mapping_is_told_by_line_and_column(name: str, tmp_path: Path) -> None:
    change, place, remedy = MAPPINGS[name]
    path = tmp_path / "mapping.yaml"
    path.write_text(change(mapping()))
    with pytest.raises(ConfigError) as caught:
        read_mapping(path)
    said = caught.value.problems or (str(caught.value),)
    assert any(f"{path}:{place}" in line and remedy in line for line in said), said


# ------------------------------------------------------------------ data that do not fit
def _cell(row: int, column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.astype({column: object})
        frame.loc[row - 1, column] = value
        return frame

    return change


def _same(text: str) -> str:
    return text


FILES: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], Callable[[str], str], str, str]] = {
    "no such column": (lambda f: f.rename(columns={"host": "instance"}), _same, "row 0", "columns.host"),
    "a column twice": (lambda f: f.set_axis(["host", "time", "metric", "time"], axis=1), _same, "", "its own name"),
    "no rows": (lambda f: f.iloc[:0], _same, "", "header alone"),
    "a host in no arm": (lambda f: f.replace("web-03", "web-33"), _same, "4:1", "under 'exclude'"),
    "a host by two patterns": (_same, lambda t: t.replace('"web-1?"', '"web-1?", "web-0[5-6]"'), "4:1", "one arm"),
    "a listed host is absent": (_same, lambda t: t.replace("[web-06,", "[web-60, web-06,"), "6:15", "web-06"),
    "a value twice": (lambda f: pd.concat([f.iloc[:24], f]), _same, "row 25", "keep one"),
    "times unsorted": (lambda f: pd.concat([f.iloc[240:], f.iloc[:240]]), _same, "row", "sort the rows by time"),
    "not a number": (_cell(17, "value", "n/a"), _same, "row 17, column 'value'", "give numbers"),
    "NaN": (_cell(17, "value", "NaN"), _same, "row 17, column 'value'", "leave the cell empty"),
    "infinity": (_cell(18, "value", "-inf"), _same, "row 18, column 'value'", "leave the cell empty"),
    "decimal comma": (_cell(19, "value", "10,5"), _same, "row 19, column 'value'", 'decimal: ","'),
    "a comma that parts thousands": (_cell(19, "value", "10,500"), _same, "row 19, column 'value'", "parts thousands"),
    "a point where commas are decimal": (
        lambda f: _cell(19, "value", "10.500")(
            f.assign(value=f["value"].map(lambda one: f"{one:.2f}".replace(".", ",")))
        ),
        lambda t: t.replace("layout: long", 'layout: long, delimiter: "|", decimal: ","'),
        "row 19, column 'value'",
        "drop the points",
    ),
    "milliseconds for seconds": (
        lambda f: f.assign(time=f["time"].map(lambda one: round(pd.Timestamp(one).timestamp() * 1000))),
        lambda t: t.replace("layout: long", "layout: long, unix: seconds"),
        "row 1, column 'time'",
        "milliseconds",
    ),
    "nanoseconds for milliseconds": (
        lambda f: f.assign(time=f["time"].map(lambda one: pd.Timestamp(one).value)),
        lambda t: t.replace("layout: long", "layout: long, unix: milliseconds"),
        "row 1, column 'time'",
        "convert them",
    ),
    "a host by two names": (
        lambda f: f.replace("web-07", "web-06.dc1.example"),
        lambda t: t.replace("web-07,", "web-06.dc1.example,"),
        "measured.csv",
        "in one way",
    ),
    "a time without a zone": (_cell(20, "time", "2026-02-01 00:00:00"), _same, "row 20, column 'time'", "zone: UTC"),
    "not a time": (_cell(21, "time", "yesterday"), _same, "row 21, column 'time'", "ISO 8601"),
    "no time": (_cell(22, "time", ""), _same, "row 22, column 'time'", "say when"),
    "a control character": (_cell(21, "host", "web-0\x005"), _same, "row 21, column 'host'", "give letters"),
    "no host": (_cell(23, "host", " "), _same, "row 23, column 'host'", "name it"),
    "a zone twice": (_same, lambda t: t.replace("layout: long", "layout: long, zone: UTC"), "row 1,", "drop 'zone'"),
    "no such metric": (_same, lambda t: t.replace("[memory]", "[memory, cpu]"), "12:", "metrics.called"),
    "changed outside the data": (
        _same,
        lambda t: t.replace("2026-02-02T", "2027-02-02T"),
        "7:1",
        "the data reach from",
    ),
    "changed before the data": (_same, lambda t: t.replace("2026-02-02T", "2026-02-01T"), "7:1", "bring earlier"),
    "nothing after the change": (_same, lambda t: t + "settle: 2d\n", "15:1", "settle for less"),
    "a change of a stranger": (
        _same,
        lambda t: t.replace("changed_at: 2026-02-02T00:00:00+00:00", "changed: {web-66: 2026-02-02T00:00:00Z}"),
        "7:11",
        "web-06",
    ),
    "a host that nobody changed": (
        _same,
        lambda t: t.replace("changed_at: 2026-02-02T00:00:00+00:00", "changed: {web-06: 2026-02-02T00:00:00Z}"),
        "7:1",
        "exclude it",
    ),
    "the control is changed": (
        _same,
        lambda t: t.replace("changed_at: 2026-02-02T00:00:00+00:00", "changed: {web-00: 2026-02-02T00:00:00Z}"),
        "7:11",
        "move it to another arm",
    ),
    "mixed units": (
        lambda f: _cell(29, "unit", "s")(f.assign(unit=f["metric"].map({"p99": "milliseconds", "memory": "GB"}))),
        lambda t: t + "columns: {unit: unit}\n",
        "row 29, column 'unit'",
        "metrics.units",
    ),
    "a host in two arms by the column": (
        lambda f: _cell(30, "group", "treatment")(
            f.assign(group=np.where(f["host"] < "web-06", "control", "treatment"))
        ),
        lambda t: (
            t[: t.index("arms:")]
            + "arms: {control: [], treatment: []}\ncolumns: {arm: group}\n"
            + t[t.index("changed_at:") :]
        ),
        "row 30, column 'group'",
        "a host has one",
    ),
    "an arm that the mapping lacks": (
        lambda f: f.assign(group=np.where(f["host"] < "web-06", "old", "treatment")),
        lambda t: (
            t[: t.index("arms:")]
            + "arms: {control: [], treatment: []}\ncolumns: {arm: group}\n"
            + t[t.index("changed_at:") :]
        ),
        "4:1",
        "add 'old: []'",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_data_that_do_not_fit_are_told_by_row_and_column_or_by_the_mappings_line(
    name: str, tmp_path: Path, kept: Store
) -> None:
    change, rewrite, place, remedy = FILES[name]
    path = tmp_path / "measured.csv"
    frame = change(FRAME.assign(time=FRAME["time"].map(pd.Timestamp.isoformat)))
    text = rewrite(mapping())
    frame.to_csv(path, index=False, sep=parse_mapping(text).mapping.read.delimiter)
    _refused(path, text, place, remedy, kept)


def _refused(path: Path, text: str, place: str, remedy: str, store: Store) -> None:
    with pytest.raises(FleetexpError) as caught:
        import_written(path, text, store)
    error = caught.value
    assert isinstance(error, DataRefused | ConfigError)
    assert place in error.where, error
    assert remedy in error.remedy, error
    assert error.where.startswith((str(path), "mapping")), error
    assert store.runs() == []


def import_written(path: Path, text: str, store: Store) -> None:
    written = parse_mapping(text)
    import_tables([open_file(path, written.mapping.read)], written, store)


# ------------------------------------------------------------------ files that are not what they should be
def _semicolons(path: Path) -> None:
    FRAME.to_csv(path, index=False, sep=";")


def _utf_16(path: Path) -> None:
    FRAME.to_csv(path, index=False, encoding="utf-16")


def _latin(path: Path) -> None:
    path.write_bytes("hôst,time,metric,value\n".encode("latin-1") + b"a,b,c,d\n")


def _ragged(path: Path) -> None:
    write_csv(path, FRAME.iloc[:10])
    path.write_text(path.read_text() + "web-01,2026-02-03T00:00:00Z,p99\n")


def _torn(path: Path) -> None:
    FRAME.to_parquet(path)
    path.write_bytes(path.read_bytes()[:-1000])


def _text_values(path: Path) -> None:
    FRAME.assign(value=FRAME["value"] > 5).to_parquet(path)


def _days(path: Path) -> None:
    FRAME.assign(time=FRAME["time"].dt.date).to_parquet(path)


def _naive(path: Path) -> None:
    FRAME.assign(time=FRAME["time"].dt.tz_localize(None)).to_parquet(path)


def _nan(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(FRAME, preserve_index=False)
    values = FRAME["value"].to_numpy().copy()
    values[41] = np.nan
    pq.write_table(table.set_column(3, "value", pa.array(values, from_pandas=False)), path)


def _latin_below(path: Path) -> None:
    write_csv(path, FRAME.iloc[:10])
    path.write_bytes(path.read_bytes() + "wöb-01,2026-02-03T00:00:00Z,p99,1\n".encode("latin-1"))


def _excel_hint(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbfsep=;\r\nhost;time;metric;value\r\n")


ODD = {
    "no UTF-8 below the header": (_latin_below, "row 11", "UTF-8"),
    "Excel's own row": (_excel_hint, "row 0", "delete it"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"host,time")), "measured", "unpack it"),
    "a workbook": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(99)), "measured", "as CSV UTF-8"),
    "empty": (lambda path: path.write_bytes(b""), "measured", "a header and rows"),
    "absent": (lambda path: None, "measured", "check the path"),
    "another delimiter": (_semicolons, "row 0", 'delimiter: ";"'),
    "UTF-16": (_utf_16, "measured", "UTF-8"),
    "no UTF-8": (_latin, "row 0", "UTF-8"),
    "a row too short": (_ragged, "measured", "as many fields"),
    "a torn Parquet file": (_torn, "measured", "whole"),
    "Parquet of truths": (_text_values, "column 'value'", "double"),
    "Parquet of days": (_days, "column 'time'", "unix: seconds"),
    "Parquet without a zone": (_naive, "row 1, column 'time'", "zone: UTC"),
    "Parquet with NaN": (_nan, "row 42, column 'value'", "leave the cell empty"),
}


@pytest.mark.parametrize("name", ODD)
def test_a_file_that_is_not_what_it_should_be_is_told(name: str, tmp_path: Path, kept: Store) -> None:
    write, place, remedy = ODD[name]
    path = tmp_path / "measured"
    write(path)
    _refused(path, mapping(), place, remedy, kept)


def test_a_fault_in_the_second_file_is_told_as_its_own(tmp_path: Path, kept: Store) -> None:
    first = write_csv(tmp_path / "first.csv", FRAME.iloc[:2400])
    second = write_csv(tmp_path / "second.csv", FRAME.iloc[2399:])
    written = parse_mapping(mapping())
    with pytest.raises(DataRefused) as caught:
        import_tables([open_file(path, written.mapping.read) for path in (first, second)], written, kept)
    assert caught.value.where == f"{second}, row 1"
    assert kept.runs() == []


# ------------------------------------------------------------------ what is odd, and fine
def test_what_other_programs_write_is_taken_where_the_mapping_says_how(tmp_path: Path) -> None:
    wide = wide_frame()
    path = tmp_path / "excel.csv"
    local = wide["time"].dt.tz_convert("Europe/Berlin").dt.strftime("%Y-%m-%d %H:%M:%S")
    wide.assign(time=local).to_csv(path, index=False, sep=";", decimal=",", encoding="utf-8-sig")
    seconds = tmp_path / "seconds.csv"
    wide.assign(time=wide["time"].map(pd.Timestamp.timestamp)).to_csv(seconds, index=False)
    sums = []
    for source, rules in ((path, 'delimiter: ";", decimal: ",", zone: Europe/Berlin'), (seconds, "unix: seconds")):
        with contextlib.closing(open_store(f"sqlite:///{tmp_path / source.stem}.db")) as store:
            import_written(source, mapping("wide").replace("layout: wide", f"layout: wide, {rules}"), store)
            sums.append(store.observations(1).drop(columns="period_id"))
            assert store.periods_frame(1)["started_at"].min() == pd.Timestamp("2026-02-01T00:00Z")
    pd.testing.assert_frame_equal(*sums)


def test_the_types_of_other_programs_are_the_same_columns(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    nanoseconds = FRAME["time"].dt.strftime("%Y-%m-%dT%H:%M:%S.000000009Z")
    text = tmp_path / "go.csv"
    FRAME.assign(time=nanoseconds).to_csv(text, index=False)
    columns = {
        "host": pa.array(FRAME["host"], pa.string_view()),
        "time": pa.array(nanoseconds).dictionary_encode(),
        "metric": pa.array(FRAME["metric"]).dictionary_encode(),
        "value": pa.array(FRAME["value"].map(repr)).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), tmp_path / "encoded.parquet")
    sums = []
    for source in (write_csv(tmp_path / "plain.csv", FRAME), text, tmp_path / "encoded.parquet"):
        with contextlib.closing(open_store(f"sqlite:///{tmp_path / source.stem}.db")) as store:
            import_written(source, mapping(), store)
            sums.append(store.observations(1).drop(columns="period_id"))
    for other in sums[1:]:
        pd.testing.assert_frame_equal(sums[0], other)


def test_hosts_that_are_excluded_and_metrics_that_are_not_named_are_left_out(tmp_path: Path) -> None:
    frame = pd.concat([FRAME, FRAME.assign(metric="cpu"), FRAME.assign(host="canary")])
    path = write_csv(tmp_path / "measured.csv", frame.sort_values("time", kind="stable"))
    with contextlib.closing(open_store(f"sqlite:///{tmp_path / 'store.db'}")) as store:
        import_written(path, mapping() + "exclude: [canary*]\n", store)
        found = store.observations(1)
    assert set(found["host"]) == set(HOSTS)
    assert set(found["metric"]) == {"p99", "memory"}
