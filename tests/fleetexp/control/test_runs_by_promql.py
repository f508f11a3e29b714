"""Whole runs whose metrics a real Prometheus keeps: it scrapes a page of the host's, and only the orchestrator asks."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner

from analysis.report import render_markdown
from analysis.report.instants import instant
from fleetexp.cli.main import cli
from fleetexp.control import central_readings
from fleetexp.control.progress import Progress, RunOutcome
from fleetexp.domain import CentralGap, CentralOutcome, EventKind, PeriodKind, PeriodState, RunRequest, RunState
from fleetexp.exit_codes import ExitCode
from fleetexp.reporting import report_content
from fleetexp.store.records import CentralValue
from tests.fleetexp.control.conftest import holds
from tests.prometheus_server import Gate, Prometheus, exporter, prometheus, proxy

Bench = Any  # conftest.py

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

STEP = 0.5
SPEC = """\
name: by-promql
design: switchback
control: small
arms:
  small: {{thp/2048kB/enabled: never}}
  big: {{thp/2048kB/enabled: always}}
assignment: {{seed: 3}}
periods: {{washout: 100ms, measure: {measure}, blocks: {blocks}, sample_every: 200ms}}
metrics:
  primary: latency
  secondary: [asked_latency, requests]
  guardrails: {guardrails}
  server: {{url: "{server}", timeout: 3s{shown}}}
  sources:
    latency: {{promql: "latency_seconds{{job='own'}}", by: instance, unit: seconds, {times}}}
    p90: {{promql: "wait_seconds_bucket", by: instance, quantile: 0.9, unit: seconds, {times}}}
    requests: {{promql: 'rate(requests_total{{instance="{{host}}:9100"}}[2s])', unit: requests per second, {times}}}
    asked_latency:
      prometheus: "{page}"
      name: latency_seconds
      labels: {{instance: "{host}:9100"}}
      unit: seconds
      timeout: 1s
      every: 200ms
  better: {{latency: decrease}}
safety: {{lease: 20s, max_failed_hosts: 1}}
"""


@dataclass
class Service:
    """The host's own page: latency by the page size that holds now, and a counter that rises faster under big pages."""

    bench: Bench
    host: str
    total: float = 0.0
    quick: float = 0.0  # of them, those that waited no longer than 0.25 s; none waited longer than 1 s
    at: float = 0.0
    lock: Any = None

    def page(self) -> bytes:
        with self.lock:
            big = holds(self.bench.root) == "always"
            now = time.monotonic()
            came = (200 if big else 100) * (now - (self.at or now))
            self.total, self.quick = self.total + came, self.quick + came * (0.75 if big else 0.25)
            self.at = now
            labels = f'instance="{self.host}:9100"'
            return (
                f"# TYPE latency_seconds gauge\nlatency_seconds{{{labels}}} {0.01 if big else 0.02}\n"
                f'latency_seconds{{instance="stranger:9100"}} 9\n'
                f"# TYPE requests_total counter\nrequests_total{{{labels}}} {self.total}\n"
                "# TYPE wait_seconds histogram\n"
                f'wait_seconds_bucket{{{labels},le="0.25"}} {self.quick}\n'
                f'wait_seconds_bucket{{{labels},le="1"}} {self.total}\n'
                f'wait_seconds_bucket{{{labels},le="+Inf"}} {self.total}\n'
            ).encode()


@dataclass
class Scene:
    bench: Bench
    server: Prometheus
    gate: Gate
    page: str

    def text(
        self, *, blocks: int = 2, measure: str = "5s", guardrails: str = "[]", times: str = "", shown: str = ""
    ) -> str:
        return SPEC.format(
            blocks=blocks,
            measure=measure,
            guardrails=guardrails,
            shown=shown,
            server=self.gate.url,
            page=self.page,
            host=platform.node(),
            times=times or "step: 500ms, settle: 1s, every: 1s, fresh: 1200ms",
        )

    def run(self, **what: Any) -> RunOutcome:  # noqa: ANN401 - as `text` takes them
        return self.bench.launch(self.text(**what))

    def values(self, metric: str) -> list[CentralValue]:
        with self.bench.store() as store:
            return [one for one in store.central_values(1) if one.metric == metric]


@pytest.fixture
def scene(bench: Bench) -> Iterator[Scene]:
    service = Service(bench=bench, host=platform.node(), lock=threading.Lock())
    with exporter() as web:
        web.body = service.page
        with prometheus({"own": [web.url.split("/")[2]]}, scrape_every="500ms") as server, proxy(server) as gate:
            server.wait_for("latency_seconds offset 3s", 2)
            yield Scene(bench=bench, server=server, gate=gate, page=web.url + "?agents")


