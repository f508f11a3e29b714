"""A fresh store for each test, on SQLite and on PostgreSQL, made by the migrations."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleetexp.store.store import Store, open_store
from tests.fleetexp.store.example_run import fill
from tests.postgresql_server import Server

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)]


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "empty.db"
    open_store(f"sqlite:///{path}").close()
    return path


@pytest.fixture(scope="session")
def migrated_database(postgresql: Server) -> str:
    url = postgresql.new_database()
    open_store(url).close()
    return url


@pytest.fixture(params=BOTH)
def new_store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Make databases with the schema and no rows, on each kind in turn."""
    if request.param == "postgresql":
        server, like = request.getfixturevalue("postgresql"), request.getfixturevalue("migrated_database")
        return lambda: server.new_database(like)
    empty = request.getfixturevalue("migrated_file")
    numbers = iter(range(1_000_000))

    def copy() -> str:
        path = tmp_path / f"store-{next(numbers)}.db"
        shutil.copyfile(empty, path)
        return f"sqlite:///{path}"

    return copy


@pytest.fixture
def store_url(new_store_url: Callable[[], str]) -> str:
    return new_store_url()


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with contextlib.closing(open_store(store_url, create=False)) as opened:
        yield opened


@pytest.fixture(scope="session", params=BOTH)
def example_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The two example runs, for questions only."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgresql").new_database(request.getfixturevalue("migrated_database"))
    else:
        path = tmp_path_factory.mktemp("example") / "example.db"
        shutil.copyfile(request.getfixturevalue("migrated_file"), path)
        url = f"sqlite:///{path}"
    fill(url)
    return url
