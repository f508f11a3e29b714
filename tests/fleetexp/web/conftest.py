"""A stored rollout, finished or going on, behind a real server on a free loopback port."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from fleetexp.store.store import open_store
from fleetexp.web.server import LiveServer
from tests.fleetexp.reporting.fleet_run import fleet_run, unfinished_run
from tests.fleetexp.web.live_server import live_server

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)]


class Served(NamedTuple):
    """A store's URL, and the address of its pages; run 1 is finished, run 2 goes on."""

    store_url: str
    address: str


@pytest.fixture(scope="session", params=BOTH)
def live_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgresql").new_database()
    else:
        url = f"sqlite:///{tmp_path_factory.mktemp('live') / 'fleet.db'}"
    with contextlib.closing(open_store(url)) as store:
        assert fleet_run(store, hostile=True) == 1
        assert unfinished_run(store) == 2
    return url


@pytest.fixture
def serving() -> Iterator[Callable[..., LiveServer]]:
    """Start servers; all are stopped at the end."""
    with contextlib.ExitStack() as running:
        yield lambda url, **options: running.enter_context(live_server(url, **options))


@pytest.fixture
def served(live_store: str, serving: Callable[..., LiveServer]) -> Served:
    return Served(store_url=live_store, address=serving(live_store).address)
