"""The run's own metrics: fetched over HTTP while it runs, and read by the OpenMetrics parser."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from fleetexp.control.metrics_page import MetricsPage
from fleetexp.control.progress import Progress
from fleetexp.domain import RunState, UnitState
from fleetexp.errors import RunError

Bench = Any  # conftest.py
Labels = tuple[tuple[str, str], ...]

PROGRESS = Progress(
    run_id=7,
    state=RunState.RUNNING,
    planned_seconds=3600,
    elapsed_seconds=60,
    periods_done=3,
    periods_total=40,
    units={UnitState.MEASURING: 9, UnitState.LOST: 1},
    stage=1,
    stages=3,
    hosts_failed=1,
    readings_stored=1200,
    polls_answered=90,
    newest_reading_age_seconds=4,
    oldest_poll_seconds=2.5,
    store_outage_seconds=11,
    writes_waiting=5,
    guardrails={"memory_used_bytes": "pass", "oom_kills": "fail"},
)


def fetch(url: str) -> dict[str, dict[Labels, float]]:
    """Series name -> labels -> value, as the project's own OpenMetrics parser reads them."""
    asked = urllib.request.Request(url, headers={"Accept": "application/openmetrics-text; version=1.0.0"})  # noqa: S310
    with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310 - the page under test
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        text = answer.read().decode()
    out: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            out.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return out


@pytest.fixture
def page() -> Iterator[MetricsPage]:
    with MetricsPage("127.0.0.1", 0, clock=lambda: 100.0) as made:
        yield made


def test_everything_that_a_run_says_is_on_the_page(page: MetricsPage) -> None:
    page.show(PROGRESS)
    seen = fetch(page.url)
    run = ("run", "7")
    plain = {name: values[(run,)] for name, values in seen.items() if (run,) in values}
    assert plain == {
        "fleetexp_progress_age_seconds": 0,
        "fleetexp_run_elapsed_seconds": 60,
        "fleetexp_run_planned_seconds": 3600,
        "fleetexp_run_stage": 2,
        "fleetexp_run_stages": 3,
        "fleetexp_periods_done": 3,
        "fleetexp_periods_planned": 40,
        "fleetexp_hosts_failed": 1,
        "fleetexp_newest_reading_age_seconds": 4,
        "fleetexp_oldest_poll_age_seconds": 2.5,
        "fleetexp_store_outage_seconds": 11,
        "fleetexp_store_writes_waiting": 5,
        "fleetexp_readings_stored_total": 1200,
        "fleetexp_polls_answered_total": 90,
    }
    states = {dict(labels)["fleetexp_run_state"]: value for labels, value in seen["fleetexp_run_state"].items()}
    assert states == {state.value: float(state is RunState.RUNNING) for state in RunState}
    assert seen["fleetexp_hosts"][run, ("state", "measuring")] == 9
    assert seen["fleetexp_hosts"][run, ("state", "reverted")] == 0
    verdicts = {
        dict(labels)["guardrail"]: dict(labels)["fleetexp_guardrail_verdict"]
        for labels, value in seen["fleetexp_guardrail_verdict"].items()
        if value
    }
    assert verdicts == {"memory_used_bytes": "pass", "oom_kills": "fail"}


def test_what_is_not_known_is_left_out_and_never_0(page: MetricsPage) -> None:
    assert fetch(page.url) == {}
    page.show(Progress(run_id=7, state=RunState.PREFLIGHT, planned_seconds=1, elapsed_seconds=0))
    seen = fetch(page.url)
    assert "fleetexp_newest_reading_age_seconds" not in seen
    assert "fleetexp_guardrail_verdict" not in seen
    assert "fleetexp_run_state" in seen


def test_a_run_that_says_nothing_more_is_seen_to_age() -> None:
    at = [100.0]
    with MetricsPage("127.0.0.1", 0, clock=lambda: at[0]) as page:
        page.show(PROGRESS)
        at[0] = 130.0
        seen = fetch(page.url)
    assert seen["fleetexp_progress_age_seconds"][(("run", "7"),)] == 30
    assert seen["fleetexp_newest_reading_age_seconds"][(("run", "7"),)] == 34
    assert seen["fleetexp_oldest_poll_age_seconds"][(("run", "7"),)] == 32.5


def test_a_port_that_is_taken_is_an_error_with_the_remedy(page: MetricsPage) -> None:
    port = int(page.url.split(":")[2].split("/")[0])
    with pytest.raises(RunError, match="can't be served") as caught:
        MetricsPage("127.0.0.1", port)
    assert "--metrics-port" in caught.value.remedy


def test_the_page_of_a_real_run_follows_it(bench: Bench) -> None:
    seen: list[dict[str, dict[Labels, float]]] = []
    with MetricsPage("127.0.0.1", 0) as page:

        def tell(progress: Progress) -> None:
            page.show(progress)
            if progress.periods_done > len(seen) or progress.state.is_terminal:
                seen.append(fetch(page.url))

        bench.when = tell
        bench.run(blocks=2, guardrails="[{metric: oom_kills, tripwire: 5}]")
    run = (("run", "1"),)
    stored = [one["fleetexp_readings_stored_total"][run] for one in seen]
    assert stored == sorted(stored)
    with bench.store() as store:
        assert stored[-1] >= len(store.samples(1)) > 0
    first, last = seen[0], seen[-1]
    assert first["fleetexp_periods_done"][run] < last["fleetexp_periods_done"][run]
    assert last["fleetexp_periods_done"][run] == last["fleetexp_periods_planned"][run] > 0
    assert last["fleetexp_hosts"][("run", "1"), ("state", "reverted")] == 1
    assert last["fleetexp_run_state"][("fleetexp_run_state", "completed"), ("run", "1")] == 1
    assert last["fleetexp_guardrail_verdict"]
    assert last["fleetexp_newest_reading_age_seconds"][run] < 60
