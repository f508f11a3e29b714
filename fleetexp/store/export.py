"""A run as a folder of Parquet files with a manifest: everything the store has on it, out of one state of the store.

The folder appears under its name once it is whole, on the disk and with its manifest; before that it has another name,
and a failure takes it away.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fleetexp.errors import NoSuchRun, StoreError
from fleetexp.store.dictionary import Relation, relations
from fleetexp.store.engine import StoreUrl, parse_url
from fleetexp.store.parquet import BATCH_ROWS, write_parquet
from fleetexp.store.read_only.answer import BatchReader, as_text
from fleetexp.store.read_only.query import reader
from fleetexp.store.schema import require_current, schema_version
from fleetexp.store.tables import SCHEMA_VERSION

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1
TIMEOUT_SECONDS = 3600.0
_OF_NO_RUN = "a survey of a host belongs to no run"
_OF_SURVEYS = ("page_survey", "surveyed_process", "surveyed_size", "surveyed_share")
_LEFT_OUT = {
    "metric_series": "the same readings as in sample and measurement, one row each",
    **dict.fromkeys((*_OF_SURVEYS, "survey_sizes", "survey_programs", "survey_shares"), _OF_NO_RUN),
}
_OF_RUN = "SELECT host_id FROM assignment WHERE run_id = {run_id}"
_TRIED = f"host IN (SELECT name FROM host WHERE host_id IN ({_OF_RUN}))"  # noqa: S608 - ours
_WHERE = {
    "experiment": "experiment_id = (SELECT experiment_id FROM run WHERE run_id = {run_id})",
    "conformance": _TRIED,  # how page sizes behaved on its hosts: what a spec may have required
    "conformance_result": f"conformance_id IN (SELECT conformance_id FROM conformance WHERE {_TRIED})",  # noqa: S608 - ours
    "host": f"host_id IN ({_OF_RUN})",
}
_IN_PERIODS = "period_id IN (SELECT period_id FROM period WHERE run_id = {run_id})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What was written: the folder, and the manifest in it."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def rows(self) -> int:
        return sum(file["rows"] for file in self.manifest["files"])


def export_run(url: StoreUrl, run_id: int, folder: Path, *, fleetexp_version: str) -> Export:
    """Write every table and view of a run to a new folder.

    NoSuchRun where there is none; StoreError where the folder holds something already or can't be written: nothing of
    the export is left then.
    """
    database = parse_url(url)
    require_current(schema_version(url), database)
    target = folder.absolute()
    _refuse_taken(target)
    with reader(url, timeout_seconds=TIMEOUT_SECONDS) as opened, _unfinished(target) as unfinished:
        manifest = {
            "manifest_version": MANIFEST_VERSION,
            "fleetexp_version": fleetexp_version,
            "schema_version": SCHEMA_VERSION,
            "format": "parquet",
            "store": database.name,
            **_run(opened, run_id),
            "exported_at": as_text(datetime.now(UTC)),
            "files": [_write(opened, one, run_id, unfinished) for one in relations() if one.name not in _LEFT_OUT],
            "left_out": [{"name": name, "reason": reason} for name, reason in _LEFT_OUT.items()],
        }
        text = json.dumps(manifest, indent=2, ensure_ascii=True)
        with (unfinished / MANIFEST).open("x", encoding="utf-8") as file:
            file.write(text + "\n")
        _sync(unfinished / MANIFEST)
        _sync(unfinished)
        _refuse_taken(target)
        unfinished.rename(target)  # fails where something came there meanwhile, but for an empty folder
        _sync(target.parent)
    return Export(folder=folder, manifest=manifest)


def _refuse_taken(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise StoreError("there is a file of that name", str(target), "name a new folder with --to")
    if target.is_dir() and any(target.iterdir()):
        what = "there is an export already" if (target / MANIFEST).exists() else "the folder is not empty"
        raise StoreError(what, str(target), "nothing was overwritten; name a new folder with --to")


@contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """Make a folder beside the target, and take it away again where it has not become the target."""
    folder = target.with_name(f".{target.name}.unfinished-{uuid.uuid4().hex[:8]}")
    try:
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise StoreError(
            f"the export can't be written: {error.strerror or error}", str(target), "nothing of it is left; see --to"
        ) from error


def _run(opened: BatchReader, run_id: int) -> dict[str, Any]:
    sql = (
        "SELECT r.run_id, e.name, e.spec_hash, r.state, r.decision FROM run r "  # noqa: S608 - a number
        f"JOIN experiment e ON e.experiment_id = r.experiment_id WHERE r.run_id = {int(run_id)}"
    )
    rows = [row for batch in opened.ask(sql, batch_rows=1).batches for row in batch]
    if not rows:
        raise NoSuchRun(f"there is no run {run_id}", f"run {run_id}", "'fleetexp runs' lists those there are")
    return dict(zip(("run_id", "experiment", "spec_hash", "state", "decision"), rows[0], strict=True))


def _write(opened: BatchReader, relation: Relation, run_id: int, folder: Path) -> dict[str, Any]:
    path = folder / f"{relation.name}.parquet"
    columns = list(relation.columns)
    kinds = [relation.kinds[name] for name in columns]
    answer = opened.ask(_question(relation, run_id), batch_rows=BATCH_ROWS)
    rows = write_parquet(path, columns, kinds, answer.batches, meanings=relation.columns)
    _sync(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "name": relation.name,
        "is_view": relation.is_view,
        "file": path.name,
        "rows": rows,
        "size_bytes": path.stat().st_size,
        "sha256": digest,
        "meaning": relation.meaning,
        "columns": {name: {"holds": relation.kinds[name].value, "meaning": relation.columns[name]} for name in columns},
    }


def _question(relation: Relation, run_id: int) -> str:
    where = _WHERE.get(relation.name, "run_id = {run_id}" if "run_id" in relation.columns else _IN_PERIODS)
    names = ", ".join(f'"{name}"' for name in relation.columns)
    order = f" ORDER BY {', '.join(relation.key)}" if relation.key else ""
    return f"SELECT {names} FROM {relation.name} WHERE {where.format(run_id=int(run_id))}{order}"  # noqa: S608 - ours


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
