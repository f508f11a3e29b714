"""A ratio with a factor over time: the SQL comes to what `derive` does with the same rises."""

from __future__ import annotations

import json
import sqlite3

import pytest

from agents.catalogue import find_derived
from agents.catalogue.derived import derive
from fleetexp.store.series import _value

RISES = {
    "dtlb_load_walks_pending": 3e6,
    "dtlb_load_walks": 1e5,
    "cycles_time_enabled_seconds": 20.0,
    "cpu_idle_seconds": 10.0,
    "cycles": 2e10,
}


@pytest.mark.parametrize("name", ["dtlb_load_walks_mean_nanoseconds", "dtlb_load_walks_mean_cycles"])
def test_the_sql_of_a_ratio_is_the_ratio_of_its_rises(name: str) -> None:
    metric = find_derived(name)
    assert metric is not None
    with sqlite3.connect(":memory:") as connection:
        connection.execute("CREATE TABLE sample (cycles REAL, extra TEXT)")
        for times in (0, 0.5, 1):
            rest = {term: 7 + times * rise for term, rise in RISES.items() if term != "cycles"}
            row = (5 + times * RISES["cycles"], json.dumps(rest))
            connection.execute("INSERT INTO sample VALUES (?, ?)", row)
        select = f"SELECT {_value('sqlite', name, False)} FROM sample s"  # noqa: S608 - of a name in this file
        ((value,),) = connection.execute(select)
    assert value == pytest.approx(derive(metric, RISES))
