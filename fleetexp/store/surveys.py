"""Entering surveys: what huge pages would back and add on hosts, each look once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, select

from agents.survey.figures import PageSurvey, ProcessFigures, SizeFigures
from fleetexp.store.directory import Directory
from fleetexp.store.inserts import insert_new
from fleetexp.store.survey_tables import PageSurveyRow, SurveyedProcessRow, SurveyedShareRow, SurveyedSizeRow
from fleetexp.store.table_base import Base, table
from fleetexp.store.tables import Host
from fleetexp.store.values import clean_text

_OF_RESIDENCY = ("resident_bytes", "growth_bytes", "tables_saved_bytes", "deposit_bytes", "growth_error_bytes")
_NOT_SEEN: dict[str, Any] = dict.fromkeys(("whole", "mostly", "partly", *_OF_RESIDENCY))


def add_surveys(connection: Connection, directory: Directory, surveys: Sequence[PageSurvey]) -> None:
    """Enter surveys, and hosts that no plan named yet; a survey that is there already stays as it is."""
    hosts = [{"name": one.host, "first_seen_at": one.taken_at} for one in surveys]
    insert_new(connection, Host, hosts)
    host_ids = directory.hosts(connection, {one.host for one in surveys})
    for survey in surveys:
        row = PageSurveyRow
        there = select(row.page_survey_id).where(row.host_id == host_ids[survey.host], row.taken_at == survey.taken_at)
        if connection.execute(there).scalar() is None:
            insert_new(connection, PageSurveyRow, [_survey_row(survey, host_ids[survey.host])])
            _add_processes(connection, connection.execute(there).scalar_one(), survey)


def _columns(model: type[Base]) -> list[str]:
    return [column.name for column in table(model).columns]


def _survey_row(survey: PageSurvey, host_id: int) -> dict[str, Any]:
    own = {name: getattr(survey, name) for name in _columns(PageSurveyRow) if hasattr(survey, name)}
    readers = [*survey.known_readers, *(f"{one.command} ({one.path})" for one in survey.open_readers)]
    return own | {
        "host_id": host_id,
        "splitting_sizes_kib": list(survey.splitting_sizes_kib),
        "sizes": [asdict(size) for size in survey.sizes],
        "readers": [clean_text(reader) for reader in readers],
    }


def _add_processes(connection: Connection, survey_id: int, survey: PageSurvey) -> None:
    sized = [(one.pid, size) for one in survey.processes for size in one.sizes]
    rows: dict[type[Base], list[dict[str, Any]]] = {
        SurveyedProcessRow: [_process_row(one) for one in survey.processes],
        SurveyedSizeRow: [{"pid": pid, **_size_row(size)} for pid, size in sized],
        SurveyedShareRow: [{"pid": pid, **share} for pid, size in sized for share in _share_rows(size)],
    }
    for model, made in rows.items():
        if made:
            insert_new(connection, model, [{"page_survey_id": survey_id, **row} for row in made])


def _process_row(process: ProcessFigures) -> dict[str, Any]:
    own = {name: getattr(process, name) for name in _columns(SurveyedProcessRow) if hasattr(process, name)}
    return own | {"sight": process.sight.value}


def _size_row(size: SizeFigures) -> dict[str, Any]:
    bounds = {name: getattr(size, name) for name in ("size_kib", "extents", "cut_extents", "whole_at_most")}
    seen = size.residency
    found = _NOT_SEEN if seen is None else {name: getattr(seen, name) for name in _NOT_SEEN}
    return {**bounds, "growth_at_most_bytes": size.growth_at_most_bytes, **found}


def _share_rows(size: SizeFigures) -> Iterator[dict[str, Any]]:
    if size.residency is None:
        return
    pairs = zip(size.residency.extents_by_share, size.residency.growth_by_share_bytes, strict=True)
    for share, (extents, growth) in enumerate(pairs):
        if extents:
            yield {"size_kib": size.size_kib, "share": share, "extents": extents, "growth_bytes": growth}
