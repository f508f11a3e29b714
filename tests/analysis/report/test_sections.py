"""Each section says what the record shows, and how much it leaves off."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pytest

import analysis.report
from analysis.plan import Role
from analysis.quantities import DASH
from analysis.report import KnobRow, ReportInput, SuccessRow, SupplyRow, render_markdown
from analysis.report.instants import clock, length
from analysis.report.page import ReportPage, ReportSection
from analysis.report.questions import QuestionAnswer, answers
from analysis.report.restoration import restoration
from analysis.report.sections import page
from analysis.report.tables import MOST_ROWS, p_text
from analysis.results import HALVES, Decision, EstimateKind, Interval, Units

CSS = (Path(analysis.report.__file__).parent / "templates/report.css").read_text(encoding="utf-8")


def section(shown: ReportPage, key: str) -> ReportSection:
    return next(part for part in shown.sections if part.key == key)


def words(part: ReportSection) -> str:
    cells = [f"{cell.text} {cell.note}" for table in part.tables for row in table.rows for cell in row]
    captions = [f"{table.caption} {' '.join(table.headers)}" for table in part.tables]
    return "\n".join([*part.paragraphs, *captions, *cells])


# ---------------------------------------------------------------------------- was the host put back
def test_every_knob_back_as_found_is_said(content: ReportInput) -> None:
    found = restoration(content)
    assert found.ok is True
    assert found.sentences == (
        "Every knob that was written reads as it was found: 1 setting on 1 host, 19 writes, each read back.",
    )
    assert page(content).alarms == ()


def test_knob_that_was_not_put_back_is_the_loudest_thing(content: ReportInput) -> None:
    broken = replace(content, knob_changes=content.knob_changes[:-1], state="halted")
    shown = page(broken)
    assert shown.alarms[0].startswith("Restore incomplete")
    assert "bench-01: thp/2048kB/enabled reads 'always', found as 'madvise'" in shown.alarms[1] or (
        "reads 'never', found as 'madvise'" in shown.alarms[1]
    )


def test_restore_incomplete_is_loud_even_where_the_record_looks_well(content: ReportInput) -> None:
    assert page(replace(content, state="restore_incomplete")).alarms[0].startswith("Restore incomplete")


def test_run_that_goes_on_claims_nothing_about_restoring(content: ReportInput) -> None:
    found = restoration(replace(content, state="running"))
    assert found.ok is None
    assert "not over" in found.sentences[0]


def test_many_unrestored_knobs_are_counted_not_listed(content: ReportInput, samples: ModuleType) -> None:
    rows = tuple(
        KnobRow(
            host=f"h{number}", knob=samples.KNOB, before="madvise", wanted="always", after="always", reason="apply",
            changed_at=samples.START,
        )
        for number in range(25)
    )  # fmt: skip
    assert restoration(replace(content, knob_changes=rows)).sentences[-1] == "and 5 more"


def test_order_of_the_record_does_not_matter(content: ReportInput) -> None:
    assert restoration(replace(content, knob_changes=content.knob_changes[::-1])) == restoration(content)


# ---------------------------------------------------------------------------- how far it reaches
def test_switchback_on_one_host_speaks_for_that_host_only(content: ReportInput) -> None:
    assert "on host bench-01 only, which does not speak for a fleet" in page(content).reason
    untold = replace(content, findings=replace(content.findings, arms=()))
    assert "Measured on one host" in page(untold).warnings[0]
    assert page(content).warnings == page(replace(untold, design="parallel")).warnings == content.findings.warnings


@pytest.mark.parametrize(
    ("decision", "tone", "label"),
    [
        (Decision.SHIP, "good", "ship"),
        (Decision.SHIP_IN_STRATA, "qualified", "ship in strata"),
        (Decision.BETTER_HERE, "qualified", "better here"),
        (Decision.INCONCLUSIVE, "quiet", "inconclusive"),
        (Decision.DO_NOT_SHIP, "bad", "do not ship"),
    ],
)
def test_decision_has_its_tone(content: ReportInput, decision: Decision, tone: str, label: str) -> None:
    shown = page(replace(content, findings=replace(content.findings, decision=decision)))
    assert (shown.tone, shown.decision) == (tone, label)
    assert f".decision.{tone}" in CSS or tone == "quiet"


# ---------------------------------------------------------------------------- what the decision rests on
def test_one_arm_has_its_reason_and_no_list_of_arms(content: ReportInput) -> None:
    shown = page(content)
    assert (shown.reason, shown.rulings) == (content.findings.reason, ())


def test_several_arms_are_ruled_on_one_by_one_under_the_one_to_take(samples: ModuleType) -> None:
    shown = page(samples.three_arm_sample())
    assert shown.reason.startswith("Take thp-2m, the only one to ship without a limit; ")
    assert [(ruling.arm, ruling.tone) for ruling in shown.rulings] == [("thp-2m", "good"), ("hugetlb-1g", "qualified")]
    assert "not in batch|arm64, where throughput fell by 15 %" in shown.rulings[1].reason


def test_grounds_tell_reach_gaps_and_doubts(samples: ModuleType) -> None:
    scopes, doubts = section(page(samples.three_arm_sample()), "grounds").tables
    assert [cell.text for cell in scopes.rows[0]][1:] == [
        "80 hosts, 240 periods, 40 h measured",
        "1 of 40 hosts under thp-2m has no throughput (base: 0 of 40)",
    ]
    assert scopes.rows[1][2].text == "nothing"
    assert [cell.text for cell in doubts.rows[0]] == [
        "hugetlb-1g", "harm in batch|x86 is not ruled out", "more hosts in batch|x86",
    ]  # fmt: skip


def test_a_decision_without_doubts_says_so_and_a_run_without_decisions_has_no_grounds(content: ReportInput) -> None:
    sure = replace(content.findings.arms[0], overturn=())
    part = section(page(replace(content, findings=replace(content.findings, arms=(sure,)))), "grounds")
    assert (len(part.tables), part.paragraphs) == (1, ("Nothing was found that could overturn it.",))
    undecided = page(replace(content, findings=replace(content.findings, arms=())))
    assert "grounds" not in {part.key for part in undecided.sections}


def test_treatments_are_set_against_each_other(samples: ModuleType) -> None:
    table = section(page(samples.three_arm_sample()), "effects").tables[-1]
    assert table.caption == "Treatments against each other"
    assert [cell.text for cell in table.rows[0]] == [
        "throughput", "hugetlb-1g", "1,104", "thp-2m", "1,101", "no clear change",
    ]  # fmt: skip


def test_trade_and_decision_speak_of_the_same_servers(samples: ModuleType) -> None:
    shown = page(samples.three_arm_sample())
    table = section(shown, "trade").tables[0]
    assert table.headers[1] == "servers needed per 1,000 [95 % interval]"
    assert [(row[1].text, row[1].note, row[2].text) for row in table.rows] == [
        ("25.4 fewer", "[7.1 to 43.2 fewer]", "fewer servers"),
        ("9.9 more", "[14.5 fewer, 36 more]", "neither is excluded"),
    ]
    for row, ruling in zip(table.rows, shown.rulings, strict=True):
        assert f"{row[1].text} per 1,000 {row[1].note}" in ruling.reason


@pytest.mark.parametrize(
    ("difference", "shown"), [(3.0, "+3.0 ms"), (None, "not testable")], ids=["estimated", "not testable"]
)
def test_carry_over_is_an_estimate_or_not_testable(
    content: ReportInput, samples: ModuleType, difference: float | None, shown: str
) -> None:
    row = samples.estimate(
        "chase_access_seconds", "milliseconds", Role.PRIMARY, 134.0, 137.0, half=0.01,
        kind=EstimateKind.CARRY_OVER, difference=difference, difference_interval=samples.interval(1.0, 5.0),
        lift=None, lift_interval=None, warnings=("few blocks",),
    )  # fmt: skip
    part = section(
        page(replace(content, findings=replace(content.findings, estimates=(*content.findings.estimates, row)))),
        "checks",
    )
    table = next(table for table in part.tables if table.key == "carry_over")
    assert [cell.text for cell in table.rows[0]][3:] == [shown, "< 0.001", "few blocks"]
    assert part.paragraphs == ()


def test_both_halves_of_the_measured_time_stand_side_by_side(content: ReportInput, samples: ModuleType) -> None:
    rows = tuple(
        samples.estimate("chase_access_seconds", "milliseconds", Role.PRIMARY, 134.0, value, half=0.01, kind=kind)
        for kind, value in zip(HALVES, (100.0, 133.0), strict=True)
    )
    findings = replace(content.findings, estimates=(*content.findings.estimates, *rows))
    part = section(page(replace(content, findings=findings)), "effects")
    table = next(table for table in part.tables if table.key == "halves")
    assert [cells[1].text for cells in table.rows] == ["earlier", "later"]
    assert [cells[4].text for cells in table.rows] == ["100 ms", "133 ms"]
    assert "each half of the measured time alone" in render_markdown(replace(content, findings=findings)).lower()


def test_a_switchback_without_a_row_of_carry_over_says_that_it_was_not_testable(content: ReportInput) -> None:
    assert "was not testable" in section(page(content), "checks").paragraphs[0]
    assert section(page(replace(content, design="parallel")), "checks").paragraphs == ()


def test_built_in_guardrail_is_marked(content: ReportInput) -> None:
    rows = section(page(content), "guardrails").tables[0].rows
    assert [row[0].note for row in rows] == ["", "watched in every run"]


def test_success_has_an_interval_over_clusters_or_says_how_many_it_takes(content: ReportInput) -> None:
    row = SuccessRow(
        page_size_kib=2048, circumstance="free memory", least=1e9, most=2e9, unit="bytes", periods=8, asked=4097.0,
        given=4000.0, clustered_by=Units.PERIODS, clusters=8, interval=Interval(low=0.66, high=0.999, level=0.95),
    )  # fmt: skip
    few = replace(row, periods=2, clusters=2, interval=None)
    part = section(page(replace(content, successes=(row, few))), "kernel")
    assert [cells[5].note for cells in part.tables[0].rows] == [
        "[66 %, 99.9 %] over 8 periods", "no interval below 3 periods",
    ]  # fmt: skip
    assert "an interval counts periods, not pages" in " ".join(part.paragraphs)


def test_what_each_arm_was_given_and_waited_for_stands_side_by_side(content: ReportInput) -> None:
    row = SupplyRow(
        arm="thp-1g", page_size_kib=1048576, asked=8.0, given=6.0, p50=0.25, p99=0.5, maximum=2.0,
        region_seconds=1.5, memory_used_bytes=3 * 2**30,
    )  # fmt: skip
    small = replace(row, arm="thp-2m", page_size_kib=2048, asked=4096.0, given=4096.0, p50=0.0004)
    unknown = replace(row, arm="any", page_size_kib=0, p50=None, p99=None, region_seconds=None, memory_used_bytes=None)
    told = replace(content, supplies=(small, row, unknown))
    first = section(page(told), "kernel").tables[0]
    assert [[cell.text for cell in cells] for cells in first.rows] == [
        ["thp-2m", "2 MiB", "100 %", "400 µs", "500 ms", "2 s", "1.50 s", "3 GiB"],
        ["thp-1g", "1 GiB", "75 %", "250 ms", "500 ms", "2 s", "1.50 s", "3 GiB"],
        ["any", "the largest enabled", "75 %", "unavailable", "unavailable", "2 s", "unavailable", DASH],
    ]
    assert first.rows[1][2].note == "6 of 8"
    (answer,) = [answer for answer in answers(told) if "memory is scarce" in answer.question]
    assert "thp-2m, 2 MiB: 100 % of 4,096 asked for; thp-1g, 1 GiB: 75 % of 8 asked for" in answer.text


# ---------------------------------------------------------------------------- sections
def test_each_treatment_arm_has_a_table_of_its_own(content: ReportInput) -> None:
    more = tuple(replace(row, treatment="hugetlb") for row in content.findings.estimates)
    both = replace(content, findings=replace(content.findings, estimates=content.findings.estimates + more))
    tables = section(page(both), "effects").tables
    assert [table.headers[2] for table in tables] == ["always", "hugetlb"]
    assert tables[0].caption == "always (thp/2048kB/enabled = always) against never (thp/2048kB/enabled = never)"
    assert tables[1].caption.startswith("hugetlb against")


def test_long_unit_stands_below_the_metric(content: ReportInput) -> None:
    unit = "misses per 1000 instructions"
    rows = tuple(replace(row, unit=unit) for row in content.findings.estimates)
    shown = page(replace(content, findings=replace(content.findings, estimates=rows)))
    table = section(shown, "effects").tables[0]
    assert table.rows[0][0].note == f"time for all accesses, {unit}"
    assert table.rows[4][0].note == unit


def test_rows_of_several_levels_leave_the_level_out_of_the_header(content: ReportInput) -> None:
    first, *rest = content.findings.estimates
    assert first.lift_interval is not None
    other = replace(first, lift_interval=replace(first.lift_interval, level=0.9))
    mixed = replace(content, findings=replace(content.findings, estimates=(other, *rest)))
    assert section(page(mixed), "effects").tables[0].headers[3] == "change [interval]"


def test_guardrail_without_data_is_shown_as_not_measured(content: ReportInput) -> None:
    rows = section(page(content), "guardrails").tables[0].rows
    assert [cell.text for cell in rows[0]][1:5] == ["no increase above 10 %", "always", "no clear change", "pass"]
    assert [cell.text for cell in rows[1]][1:5] == ["halts at 1", "always", "not measured", "pass"]


def test_guardrail_without_any_limit_says_so(content: ReportInput) -> None:
    first = content.findings.guardrails[0]
    bare = replace(first, plan=replace(first.plan, margin=None))
    shown = page(replace(content, findings=replace(content.findings, guardrails=(bare,))))
    assert section(shown, "guardrails").tables[0].rows[0][1].text == "no limit given"


def test_exposure_sets_given_against_asked_for(content: ReportInput) -> None:
    rows = section(page(content), "exposure").tables[0].rows
    assert [cell.text for cell in rows[0]][3:] == ["0", "0", "none asked for", "0", "0 B"]
    assert [cell.text for cell in rows[1]][3:] == ["4,096", "37", "99.1 % of 4,133", "3", "1.00 GiB"]


def test_exposure_that_was_not_counted_is_unavailable(content: ReportInput) -> None:
    blind = replace(content.exposure[1], faulted_pages=None, fallbacks=None, splits=None, backed_bytes=None)
    rows = section(page(replace(content, exposure=(blind,))), "exposure").tables[0].rows
    assert [cell.text for cell in rows[0]][3:] == ["unavailable"] * 5


def test_what_was_left_out_is_counted_and_named(content: ReportInput) -> None:
    part = section(page(content), "excluded")
    assert part.paragraphs == ("16 of 18 measured periods were used.",)
    assert "drift: thp/2048kB/enabled read 'madvise'" in words(part)


def test_invalid_period_that_the_analysis_did_not_name_is_listed_too(content: ReportInput) -> None:
    silent = replace(content, findings=replace(content.findings, excluded=()))
    assert "drift on thp/2048kB/enabled" in words(section(page(silent), "excluded"))


def test_excluded_period_without_a_record_is_unknown_not_invented(content: ReportInput) -> None:
    shown = section(page(replace(content, periods=())), "excluded")
    assert [cell.text for cell in shown.tables[0].rows[0]][3:5] == ["unknown", "unknown"]
    assert shown.paragraphs == ()


def test_nothing_left_out_is_said(content: ReportInput) -> None:
    whole = replace(content, findings=replace(content.findings, excluded=()))
    used = tuple(row for row in content.periods if row.state != "invalid")
    assert section(page(replace(whole, periods=used)), "excluded").paragraphs == (
        "Nothing: all 16 measured periods were used.",
    )
    assert section(page(replace(whole, periods=())), "excluded").paragraphs == ("Nothing.",)


def test_check_that_could_not_be_made_is_not_passed(content: ReportInput) -> None:
    rows = section(page(content), "checks").tables[0].rows
    assert [(row[1].text, row[1].tone) for row in rows] == [
        ("passed", "good"),
        ("passed", "good"),
        ("not testable", "quiet"),
    ]
    failed = replace(content.findings.checks[0], passed=False)
    bad = page(replace(content, findings=replace(content.findings, checks=(failed,))))
    assert section(bad, "checks").tables[0].rows[0][1].tone == "bad"


def test_sensitivity_and_subgroup_rows_are_marked(content: ReportInput) -> None:
    first = replace(content.findings.estimates[-1], stratum="web-a", stage=2)
    shown = page(replace(content, findings=replace(content.findings, estimates=(first,))))
    role = section(shown, "estimates").tables[0].rows[0][2]
    assert (role.text, role.note) == ("primary", "randomisation, stratum web-a, stage 2")


def test_failed_write_stands_out(content: ReportInput) -> None:
    failed = replace(content.knob_changes[0], error="EINVAL", after="madvise")
    row = section(page(replace(content, knob_changes=(failed,))), "timeline").tables[0].rows[0]
    assert (row[7].text, row[7].tone, row[5].tone) == ("EINVAL", "bad", "bad")


def with_effects(content: ReportInput, metrics: dict[str, float]) -> ReportInput:
    """The same report with the first effect told again of other metrics, each with a lift of its own."""
    first = next(row for row in content.findings.estimates if row.headline)
    interval = Interval(low=-0.9, high=0.9, level=0.95)
    more = tuple(
        replace(first, metric=name, role=Role.SECONDARY, lift=lift, lift_interval=interval)
        for name, lift in metrics.items()
    )
    return replace(content, findings=replace(content.findings, estimates=(*content.findings.estimates, *more)))


def test_whether_big_pages_carry_the_walks_is_answered_by_walks_of_each_size_where_they_were_counted(
    content: ReportInput,
) -> None:
    def gain(of: ReportInput) -> QuestionAnswer:
        (answer,) = [answer for answer in answers(of) if "smaller big pages" in answer.question]
        return answer

    before = gain(content)
    assert "Page walks" not in before.text
    counts = {"dtlb_load_walks_1g": 0.4, "dtlb_walks": -0.1, "itlb_walks_1g_share": 0.2}
    told = gain(with_effects(content, counts))
    assert not told.open
    assert told.see == "effects"
    assert "Page walks by the size of the page: always, dtlb_load_walks_1g: " in told.text
    assert "itlb" not in told.text
    assert "takes an arm with that size" in told.text
    shares = gain(with_effects(content, counts | {"dtlb_walks_2m_share (Zen 4)": -0.4, "dtlb_walks_1g_share": 0.3}))
    assert "dtlb_walks_2m_share (Zen 4): " in shares.text
    assert "; always, dtlb_walks_1g_share: " in shares.text
    assert "dtlb_load_walks_1g" not in shares.text, "shares say it best"


def test_long_tables_say_how_much_they_leave_off(content: ReportInput) -> None:
    many = replace(content, knob_changes=content.knob_changes * 20)
    part = section(page(many), "timeline")
    assert len(part.tables[0].rows) == MOST_ROWS
    assert "The table shows the first 200 of 380 rows; the store has them all." in part.paragraphs


def test_reproduction_has_seed_command_spec_and_questions(content: ReportInput) -> None:
    part = section(page(content), "reproduce")
    assert "seed 20260202" in part.paragraphs[0]
    assert [item.title for item in part.listings] == [
        "Run it again", "The experiment as it was read", "Ask next: The effects", "Ask next: Who changed what",
    ]  # fmt: skip
    assert part.listings[1].text == content.spec
    assert "control" in words(part)


# ---------------------------------------------------------------------------- small words
@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (0.04, "0 s"), (3.25, "3.2 s"), (60, "1 min"), (188, "3 min 8 s"), (7200, "2 h"), (90061, "1 d 1 h")],
)
def test_length_of_time_is_read_easily(seconds: float, shown: str) -> None:
    assert length(seconds) == shown


def test_clock_shows_the_time_of_day(samples: ModuleType) -> None:
    assert clock(samples.START + timedelta(seconds=61)) == "10:01:01"
    assert clock(None) == "unknown"


def test_tiny_p_value_has_a_floor() -> None:
    assert [p_text(value) for value in (0.00002, 0.0312, 1.0)] == ["< 0.001", "0.031", "1.000"]
