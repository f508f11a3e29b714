"""Runs whose PostgreSQL server crashes in the middle: nothing is lost, nothing doubled, and no lease runs out."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agents.messages import KnobReason
from fleetexp.domain import RunState
from fleetexp.store.store import Store, check, query
from tests.postgresql_server import Server, programs

Bench = Any  # conftest.py

pytestmark = [pytest.mark.postgresql, pytest.mark.slow, pytest.mark.timeout(400)]

READS = "import time\nfor _ in range({values}):\n    print('latency 1', flush=True); time.sleep(0.1)"


@pytest.fixture
def server() -> Iterator[Server]:
    """A server with the durability of production, which the test may kill."""
    folder = programs()
    if folder is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    made = Server(folder, durable=True)
    made.start()
    yield made
    with contextlib.suppress(AssertionError):
        made.stop("immediate")
    made.remove()


@pytest.fixture
def on_postgresql(bench: Bench, server: Server, monkeypatch: pytest.MonkeyPatch) -> Bench:
    url = server.new_database()
    monkeypatch.setattr(type(bench), "url", property(lambda _: url))
    return bench


@contextlib.contextmanager
def meanwhile(bench: Bench, act: Callable[[], None]) -> Iterator[list[BaseException]]:
    """Do something in another thread from the first measured period on; what goes wrong there fails the test."""
    wrong: list[BaseException] = []

    def guarded() -> None:
        try:
            act()
        except BaseException as error:
            wrong.append(error)

    thread = threading.Thread(target=guarded)

    def when(progress: Any) -> None:  # noqa: ANN401
        if thread.ident is None and "measuring" in progress.current:
            thread.start()

    bench.when = when
    yield wrong
    assert thread.ident is not None, "no period was ever measured"
    thread.join(120)
    assert not wrong, wrong


def require_each_reading_once(bench: Bench, store: Store) -> int:
    """Fail unless the readings of every period are numbered 1, 2, 3, ...: all of them, each once. Return how many."""
    total = 0
    for period in store.periods(1):
        found = sorted(
            number
            for table in ("sample", "measurement", "event")
            for (number,) in query(
                bench.url,
                f"select sequence from {table} where period_id = {period.period_id} and sequence is not null",  # noqa: S608
                1_000_000,
            )[1]
        )
        assert found == list(range(1, len(found) + 1)), f"period {period.period_id}: {found}"
        assert found or period.state.value == "planned"
        total += len(found)
    return total


def require_an_undisturbed_run(bench: Bench, store: Store) -> None:
    record = store.run(1)
    assert (record.state, record.reason) == (RunState.COMPLETED, "")
    assert {(period.state.value, period.plan.attempt) for period in store.periods(1)} == {("complete", 0)}
    kinds = {event.kind for event in store.events(1)}
    assert not kinds & {"host_lost", "lease_expired", "drift"}, kinds
    assert KnobReason.GUARDIAN not in {change.reason for _, change in store.knob_changes(1)}
    assert check(bench.url) == []


def test_a_database_stopped_for_30_seconds_in_mid_run_loses_and_doubles_nothing(
    on_postgresql: Bench, server: Server
) -> None:
    def crash() -> None:
        server.stop("immediate")
        threading.Event().wait(30.0)
        server.start()

    with meanwhile(on_postgresql, crash):
        outcome = on_postgresql.run(script=READS.format(values=100), blocks=1, measure="10s", lease="5s")
    assert outcome.state is RunState.COMPLETED
    with on_postgresql.store() as store:
        require_an_undisturbed_run(on_postgresql, store)
        # Two periods of 100 values and about as many samples, whatever the database did meanwhile.
        assert require_each_reading_once(on_postgresql, store) > 300


def test_a_postmaster_killed_at_odd_moments_loses_and_doubles_nothing(on_postgresql: Bench, server: Server) -> None:
    moments = random.Random(2026)
    kills = 6

    def crashes() -> None:
        for _ in range(kills):
            threading.Event().wait(moments.uniform(0.3, 2.5))
            server.kill()
            threading.Event().wait(moments.uniform(0.0, 1.5))
            server.start_again()

    with meanwhile(on_postgresql, crashes):
        outcome = on_postgresql.run(script=READS.format(values=150), blocks=1, measure="15s", lease="10s")
    assert outcome.state is RunState.COMPLETED
    with on_postgresql.store() as store:
        require_an_undisturbed_run(on_postgresql, store)
        assert require_each_reading_once(on_postgresql, store) > 400
