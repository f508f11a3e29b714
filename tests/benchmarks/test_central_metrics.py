"""What reading all hosts' values from a metrics' server costs beside fetching and parsing the same answer barely."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import orjson
import pytest
import urllib3

from fleetexp.central_metrics.client import MetricsClient
from fleetexp.central_metrics.reading import Stretch, read_stretch
from fleetexp.experiment.central import CentralQuery, HostOfSeries, MetricsServer
from tests.prometheus_server import exporter, prometheus

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(300)]

STEPS = 20  # five minutes of a step of 15 s
QUERY = CentralQuery(
    metric="queue",
    promql="queue",
    host=HostOfSeries(by="instance"),
    step_seconds=0.05,
    settle_seconds=0.0,
    every_seconds=60.0,
    fresh_seconds=60.0,
)


def fastest(act: Callable[[], object], times: int = 5) -> float:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        took.append(time.perf_counter() - began)
    return min(took)


@pytest.mark.parametrize("count", [100, 1_000, 10_000])
def test_a_reading_takes_little_more_than_the_bare_answer(count: int) -> None:
    page = "".join(f'queue{{instance="web-{number}:9100"}} {number}\n' for number in range(count))
    labels: dict[str, dict[str, str]] = {f"web-{number}": {} for number in range(count)}
    with exporter(page) as web, prometheus({"own": [web.url.split("/")[2]]}, scrape_every="10s") as server:
        server.wait_for("queue", count, 60)
        last = math.floor(time.time() / QUERY.step_seconds) + STEPS
        stretch = Stretch(query=QUERY, first=last - STEPS + 1, last=last, hosts=tuple(labels))
        client = MetricsClient(MetricsServer.model_validate({"url": server.url}))
        pool = urllib3.PoolManager()
        start, end = stretch.seconds
        form = {"query": QUERY.asked(), "start": f"{start:.3f}", "end": f"{end:.3f}", "step": "0.050"}

        def bare() -> object:
            url, gzip = f"{server.url}/api/v1/query_range", {"Accept-Encoding": "gzip"}
            answer = pool.request("POST", url, fields=form, encode_multipart=False, headers=gzip)
            return orjson.loads(answer.data)

        read = read_stretch(client, stretch, labels)
        assert len(read.points) == count
        sent = client.requests
        ours, floor = fastest(lambda: read_stretch(client, stretch, labels), 3), fastest(bare, 3)
        size = read.asked[0].answer.size_bytes if read.asked[0].answer is not None else 0
        print(
            f"\n{count} series of {STEPS} instants, {size / 2**20:.1f} MiB: {ours * 1e3:.0f} ms in one request, "
            f"{ours / floor:.2f} times the bare answer ({floor * 1e3:.0f} ms)"
        )
        assert client.requests - sent == 3, "one request each, whatever the number of hosts"
        assert ours < 4 * floor + 0.1
