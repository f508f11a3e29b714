"""The dashboard's queries run on a real PostgreSQL, and each shows something of the example runs."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.fleetexp.store.example_run import PRIMARY, fill
from tests.postgresql_server import Server

DASHBOARD = json.loads((Path(__file__).parents[3] / "configs" / "grafana" / "fleetexp.json").read_text())
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
EMPTY_IN_RUN_1 = {"Hosts that need a look"}


@pytest.fixture(scope="module")
def example(postgresql: Server, migrated_database: str) -> str:
    url = postgresql.new_database(migrated_database)
    fill(url)
    return url


def expanded(sql: str, run: int) -> str:
    """Replace Grafana's macros as its PostgreSQL data source does, and the dashboard's variables."""
    began, ended = "2026-02-01T00:00:00Z", "2026-02-28T00:00:00Z"
    sql = re.sub(r"\$__timeFilter\(([^)]+)\)", rf"\1 BETWEEN '{began}' AND '{ended}'", sql)

    def grouped(found: re.Match[str]) -> str:
        seconds = {"s": 1, "m": 60, "h": 3600}[found[2][-1]] * int(found[2][:-1])
        return f"floor(extract(epoch from {found[1]})/{seconds})*{seconds}"

    sql = re.sub(r"\$__timeGroup\(([\w.]+), *'(\w+)'\)", grouped, sql)
    sql = sql.replace("$run", str(run)).replace("$metric", PRIMARY)
    assert "$" not in sql, sql
    return sql


def ask(url: str, sql: str) -> list[dict[str, Any]]:
    with psycopg.connect(url, options="-c default_transaction_read_only=on") as connection:
        cursor = connection.execute(sql)  # type: ignore[call-overload]
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


@pytest.mark.postgresql
@pytest.mark.parametrize("title", PANELS)
def test_a_panel_shows_something(example: str, title: str) -> None:
    (target,) = PANELS[title]["targets"]
    sql = target["rawSql"]
    if title.startswith("Samples of"):
        sql = sql.replace("$metric", "dtlb_load_misses")  # a derived metric has no samples
    rows = ask(example, expanded(sql, 1))
    assert bool(rows) is (title not in EMPTY_IN_RUN_1)
    if target["format"] == "time_series":
        assert {"time", "metric", "value"} == set(rows[0])
        assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)
        assert datetime.fromtimestamp(float(rows[0]["time"]), UTC).year == 2026
        assert all(row["value"] is None or float(row["value"]) >= 0 for row in rows)


@pytest.mark.postgresql
def test_the_dashboard_says_what_is_wrong_with_a_run(example: str) -> None:
    def panel(title: str) -> list[dict[str, Any]]:
        return ask(example, expanded(PANELS[title]["targets"][0]["rawSql"], 2))

    assert panel("State of the run")[0]["state"].startswith("restore_incomplete: not restored: web-b-03")
    assert panel("Hosts not as they were found") == [{"hosts": 1}]
    assert [row["host"] for row in panel("Hosts that need a look")] == ["web-b-03"]
    assert {row["metric"]: row["value"] for row in panel("Hosts by state")} == {"done": 3, "not restored": 1}


@pytest.mark.postgresql
def test_the_choices_at_the_top_can_be_made(example: str) -> None:
    runs = ask(example, expanded(VARIABLES["run"]["query"], 1))
    assert [row["__value"] for row in runs] == [2, 1]
    assert ask(example, expanded(VARIABLES["metric"]["query"], 1))[0]["metric"] == PRIMARY


def test_the_dashboard_can_be_imported() -> None:
    assert DASHBOARD["uid"] == DASHBOARD["title"] == "fleetexp"
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    for panel in DASHBOARD["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"
    taken = {
        (x, y)
        for panel in DASHBOARD["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    }
    assert len(taken) == sum(panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in DASHBOARD["panels"])
    assert max(x for x, _ in taken) < 24
