"""Looking back: what the analysis would have said then, from nothing that was read later, on both databases."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from click.testing import CliRunner

from agents.messages import Sample
from analysis import analyze
from analysis.aggregate import Summary
from analysis.plan import Direction, GuardrailPlan
from analysis.results import Estimate, Findings
from fleetexp.as_of import analysed_as_of
from fleetexp.cli.main import cli
from fleetexp.control.interim_analysis import (
    InterimAnalyst,
    Measured,
    analysis_at,
    information_fractions,
    planned_looks,
)
from fleetexp.control.messages import GuardrailsTested
from fleetexp.control.observations import observe
from fleetexp.domain import BrokenBy, EventKind, PeriodKind, PeriodRecord, PeriodState, Plan, RunState
from fleetexp.errors import RunError
from fleetexp.experiment import Experiment, analysis_plan, experiment_to_json, parse_experiment
from fleetexp.experiment.schedule import HostInfo, assigned_units, make_plan
from fleetexp.store.store import PeriodEnd, Store, open_store
from tests.fleetexp.store.single import end_period, start_period

pytestmark = pytest.mark.slow

SPEC = """
name: ramp
design: parallel
arms:
  control: {}
  treatment: {thp/enabled: always}
stages: [{hosts: 24, hold: 1h}, {share: 100%, hold: 1h}]
periods: {baseline: 10m, washout: 0s, sample_every: 1m}
metrics: {primary: memory_used_bytes}
assignment: {method: complete}
"""
HOSTS = 48
BEGAN = datetime(2026, 2, 2, 12, 0, tzinfo=UTC)
OPENED = BEGAN + timedelta(minutes=70)  # the second stage: the first has its baseline and an hour
OVER = OPENED + timedelta(minutes=60)
EVERY = timedelta(minutes=1)


def experiment() -> Experiment:
    return parse_experiment(SPEC)


def times(period: PeriodRecord) -> tuple[datetime, datetime]:
    if period.plan.kind is PeriodKind.BASELINE:
        return BEGAN, BEGAN + timedelta(minutes=10)
    return (BEGAN + timedelta(minutes=10) if period.plan.stage == 0 else OPENED), OVER


def simulate(store: Store, until: datetime) -> int:
    """Carry a run out up to an instant, at which whatever is under way ends. Later readings are far from earlier ones:
    one that slips in would be seen."""
    spec = experiment()
    plan = make_plan(spec, [HostInfo(name=f"web-{number:02}", labels={}) for number in range(HOSTS)])
    run_id = store.create_run(
        experiment_name="ramp",
        hypothesis="",
        spec_text=SPEC,
        spec_json=json.loads(experiment_to_json(spec)),
        plan=plan,
        launched_by="tester@here pid 1",
        versions={},
        fleet="simulated",
    )
    store.set_run_state(run_id, RunState.RUNNING)
    store.record_event(run_id, EventKind.STAGE_OPENED, stage=0, at=BEGAN)
    if until >= OPENED:
        store.record_event(run_id, EventKind.STAGE_OPENED, stage=1, at=OPENED)
    for period in store.periods(run_id):
        start, end = times(period)
        if start > until:
            continue
        end = min(end, until)
        start_period(store, period.period_id, start, "boot")
        host = int(period.host.removeprefix("web-"))
        level = 1e9 * (1 + 0.01 * (host * 7 % 11)) * (1.02 if period.plan.arm == "treatment" else 1.0)
        readings = []
        at, number = start, 0
        while at <= end:
            later = 5e9 if at > LATE else 0.0
            wobble = 1e6 * ((host * 13 + number * 5) % 17)
            readings.append(
                Sample(
                    position=number,
                    period_id=period.period_id,
                    sequence=number,
                    taken_at=at,
                    boottime_seconds=1000.0 * host + (at - BEGAN).total_seconds(),
                    values={"memory_used_bytes": level + wobble + later},
                )
            )
            at, number = at + EVERY, number + 1
        store.append(period.host, readings)
        end_period(store, period.period_id, end, PeriodState.COMPLETE)
        observe(store, [period.period_id])
    if until >= OVER:
        store.set_run_state(run_id, RunState.COMPLETED)
    return run_id


LATE = OPENED + timedelta(minutes=30, seconds=1)


def headline(findings: Findings) -> Estimate:
    return next(row for row in findings.estimates if row.metric == "memory_used_bytes" and row.headline)


@pytest.fixture
def second_store(new_store_url: Callable[[], str]) -> Iterator[Store]:
    with contextlib.closing(open_store(new_store_url(), create=False)) as opened:
        yield opened


@pytest.mark.parametrize("minutes", [40, 100])
def test_an_analysis_as_of_then_finds_what_the_data_until_then_would_have_shown(
    store: Store, second_store: Store, minutes: int
) -> None:
    from dataclasses import replace

    at = BEGAN + timedelta(minutes=minutes, seconds=30)
    look = analysed_as_of(store, simulate(store, OVER), at)
    run_id = simulate(second_store, at - timedelta(seconds=30))  # the last reading was taken then
    record = second_store.run(run_id)
    plan = replace(analysis_plan(experiment(), assigned_units(record.plan)), unplanned_look=True)
    then = analyze(second_store.observations(run_id), plan, second_store.periods_frame(run_id))
    found, wanted = headline(look.findings), headline(then)
    assert (found.n_control, found.n_treatment) == ((12, 12) if minutes == 40 else (24, 24))
    for name in ("control_mean", "treatment_mean", "difference", "p_value", "p_adjusted"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name), rel=1e-9), name
    assert found.difference_interval is not None and wanted.difference_interval is not None
    assert found.difference_interval.low == pytest.approx(wanted.difference_interval.low, rel=1e-9)
    assert not look.planned
    assert look.findings.reason.startswith("LOOKING BACK")
    assert "NOT the run's result" in look.findings.reason


def test_an_unplanned_look_is_wider_than_a_planned_one_and_that_wider_than_the_end(store: Store) -> None:
    run_id = simulate(store, OVER)
    stage = analysed_as_of(store, run_id, 0)
    instant = analysed_as_of(store, run_id, OPENED)
    assert stage.planned and not instant.planned
    assert stage.at == OPENED
    widths, levels = [], []
    for look in (instant, stage):
        interval = headline(look.findings).lift_interval
        assert interval is not None and interval.low is not None and interval.high is not None
        widths.append(interval.high - interval.low)
        levels.append(interval.level)
    assert widths[0] > widths[1]
    assert 0.99 < levels[1] < levels[0]
    assert headline(stage.findings).difference == headline(instant.findings).difference
    whole = analysed_as_of(store, run_id, 1)
    assert whole.whole
    assert headline(whole.findings).difference_interval.level == pytest.approx(0.95)  # type: ignore[union-attr]


def test_a_period_that_had_not_begun_or_was_repeated_later_is_not_known_then(store: Store) -> None:
    run_id = simulate(store, OVER)
    broken = [period for period in store.periods(run_id) if period.plan.kind is PeriodKind.MEASURE]
    store.end_periods(
        [
            PeriodEnd(
                period_id=one.period_id,
                ended_at=OVER,
                state=PeriodState.INVALID,
                reason="host lost: gone",
                broken_by=BrokenBy.HOST,
            )
            for one in (broken[0], broken[-1])  # one ran at that moment, one had not begun
        ]
    )
    look = analysed_as_of(store, run_id, BEGAN + timedelta(minutes=40))
    assert set(look.periods["broken_by"]) == {""}
    later = look.periods[(look.periods["kind"] == "measure") & (look.periods["stage"] == 1)]
    assert set(later["state"]) == {"planned"}
    assert "lost" not in look.findings.reason
    assert not look.findings.excluded


def test_a_moment_before_the_run_or_a_stage_that_is_not_over_is_refused(store: Store) -> None:
    run_id = simulate(store, BEGAN + timedelta(minutes=40))
    with pytest.raises(RunError, match=r"had measured nothing at 2026-02-02 11:59.*began at 2026-02-02 12:00"):
        analysed_as_of(store, run_id, (BEGAN - timedelta(minutes=1)).astimezone(timezone(timedelta(hours=2))))
    with pytest.raises(RunError, match="stage 1 has not ended"):
        analysed_as_of(store, run_id, 0)
    with pytest.raises(RunError, match="no stage 3"):
        analysed_as_of(store, run_id, 2)


def test_the_report_says_loudly_that_it_looks_back_and_stores_nothing(store: Store, store_url: str) -> None:
    run_id = simulate(store, OVER)
    runner = CliRunner()

    def call(*arguments: str) -> str:
        result = runner.invoke(cli, ["report", str(run_id), "--store", store_url, *arguments], prog_name="fleetexp")
        assert result.exit_code == 0, result.output
        return result.stdout

    text = call("--as-of", "1")
    assert text.startswith("LOOKING BACK at run")
    assert " ".join(text.split()).count("NOT the run's result") >= 2
    assert max(map(len, text.splitlines())) <= 80
    found = json.loads(call("--as-of", "2026-02-02T13:00", "--json"))
    assert found["as_of"] == {
        "at": "2026-02-02T13:00:00+00:00",
        "stage": None,
        "planned": False,
        "whole": False,
    }
    assert "LOOKING BACK" in call("--as-of", "stage 1", "--markdown")
    assert store.findings(run_id) is None
    for bad in ("yesterday", "0", "2199-01-01"):
        result = runner.invoke(cli, ["report", str(run_id), "--store", store_url, "--as-of", bad])
        assert result.exit_code == 2, bad


def test_planned_information_is_that_of_the_hosts_of_each_stage() -> None:
    plan = make_plan(experiment(), [HostInfo(name=f"web-{number:02}", labels={}) for number in range(HOSTS)])
    assert information_fractions(plan) == pytest.approx((0.5, 1.0))
    canary = parse_experiment(SPEC.replace("hosts: 24", "hosts: 1"))
    first, last = information_fractions(make_plan(canary, [HostInfo(name=f"h{n}", labels={}) for n in range(HOSTS)]))
    assert first is None
    assert last == 1.0


def staged(sizes: str) -> Plan:
    spec = parse_experiment(SPEC.replace("{hosts: 24, hold: 1h}, {share: 100%, hold: 1h}", sizes))
    return make_plan(spec, [HostInfo(name=f"web-{number:02}", labels={}) for number in range(HOSTS)])


def test_a_stage_at_which_nobody_joins_is_the_same_look_once_more_and_only_the_end_is_the_last() -> None:
    plan = staged("{hosts: 1, hold: 1h}, {hosts: 12, hold: 1h}, {share: 25%, hold: 2h}, {hosts: 48, hold: 1h}")
    assert planned_looks(plan) == pytest.approx((0.25, 1.0))
    looks = [analysis_at(analysis_plan(experiment(), assigned_units(plan)), plan, stage) for stage in range(4)]
    assert [(look.unplanned_look, look.look) for look in looks] == [(True, 0), (False, 0), (False, 0), (False, 1)]
    full = staged("{hosts: 12, hold: 1h}, {hosts: 48, hold: 1h}, {share: 100%, hold: 1h}")
    early = analysis_at(analysis_plan(experiment(), assigned_units(full)), full, 1)
    assert early.unplanned_look  # a decision before the end is never the run's own


def test_the_guardrails_of_a_stage_at_which_nobody_joins_are_tested_all_the_same(store: Store) -> None:
    plan = staged("{hosts: 24, hold: 1h}, {share: 50%, hold: 1h}, {share: 100%, hold: 1h}")
    run_id = simulate(store, BEGAN + timedelta(minutes=40))
    measured = Measured(store=store, run_id=run_id, plan=plan)
    analysis = analysis_plan(experiment(), assigned_units(plan))
    analyst = InterimAnalyst(measured=measured, analysis=analysis, now=lambda: OVER)
    found = [list(analyst.test_guardrails(stage, frozenset()))[-1] for stage in (0, 1)]
    assert found == [GuardrailsTested(stage=0), GuardrailsTested(stage=1)]
    assert not [event for event in store.events(run_id) if event.kind is EventKind.GUARDRAIL_TEST_FAILED]


def test_a_guardrail_that_hardly_a_host_of_an_arm_has_a_value_of_is_named_at_the_end_of_a_stage(store: Store) -> None:
    """As where the page of a service is gone on the hosts that were treated."""
    from dataclasses import replace

    plan = staged("{hosts: 24, hold: 1h}, {share: 100%, hold: 1h}")
    run_id = simulate(store, BEGAN + timedelta(minutes=40))
    guarded = ("memory_used_bytes", "queue", "away")
    margin = tuple(GuardrailPlan(metric=name, worse=Direction.INCREASE, margin=0.1) for name in guarded)
    analysis = replace(analysis_plan(experiment(), assigned_units(plan)), guardrails=margin)
    analyst = InterimAnalyst(
        measured=Measured(store=store, run_id=run_id, plan=plan), analysis=analysis, now=lambda: OVER
    )
    begun = [one for one in store.periods(run_id) if one.plan.kind is PeriodKind.MEASURE and one.started_at]
    treated = [one for one in begun if one.plan.arm == "treatment"]
    flat = Summary(n=10, mean=5.0, variance=1.0, minimum=4.0, maximum=6.0, p50=5.0, p99=6.0)
    for left, silent in ((5, ("away", "queue")), (6, ("away",))):
        gone = treated[left:]
        for one in begun:
            read = {"memory_used_bytes": flat} | ({} if one in gone else {"queue": flat})
            store.save_many_observations({one.period_id: read})
        assert list(analyst.test_guardrails(0, frozenset()))[-1] == GuardrailsTested(stage=0, silent=silent)
    assert list(analyst.test_guardrails(0, frozenset({"away"})))[-1] == GuardrailsTested(stage=0, unread=("away",))


def test_no_reading_is_a_number_out_of_thin_air(store: Store) -> None:
    run_id = simulate(store, OVER)
    look = analysed_as_of(store, run_id, BEGAN + timedelta(minutes=40))
    values = look.observations[look.observations["metric"] == "memory_used_bytes"]["mean"].to_numpy(dtype=float)
    assert np.isfinite(values).all()
    assert (values < 4e9).all()
