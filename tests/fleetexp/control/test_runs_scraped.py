"""Whole runs whose metrics come from a service's own pages: scraped for real, over loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from fleetexp.control.progress import Progress, RunOutcome
from fleetexp.domain import RunState
from fleetexp.exit_codes import ExitCode
from fleetexp.experiment import analysis_plan, parse_experiment
from fleetexp.reporting import report_content
from tests.fleetexp.control.conftest import holds
from tests.web_server import Web, serving

Bench = Any  # conftest.py

pytestmark = pytest.mark.slow

SPEC = """\
name: scraped
design: switchback
control: small
arms:
  small: {{thp/2048kB/enabled: never}}
  big: {{thp/2048kB/enabled: always}}
assignment: {{seed: 3}}
periods: {{washout: 100ms, measure: 1s, blocks: {blocks}, sample_every: 100ms}}
metrics:
  primary: requests
  secondary: [latency]
  guardrails: {guardrails}
  sources:
    requests: {{prometheus: "{url}", name: http_requests_total, labels: {{job: web}}, unit: requests, timeout: 1s}}
    latency: {{json: "{url}?json", path: "p99.seconds", unit: seconds, timeout: 1s}}
  better: {{requests: increase, latency: decrease}}
safety: {{lease: 5s, max_failed_hosts: 1}}
"""


HISTOGRAM = """\
    p50: {{prometheus: "{url}", histogram: wait_seconds, quantile: 0.5, unit: seconds, timeout: 1s}}
    fast: {{prometheus: "{url}", histogram: wait_seconds, share_below: 0.25, timeout: 1s}}
  better: """


class Service:
    """Counts 200 requests a second under big pages and 100 under small ones, and says so on its pages.

    Under big pages three in four wait no longer than 0.25 s, under small ones one in four; the others up to 1 s.
    """

    def __init__(self, bench: Bench, web: Web) -> None:
        self._bench = bench
        self._lock = threading.Lock()
        self._total, self._quick, self._at = 1e6, 1e5, time.monotonic()
        self.url = web.url
        web.behave = self._answer
        self.gone = False
        self.silent = ""  # pages with this in their address are not answered

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        if self.gone or (self.silent and self.silent in handler.path):
            return
        with self._lock:
            big = holds(self._bench.root) == "always"
            now = time.monotonic()
            came = (200 if big else 100) * (now - self._at)
            self._total, self._quick = self._total + came, self._quick + came * (0.75 if big else 0.25)
            self._at = now
            page = (
                b'{"p99": {"seconds": %f}}' % (0.01 if big else 0.02)
                if "json" in handler.path
                else b'# TYPE http_requests_total counter\nhttp_requests_total{job="web"} %f\n'
                b'http_requests_total{job="other"} 5\n# TYPE wait_seconds histogram\n'
                b'wait_seconds_bucket{le="0.25"} %f\nwait_seconds_bucket{le="1"} %f\n'
                b'wait_seconds_bucket{le="+Inf"} %f\n' % (self._total, self._quick, self._total, self._total)
            )
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + page)


@pytest.fixture
def service(bench: Bench) -> Iterator[Service]:
    with serving() as web:
        yield Service(bench, web)


def run(bench: Bench, url: str, *, blocks: int = 2, guardrails: str = "[]", spec: str = SPEC) -> RunOutcome:
    return bench.launch(spec.format(url=url, blocks=blocks, guardrails=guardrails))


def test_a_scraped_counter_is_compared_as_a_rate(bench: Bench, service: Service) -> None:
    outcome = run(bench, service.url, blocks=3)
    assert (outcome.state, outcome.exit_code) == (RunState.COMPLETED, ExitCode.DONE)
    with bench.store() as store:
        headlines = {e.metric: e for e in store.findings(1).estimates if e.headline}
        requests, latency = headlines["requests"], headlines["latency"]
        assert requests.control_mean == pytest.approx(100, rel=0.1)
        assert requests.treatment_mean == pytest.approx(200, rel=0.1)
        assert (latency.control_mean, latency.treatment_mean) == pytest.approx((0.02, 0.01))
        plan = analysis_plan(parse_experiment(store.run(1).spec_text))
        assert {m.name: m.unit for m in plan.metrics if m.name in {"requests", "latency"}} == {
            "requests": "requests per second",
            "latency": "seconds",
        }
    assert bench.events("source_lost") == []


def test_the_quantile_of_a_scraped_histogram_is_that_of_each_period(bench: Bench, service: Service) -> None:
    spec = SPEC.replace("  better: ", HISTOGRAM).replace("measure: 1s", "measure: 6s")
    assert run(bench, service.url, spec=spec).state is RunState.COMPLETED
    with bench.store() as store:
        names = [f"{metric}{ending}" for metric in ("p50", "fast") for ending in ("", "_at_least", "_at_most")]
        rows = store.observations(1, names)
        rows = rows[rows["kind"] == "measure"]
        found = rows.pivot(index="period_id", columns="metric", values="mean")
        arms = rows.drop_duplicates("period_id").set_index("period_id")["arm"]
        big, small = found[arms == "big"], found[arms == "small"]
        assert len(big) == len(small) == 2
        assert big["fast"].to_list() == pytest.approx([0.75] * len(big), abs=0.1)
        assert small["fast"].to_list() == pytest.approx([0.25] * len(small), abs=0.1)
        assert (found["fast_at_least"] == found["fast_at_most"]).all(), "0.25 is a bucket's bound"
        assert big["p50"].to_list() == pytest.approx([0.25 * 0.5 / 0.75] * len(big), abs=0.03)
        assert small["p50"].to_list() == pytest.approx([0.25 + 0.75 * 0.25 / 0.75] * len(small), abs=0.1)
        assert set(big["p50_at_least"]) == {0.0}
        assert set(small["p50_at_most"]) == {1.0}


def test_a_service_that_goes_away_leaves_gaps_and_no_zeros(bench: Bench, service: Service) -> None:
    def go(progress: Progress) -> None:
        if "measuring" in progress.current and progress.periods_done >= 5:
            service.gone = True

    bench.when = go
    outcome = run(bench, service.url)
    assert outcome.state is RunState.COMPLETED
    with bench.store() as store:
        rows = store.observations(1, ["requests", "latency"])
        assert set(rows["mean"] > 0.001) == {True}  # nothing fell to 0
        last = [p.period_id for p in store.periods(1) if p.plan.kind.value == "measure"][-1]
        assert last not in set(rows["period_id"])
    lost = bench.events("source_lost")
    assert lost
    assert len([one for one in lost if one.startswith("requests")]) <= 3  # once a period
    assert all("closed without an answer" in one for one in lost)


def test_the_report_says_why_a_source_gave_no_value(bench: Bench, service: Service) -> None:
    service.silent = "json"
    assert run(bench, service.url).state is RunState.COMPLETED
    with bench.store() as store:
        reasons = {one.metric: one.reason for one in report_content(store, 1).unavailable}
    assert "closed without an answer" in reasons["latency"]
    assert "?json" in reasons["latency"]
    assert "requests" not in reasons


def test_a_primary_metric_that_can_not_be_read_keeps_the_run_from_starting(bench: Bench) -> None:
    outcome = run(bench, "http://127.0.0.1:1/metrics")
    assert (outcome.state, outcome.exit_code) == (RunState.FAILED, ExitCode.ERROR)
    assert "requests can't be read from http://127.0.0.1:1/metrics: connection refused" in outcome.reason
    assert len(bench.events("preflight_warning")) >= 1  # latency: only secondary


def test_a_tripwire_on_a_scraped_counter_counts_from_the_first_reading(bench: Bench, service: Service) -> None:
    guardrail = "[{metric: requests, worse: increase, tripwire: 150}]"
    outcome = run(bench, service.url, guardrails=guardrail)
    assert (outcome.state, outcome.exit_code) == (RunState.HALTED, ExitCode.HALTED)
    assert "requests" in outcome.reason
    assert "reached the tripwire 150" in outcome.reason
