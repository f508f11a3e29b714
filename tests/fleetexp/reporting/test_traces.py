"""Every number of a report can be traced: the query that the appendix prints gives the same digits."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.report.page import Cell, Table
from analysis.report.sections import SOURCES, page
from analysis.results import HALVES, EstimateKind
from fleetexp.reporting import report_content
from fleetexp.store.store import open_store
from tests.analysis.report.sample import three_arm_findings
from tests.fleetexp.reporting.fleet_run import fleet_run

# What a unit may make of a stored number: percentages, GiB of bytes, ms of seconds and per minute, hour or day.
TIMES = [factor for span in (60.0, 3600.0, 86400.0) for factor in (span, 1 / span)]
SCALES = [1.0, 100.0, 1e3, 1e6, 1e9, *TIMES, *(1024.0**-power for power in range(1, 5)), 2.0**30]
NUMBER = re.compile(r"(?<![\w.:/-])[−+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+| × 10\^[−-]?\d+)?")  # noqa: RUF001
Stored = Any  # conftest.py


def numbers(text: str) -> Iterator[tuple[str, float, float]]:
    """Yield each number of a text as (as it stands, its value, half a unit of its last digit)."""
    for found in NUMBER.findall(text):
        plain = found.replace("−", "-").replace(",", "").replace(" × 10^", "e")  # noqa: RUF001
        mantissa, _, power = plain.partition("e")
        size = 10.0 ** int(power or 0)
        _, _, decimals = mantissa.partition(".")
        # A lift of 55 is shown as 56.0 times as much.
        value = float(mantissa) * size - (f"{found}\N{MULTIPLICATION SIGN} as much" in text)
        # About three digits are shown: 12,345 may stand for 12,345.4.
        yield found, value, 0.5000001 * 10.0 ** -len(decimals) * size


def values_of(rows: list[tuple[Any, ...]]) -> list[float]:
    """Every number in the answer to a query, those in its texts and documents too, and plain differences from them."""
    out: list[float] = []
    for row in rows:
        for value in row:
            if isinstance(value, bool) or value is None:
                continue
            if isinstance(value, int | float):
                out.append(float(value))
            else:
                text = value if isinstance(value, str) else json.dumps(value, default=str)
                out += [float(found) for found in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", text)]
    return out


def untraced(table: Table, rows: list[tuple[Any, ...]]) -> list[str]:
    """The numbers of a table that no value of the query gives, in any unit."""
    values = values_of(rows)
    known = [abs(value) * scale for value in values for scale in SCALES]
    texts = " ".join(str(value) for row in rows for value in row)
    missing = []
    for cells in table.rows:
        for cell in cells:
            if cell.text in texts:
                continue
            for shown, value, half in numbers(f"{cell.text} {cell.note}"):
                if not any(abs(abs(value) - one) <= half for one in known):
                    missing.append(f"{shown} in {cell.text!r} {cell.note!r}")
    return missing


# Computed from the query's numbers by arithmetic that the text names: an interval over clusters, its level, a count.
ARITHMETIC = {"95", "5"}


def tables_of(stored: Stored) -> dict[str, Table]:
    return {table.key: table for section in page(stored.content).sections for table in section.tables if table.key}


@pytest.fixture
def tables(stored: Stored) -> dict[str, Table]:
    return tables_of(stored)


# Tables that a rollout with one treatment, one period a host, does not have; the last four: test_supplies,
# test_traced_splits.
ELSEWHERE = {"blocks", "pairs", "halves", "carry_over", "supply", "split_causes", "splits_counted", "stalls"}


@pytest.mark.parametrize("key", [key for key in SOURCES if key not in ELSEWHERE])
def test_the_query_in_the_appendix_gives_the_digits_of_the_table(
    stored: Stored, tables: dict[str, Table], key: str
) -> None:
    table = tables[key]
    assert table.rows
    rows = stored.store.select(stored.content.queries[key])
    if key == "success":  # the notes are intervals over clusters, tested by themselves
        table = replace(table, rows=tuple(tuple(replace(cell, note="") for cell in cells) for cells in table.rows))
    if key in {"stages", "assigned"}:  # people count stages from 1
        table = replace(table, rows=tuple(cells[1:] for cells in table.rows))
    assert [found for found in untraced(table, rows) if found.split()[0] not in ARITHMETIC] == []


@pytest.mark.parametrize("key", ["blocks", "effects", "estimates", "changes"])
def test_the_same_holds_of_a_switchback_with_the_values_of_its_blocks(switchback: Stored, key: str) -> None:
    table = tables_of(switchback)[key]
    assert table.rows
    rows = switchback.store.select(switchback.content.queries[key])
    assert [found for found in untraced(table, rows) if found.split()[0] not in ARITHMETIC] == []


@pytest.mark.slow
def test_treatments_against_each_other_and_what_an_arm_leaves_behind_are_traced_too(tmp_path: Path) -> None:
    found = three_arm_findings()
    beside = [replace(found.estimates[0], kind=kind) for kind in (EstimateKind.CARRY_OVER, *HALVES)]
    with contextlib.closing(open_store(f"sqlite:///{tmp_path / 'fleet.db'}")) as store:
        run_id = fleet_run(store)
        store.save_findings(run_id, replace(found, estimates=(*found.estimates, *beside)))
        content = report_content(store, run_id)
        tables = {table.key: table for part in page(content).sections for table in part.tables}
        for key in ("pairs", "halves", "carry_over", "strata", "trade"):
            assert tables[key].rows
            missing = untraced(tables[key], store.select(content.queries[key]))
            assert [one for one in missing if one.split()[0] not in ARITHMETIC] == []


def test_every_table_with_numbers_has_its_query(stored: Stored, tables: dict[str, Table]) -> None:
    assert set(tables) <= set(stored.content.queries)
    assert set(stored.content.queries) <= set(SOURCES)


def test_a_number_that_is_off_by_one_digit_is_found_out(stored: Stored, tables: dict[str, Table]) -> None:
    rows = stored.store.select(stored.content.queries["effects"])
    table = tables["effects"]
    wrong = replace(table, rows=((Cell(text="throughput"), Cell(text="1,234,567.8")), *table.rows))
    assert untraced(wrong, rows)