def test_the_values_equal_those_of_the_page_itself(scene: Scene) -> None:
    outcome = scene.run()
    assert outcome.state is RunState.COMPLETED, outcome.reason
    with scene.bench.store() as store:
        rows = store.observations(1, ["latency", "asked_latency", "requests"])
        means = rows[rows["kind"] == "measure"].pivot(index="period_id", columns="metric", values="mean")
        arms = rows.drop_duplicates("period_id").set_index("period_id")["arm"]
        assert len(means) == 4
        assert not means.isna().any().any()
        for period_id, row in means.iterrows():
            # One scrape interval of five seconds may still show the setting of before.
            assert row["latency"] == pytest.approx(row["asked_latency"], abs=0.01 * 0.5 / 5 * 2)
            expected = 200 if arms[period_id] == "big" else 100
            assert row["requests"] == pytest.approx(expected, rel=0.1)
        requests = store.central_requests(1)
        assert {one.outcome for one in requests} == {CentralOutcome.ANSWERED}
        assert all(one.sha256 and len(one.sha256) == 64 for one in requests if one.metric)
        told = [event for event in store.events(1) if event.kind is EventKind.CENTRAL_CLOCK]
        assert [event.host for event in told] == [""], "one clock: the host's is not another than the server's"
        clock = [one for one in requests if not one.metric]
        assert abs(clock[0].ahead_seconds or 0.0) <= (clock[0].ahead_error_seconds or 0.0) + 0.01
        headline = {e.metric: e for e in store.findings(1).estimates if e.headline}
        assert headline["latency"].lift == pytest.approx(-0.5, abs=0.05)
        page = report_content(store, 1)
        assert {row.promql for row in page.central if row.metric == "latency"} == {
            "last_over_time(latency_seconds{job='own'}[1200ms])"
        }
        told = render_markdown(page)
        assert "What the metrics' server was asked" in told
        assert page.central[0].sha256 in told
    assert {one.gap for one in scene.values("latency")} == {CentralGap.NONE}
    assert all(one.read == one.due for one in scene.values("latency"))


def test_the_quantile_of_a_histogram_is_that_of_the_server_over_the_period(scene: Scene) -> None:
    assert scene.run().state is RunState.COMPLETED
    with scene.bench.store() as store:
        rows = store.observations(1, ["p90", "p90_at_least", "p90_at_most"])
        rows = rows[rows["kind"] == "measure"]
        found = rows.pivot(index="period_id", columns="metric", values="mean")
        arms = rows.drop_duplicates("period_id").set_index("period_id")["arm"]
        assert len(found) == 4
        assert set(found["p90_at_least"]) == {0.25}
        assert set(found["p90_at_most"]) == {1.0}
        for period_id, row in found.iterrows():
            slow = 0.25 if arms[period_id] == "big" else 0.75  # their share; p90 is within them
            assert row["p90"] == pytest.approx(1 - 0.75 * 0.1 / slow, abs=0.05)
        sent = next(one for one in store.central_requests(1) if one.metric == "p90")
        rise = sent.promql.partition(" or ")[0]
        (window,) = {float(text) / 1000 for text in re.findall(r"\[([0-9]+)ms\]", rise)}
        for one in store.periods(1):
            if one.period_id in found.index and one.started_at and one.ended_at:
                first = math.ceil((one.started_at.timestamp() + window) / STEP)
                last = math.floor(one.ended_at.timestamp() / STEP)
                asked = [
                    float(scene.server.ask(f"histogram_quantile(0.9, {rise})", at=at * STEP)[0]["value"][1])  # type: ignore[index]
                    for at in range(first, last + 1)
                ]
                assert found["p90"][one.period_id] == pytest.approx(sum(asked) / len(asked), rel=1e-9)
        headline = {e.metric: e for e in store.findings(1).estimates if e.headline}["p90"]
        wide = "known to within its bucket, on average 750 ms wide; under both arms it never left one bucket"
        assert wide in headline.warnings
        page = report_content(store, 1)
        assert {(row.metric, row.arm, row.low, row.high, row.width, row.without_end) for row in page.buckets} == {
            ("p90", arm, 0.25, 1.0, 0.75, 0) for arm in ("small", "big")
        }
        assert "What a histogram can tell" in render_markdown(page)


