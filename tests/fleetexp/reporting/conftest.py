"""A stored rollout on each database, made once, and the report that is read from it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from analysis.report import ReportInput
from fleetexp.reporting import report_content
from fleetexp.store.store import Store, open_store
from tests.fleetexp.reporting.fleet_run import fleet_run

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An open store with one run, and its report."""

    url: str
    store: Store
    run_id: int
    content: ReportInput


@pytest.fixture(scope="session", params=BOTH)
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql").new_database()
    else:
        url = f"sqlite:///{tmp_path_factory.mktemp('report') / 'fleet.db'}"
    with contextlib.closing(open_store(url)) as store:
        run_id = fleet_run(store, hostile=True)
        yield Stored(url=url, store=store, run_id=run_id, content=report_content(store, run_id))
