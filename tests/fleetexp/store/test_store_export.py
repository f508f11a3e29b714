"""An export is whole or not there, says what is in it, and holds what the store holds, on both databases."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fleetexp.domain import EventKind
from fleetexp.errors import NoSuchRun, StoreError
from fleetexp.store import export as exporting
from fleetexp.store.dictionary import relations
from fleetexp.store.export import MANIFEST, export_run
from fleetexp.store.store import Store, query
from fleetexp.store.tables import SCHEMA_VERSION
from tests.fleetexp.store.rows import new_run

HOSTILE = "<script>alert(1)</script> '; DROP TABLE run; -- \x1b[31m \u202e \u0085 =1+1"


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.iterdir())


def test_an_export_holds_every_row_of_the_run_and_no_other(example_url: str, tmp_path: Path) -> None:
    done = export_run(example_url, 1, tmp_path / "run-1", fleetexp_version="0.1.0")
    manifest = json.loads((tmp_path / "run-1" / MANIFEST).read_text())
    assert manifest == done.manifest
    assert (manifest["run_id"], manifest["experiment"], manifest["decision"]) == (1, "thp-1g-web", "ship")
    assert (manifest["schema_version"], manifest["fleetexp_version"]) == (SCHEMA_VERSION, "0.1.0")
    assert manifest["spec_hash"] == query(example_url, "select spec_hash from experiment", 1)[1][0][0]
    files = {file["name"]: file for file in manifest["files"]}
    left_out = {one["name"] for one in manifest["left_out"]}
    assert files.keys() | left_out == {one.name for one in relations()}
    assert sorted(path.name for path in (tmp_path / "run-1").iterdir()) == sorted(
        [MANIFEST, *(file["file"] for file in files.values())]
    )
    for name, file in files.items():
        path = tmp_path / "run-1" / file["file"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file["sha256"]
        table = pq.read_table(path)
        assert (table.num_rows, path.stat().st_size) == (file["rows"], file["size_bytes"])
        assert table.column_names == list(file["columns"])
        if "run_id" in table.column_names:
            assert set(table["run_id"].to_pylist()) == ({1} if name != "import_source" else set()), name
        for field in table.schema:
            assert field.metadata[b"meaning"].decode() == file["columns"][field.name]["meaning"]
    assert {name: file["rows"] for name, file in files.items() if name in {"host", "run", "experiment", "period"}} == {
        "host": 6,
        "run": 1,
        "experiment": 1,
        "period": 13,
    }
    in_periods = "period_id in (select period_id from period where run_id = 1)"
    for name in ("sample", "measurement", "observation"):
        assert query(example_url, f"select count(*) from {name} where {in_periods}", 1)[1] == [(files[name]["rows"],)]  # noqa: S608
    assert written(tmp_path / "run-1") == ["run-1"]


def test_values_come_back_as_what_they_are(example_url: str, tmp_path: Path) -> None:
    export_run(example_url, 1, tmp_path / "out", fleetexp_version="0.1.0")
    sample = pq.read_table(tmp_path / "out" / "sample.parquet")
    assert sample.schema.field("taken_at").type == pa.timestamp("us", tz="UTC")
    assert sample["taken_at"][0].as_py() == datetime(2026, 2, 2, 10, 5, tzinfo=UTC)
    assert set(sample["dtlb_store_misses"].to_pylist()) == {None}  # not available there, and typed all the same
    assert sample.schema.field("dtlb_store_misses").type == pa.float64()
    effects = pq.read_table(tmp_path / "out" / "effects.parquet").to_pylist()
    asked = query(example_url, "select metric, lift_percent from effects where run_id = 1 and headline = 1", 9)[1]
    assert {row["metric"]: row["lift_percent"] for row in effects} == dict(asked)
    assert pq.read_table(tmp_path / "out" / "estimate.parquet")["headline"].type == pa.bool_()
    assert json.loads(pq.read_table(tmp_path / "out" / "run.parquet")["plan"][0].as_py())["control"] == "control"


def test_both_databases_give_files_of_the_same_shape(example_url: str, tmp_path: Path) -> None:
    export_run(example_url, 2, tmp_path / "out", fleetexp_version="0.1.0")
    for relation in relations():
        path = tmp_path / "out" / f"{relation.name}.parquet"
        if path.exists():
            found = {field.name: str(field.type) for field in pq.read_schema(path)}
            assert found == {name: SHAPES[kind.value] for name, kind in relation.kinds.items()}, relation.name


SHAPES = {
    "whole number": "int64",
    "number": "double",
    "text": "string",
    "document": "string",
    "flag": "bool",
    "instant": "timestamp[us, tz=UTC]",
}


def test_nothing_is_ever_overwritten(example_url: str, tmp_path: Path) -> None:
    export_run(example_url, 1, tmp_path / "out", fleetexp_version="0.1.0")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(StoreError, match="there is an export already") as caught:
        export_run(example_url, 2, tmp_path / "out", fleetexp_version="0.1.0")
    assert "nothing was overwritten" in caught.value.remedy
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("mine")
    with pytest.raises(StoreError, match="not empty"):
        export_run(example_url, 1, tmp_path / "mine", fleetexp_version="0.1.0")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match="a file of that name"):
        export_run(example_url, 1, tmp_path / "file", fleetexp_version="0.1.0")
    (tmp_path / "empty").mkdir()
    export_run(example_url, 1, tmp_path / "empty", fleetexp_version="0.1.0")
    assert (tmp_path / "empty" / MANIFEST).exists()


@pytest.mark.parametrize("raised", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("at", [0, 7, 27])
def test_a_failure_at_any_file_leaves_nothing(
    example_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: BaseException, at: int
) -> None:
    done: list[Path] = []
    real = exporting._sync

    def sync(path: Path) -> None:
        if len(done) == at:
            raise raised
        done.append(path)
        real(path)

    monkeypatch.setattr(exporting, "_sync", sync)
    with pytest.raises(StoreError if isinstance(raised, OSError) else type(raised)):
        export_run(example_url, 1, tmp_path / "out", fleetexp_version="0.1.0")
    assert len(done) == at
    assert list(tmp_path.iterdir()) == []


def test_what_came_there_meanwhile_is_left_alone(
    example_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = exporting._sync

    def sync(path: Path) -> None:
        real(path)
        if path.name == MANIFEST:
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "letter.txt").write_text("mine")

    monkeypatch.setattr(exporting, "_sync", sync)
    with pytest.raises(StoreError):
        export_run(example_url, 1, tmp_path / "out", fleetexp_version="0.1.0")
    assert written(tmp_path / "out") == ["out"]
    assert written(tmp_path / "out" / "letter.txt") == ["letter.txt"]


def test_a_run_that_is_not_there_leaves_nothing(example_url: str, tmp_path: Path) -> None:
    with pytest.raises(NoSuchRun, match="no run 77"):
        export_run(example_url, 77, tmp_path / "out", fleetexp_version="0.1.0")
    assert list(tmp_path.iterdir()) == []


def test_hostile_texts_are_exported_as_they_are(store: Store, store_url: str, tmp_path: Path) -> None:
    run_id = new_run(store, name=HOSTILE)
    store.record_event(run_id, EventKind.DRIFT, HOSTILE)
    export_run(store_url, run_id, tmp_path / "out", fleetexp_version="0.1.0")
    assert HOSTILE in pq.read_table(tmp_path / "out" / "event.parquet")["detail"].to_pylist()
    manifest = (tmp_path / "out" / MANIFEST).read_text()
    assert manifest.isascii()
    assert json.loads(manifest)["experiment"] == HOSTILE


def test_a_run_without_readings_gives_empty_files_of_the_right_shape(
    new_store_url: Callable[[], str], tmp_path: Path
) -> None:
    from fleetexp.store.store import open_store

    url = new_store_url()
    opened = open_store(url, create=False)
    run_id = new_run(opened)
    opened.close()
    done = export_run(url, run_id, tmp_path / "out", fleetexp_version="0.1.0")
    assert {file["name"]: file["rows"] for file in done.manifest["files"]}["sample"] == 0
    assert pq.read_schema(tmp_path / "out" / "sample.parquet").field("taken_at").type == pa.timestamp("us", tz="UTC")