def test_plan_tries_each_query_and_names_the_hosts_without_values(scene: Scene) -> None:
    text = scene.text().replace("latency_seconds{job='own'}", "latency_seconds{instance=~'stranger.*'}")
    path = scene.bench.folder / "spec.yaml"
    path.write_text(text)
    asked = len(scene.gate.passed)
    words = ["plan", str(path), "--fleet", "inline", "--root", str(scene.bench.root.root), "--store", scene.bench.url]
    shown = CliRunner().invoke(cli, [*words, "--json"])
    assert len(scene.gate.passed) == asked + 3, "one request a query"
    found = {one["metric"]: one for one in json.loads(shown.stdout)["central"]}
    assert found["requests"]["matched"] == [platform.node()]
    lies = f"the quantile 0.9 lies between 0.25 and 1 (3 buckets, {platform.node()})"
    assert found["p90"]["buckets"] == lies
    assert found["latency"]["unmatched"] == [platform.node()]
    assert found["latency"]["strangers"] == ["stranger:9100"]
    assert shown.exit_code == ExitCode.ERROR, "the primary metric has no value"
    screen = " ".join(CliRunner().invoke(cli, words).output.split())
    assert "latency: 0 of 1 hosts have values in the last minutes" in screen
    assert "no host of the plan: stranger:9100" in screen
    scene.gate.warnings = ["store b: unavailable"]
    partial = " ".join(CliRunner().invoke(cli, words).output.split())
    assert "the server warns: store b: unavailable" in partial
    scene.gate.headers = {"X-Scope-OrgID": "web"}
    refused = CliRunner().invoke(cli, words)
    assert refused.exit_code == ExitCode.ERROR
    assert "(unauthorised): HTTP 401 Unauthorized: no org id" in " ".join(refused.output.split())


def test_a_server_that_is_away_for_half_a_minute_costs_its_periods_and_no_more(scene: Scene) -> None:
    stopped: list[float] = []

    def stop_and_start(progress: Progress) -> None:
        if not stopped and progress.periods_done >= 4:
            stopped.append(time.time())
            scene.server.stop()
            threading.Timer(30.0, scene.server.start).start()

    scene.bench.when = stop_and_start
    outcome = scene.run(blocks=5)
    assert outcome.state is RunState.COMPLETED, outcome.reason
    back = stopped[0] + 30.0
    with scene.bench.store() as store:
        measured = [one for one in store.periods(1) if one.plan.kind is PeriodKind.MEASURE]
        assert {one.state.value for one in measured} == {"complete"}, "the run goes on"
        gaps = {one.period_id: one.gap for one in scene.values("latency")}
        within = [
            one.period_id
            for one in measured
            if one.started_at.timestamp() > stopped[0] and one.ended_at.timestamp() < back
        ]
        assert len(within) >= 3
        assert {gaps[number] for number in within} <= {CentralGap.NO_SERIES, CentralGap.TOO_FEW}
        whole = [
            one.period_id
            for one in measured
            if one.ended_at.timestamp() < stopped[0] - 1 or one.started_at.timestamp() > back + 10
        ]
        assert whole
        assert {gaps[number] for number in whole} == {CentralGap.NONE}
        rows = store.observations(1, ["latency", "asked_latency"])
        assert not set(rows.loc[rows["metric"] == "latency", "period_id"]) & set(within)
        headline = {e.metric: e for e in store.findings(1).estimates if e.headline}
        assert headline["latency"].lift == pytest.approx(-0.5, abs=0.06), "not led astray"
    assert scene.bench.events("central_away")
    assert scene.bench.events("central_back")
    assert any("no value" in one for one in scene.bench.events("central_missing"))


