"""A run at one moment: what the screen says of stages, hosts, guardrails, rates and lag, at 80 columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from agents.messages import Sample
from fleetexp.cli import status as command
from fleetexp.cli.output import labelled
from fleetexp.cli.status_screen import Incoming, NewsView, RunStatus, look, status_rows
from fleetexp.domain import PeriodState, RunState
from fleetexp.errors import StoreUnreachable
from fleetexp.store.store import Store
from tests.fleetexp.store.single import start_period

BEGAN = datetime(2026, 2, 2, 10, 30, tzinfo=UTC)


def text(seen: RunStatus) -> str:
    lines = [line for row in status_rows(seen) for line in labelled(*row, columns=80).splitlines()]
    assert max(map(len, lines)) <= 80
    return " ".join(" ".join(lines).split())


@pytest.fixture
def seen(store: Store, new_run: Callable[[], int]) -> RunStatus:
    """A fleet in its second stage, over the periods of a small run."""
    run_id = new_run()
    store.set_run_state(run_id, RunState.RUNNING, at=BEGAN)
    return RunStatus(
        record=store.run(run_id),
        now=BEGAN + timedelta(minutes=5),
        periods=store.periods(run_id),
        stages=[(2, BEGAN), (10, BEGAN + timedelta(minutes=2)), (100, None)],
        hosts={"measuring": 8, "lost": 1, "waiting": 90, "reverted by a tripwire": 1},
        guardrails={"memory_used_bytes": ("pass", "after stage 1"), "oom_kills": ("fail", "on web-3")},
        incoming=Incoming(hosts=8, readings_per_second=84.24, newest_seconds=0.4, behind="web-17", behind_seconds=95),
    )


def test_a_fleet_is_told_by_stage_state_guardrail_rate_and_lag(seen: RunStatus) -> None:
    said = text(seen)
    assert "stages 2 of 3, opened 2026-02-02 10:32:00 UTC; 10 of 100 hosts have joined" in said
    assert "hosts 8 measuring, 1 lost, 90 waiting, 1 reverted by a tripwire" in said
    assert "guardrails memory_used_bytes pass after stage 1; oom_kills fail on web-3" in said
    assert "readings 84.2 a second; the newest is 0.4 s old, that of web-17 1 min 35 s" in said


def test_what_is_not_known_is_not_shown(seen: RunStatus) -> None:
    said = text(dataclasses.replace(seen, stages=[(1, BEGAN)], hosts={"done": 1}, guardrails={}, incoming=None))
    assert not [word for word in ("stages", "hosts", "guardrails", "readings") if word in said]
    assert "none of 2 has opened" in text(dataclasses.replace(seen, stages=[(1, None), (9, None)]))


def test_many_running_periods_and_reasons_are_counted_not_listed(seen: RunStatus) -> None:
    running = [dataclasses.replace(period, state=PeriodState.RUNNING) for period in seen.periods[:9]]
    broken = [
        dataclasses.replace(period, state=PeriodState.INVALID, reason=f"reason {place // 2}")
        for place, period in enumerate(seen.periods[9:21])
    ]
    labels = [label for label, _ in status_rows(dataclasses.replace(seen, periods=[*running, *broken]))]
    assert "now" not in labels
    assert labels.count("invalid") == 5
    assert "reason 0 (2 periods)" in text(dataclasses.replace(seen, periods=broken))


def test_the_store_tells_rate_and_lag_from_another_machine(store: Store, url: str, new_run: Callable[[], int]) -> None:
    run_id = new_run()
    store.set_run_state(run_id, RunState.RUNNING)
    first = store.periods(run_id)[0]
    start_period(store, first.period_id, BEGAN, "boot")
    for place in range(11):
        taken_at = BEGAN + timedelta(seconds=2 * place)
        one = Sample(
            position=place + 1,
            period_id=first.period_id,
            sequence=place + 1,
            taken_at=taken_at,
            boottime_seconds=2.0 * place,
            values={"pgfault": 1.0},
        )
        store.append(first.host, [one])
    found = look(store, url, store.run(run_id), BEGAN + timedelta(seconds=23))
    assert found.incoming is not None
    assert found.incoming.readings_per_second == pytest.approx(11 / 20)
    assert (found.incoming.newest_seconds, found.incoming.behind) == (3.0, first.host)
    assert found.hosts == {"washing out": 1}


def test_a_store_that_is_away_for_a_while_is_asked_again(
    store: Store,
    url: str,
    new_run: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_id = new_run()
    looks: list[int] = []
    record = store.run(run_id)

    def asked(number: int) -> object:
        looks.append(number)
        if len(looks) == 2:
            raise StoreUnreachable("the database does not answer", "db:5432", "start it")
        if len(looks) == 3:
            return dataclasses.replace(record, state=RunState.HALTED, reason="stopped by root")
        return record

    monkeypatch.setattr(command.time, "sleep", lambda _: None)
    monkeypatch.setattr(store, "run", asked)
    command._watch(store, url, record)
    out = capsys.readouterr().out
    assert "no answer, asking again: the database does not answer" in " ".join(out.split())
    assert "halted: stopped by root" in out


def test_a_clock_alone_is_no_news(capsys: pytest.CaptureFixture[str]) -> None:
    view = NewsView()
    view.show([("run", "1 s"), ("state", "running"), ("readings", "5 a second")])
    view.show([("run", "2 s"), ("state", "running"), ("readings", "6 a second")])
    view.show([("run", "3 s"), ("state", "halted")])
    assert capsys.readouterr().out.count("state") == 2
