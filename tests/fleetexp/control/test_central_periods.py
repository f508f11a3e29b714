"""Which instants a metrics' server is asked for, and what its answers come to: made-up answers, no server."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetexp.central_metrics.reading import HostPoints, Stretch, StretchRead
from fleetexp.control.central_periods import FinishedPeriod, QueryPeriods
from fleetexp.domain import CentralGap
from fleetexp.experiment.central import CentralQuery, HostOfSeries

QUERY = CentralQuery(
    metric="p99",
    promql="rate(x[20s])",
    host=HostOfSeries(by="instance"),
    step_seconds=10.0,
    settle_seconds=30.0,
    every_seconds=60.0,
    fresh_seconds=20.0,
)


def answer(stretch: Stretch, hosts: dict[str, list[int]], *, ambiguous: frozenset[str] = frozenset()) -> StretchRead:
    """Each host has values, twice the instant, at these instants of the stretch."""
    points = {
        host: HostPoints(
            steps=np.array(kept := [step for step in steps if stretch.first <= step <= stretch.last], dtype=float),
            values=np.array(kept, dtype=float) * 2,
        )
        for host, steps in hosts.items()
    }
    return StretchRead(stretch=stretch, asked=(), points=points, ambiguous=ambiguous)


def read_to_end(periods: QueryPeriods, now: float, hosts: dict[str, list[int]]) -> list[FinishedPeriod]:
    stretch = periods.stretch(now)
    assert stretch is not None
    periods.asked(now)
    list(periods.take(answer(stretch, hosts)))
    return list(periods.finished())


def test_a_period_is_read_once_it_has_settled_and_without_what_the_range_saw_before() -> None:
    periods = QueryPeriods(QUERY)
    periods.begin(1, "a", "control", 1000.0)
    periods.end(1, 1100.0)
    assert periods.stretch(1049.0) is None, "nothing has settled"
    stretch = periods.stretch(1130.0)
    assert stretch is not None
    assert stretch.seconds == (1020.0, 1100.0), "[20s] sees nothing of before from 20 s on"
    (finished,) = read_to_end(periods, 1130.0, {"a": list(range(200))})
    assert (finished.due, finished.read, finished.gap) == (9, 9, CentralGap.NONE)
    assert finished.summary is not None
    assert finished.summary.mean == pytest.approx(2 * np.mean(range(102, 111)))
    assert periods.stretch(9999.0) is None


def test_what_is_read_while_a_period_runs_is_not_read_again() -> None:
    periods = QueryPeriods(QUERY)
    periods.begin(1, "a", "control", 1000.0)
    first = periods.stretch(1100.0)
    assert first is not None
    assert first.seconds == (1020.0, 1070.0)
    periods.asked(1100.0)
    (new,) = periods.take(answer(first, {"a": list(range(200))}))
    assert list(new.places) == [0, 1, 2, 3, 4, 5]
    assert periods.stretch(1130.0) is None, "asked a moment ago"
    second = periods.stretch(1170.0)
    assert second is not None
    assert second.seconds == (1080.0, 1140.0)


def test_what_the_test_between_two_stages_waits_for_is_asked_for_once_it_has_settled_not_on_the_next_beat() -> None:
    periods = QueryPeriods(replace(QUERY, every_seconds=3600.0))
    periods.begin(1, "a", "control", 1000.0)
    assert periods.stretch(1060.0) is not None
    periods.asked(1060.0)
    assert periods.stretch(1130.0) is None
    assert periods.stretch(1129.0, awaited=[1100.0]) is None, "not settled yet"
    stretch = periods.stretch(1130.0, awaited=[1100.0])
    assert stretch is not None
    assert stretch.seconds == (1020.0, 1100.0)
    list(periods.take(answer(stretch, {"a": list(range(200))})))
    assert not periods.outstanding(1100.0)


@pytest.mark.parametrize(
    ("ended", "hosts", "gap"),
    [
        (1010.0, {"a": [101]}, CentralGap.TOO_SHORT),
        (1100.0, {"b": list(range(200))}, CentralGap.NO_SERIES),
        (1100.0, {"a": [102, 103, 104, 105, 106, 107, 108]}, CentralGap.TOO_FEW),
        (1100.0, {"a": [102, 103, 104, 105, 106, 107, 108, 110]}, CentralGap.NONE),
    ],
    ids=["short", "no series", "seven of nine", "eight of nine"],
)
def test_what_is_missing_is_missing_with_a_reason(ended: float, hosts: dict[str, list[int]], gap: CentralGap) -> None:
    periods = QueryPeriods(QUERY)
    periods.begin(1, "a", "control", 1000.0)
    periods.end(1, ended)
    stretch = periods.stretch(2000.0)
    if stretch is not None:
        list(periods.take(answer(stretch, hosts)))
    (finished,) = periods.finished()
    assert finished.gap is gap
    assert (finished.summary is None) == (gap is not CentralGap.NONE)


def test_two_series_of_one_host_are_none() -> None:
    periods = QueryPeriods(QUERY)
    periods.begin(1, "a", "control", 1000.0)
    periods.end(1, 1100.0)
    stretch = periods.stretch(2000.0)
    assert stretch is not None
    list(periods.take(answer(stretch, {}, ambiguous=frozenset({"a"}))))
    assert [one.gap for one in periods.finished()] == [CentralGap.SEVERAL_SERIES]


def test_what_is_never_answered_is_given_up_and_what_was_struck_out_forgotten() -> None:
    periods = QueryPeriods(QUERY)
    for number in (1, 2, 3):
        periods.begin(number, "a", "control", 1000.0)
    periods.end(1, 1100.0)
    periods.end(2, 1200.0)
    periods.drop(3)
    assert [(one.period.period_id, one.gap) for one in periods.give_up(1150.0)] == [(1, CentralGap.NO_ANSWER)]
    assert periods.outstanding(1150.0)
    assert [one.period.period_id for one in periods.give_up(1250.0)] == [2]
    assert not periods.outstanding(1250.0)


def test_a_period_that_ended_before_the_run_was_taken_up_again_is_not_given_up_before_it_was_asked_for() -> None:
    periods = QueryPeriods(QUERY)
    periods.begin(1, "a", "control", 1000.0)
    periods.end(1, 1100.0, known_at=90_000.0)
    assert list(periods.give_up(89_000.0)) == []
    (finished,) = read_to_end(periods, 90_001.0, {"a": list(range(200))})
    assert finished.gap is CentralGap.NONE


def test_a_long_time_of_many_hosts_is_read_in_parts_that_fit_an_answer() -> None:
    periods = QueryPeriods(QUERY)
    names = [f"h{number}" for number in range(10_000)]
    for number, name in enumerate(names):
        periods.begin(number, name, "control", 1000.0)
        periods.end(number, 7000.0)
    now, parts = 8000.0, []
    while (stretch := periods.stretch(now)) is not None:
        parts.append((stretch.first, stretch.last))
        periods.asked(now)
        list(periods.take(answer(stretch, {})))
        now += 60.0
    assert parts == [(102, 401), (402, 700)]


@pytest.mark.parametrize("hosts", [1, 1000])
def test_the_number_of_requests_does_not_grow_with_the_hosts(hosts: int) -> None:
    periods = QueryPeriods(QUERY)
    random = np.random.default_rng(1)
    starts = 1000.0 + random.uniform(0, 20, hosts)
    for number, start in enumerate(starts):
        periods.begin(number, f"h{number}", "control", start)
    requests, now, finished = 0, 1000.0, 0
    ends = starts + 300.0
    while finished < hosts:
        now += 1.0
        for number in np.flatnonzero((ends <= now) & (ends > now - 1)).tolist():
            periods.end(number, float(ends[number]))
        if (stretch := periods.stretch(now)) is not None:
            requests += 1
            periods.asked(now)
            list(periods.take(answer(stretch, {f"h{number}": list(range(300)) for number in range(hosts)})))
        done = list(periods.finished())
        assert {one.gap for one in done} <= {CentralGap.NONE}
        finished += len(done)
    assert requests <= 8


@given(
    start=st.floats(0, 1e5),
    seconds=st.floats(0, 2000),
    step=st.sampled_from([0.1, 1.0, 15.0]),
    looks=st.lists(st.floats(0, 500), max_size=8),
)
def test_every_instant_of_a_period_is_asked_for_once_and_no_other(
    start: float, seconds: float, step: float, looks: list[float]
) -> None:
    query = replace(QUERY, step_seconds=step, every_seconds=0.0, settle_seconds=0.0)
    periods = QueryPeriods(query)
    periods.begin(1, "a", "control", start)
    now, taken = start, list[int]()
    for wait in [*looks, 1e6, 1.0, 1.0, 1.0]:
        now += wait
        if now >= start + seconds:
            periods.end(1, start + seconds)
        if (stretch := periods.stretch(now)) is not None:
            periods.asked(now)
            for new in periods.take(answer(stretch, {"a": list(range(stretch.first, stretch.last + 1))})):
                taken += new.steps
    assert taken == sorted(set(taken))
    inside = [one * step for one in taken]
    assert all(start + 20.0 - step * 1e-5 <= at <= start + seconds + step * 1e-5 for at in inside)
    due = seconds - 20.0
    assert len(taken) >= due / step - 1