def test_a_run_that_is_refused_for_a_while_misses_nothing_and_keeps_no_secret(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEETEXP_SECRET_TEST", "s3cret-t0ken")
    known = {"Authorization": "Bearer s3cret-t0ken", "X-Scope-OrgID": "web"}
    scene.gate.headers = known

    def refuse_for_a_while(progress: Progress) -> None:
        if scene.gate.headers is known and progress.periods_done >= 3:
            scene.gate.headers = {"X-Scope-OrgID": "another"}
            threading.Timer(8.0, setattr, (scene.gate, "headers", {**known})).start()

    scene.bench.when = refuse_for_a_while
    outcome = scene.run(shown=", headers: {X-Scope-OrgID: web}, bearer: 'env:FLEETEXP_SECRET_TEST'")
    assert outcome.state is RunState.COMPLETED, outcome.reason
    assert any("unauthorised: HTTP 401" in one for one in scene.bench.events("central_away"))
    assert scene.bench.events("central_back")
    assert {one.gap for one in scene.values("latency")} == {CentralGap.NONE}, "the server has it still"
    with scene.bench.store() as store:
        assert CentralOutcome.UNAUTHORISED in {one.outcome for one in store.central_requests(1)}
        assert "X-Scope-OrgID" in store.run(1).spec_text
        assert "s3cret-t0ken" not in render_markdown(report_content(store, 1))
    for path in scene.bench.folder.rglob("*"):
        assert not path.is_file() or b"s3cret-t0ken" not in path.read_bytes(), path


def test_what_the_server_says_of_its_answers_and_how_far_its_clock_is_off_is_told(scene: Scene) -> None:
    scene.gate.warnings, scene.gate.ahead_seconds = ["store b: unavailable"], 7.0
    assert scene.run(blocks=1).state is RunState.COMPLETED
    told = scene.bench.events("central_warning")
    assert told == ["store b: unavailable"] * 3, "once a metric"
    clocks = scene.bench.events("central_clock")
    assert any("s ahead of ours" in one and "more than half a step" in one for one in clocks)
    assert any("behind the metrics' server's: set both by one time server" in one for one in clocks), "the host's"
    with scene.bench.store() as store:
        asked = store.central_requests(1)
        (clock,) = [one for one in asked if not one.metric]
        assert clock.ahead_seconds == pytest.approx(7.0, abs=(clock.ahead_error_seconds or 0.0) + 0.01)
        page = report_content(store, 1)
        kept = {hashlib.sha256(body).hexdigest() for body in scene.gate.answers}
        assert {one.sha256 for one in asked if one.metric} <= kept, "of the answer as it came"
        sent = {
            (form["query"], float(form.get("start", 0)), float(form.get("end", 0))) for _, form in scene.gate.passed
        }
        assert {(row.promql, row.start_at.timestamp(), row.end_at.timestamp()) for row in page.central} <= sent
        shown = render_markdown(page)
    assert "store b: unavailable" in shown
    for row in page.central:
        assert row.sha256 in shown
        assert instant(row.start_at) in shown
        assert instant(row.end_at) in shown


def test_a_server_that_never_answers_does_not_keep_the_run(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(central_readings, "WAIT_SECONDS", 1.0)
    scene.bench.when = lambda _: scene.server.stop()
    outcome = scene.run(blocks=1, measure="2500ms", times="step: 200ms, settle: 0s, every: 1s")
    assert outcome.state is RunState.COMPLETED
    assert {one.gap for one in scene.values("latency")} == {CentralGap.NO_ANSWER}


def test_a_tripwire_acts_on_a_value_of_the_server_under_the_arm_it_was_read_under(scene: Scene) -> None:
    outcome = scene.run(guardrails="[{metric: requests, worse: increase, tripwire: 150}]")
    assert outcome.state is RunState.HALTED
    assert "reached the tripwire 150" in outcome.reason
    with scene.bench.store() as store:
        assert {one.arm for one in store.crossings(1)} == {"big"}


def test_what_a_paused_run_has_not_read_is_read_when_it_goes_on_however_late(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(central_readings, "GIVE_UP_SECONDS", 12.0)

    def pause(progress: Progress) -> None:
        if progress.periods_done >= 3:
            with scene.bench.store() as store:
                store.request(progress.run_id, RunRequest.PAUSE, "a test")
            scene.bench.when = lambda _: None

    scene.bench.when = pause
    scene.server.wait_for("latency_seconds offset 12s", 2)
    # So late that nothing of the first periods has settled when it pauses.
    assert scene.run(measure="2500ms", times="step: 500ms, settle: 10s, every: 5s").state is RunState.PAUSED
    assert scene.values("latency") == []
    scene.bench.when = lambda _: None
    time.sleep(22.0)  # settled, and given up if it had been asked for meanwhile
    assert scene.bench.resume().state is RunState.COMPLETED
    with scene.bench.store() as store:
        complete = {
            one.period_id
            for one in store.periods(1)
            if one.plan.kind is PeriodKind.MEASURE and one.state is PeriodState.COMPLETE
        }
        assert complete <= set(store.observations(1, ["latency"])["period_id"])
        assert {one.period_id for one in scene.values("latency") if one.gap is CentralGap.NONE} >= complete
