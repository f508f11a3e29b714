"""Histograms on real pages over loopback: a period's own increase, in its bucket, or a reason for none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from agents.histograms.buckets import classic_histogram, quantile_of, share_below
from agents.messages import MetricSource, SourceForm
from agents.metric_sources.check import check_sources
from agents.metric_sources.period_sources import PeriodSources
from agents.sysroot import FolderRoot
from tests.web_server import Web

WaitUntil = Callable[..., float]
EVERY = 0.4  # two of these may pass unread: time enough for a page on a busy machine
INF = math.inf
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
Series = Mapping[str, Mapping[float, int]]  # value of the label 'path' -> bound -> observations up to it

BEFORE: Series = {"/a": {0.1: 500, 0.5: 900, 2.0: 990, INF: 1000}, "/b": {0.1: 7, 0.5: 7, 2.0: 7, INF: 7}}
AFTER: Series = {"/a": {0.1: 510, 0.5: 950, 2.0: 1060, INF: 1072}, "/b": {0.1: 7, 0.5: 10, 2.0: 10, INF: 10}}
RISEN = {0.1: 10.0, 0.5: 53.0, 2.0: 73.0, INF: 75.0}


def page(series: Series, *, openmetrics: bool = False) -> bytes:
    lines = ["# TYPE latency_seconds histogram"]
    for path, buckets in series.items():
        for bound, count in buckets.items():
            le = "+Inf" if bound == INF else repr(bound)
            lines.append(f'latency_seconds_bucket{{path="{path}",le="{le}"}} {count}')
        lines += [f'latency_seconds_count{{path="{path}"}} {buckets[INF]}', f'latency_seconds_sum{{path="{path}"}} 1']
    return "\n".join([*lines, *(["# EOF"] if openmetrics else []), ""]).encode()


def source(web: Web, metric: str = "p99", **more: Any) -> MetricSource:  # noqa: ANN401 - as MetricSource takes them
    more = more or {"quantile": 0.9}
    return MetricSource(metric=metric, url=web.url, form=SourceForm.HISTOGRAM, pick="latency_seconds", **more)


class Period:
    """Sources over one period, and all that they gave."""

    def __init__(self, *sources: MetricSource) -> None:
        self.sources = PeriodSources(sources, FolderRoot(), host="web-1", sample_every_seconds=EVERY)
        self.sources.start()

    def end(self) -> tuple[dict[str, float], list[str]]:
        self.sources.stop()
        measured = self.sources.measurements()
        assert len({name for _, name, _ in measured}) == len(measured), "one value a period"
        return {name: value for _, name, value in measured}, [detail for _, detail in self.sources.lost()]


@pytest.fixture
def begin() -> Iterator[Callable[..., Period]]:
    made: list[Period] = []

    def start(*sources: MetricSource) -> Period:
        made.append(Period(*sources))
        return made[-1]

    yield start
    for one in made:
        one.sources.stop()


def read_again(web: Web, wait_until: WaitUntil) -> None:
    asked = len(web.asked)
    wait_until(lambda: len(web.asked) >= asked + 3)


@pytest.mark.parametrize("openmetrics", [False, True])
def test_a_period_has_the_quantile_of_what_its_buckets_rose_by(
    web: Web, begin: Callable[..., Period], wait_until: WaitUntil, openmetrics: bool
) -> None:
    web.content_type = OPENMETRICS if openmetrics else web.content_type
    web.body = page(BEFORE, openmetrics=openmetrics)
    period = begin(
        source(web), source(web, "fast", share_below=0.5), source(web, "a", quantile=0.5, labels={"path": "/a"})
    )
    read_again(web, wait_until)
    assert period.sources.measurements() == [], "nothing is said before its end"
    web.body = page(AFTER, openmetrics=openmetrics)
    read_again(web, wait_until)
    values, lost = period.end()
    assert lost == []
    risen = classic_histogram(RISEN)
    assert values["p99"] == quantile_of(risen, 0.9).value
    assert (values["p99_at_least"], values["p99_at_most"]) == (0.5, 2.0)
    assert values["fast"] == values["fast_at_least"] == values["fast_at_most"] == share_below(risen, 0.5).value
    assert (values["a_at_least"], values["a_at_most"]) == (0.1, 0.5)


def test_a_quantile_above_the_last_bound_has_no_upper_end(
    web: Web, begin: Callable[..., Period], wait_until: WaitUntil
) -> None:
    web.body = page(BEFORE)
    period = begin(source(web, quantile=0.99))
    read_again(web, wait_until)
    web.body = page(AFTER)
    read_again(web, wait_until)
    assert period.end() == ({"p99": 2.0, "p99_at_least": 2.0}, [])


@pytest.mark.parametrize(
    ("later", "why"),
    [
        (page({"/a": {0.1: 1, 0.5: 2, 2.0: 3, INF: 2000}, "/b": AFTER["/b"]}), "began anew"),
        (page(AFTER) + b'latency_seconds_created{path="/b"} 1790000000.5\n', "began anew"),
        (page(BEFORE), "nothing was observed"),
        (page({**AFTER, "/b": {0.1: 7, 0.2: 7, 2.0: 9, INF: 10}}), "have changed"),
        (page({**AFTER, "/c": {0.1: 7, 2.0: 9, INF: 10}}), "unlike buckets"),
    ],
    ids=["restart", "restart told by its instant", "idle", "other bounds", "a series with other bounds"],
)
def test_what_can_not_be_told_of_a_period_is_missing_and_says_why(
    web: Web, begin: Callable[..., Period], wait_until: WaitUntil, later: bytes, why: str
) -> None:
    web.body = page(BEFORE) + b'latency_seconds_created{path="/b"} 1780000000.5\n'
    period = begin(source(web))
    read_again(web, wait_until)
    web.body = later
    read_again(web, wait_until)
    values, lost = period.end()
    assert values == {}
    assert len(lost) == 1
    assert why in lost[0]


def test_a_page_that_is_away_for_most_of_a_period_gives_it_no_value(
    web: Web, begin: Callable[..., Period], wait_until: WaitUntil
) -> None:
    web.body = page(BEFORE)
    period = begin(source(web))
    read_again(web, wait_until)
    web.body = page(AFTER)
    read_again(web, wait_until)
    web.status = 500
    for _ in range(2):
        read_again(web, wait_until)
    values, lost = period.end()
    assert values == {}
    assert "HTTP 500" in lost[0]
    assert "it was not read for" in lost[1]


@pytest.mark.parametrize(
    ("said", "why", "remedy"),
    [
        (b'latency_seconds_bucket{le="+Inf"} 5\n', "native histogram is written as text", "promql: latency_seconds"),
        (b'latency_seconds_bucket{le="1"} 5\n', 'no bucket with le="+Inf"', "every bucket"),
        (b'latency_seconds_bucket{le="x"} 5\n', "no bound that is a number", ""),
        (b'latency_seconds_bucket{le="1"} 5\nlatency_seconds_bucket{le="+Inf"} 4\n', "fall as their bounds rise", ""),
        (b"latency_seconds 5\n", "the page has no series 'latency_seconds_bucket'", ""),
        (
            b"latency_seconds {count:24,sum:100,schema:0,zero_threshold:0.001,zero_count:4}\n",
            "is a native histogram",
            "promql: latency_seconds",
        ),
    ],
)
def test_what_is_no_classic_histogram_is_refused_with_what_to_do(web: Web, said: bytes, why: str, remedy: str) -> None:
    web.body = said
    (problem,) = check_sources([source(web)], FolderRoot(), host="web-1")
    assert why in problem.what
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ({"quantile": 0.999}, "the quantile 0.999 is above the last bound 2 so far, nobody knows how far"),
        ({"share_below": 0.3}, "0.3 is no bucket's bound: the share up to 0.3 is between"),
    ],
)
def test_buckets_that_can_not_answer_are_told_before_a_run(web: Web, what: dict[str, float], why: str) -> None:
    web.body = page({"/a": BEFORE["/a"]})
    (problem,) = check_sources([source(web, **what)], FolderRoot(), host="web-1")
    assert why in problem.what
    assert check_sources([source(web), source(web, "fast", share_below=0.5)], FolderRoot(), host="web-1") == ()
