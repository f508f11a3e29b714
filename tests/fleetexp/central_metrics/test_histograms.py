"""Histograms that a real Prometheus keeps: what they rose by, host by host, and its own answers."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from agents.histograms.buckets import HistogramQuestion
from fleetexp.central_metrics.client import MetricsClient
from fleetexp.central_metrics.reading import Stretch, StretchRead, read_stretch
from fleetexp.experiment.central import CentralQuery, HostOfSeries, MetricsServer, increase_of
from tests.native_histograms import CONTENT_TYPE, NativeSeries, native_page
from tests.prometheus_server import Prometheus, exporter, prometheus
from tests.web_server import TEXT

pytestmark = pytest.mark.slow

HOSTS = {f"web-{number}": {} for number in range(30)}
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, math.inf)
WINDOW = 6.0


@dataclass
class Requests:
    """What 30 hosts of two handlers each served, counted in classic and in native buckets (schema 3)."""

    draw: random.Random = field(default_factory=lambda: random.Random(2))
    classic: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    native: dict[str, dict[int, int]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def more(self) -> None:
        for number, host in enumerate(HOSTS):
            for handler in ("/", "/cart"):
                counts = self.classic.setdefault((host, handler), [0] * len(BOUNDS))
                for _ in range(20):
                    took = self.draw.lognormvariate(-3 + number / 10, 1)
                    for place, bound in enumerate(BOUNDS):
                        counts[place] += took <= bound
                    index = math.ceil(math.log2(took) * 8)
                    own = self.native.setdefault(host, {})
                    own[index] = own.get(index, 0) + 1

    def text(self) -> bytes:
        with self.lock:
            self.more()
            lines = ["# TYPE wait histogram"]
            for (host, handler), counts in self.classic.items():
                for bound, count in zip(BOUNDS, counts, strict=True):
                    if not (host == "web-7" and handler == "/cart" and bound == 0.05):  # another layout
                        le = "+Inf" if bound == math.inf else repr(bound)
                        lines.append(f'wait_bucket{{instance="{host}:9100",handler="{handler}",le="{le}"}} {count}')
            lines.append('wait_bucket{instance="elsewhere:9100",handler="/",le="+Inf"} 5')
        return "\n".join([*lines, ""]).encode()

    def protobuf(self) -> bytes:
        with self.lock:
            self.more()
            series = [
                NativeSeries(labels={"instance": f"{host}:9100"}, positive=dict(counts))
                for host, counts in self.native.items()
            ]
        return native_page("wait", series)


@pytest.fixture(scope="module")
def server() -> Iterator[Prometheus]:
    requests = Requests()
    with exporter() as text, exporter() as protobuf:
        text.body, text.content_type = requests.text, TEXT
        protobuf.body, protobuf.content_type = requests.protobuf, CONTENT_TYPE
        addresses = [web.url.split("/")[2] for web in (text, protobuf)]
        with prometheus({"own": addresses}, scrape_every="500ms", features=["native-histograms"]) as running:
            running.wait_for("wait_bucket offset 8s", 600)
            running.wait_for("wait offset 8s", 30)
            yield running


def read(
    server: Prometheus, selector: str, question: HistogramQuestion, *, by: str = "instance", last: int = 0
) -> StretchRead:
    query = CentralQuery(
        metric="p99",
        promql=increase_of(selector, by=by, seconds=WINDOW),
        host=HostOfSeries(by=by),
        step_seconds=1.0,
        settle_seconds=0.0,
        every_seconds=10.0,
        fresh_seconds=2.5,
        histogram=question,
    )
    last = last or math.floor(time.time() - 1)
    stretch = Stretch(query=query, first=last - 1, last=last, hosts=tuple(HOSTS) if by else ("web-3",))
    found = read_stretch(MetricsClient(MetricsServer.model_validate({"url": server.url})), stretch, HOSTS)
    assert found.failure is None
    return found


@pytest.mark.parametrize("quantile", [0.001, 0.1, 0.5, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("selector", ["wait_bucket", 'wait_bucket{handler="/"}', "wait"])
def test_a_quantile_is_that_of_histogram_quantile_on_the_same_buckets(
    server: Prometheus, selector: str, quantile: float
) -> None:
    found = read(server, selector, HistogramQuestion(quantile=quantile))
    assert len(found.asked) == 1, "one request for all hosts"
    each = "instance, le" if "bucket" in selector else "instance"
    promql = f"histogram_quantile({quantile!r}, sum by ({each}) (increase({selector}[{WINDOW:g}s])))"
    compared = 0
    for step in (found.stretch.first, found.stretch.last):
        for one in server.ask(promql, at=float(step)):
            host = one["metric"]["instance"].removesuffix(":9100")  # type: ignore[index]
            points = found.points.get(host)
            if points is None:
                assert host == "elsewhere" or (host == "web-7" and selector == "wait_bucket")
                continue
            (place,) = (place for place, at in enumerate(points.steps) if at == step)
            assert points.values[place] == pytest.approx(float(one["value"][1]), rel=1e-9, abs=1e-9)  # type: ignore[index]
            assert points.histogram is not None
            assert points.histogram.at_least[place] <= points.values[place]
            compared += 1
    assert compared >= 2 * 29
    assert found.strangers == (() if selector == "wait" else ("elsewhere:9100",))


def test_a_native_share_is_that_of_histogram_fraction(server: Prometheus) -> None:
    found = read(server, "wait", HistogramQuestion(share_below=0.1))
    promql = f"histogram_fraction(-Inf, 0.1, sum by (instance) (increase(wait[{WINDOW:g}s])))"
    asked = server.ask(promql, at=float(found.stretch.last))
    assert len(asked) == 30
    for one in asked:
        host = one["metric"]["instance"].removesuffix(":9100")  # type: ignore[index]
        assert found.points[host].values[-1] == pytest.approx(float(one["value"][1]), abs=1e-9)  # type: ignore[index]


def test_a_classic_share_at_a_bound_is_the_share_of_its_bucket_and_exact(server: Prometheus) -> None:
    found = read(server, "wait_bucket", HistogramQuestion(share_below=0.25))
    rise = f"sum by (instance) (increase(wait_bucket{{le='LE'}}[{WINDOW:g}s]))"
    asked = server.ask(f"{rise.replace('LE', '0.25')} / {rise.replace('LE', '+Inf')}", at=float(found.stretch.last))
    for one in asked:
        host = one["metric"]["instance"].removesuffix(":9100")  # type: ignore[index]
        if host != "web-7":
            points = found.points[host]
            assert points.values[-1] == pytest.approx(float(one["value"][1]), abs=1e-9)  # type: ignore[index]
            assert points.histogram is not None
            assert points.histogram.at_least[-1] == points.histogram.at_most[-1]


def test_series_with_unlike_buckets_are_not_added_up(server: Prometheus) -> None:
    found = read(server, "wait_bucket", HistogramQuestion(quantile=0.9))
    assert found.ambiguous == {"web-7"}
    alone = read(server, 'wait_bucket{handler="/cart"}', HistogramQuestion(quantile=0.9))
    assert alone.ambiguous == frozenset()
    assert alone.points["web-7"].histogram is not None
    assert alone.points["web-7"].histogram.buckets == len(BOUNDS) - 1


def test_one_host_alone_is_asked_for_by_its_name(server: Prometheus) -> None:
    whole = read(server, "wait_bucket", HistogramQuestion(quantile=0.9))
    alone = read(
        server, 'wait_bucket{instance="{host}:9100"}', HistogramQuestion(quantile=0.9), by="", last=whole.stretch.last
    )
    same = set(whole.points["web-3"].steps) & set(alone.points["web-3"].steps)
    assert same
    for step in same:
        values = {
            float(one.points["web-3"].values[list(one.points["web-3"].steps).index(step)]) for one in (whole, alone)
        }
        assert max(values) == pytest.approx(min(values), rel=1e-9)
