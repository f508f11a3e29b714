"""The queries that docs/SOURCES.md prints give each host one finite series, of a real Prometheus."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fleetexp.central_metrics.client import MetricsClient
from fleetexp.experiment.central import MetricsServer, lookback_seconds
from tests.free_port import free_port
from tests.prometheus_server import Prometheus, exporter, prometheus

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[3] / "docs/SOURCES.md").read_text()
QUERIES = re.findall(r"```promql\n(.*?)\n```", PAGE, re.DOTALL)
BEGAN = time.monotonic()


def _service() -> bytes:
    """A service of two hosts that answers a hundred requests a second, half of them within 100 ms."""
    count = 100 * (time.monotonic() - BEGAN)
    lines = []
    for host in ("a", "b"):
        own = f'instance="{host}:8080"'
        lines += [
            f'http_requests_total{{{own},code="200"}} {count}',
            *(
                f'http_request_duration_seconds_bucket{{{own},le="{le}"}} {count * share}'
                for le, share in (("0.1", 0.5), ("0.25", 0.9), ("1", 1.0), ("+Inf", 1.0))
            ),
            f"http_request_duration_seconds_count{{{own}}} {count}",
            f"http_request_duration_seconds_sum{{{own}}} {count * 0.12}",
        ]
    return ("\n".join(lines) + "\n").encode()


@pytest.fixture(scope="module")
def server() -> Iterator[Prometheus]:
    if shutil.which("prometheus-node-exporter") is None:
        pytest.skip("prometheus-node-exporter is not installed (Debian: apt-get install prometheus-node-exporter)")
    address = f"127.0.0.1:{free_port()}"
    node = subprocess.Popen(
        [
            "prometheus-node-exporter",
            f"--web.listen-address={address}",
            "--collector.disable-defaults",
            "--collector.cpu",
            "--collector.loadavg",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with exporter() as web:
            web.body = _service
            with prometheus({"web": [web.url.split("/")[2]], "node": [address]}) as running:
                running.wait_for("rate(node_cpu_seconds_total[1m]) > 0")
                running.wait_for("rate(http_requests_total[1m]) > 0", 2)
                yield running
    finally:
        node.terminate()
        node.wait(10)


def test_the_page_has_queries() -> None:
    assert len(QUERIES) >= 6


@pytest.mark.parametrize("promql", QUERIES)
def test_each_query_of_the_page_gives_one_series_a_host(server: Prometheus, promql: str) -> None:
    assert lookback_seconds(promql) == 60.0
    series = MetricsClient(MetricsServer.model_validate({"url": server.url})).query(promql).series
    hosts = [one.labels["instance"] for one in series]
    assert hosts
    assert len(set(hosts)) == len(hosts)
    assert all(np.isfinite(one.values).all() for one in series)
    if "duration" in promql:
        assert sorted(hosts) == ["a:8080", "b:8080"]
