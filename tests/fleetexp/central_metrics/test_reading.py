"""Stretches of time read from a real Prometheus for a thousand hosts, each by its label."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest
import urllib3

from fleetexp.central_metrics.client import MetricsClient
from fleetexp.central_metrics.reading import Stretch, read_stretch
from fleetexp.domain import CentralOutcome
from fleetexp.experiment.central import CentralQuery, HostOfSeries, MetricsServer
from tests.prometheus_server import Gate, Prometheus, exporter, prometheus, proxy

pytestmark = pytest.mark.slow

HOSTS = {f"web-{number}": {"ip": f"10.0.{number // 250}.{number % 250}"} for number in range(1000)}
QUERY = CentralQuery(
    metric="queue",
    promql="queue",
    host=HostOfSeries(by="instance"),
    step_seconds=1.0,
    settle_seconds=0.0,
    every_seconds=10.0,
    fresh_seconds=2.5,
)


def _server(page: str) -> AbstractContextManager[Prometheus]:
    return prometheus({"own": [page.split("/")[2]]}, options=["--web.enable-admin-api"])


@pytest.fixture(scope="module")
def server() -> Iterator[Prometheus]:
    page = "".join(
        f'queue{{instance="{host}:9100",ip="{labels["ip"]}"}} {number}\n'
        for number, (host, labels) in enumerate(HOSTS.items())
    )
    page += 'queue{instance="elsewhere:9100"} 1\ngone{instance="web-1:9100"} 1\n' + "".join(
        f'twice{{instance="web-1:9100",disk="{disk}"}} 1\n' for disk in "ab"
    )
    with exporter(page) as web, _server(web.url) as running:
        running.wait_for("queue offset 3s", 1001)
        yield running


@pytest.fixture
def gate(server: Prometheus) -> Iterator[Gate]:
    with proxy(server) as before:
        yield before


def last_seconds(query: CentralQuery, seconds: int = 3, *, ago: float = 0.0) -> Stretch:
    last = math.floor(time.time() - ago)
    return Stretch(query=query, first=last - seconds + 1, last=last, hosts=tuple(HOSTS))


def client(gate: Gate) -> MetricsClient:
    return MetricsClient(MetricsServer.model_validate({"url": gate.url}))


@pytest.mark.parametrize(
    "host",
    [
        HostOfSeries(by="instance"),
        HostOfSeries(by="instance", pattern="(web-[0-9]+):[0-9]+"),
        HostOfSeries(by="ip", strip_port=False, host_label="ip"),
    ],
    ids=["port", "pattern", "inventory"],
)
def test_a_thousand_hosts_are_read_with_one_request(gate: Gate, host: HostOfSeries) -> None:
    read = read_stretch(client(gate), last_seconds(replace(QUERY, host=host)), HOSTS)
    assert len(gate.passed) == 1
    assert len(read.points) == 1000
    assert {read.points[f"web-{number}"].values[0] for number in range(1000)} == set(map(float, range(1000)))
    assert len(read.strangers) == 1
    assert not read.ambiguous


def test_a_query_with_a_host_in_it_is_asked_host_by_host(gate: Gate) -> None:
    query = replace(QUERY, promql='queue{instance="{host}:9100"}', host=HostOfSeries(by=""))
    read = read_stretch(client(gate), replace(last_seconds(query), hosts=("web-7", "web-8", "gone")), HOSTS)
    assert len(gate.passed) == 3
    assert [read.points[host].values[-1] for host in ("web-7", "web-8")] == [7.0, 8.0]
    assert "gone" not in read.points


def test_two_series_of_a_host_are_no_value(gate: Gate) -> None:
    read = read_stretch(client(gate), last_seconds(replace(QUERY, promql="twice")), HOSTS)
    assert read.ambiguous == {"web-1"}
    assert read.points == {}


def test_what_the_server_no_longer_keeps_is_missing(gate: Gate) -> None:
    read = read_stretch(client(gate), last_seconds(QUERY, ago=3600.0), HOSTS)
    assert read.failure is None
    assert read.points == {}


def test_a_gap_in_what_the_server_keeps_is_a_gap_and_no_more(server: Prometheus, gate: Gate) -> None:
    server.wait_for("gone offset 13s")
    now = math.floor(time.time())
    lost = f"match[]=gone&start={now - 8}&end={now - 3}"
    assert urllib3.request("POST", f"{server.url}/api/v1/admin/tsdb/delete_series?{lost}").status == 204
    stretch = Stretch(query=replace(QUERY, promql="gone"), first=now - 10, last=now - 1, hosts=tuple(HOSTS))
    steps = set(read_stretch(client(gate), stretch, HOSTS).points["web-1"].steps - now)
    assert not steps & {-5, -4, -3}, "none is younger than two and a half seconds"
    assert {-10, -9, -1} <= steps


def test_samples_that_have_ended_are_not_held_on(gate: Gate) -> None:
    ahead = last_seconds(QUERY, ago=-30.0)
    assert read_stretch(client(gate), ahead, HOSTS).points == {}


def test_a_tenant_that_is_refused_is_a_failure_with_its_kind(gate: Gate) -> None:
    gate.headers = {"X-Scope-OrgID": "web"}
    read = read_stretch(client(gate), last_seconds(QUERY), HOSTS)
    assert read.failure is not None
    assert read.failure.outcome is CentralOutcome.UNAUTHORISED
    assert read.points == {}
