"""From a frame to a verdict: what it rests on, and that none of it is ever a decision."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import analysis.retrospective as package
import fleetexp
from analysis.errors import AnalysisError
from analysis.report.page import decision_tone
from analysis.report.retrospective import (
    as_text,
    fragment,
    render_retrospective_html,
    render_retrospective_markdown,
)
from analysis.results import Decision
from analysis.retrospective.panel import Panel
from analysis.retrospective.verdicts import (
    Ground,
    MarginStanding,
    RetrospectiveFindings,
    RetrospectiveVerdict,
    RowKind,
)
from analysis.retrospective.wording import NOT_RANDOMISED
from tests.analysis.retrospective.panels import frame_of, world

RENDERERS = (as_text, fragment, render_retrospective_html, render_retrospective_markdown)


def rollout(seed: int = 1, **more: float) -> Panel:
    told = {"changed": 20, "others": 20, "periods": 12, "starts": (6, 8), "correlation": 0.5, "effect": 4.0}
    return world(np.random.default_rng(seed), **{**told, **more})


def found_in(panel: Panel, **more: object) -> RetrospectiveFindings:
    told = {"assigned": "not at random", "changed": "2 MB pages", "better": "increase", "primary": "rate", **more}
    return fleetexp.analyze(frame_of({"rate": panel}), **told)


@pytest.fixture(scope="module")
def benefit() -> RetrospectiveFindings:
    return found_in(rollout())


def test_a_clear_gain_is_consistent_with_a_benefit_and_says_what_would_explain_it_away(
    benefit: RetrospectiveFindings,
) -> None:
    assert (benefit.verdict, benefit.ground) == (RetrospectiveVerdict.CONSISTENT_WITH_BENEFIT, Ground.EFFECT)
    assert "rate rose by" in benefit.reason
    assert "hosts were not drawn at random" in benefit.reason
    assert "times the largest before it would explain it away" in benefit.reason
    kinds = {row.kind for row in benefit.metric("rate").beside if row.estimate is not None}
    assert kinds == set(RowKind)
    assert (benefit.hosts_changed, benefit.hosts_not_changed, benefit.starts) == (20, 20, ("6", "8"))


def test_the_same_gain_where_less_is_better_is_consistent_with_harm() -> None:
    found = found_in(rollout(), better="decrease")
    assert (found.verdict, found.ground) == (RetrospectiveVerdict.CONSISTENT_WITH_HARM, Ground.EFFECT)


def test_no_effect_is_not_distinguishable() -> None:
    found = found_in(rollout(effect=0.0))
    assert (found.verdict, found.ground) == (RetrospectiveVerdict.NOT_DISTINGUISHABLE, Ground.NOT_CLEAR)


def test_a_drift_from_before_the_change_contradicts_the_assumptions_however_clear_the_gain() -> None:
    found = found_in(rollout(drift=0.6))
    assert found.verdict is RetrospectiveVerdict.ASSUMPTIONS_CONTRADICTED
    assert found.ground is Ground.PRE_TREND
    assert "nothing can be put down to it" in found.reason


def test_one_period_before_leaves_nothing_to_test_the_assumption_with() -> None:
    found = found_in(rollout(starts=(1,), periods=4))
    assert (found.verdict, found.ground) == (RetrospectiveVerdict.NOT_DISTINGUISHABLE, Ground.NO_PRE_TREND_TEST)


def test_one_changed_host_has_no_interval() -> None:
    rate = found_in(rollout(changed=1)).metric("rate")
    regression = next(row.estimate for row in rate.beside if row.kind is RowKind.TWO_WAY)
    for row in (rate.headline, regression):
        assert row is not None and row.difference is not None
        assert (row.difference_interval, row.lift_interval, row.p) == (None, None, None)


def test_three_hosts_are_too_few() -> None:
    found = found_in(rollout(changed=3))
    assert (found.verdict, found.ground) == (RetrospectiveVerdict.NOT_DISTINGUISHABLE, Ground.TOO_FEW_HOSTS)


@pytest.mark.parametrize(
    ("panel", "said"),
    [
        pytest.param(rollout(changed=1), "one changed host shows no spread between such hosts", id="one-changed"),
        pytest.param(
            rollout(others=2, starts=(6,)), "2 hosts were not changed and have values, of at least 4", id="two"
        ),
        pytest.param(
            Panel(values=np.full((20, 12), 42.0), start=np.repeat((6, 12), 10)),
            "hosts do not differ in how they moved",
            id="constant",
        ),
        pytest.param(
            Panel(values=np.arange(20.0)[:, None] + 3.0 * (np.arange(12) >= 6), start=np.repeat((6, 12), 10)),
            "hosts do not differ in how they moved",
            id="no-spread-but-a-shift",
        ),
    ],
)
def test_what_is_too_little_is_named_in_every_form_of_the_report(panel: Panel, said: str) -> None:
    found = found_in(panel)
    assert found.verdict is RetrospectiveVerdict.NOT_DISTINGUISHABLE
    assert all(render(found) for render in RENDERERS)
    assert said in render_retrospective_markdown(found)


@pytest.mark.parametrize("seed", range(16))
def test_odd_panels_end_in_a_report_or_in_what_is_missing(seed: int) -> None:
    draw = np.random.default_rng(seed)
    changed, others, periods = draw.integers((1, 0, 2), (8, 12, 10))
    shape = (changed + others, periods)
    values = draw.normal(size=shape) * draw.choice([0, 1e-300, 1, 1e12, 1e60]) + draw.choice([0, 1, -3, 1e9, 1e65])
    values[draw.random(shape) < draw.choice([0, 0.2, 0.9])] = np.nan
    start = np.where(np.arange(shape[0]) < changed, draw.integers(1, periods, shape[0]), periods)
    found = found_in(Panel(values=values, start=start))
    assert all(render(found) for render in RENDERERS)


def test_a_check_is_said_to_fail_at_the_level_that_the_verdict_asks() -> None:
    for seed in (1, 39):  # of 39 a date has p = 0.03, and half of alpha is asked of it
        found = found_in(rollout(seed=seed, effect=0.0))
        fails = any(check.passed is False for check in found.metric("rate").checks[:2])
        assert fails is (found.verdict is RetrospectiveVerdict.ASSUMPTIONS_CONTRADICTED)


def test_changed_hosts_that_went_silent_leave_it_open() -> None:
    panel = rollout(effect=1.0)
    values = panel.values.copy()
    for host in range(9):
        values[host, panel.start[host] :] = np.nan
    found = found_in(Panel(values=values, start=panel.start))
    assert found.verdict is RetrospectiveVerdict.NOT_DISTINGUISHABLE
    assert found.ground in {Ground.MISSING_DATA, Ground.NOT_CLEAR}
    assert found.metric("rate").checks[2].detail.startswith("9 of 20 changed hosts")


def test_deleting_what_changed_hosts_measured_never_makes_a_benefit() -> None:
    draw = np.random.default_rng(3)
    for seed in range(6):
        panel = rollout(seed=seed, effect=0.4)
        whole = found_in(panel).verdict
        worst = np.argsort(panel.values[:20, 8:].mean(axis=1) - panel.values[:20, :6].mean(axis=1))[
            : draw.integers(4, 10)
        ]
        values = panel.values.copy()
        for host in worst:
            values[host, panel.start[host] :] = np.nan
        after = found_in(Panel(values=values, start=panel.start)).verdict
        benefits = RetrospectiveVerdict.CONSISTENT_WITH_BENEFIT
        assert not (after is benefits and whole is not benefits)


def test_a_guardrail_beyond_its_margin_is_harm_though_the_primary_gained() -> None:
    frame = frame_of({"rate": rollout(), "memory_used_bytes": rollout(effect=30.0)})
    told = {"assigned": "not at random", "primary": "rate", "better": "increase"}
    found = fleetexp.analyze(frame, **told, guardrails={"memory_used_bytes": 0.05})
    assert (found.verdict, found.ground) == (RetrospectiveVerdict.CONSISTENT_WITH_HARM, Ground.GUARDRAIL)
    assert [one.standing for one in found.guardrails] == [MarginStanding.BEYOND]
    wide = fleetexp.analyze(frame, **told, guardrails={"memory_used_bytes": 0.9})
    assert [one.standing for one in wide.guardrails] == [MarginStanding.WITHIN]


def test_what_nobody_calls_better_has_no_verdict_and_placebo_hosts_speak_of_clear_changes_alone() -> None:
    frame = frame_of({"rate": rollout(), "pages": rollout(effect=9.0), "still": rollout(effect=0.0)})
    found = fleetexp.analyze(frame, assigned="not at random", primary="rate", better="increase")
    assert (found.metric("pages").verdict, found.metric("pages").ground) == (None, Ground.NO_DIRECTION)
    assert found.metric("still").verdict is RetrospectiveVerdict.NOT_DISTINGUISHABLE
    assert [found.metric(name).checks[3].passed for name in ("pages", "still")] == [True, None]


def test_without_hosts_never_changed_periods_with_four_later_ones_are_compared() -> None:
    found = found_in(rollout(others=0, changed=24, starts=(5, 8), periods=12))
    row = found.metric("rate").headline
    assert row is not None
    assert found.verdict is RetrospectiveVerdict.CONSISTENT_WITH_BENEFIT
    assert row.difference == pytest.approx(4.0 * (1 + 0.1), abs=1.0)  # the first three periods of those changed first
    assert row.n_control >= 4


def test_instants_of_change_fall_into_the_periods_that_began_then() -> None:
    frame = frame_of({"rate": rollout()})
    hour = pd.Timestamp("2026-11-01", tz="UTC") + pd.to_timedelta(frame["period"], unit="h")
    changed_at = pd.Timestamp("2026-11-01", tz="UTC") + pd.to_timedelta(frame["treated_from"], unit="h")
    told = {"assigned": "not at random", "better": "increase"}
    by_number = fleetexp.analyze(frame, **told)
    by_instant = fleetexp.analyze(frame.assign(started_at=hour, treated_from=changed_at), **told)
    assert by_instant.metric("rate").headline == by_number.metric("rate").headline
    objects = changed_at.astype(object).where(changed_at.notna(), None)
    by_object = fleetexp.analyze(frame.assign(started_at=hour, treated_from=objects), **told)
    by_text = fleetexp.analyze(frame.assign(started_at=hour, treated_from=changed_at.dt.strftime("%FT%TZ")), **told)
    for same in (by_object, by_text):
        assert same.metric("rate").headline == by_number.metric("rate").headline
    later = changed_at + pd.Timedelta(minutes=20)  # within the period: it counts as changed
    within = fleetexp.analyze(frame.assign(started_at=hour, treated_from=later), **told)
    assert within.metric("rate").headline == by_number.metric("rate").headline
    assert "in the middle of a period" in within.warnings[0]


def test_values_that_settle_are_left_out_and_count_as_no_gap() -> None:
    panel = rollout(starts=(5, 8))
    frame = frame_of({"rate": panel})
    hours = [
        pd.Timestamp("2026-11-01", tz="UTC") + pd.to_timedelta(frame[name], unit="h")
        for name in ("period", "treated_from")
    ]
    told = frame.assign(started_at=hours[0], treated_from=hours[1], settled_from=hours[1] + pd.Timedelta("100min"))
    settling = (frame["period"] >= frame["treated_from"]) & (frame["period"] < frame["treated_from"] + 2)
    spoilt = told.assign(value=told["value"].where(~settling, 1e6))
    found = fleetexp.analyze(spoilt, assigned="not at random", better="increase")
    assert found == fleetexp.analyze(told, assigned="not at random", better="increase")
    assert found.starts[0].startswith("5 (")
    missing = next(check for check in found.metric("rate").checks if check.name.startswith("missing"))
    assert missing.detail.startswith("0 of 20 changed hosts")


def test_a_period_that_ended_before_the_change_is_before_it_though_the_next_began_long_after() -> None:
    frame = frame_of({"rate": rollout(starts=(6,))})
    day = pd.Timestamp("2026-11-01", tz="UTC") + pd.to_timedelta(2 * frame["period"], unit="D")  # every other day
    changed = pd.Timestamp("2026-11-12", tz="UTC")
    since = pd.Series(changed, index=frame.index).where(frame["treated_from"].notna())
    dated = frame.assign(started_at=day, ended_at=day + pd.Timedelta("1D"), treated_from=since)
    found = fleetexp.analyze(dated, assigned="not at random", better="increase")
    number = fleetexp.analyze(frame, assigned="not at random", better="increase")
    assert found.metric("rate").headline == number.metric("rate").headline
    assert found.warnings == ("for 48% of the time there is no value of any host: that time is in no period",)


def test_equal_frames_give_equal_findings_whatever_the_order_of_rows(benefit: RetrospectiveFindings) -> None:
    assert found_in(rollout()) == benefit
    shuffled = frame_of({"rate": rollout()}).sample(frac=1, random_state=1)
    told = {"assigned": "not at random", "changed": "2 MB pages", "better": "increase"}
    again = fleetexp.analyze(shuffled, **told)
    assert again.reason == benefit.reason


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.drop(columns="treated_from"), "no column 'treated_from'"),
        (lambda frame: frame.iloc[:0], "no rows"),
        (lambda frame: pd.concat([frame, frame[:1]]), "two values of 'rate' in period 0"),
        (lambda frame: frame.assign(treated_from=np.nan), "no host was changed"),
        (lambda frame: frame.assign(treated_from="soon"), "neither a period nor an instant"),
        (lambda frame: frame.assign(treated_from=pd.Timestamp("2026-11-01")), "nothing says when periods began"),
        (lambda frame: frame.assign(period=frame["period"] + 0.5), "not the number of a period"),
        (lambda frame: frame.assign(value=frame["value"].astype(object).where(frame.index > 0, "high")), "'high'"),
        (lambda frame: frame.assign(treated_from=frame["treated_from"].where(frame.index > 0)), "two times"),
        (lambda frame: frame.assign(treated_from=0), "before the first period"),
        (lambda frame: frame.assign(host=frame["host"].where(frame.index > 0)), "host is missing"),
    ],
)
def test_what_is_wrong_with_a_frame_is_said_with_the_remedy(change: object, said: str) -> None:
    with pytest.raises(AnalysisError, match=re.escape(said)) as caught:
        fleetexp.analyze(change(frame_of({"rate": rollout()})), assigned="not at random", better="increase")  # type: ignore[operator]
    assert caught.value.remedy


def test_arms_have_no_place_where_nobody_drew_them() -> None:
    frame = frame_of({"rate": rollout()})
    with pytest.raises(AnalysisError, match="has no arms"):
        fleetexp.analyze(frame, control="4k", assigned="not at random", better="increase")  # type: ignore[call-overload]
    with pytest.raises(AnalysisError, match="rollouts that nobody drew"):
        fleetexp.analyze(frame, control="4k", assigned="at random", changed="x", better="increase")  # type: ignore[call-overload]


# ---------------------------------------------------------------------------- no path leads to 'ship'
def test_no_verdict_is_a_decision() -> None:
    assert not set(RetrospectiveVerdict) & set(Decision)
    for verdict in RetrospectiveVerdict:
        with pytest.raises(ValueError, match="is not a valid Decision"):
            Decision(verdict.value)
        assert decision_tone(verdict) == "quiet"  # type: ignore[arg-type]


def test_the_package_names_no_decision() -> None:
    forbidden = {"Decision", "ArmDecision", "Findings", "Cause", "concluded", "decision_label", "decision_sentence"}
    for path in Path(package.__path__[0]).rglob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        names |= {
            alias.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        assert not names & forbidden, path


@settings(max_examples=60, deadline=None)
@given(verdict=st.sampled_from(RetrospectiveVerdict), ground=st.sampled_from(Ground), data=st.data())
def test_no_findings_whatever_they_hold_are_shown_as_a_decision(
    benefit: RetrospectiveFindings, verdict: RetrospectiveVerdict, ground: Ground, data: st.DataObject
) -> None:
    one = benefit.metrics[0]
    assert one.headline is not None
    figures = st.one_of(st.none(), st.floats(-1e12, 1e12))
    row = replace(one.headline, difference=data.draw(figures), lift=data.draw(figures), p_value=data.draw(figures))
    changed = replace(one, verdict=verdict, ground=ground, headline=data.draw(st.sampled_from((row, None))))
    findings = replace(benefit, verdict=verdict, ground=ground, metrics=(changed,))
    for render in (as_text, fragment, render_retrospective_markdown):
        text = render(findings)
        assert not re.search(r"\bship\b", text, re.IGNORECASE)
        assert "NOT RANDOMISED" in text


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    effect=st.floats(-50, 50),
    drift=st.floats(-1, 1),
    better=st.sampled_from(("increase", "decrease")),
)
def test_no_data_whatever_they_are_end_in_a_decision(seed: int, effect: float, drift: float, better: str) -> None:
    panel = rollout(seed=seed, effect=effect, drift=drift, changed=8, others=9, periods=8, starts=(4, 5))
    found = found_in(panel, better=better)
    assert isinstance(found.verdict, RetrospectiveVerdict)
    assert not hasattr(found, "decision")
    assert not re.search(r"\bship\b", as_text(found), re.IGNORECASE)


# ---------------------------------------------------------------------------- the report
@pytest.mark.parametrize("render", RENDERERS)
def test_every_form_of_the_report_begins_with_the_banner(render: object, benefit: RetrospectiveFindings) -> None:
    text = render(benefit)  # type: ignore[operator]
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]*>|\\", "", text))
    assert NOT_RANDOMISED in plain
    assert plain.index(NOT_RANDOMISED) < plain.index("rate rose by")
    assert plain.lower().count("not randomised") >= 2
    assert "onsistent with a benefit" in plain or "CONSISTENT WITH A BENEFIT" in plain


def test_html_and_markdown_have_the_same_tables_and_html_the_event_study(benefit: RetrospectiveFindings) -> None:
    html, markdown = render_retrospective_html(benefit), render_retrospective_markdown(benefit)
    for said in ("Verdict", "Changes that never were", "An influence that nobody saw", "Do the assumptions hold?"):
        assert said in html or said == "Verdict"
        assert said in markdown
    assert html.count("<svg") == 1
    assert "effect by periods since the change, not randomised" in html
    assert "**Verdict: consistent with a benefit.**" in markdown
    assert "Decision" not in markdown


def test_foreign_names_are_escaped_in_every_form(benefit: RetrospectiveFindings) -> None:
    evil = replace(benefit, changed="<script>alert(1)</script>\x1b[2J")
    for render in RENDERERS:
        text = render(evil)
        assert "\x1b" not in text
        assert render is as_text or "<script>" not in text
