"""What a person sees at the end of a run."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from analysis.results import Decision
from fleetexp.cli.result import RunResult, ending, folded, print_decision, print_effects, sql_command, write_html
from fleetexp.cli.run import exit_code
from fleetexp.control.progress import RunOutcome
from fleetexp.domain import RunState
from fleetexp.exit_codes import ExitCode
from fleetexp.store.url import parse_url


def outcome(
    state: RunState, decision: Decision | None = None, reason: str = "", code: ExitCode = ExitCode.DONE
) -> RunOutcome:
    return RunOutcome(run_id=3, state=state, decision=decision, reason=reason, exit_code=code)


def test_the_table_has_both_arms_and_the_change_with_its_interval(
    report_samples: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    content = report_samples.sample()
    print_effects(content)
    out = capsys.readouterr().out
    header, access = out.splitlines()[0], next(line for line in out.splitlines() if "chase_access" in line)
    assert header.split()[:3] == ["metric", content.control, "always"]
    assert "[95 % interval]" in header
    assert "faster [" in access
    assert max(cell_len(line) for line in out.splitlines()) <= 80


def test_what_could_not_be_measured_stands_below_with_its_reason(
    report_samples: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    print_effects(report_samples.sample())
    assert "dtlb_load_misses_per_kilo_instruction: unavailable: " in capsys.readouterr().out


def test_a_run_that_stopped_early_has_no_table_and_says_so(
    report_samples: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    content = report_samples.sample()
    findings = dataclasses.replace(content.findings, estimates=())
    print_effects(dataclasses.replace(content, findings=findings))
    assert capsys.readouterr().out.startswith("no effect could be estimated\n")


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("score", "score"),
        ("access_nanoseconds_per_dereference", "access_nanoseconds_per_\ndereference"),
        ("dtlb_load_misses_per_kilo_instruction", "dtlb_load_misses_per_kilo_\ninstruction"),
        ("_x__y_", "_x__y_"),
        ("", ""),
    ],
)
def test_a_long_name_breaks_after_an_underscore(name: str, lines: str) -> None:
    assert folded(name) == lines


def test_each_of_several_treatments_has_a_table_and_then_they_are_set_against_each_other(
    report_samples: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    print_effects(report_samples.three_arm_sample())
    out = capsys.readouterr().out
    headers = [line.split("change")[0].split() for line in out.splitlines() if line.startswith("metric")]
    assert headers == [
        ["metric", "base", "thp-2m"],
        ["metric", "base", "hugetlb-1g"],
        ["metric", "thp-2m", "hugetlb-1g"],
    ]
    assert "(pages per host and hour)" in out
    assert max(cell_len(line) for line in out.splitlines()) <= 80


def test_nothing_is_called_better_or_worse_beside_an_interval_that_holds_0(
    report_samples: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    print_effects(report_samples.sample())
    lines = capsys.readouterr().out.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("context_switches"))
    assert lines[place].endswith("no clear change")
    assert lines[place + 1].split("[")[0].strip() == "+3 %"


def test_one_line_says_which_of_several_arms_to_take(
    report_samples: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    content = report_samples.three_arm_sample()
    print_decision(content)
    out = capsys.readouterr().out
    assert out.startswith("decision: ship — take thp-2m, the only one to ship without a limit; ")
    assert "\n  hugetlb-1g: ship in strata — throughput rose by" in out
    assert "\n    would settle it: more hosts in batch|x86" in out
    assert max(cell_len(line) for line in out.splitlines()) <= 80
    print_decision(dataclasses.replace(content, simulated=True))
    assert capsys.readouterr().out.startswith("decision: ship — SIMULATED")


def test_a_decision_that_is_not_favourable_names_its_doubts(
    report_samples: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    content = report_samples.sample()
    arm = dataclasses.replace(content.findings.arms[0], decision=Decision.INCONCLUSIVE)
    print_decision(dataclasses.replace(content, findings=dataclasses.replace(content.findings, arms=(arm,))))
    assert "in doubt: so few hosts do not speak for others; what an arm" in capsys.readouterr().out


def test_the_whole_answer_ends_with_report_and_three_commands(
    report_samples: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    content = report_samples.sample()
    html = write_html(content, tmp_path / "new" / "run-3.html")
    answer = RunResult(outcome=outcome(RunState.COMPLETED, "better_here", "unused"), content=content, html=html)
    answer.print(parse_url("sqlite:///fleetexp.db"))
    out = capsys.readouterr().out
    assert "decision: better here — chase_access_seconds fell by 34 %" in out
    assert "speaks for: 1 host (bench-01)" in out
    assert f"report: {html}" in out
    assert 1 <= out.count("fleetexp sql") <= 3
    assert html.read_text().startswith("<!")
    assert answer.as_json()["report"] == str(html)
    json.dumps(answer.as_json(), allow_nan=False)


def test_an_answer_without_findings_says_how_the_run_ended(capsys: pytest.CaptureFixture[str]) -> None:
    answer = RunResult(outcome=outcome(RunState.FAILED, reason="thp/enabled can't be written"), content=None, html=None)
    answer.print(parse_url("sqlite:///fleetexp.db"))
    assert capsys.readouterr().out.splitlines() == [
        "run 3 failed: thp/enabled can't be written",
        "Nothing was changed on any host.",
    ]
    assert answer.as_json()["findings"] is None


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (RunState.RESTORE_INCOMPLETE, "fleetexp restore"),
        (RunState.PAUSED, "fleetexp resume 3"),
        (RunState.HALTED, "kept and marked"),
    ],
)
def test_every_ending_says_what_to_do_or_expect(state: RunState, word: str) -> None:
    text = " ".join(ending(outcome(state, reason="because")))
    assert word in text
    assert "because" in text


def test_an_incomplete_restore_comes_before_any_decision(
    report_samples: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = outcome(RunState.RESTORE_INCOMPLETE, "ship", "x")
    assert ending(broken)[0].startswith("RESTORE INCOMPLETE")
    RunResult(outcome=broken, content=report_samples.sample(), html=None).print(parse_url("sqlite:///fleetexp.db"))
    out = capsys.readouterr().out
    assert "RESTORE INCOMPLETE" in out
    assert "decision:" not in out


def test_a_decision_is_told_where_there_is_nothing_to_report_on() -> None:
    assert ending(outcome(RunState.COMPLETED, "do_not_ship", "it fell")) == ["decision: do not ship — it fell"]


def test_a_run_that_ended_without_reason_is_still_named() -> None:
    assert ending(outcome(RunState.COMPLETED)) == ["run 3 completed"]


@pytest.mark.parametrize(
    ("decision", "code", "required", "expected"),
    [
        (Decision.INCONCLUSIVE, ExitCode.DONE, True, ExitCode.INCONCLUSIVE),
        (Decision.INCONCLUSIVE, ExitCode.DONE, False, ExitCode.DONE),
        (None, ExitCode.DONE, True, ExitCode.INCONCLUSIVE),
        *((one, ExitCode.DONE, True, ExitCode.DONE) for one in Decision if one is not Decision.INCONCLUSIVE),
        (Decision.INCONCLUSIVE, ExitCode.RESTORE_INCOMPLETE, True, ExitCode.RESTORE_INCOMPLETE),
        (None, ExitCode.HALTED, True, ExitCode.HALTED),
    ],
)
def test_requiring_a_decision_never_hides_a_worse_code(
    decision: Decision | None, code: ExitCode, required: bool, expected: ExitCode
) -> None:
    assert exit_code(outcome(RunState.COMPLETED, decision, code=code), require_decision=required) is expected


_SQL = st.text(alphabet="abz '\"$`!\\*_=();", min_size=1, max_size=200).filter(lambda text: text.strip() != "")


@given(_SQL)
def test_a_suggested_command_means_the_query_when_pasted(sql: str) -> None:
    pasted = "\n".join(sql_command(sql, parse_url("sqlite:///fleetexp.db")))
    words = shlex.split(pasted.replace("\\\n", ""))
    assert words[:2] == ["fleetexp", "sql"]
    assert len(words) == 3
    assert words[2].split() == sql.split()


def test_blanks_inside_a_literal_are_left_alone() -> None:
    sql = "select * from event where detail = 'a  b' and " + " and ".join(["x = 1"] * 20)  # noqa: S608 - printed, not asked
    assert shlex.split("\n".join(sql_command(sql, parse_url("sqlite:///fleetexp.db"))))[2] == sql


def test_a_suggested_command_names_the_store_unless_it_is_the_usual_one() -> None:
    assert sql_command("select 1", parse_url("sqlite:///fleetexp.db")) == ['fleetexp sql "select 1"']
    assert sql_command("select 1", parse_url("sqlite:///a b.db")) == [
        "fleetexp sql --store 'sqlite:///a b.db' \"select 1\""
    ]


def test_a_suggested_command_fits_80_columns() -> None:
    columns = ", ".join(f"column_{n}" for n in range(30))
    lines = sql_command(f"select {columns} from effects", parse_url("sqlite:///x.db"))  # noqa: S608 - printed, not asked
    assert len(lines) > 1
    assert max(map(len, lines)) <= 78
