"""A stored rollout and a stored switchback on each database, made once, and the report that is read from each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from analysis.report import ReportInput
from fleetexp.reporting import report_content
from fleetexp.store.store import Store, open_store
from tests.fleetexp.reporting.fleet_run import fleet_run
from tests.fleetexp.simulated_runs import run_simulated, spec
from tests.fleetexp.store.example_run import ask_a_metrics_server

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An open store with one run, and its report."""

    url: str
    store: Store
    run_id: int
    content: ReportInput


def new_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql").new_database())
    return f"sqlite:///{tmp_path_factory.mktemp('report') / 'fleet.db'}"


@pytest.fixture(scope="session", params=BOTH)
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    url = new_database(request, tmp_path_factory)
    with contextlib.closing(open_store(url)) as store:
        run_id = fleet_run(store, hostile=True)
        ask_a_metrics_server(store, run_id)
        yield Stored(url=url, store=store, run_id=run_id, content=report_content(store, run_id))


@pytest.fixture(scope="session", params=BOTH)
def switchback(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    """Three hosts, four blocks, on simulated hosts: a switchback has what no rollout has, the values of its blocks."""
    url = new_database(request, tmp_path_factory)
    text = spec(design="switchback", stages="", baseline="", blocks="measure: 30s, blocks: 4, ")
    ran = run_simulated(tmp_path_factory.mktemp("switchback"), text, hosts=3, store_url=url)
    run_id = ran.outcome.run_id
    with contextlib.closing(open_store(url)) as store:
        yield Stored(url=url, store=store, run_id=run_id, content=report_content(store, run_id))
