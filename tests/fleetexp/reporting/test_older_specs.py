"""Runs of a spec that this version would refuse: their results are still told."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from fleetexp.as_of import analysed_as_of
from fleetexp.errors import ConfigError
from fleetexp.experiment import parse_experiment
from fleetexp.reporting import report_content
from fleetexp.store.store import open_store
from tests.fleetexp.reporting.fleet_run import SPEC, fleet_run

OLDER = SPEC.replace("metrics:\n", "metrics:\n  sources: {oom_kills: {file: /x}}\n")


def test_a_run_whose_source_has_the_name_of_another_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the name oom_kills is taken"):
        parse_experiment(OLDER)
    file = tmp_path / "fleet.db"
    with contextlib.closing(open_store(f"sqlite:///{file}")) as store:
        run_id = fleet_run(store, hosts=8)
        with contextlib.closing(sqlite3.connect(file)) as connection, connection:
            assert connection.execute("UPDATE experiment SET spec_text = ?", (OLDER,)).rowcount == 1
        assert store.run(run_id).spec_text == OLDER
        content = report_content(store, run_id)
        assert content.findings == store.findings(run_id)
        assert analysed_as_of(store, run_id, 1).findings.estimates
