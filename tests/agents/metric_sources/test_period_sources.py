"""Sources read beside the samples: none holds a period up, each outage is told once, each value has its own instant."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.messages import HostEvent, HostEventKind, Measurement, MetricSource, Reading, Sample, SourceForm
from agents.metric_sources import source_reader
from agents.metric_sources.period_sources import PeriodSources
from agents.period import PeriodHost, PeriodReads, SampledPeriod
from agents.spool import Spool
from agents.sysroot import FolderRoot
from fleetexp.control.observations import observations
from fleetexp.store.records import PeriodReadings, Series
from tests.agents.test_period import Beats, Lease, Work
from tests.naps import napping, new_nap
from tests.web_server import TEXT, Web

WaitUntil = Callable[..., float]
EVERY = 0.05
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def source(web: Web, metric: str = "rps", **more: Any) -> MetricSource:  # noqa: ANN401 - as MetricSource takes them
    return MetricSource(metric=metric, url=web.url, form=SourceForm.PROMETHEUS, pick=metric, **more)


class Watch:
    """Feeds under test, and everything that they gave."""

    def __init__(self, *sources: MetricSource, every: float = EVERY) -> None:
        self.metric_sources = PeriodSources(sources, FolderRoot(), host="web-1", sample_every_seconds=every)
        self.measured: list[tuple[datetime, str, float]] = []
        self.lost: list[str] = []
        self.metric_sources.start()

    def look(self) -> Watch:
        self.measured += self.metric_sources.measurements()
        self.lost += [detail for _, detail in self.metric_sources.lost()]
        return self

    def values(self, metric: str = "rps") -> list[float]:
        return [value for _, name, value in self.look().measured if name == metric]


@pytest.fixture
def watch() -> Iterator[Callable[..., Watch]]:
    made: list[Watch] = []

    def start(*sources: MetricSource, **more: Any) -> Watch:  # noqa: ANN401 - as MetricSource takes them
        made.append(Watch(*sources, **more))
        return made[-1]

    yield start
    for one in made:
        one.metric_sources.stop()


def test_every_answer_is_one_value_at_its_own_instant(
    web: Web, watch: Callable[..., Watch], wait_until: WaitUntil
) -> None:
    answers = iter(range(1, 1000))
    web.body = lambda: b"rps %d\n" % next(answers)
    before = datetime.now(UTC)
    seen = watch(source(web))
    wait_until(lambda: len(seen.values()) >= 4)
    seen.metric_sources.stop()
    values = seen.values()
    assert values == [float(n) for n in range(1, len(values) + 1)]
    instants = [at for at, _, _ in seen.measured]
    assert instants == sorted(set(instants))
    assert before <= instants[0]
    assert instants[-1] <= datetime.now(UTC)
    assert seen.lost == []


def test_a_service_that_goes_away_is_missing_until_it_is_back_and_told_once_each_time(
    web: Web, watch: Callable[..., Watch], wait_until: WaitUntil
) -> None:
    web.body = b"rps 5\n"
    seen = watch(source(web))
    wait_until(lambda: len(seen.values()) >= 2)
    web.status = 500
    wait_until(lambda: len(seen.look().lost) >= 1)
    had, asked = len(seen.values()), len(web.asked)
    wait_until(lambda: len(web.asked) >= asked + 4)
    assert len(seen.values()) <= had + 1
    web.status = 200
    had = len(seen.values())
    wait_until(lambda: len(seen.values()) >= had + 2)
    web.body = b"other 5\n"
    wait_until(lambda: len(seen.look().lost) >= 2)
    assert set(seen.values()) == {5.0}
    assert seen.lost == [
        f"rps: {web.url}: HTTP 500 Internal Server Error",
        f"rps: {web.url}: the page has no series 'rps'",
    ]


def test_one_series_that_is_missing_costs_the_others_of_the_page_nothing(
    web: Web, watch: Callable[..., Watch], wait_until: WaitUntil
) -> None:
    web.body = b"a 1\nb NaN\n"
    seen = watch(source(web, "a"), source(web, "b"), source(web, "c"))
    wait_until(lambda: len(seen.values("a")) >= 3)
    assert seen.values("b") == seen.values("c") == []
    assert len(seen.lost) == 2


def test_a_value_that_the_page_repeats_with_its_instant_is_counted_once(
    web: Web, watch: Callable[..., Watch], wait_until: WaitUntil
) -> None:
    now = time.time()
    web.body = b"rps 7 %d\n" % int((now - 3600) * 1000)
    seen = watch(source(web))
    wait_until(lambda: len(seen.look().lost) >= 1)  # of before the period: not of it
    at = int(time.time() * 1000) + 1
    web.body = b"rps 8 %d\n" % at
    wait_until(lambda: len(seen.values()) >= 1)
    asked = len(web.asked)
    wait_until(lambda: len(web.asked) >= asked + 4)
    assert seen.values() == [8.0]
    assert seen.measured[0][0].timestamp() == pytest.approx(at / 1000, abs=0.001)
    assert ["before the period" in seen.lost[0], *("repeats a value" in one for one in seen.lost[1:])] == [True, True]


@pytest.mark.parametrize(
    ("stamp", "said"),
    [
        (time.time_ns, "it looks like nanoseconds"),
        (lambda: int(time.time()), "it looks like seconds"),
        (lambda: int((time.time() - 600) * 1000), "before the period"),
        (lambda: 10**25, "far from now"),
    ],
)
def test_an_instant_that_can_not_be_costs_its_metric_alone(
    web: Web, watch: Callable[..., Watch], wait_until: WaitUntil, stamp: Callable[[], int], said: str
) -> None:
    web.body = lambda: b"busy 4 %d\nidle 9\n" % stamp()
    seen = watch(source(web, "busy"), source(web, "idle"))
    wait_until(lambda: len(seen.values("idle")) >= 3)
    assert seen.values("busy") == []
    (lost,) = seen.lost
    assert said in lost


def test_an_instant_that_stands_still_is_told_once_and_counted_once(
    web: Web, watch: Callable[..., Watch], wait_until: WaitUntil
) -> None:
    at = int(time.time() * 1000) + 900
    web.body = b"busy 4 %d\nidle 9\n" % at
    seen = watch(source(web, "busy"), source(web, "idle"))
    wait_until(lambda: len(seen.values("idle")) >= 5)
    assert seen.values("busy") == [4.0]
    (lost,) = seen.lost
    assert "repeats a value" in lost


def test_a_defect_of_a_reading_is_an_event_and_the_next_reading_comes(
    web: Web, watch: Callable[..., Watch], wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.body = b"rps 5\n"
    seen = watch(source(web))
    wait_until(lambda: len(seen.values()) >= 1)

    def broken(*_: object) -> None:
        raise SystemExit("a defect")  # also what is no Exception

    with monkeypatch.context() as patch:
        patch.setattr(source_reader, "read_place", broken)
        wait_until(lambda: len(seen.look().lost) >= 1)
    had = len(seen.values())
    wait_until(lambda: len(seen.values()) >= had + 2)
    assert seen.lost == [f"rps: {web.url}: a defect: SystemExit('a defect')"]


class Workers:
    """The page of a service with a counter for each of its workers."""

    def __init__(self, web: Web, *totals: float) -> None:
        self.totals = {f"{number}": total for number, total in enumerate(totals)}
        web.body = self.page

    def page(self) -> bytes:
        lines = [f'done_total{{worker="{name}"}} {total}\n' for name, total in self.totals.items()]
        return "".join(lines).encode()

    def work(self, rise: float = 100.0) -> None:
        self.totals = {name: total + rise for name, total in self.totals.items()}


@pytest.fixture
def summed(web: Web, watch: Callable[..., Watch], wait_until: WaitUntil) -> Callable[..., Any]:
    """Workers whose counters a source adds up, and a way to wait until their page has been read."""

    def start(*totals: float) -> tuple[Workers, Watch, Callable[[], list[float]]]:
        workers = Workers(web, *totals)
        seen = watch(source(web, "done_total", sum_series=True, counter=True))

        def read() -> list[float]:
            asked = len(web.asked)
            wait_until(lambda: len(web.asked) >= asked + 3)  # of three the second was asked for and kept meanwhile
            return seen.values("done_total")

        read()
        return workers, seen, read

    return start


def test_a_sum_whose_one_series_begins_anew_falls_though_its_total_rises(summed: Callable[..., Any]) -> None:
    workers, seen, read = summed(*[1000.0] * 8)
    workers.work()
    assert read()[-1] == 8800
    workers.totals = {name: total + 300 for name, total in workers.totals.items()} | {"3": 20.0}
    values = read()  # the total rose, by 1,020
    assert min(values[-1] - 8800, 0) < 0
    (lost,) = seen.lost
    assert '{worker="3"} began anew' in lost
    summary = observed(values)
    assert summary == {}  # the period has no rate of it, as of any counter that fell


def test_a_sum_counts_the_rise_of_each_series(summed: Callable[..., Any]) -> None:
    workers, seen, read = summed(1000.0, 5000.0)
    workers.work()
    assert read()[-1] - 6000 == 200
    workers.totals = {"0": 1200.0}  # an exporter that leaves one out, and has it again
    assert read()[-1] - 6000 == 300
    workers.totals = workers.totals | {"1": 5150.0}
    assert read()[-1] - 6000 == 350
    workers.totals = workers.totals | {"new": 70.0}  # began at 0 meanwhile
    assert read()[-1] - 6000 == 420
    workers.totals = workers.totals | {"old": 1e6}  # brings its history along: counts from here on
    assert read()[-1] - 6000 == 420
    workers.work()
    values = read()
    assert values[-1] - 6000 == 820
    assert seen.lost == []
    assert observed(values).keys() == {"done_total"}


def test_another_process_or_a_later_beginning_is_a_counter_begun_anew_however_high_it_stands(
    web: Web, watch: Callable[..., Watch], wait_until: WaitUntil
) -> None:
    """A label of the process, as of its pod, or the instant that the page itself gives: between two readings it may
    have come further than the one before."""
    text = '# TYPE x_total counter\nx_total{{pod="{pod}"}} {value}\n{more}'
    gauge = '# TYPE x_created gauge\nx_created{{pod="{pod}"}} {created}\n'
    om = '# TYPE x counter\nx_total{{pod="{pod}"}} {value}\nx_created{{pod="{pod}"}} {created}\n# EOF\n'
    first, later = {"pod": "a", "value": 1000, "created": 100.0}, {"value": 9000}
    for page, change in (
        (text, {"pod": "b"}),
        (text.replace("{more}", gauge), {"created": 200}),
        (om, {"created": 200}),
    ):
        web.content_type = OPENMETRICS if page is om else TEXT
        pages = [page.format(**(first | more), more="").encode() for more in ({}, {"value": 1100}, later | change)]
        web.body = pages[0]
        seen = watch(source(web, "x_total", counter=True))
        for web.body in pages:
            had = len(seen.values("x_total"))
            wait_until(lambda seen=seen, had=had: len(seen.values("x_total")) >= had + 2)
        seen.metric_sources.stop()
        values = seen.values("x_total")
        assert values[0] == 1000
        assert observed(values, "x_total") == {}, page
        assert ["began anew: this period has no rate" in one for one in seen.lost] == [True], page


def test_a_counter_below_0_is_none(web: Web, watch: Callable[..., Watch], wait_until: WaitUntil) -> None:
    web.body = b"x_total -5\n"
    seen = watch(source(web, "x_total", counter=True))
    wait_until(lambda: len(seen.look().lost) >= 1)
    assert "no counter is below 0" in seen.lost[0]
    assert seen.values("x_total") == []


def observed(values: list[float], metric: str = "done_total") -> dict[str, Any]:
    """What the orchestrator makes of such readings of a counter."""
    series = Series(seconds=np.arange(float(len(values))), values=np.array(values))
    readings = PeriodReadings(period_id=1, samples={}, measured={metric: series})
    return dict(observations(readings, frozenset({metric})))


def test_a_value_from_the_future_is_none(web: Web, watch: Callable[..., Watch], wait_until: WaitUntil) -> None:
    web.body = b"rps 7 %d\n" % int((time.time() + 3600) * 1000)
    seen = watch(source(web))
    wait_until(lambda: len(seen.look().lost) >= 1)
    assert seen.values() == []


def test_a_source_of_its_own_pace_is_read_at_that_pace(
    web: Web, watch: Callable[..., Watch], wait_until: WaitUntil
) -> None:
    web.body = b"rps 1\nslow 1\n"
    watch(source(web), source(web, "slow", every_seconds=60.0))
    wait_until(lambda: len(web.asked) >= 6)  # the slow one's page is asked for on its own: once so far
    assert len(web.asked) >= 6


def test_stopping_waits_for_nobody_and_lets_nothing_in_afterwards(
    web: Web, watch: Callable[..., Watch], wait_until: WaitUntil
) -> None:
    web.behave = lambda _: web.release.wait(60)
    nap = new_nap()
    slow = MetricSource(metric="depth", argv=("sleep", nap), timeout_seconds=30.0)
    seen = watch(source(web, timeout_seconds=30.0), slow)
    wait_until(lambda: len(web.asked) >= 1 and bool(napping(nap)))
    started = time.monotonic()
    seen.metric_sources.stop()
    assert time.monotonic() - started < 15  # and not the 30 s or 60 s of what is asked
    wait_until(lambda: not napping(nap))
    wait_until(lambda: not [t for t in threading.enumerate() if t.name in {"feed-rps", "feed-depth"}])
    assert seen.look().measured == []
    assert seen.lost == []  # it was ended by us: no outage


# ------------------------------------------------------------------ in a period
class Under:
    """A period with feeds, over a real spool."""

    def __init__(self, folder: Path, *sources: MetricSource, work: Work | None = None) -> None:
        self.beats = Beats()
        self.spool = Spool(folder / "spool.jsonl")
        self.period = SampledPeriod(
            period_id=5,
            every_seconds=EVERY,
            reads=PeriodReads(
                files=self.beats,
                workload=work,
                metric_sources=PeriodSources(sources, FolderRoot(), host="h", sample_every_seconds=EVERY),
            ),
            claim=Lease(),
            spool=self.spool,
            host=PeriodHost(boot_id=lambda: "boot-1"),
        )

    def readings(self) -> list[Reading]:
        return list(self.spool.pending(10_000)[0])


def test_what_hangs_or_is_huge_does_not_delay_a_sample(web: Web, tmp_path: Path, wait_until: WaitUntil) -> None:
    huge = b"".join(b'other{n="%d"} 1\n' % n for n in range(100_000)) + b"rps 1\n"

    def behave(handler: BaseHTTPRequestHandler) -> None:
        if "hang" in handler.path:
            web.release.wait(60)
            return
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + huge)

    web.behave = behave
    hanging = MetricSource(metric="hang", url=f"{web.url}?hang", form=SourceForm.PROMETHEUS, pick="x")
    under = Under(tmp_path, source(web), hanging)
    under.period.start()
    wait_until(lambda: under.beats.samples >= 20, within_seconds=30)
    started = time.monotonic()
    under.period.stop()
    assert time.monotonic() - started < 30  # and not a minute
    readings = under.readings()
    assert under.period.invalid == ""
    assert any(isinstance(one, Measurement) and one.metric == "rps" for one in readings)
    at = [one.boottime_seconds for one in readings if isinstance(one, Sample)]
    assert max(b - a for a, b in itertools.pairwise(at)) < 4.0  # the hanging one takes its 5 s, as a huge one would
    under.spool.close()


def test_values_of_a_period_lie_within_it_and_outages_are_in_its_stream(
    web: Web, tmp_path: Path, wait_until: WaitUntil
) -> None:
    web.body = b"rps 3\n"
    under = Under(tmp_path, source(web), source(web, "absent"))
    under.period.start()
    wait_until(lambda: len(web.asked) >= 4)
    under.period.stop()
    readings = under.readings()
    values = [one for one in readings if isinstance(one, Measurement)]
    assert {one.value for one in values} == {3.0}
    assert all(under.period.begun_at <= one.taken_at <= under.period.ended_at for one in values)
    events = [one for one in readings if isinstance(one, HostEvent)]
    assert [one.kind for one in events] == [HostEventKind.SOURCE_LOST]
    assert [one.sequence for one in readings] == list(range(1, len(readings) + 1))
    under.spool.close()


def test_a_metric_that_the_workload_reports_as_well_makes_the_period_unusable(
    web: Web, tmp_path: Path, wait_until: WaitUntil
) -> None:
    web.body = b"rps 3\n"
    work = Work(said=[(datetime.now(UTC), "rps", 9.0)])
    under = Under(tmp_path, source(web), work=work)
    under.period.start()
    wait_until(lambda: len(web.asked) >= 3)
    under.period.stop()
    readings = under.readings()
    assert under.period.invalid == "the workload reports rps: rps belongs to the source of that name"
    assert HostEventKind.FOREIGN_METRIC in [one.kind for one in readings if isinstance(one, HostEvent)]
    assert {one.value for one in readings if isinstance(one, Measurement)} == {3.0}
    under.spool.close()


def test_a_source_under_the_name_of_the_hosts_own_gives_no_value(
    web: Web, tmp_path: Path, wait_until: WaitUntil
) -> None:
    web.body = b"oom_kills 3\n"
    under = Under(tmp_path, source(web, "oom_kills"))
    under.period.start()
    wait_until(lambda: len(web.asked) >= 3)
    under.period.stop()
    readings = under.readings()
    assert under.period.invalid == "a source reports oom_kills: oom_kills belongs to the host's kernel"
    assert [one.kind for one in readings if isinstance(one, HostEvent)] == [HostEventKind.FOREIGN_METRIC]
    assert not [one for one in readings if isinstance(one, Measurement)]
    under.spool.close()
