"""The commands that read or steer what is in the store, on a real SQLite store."""

from __future__ import annotations

import csv
import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import Result

from fleetexp.domain import PeriodState, RunRequest, RunState
from fleetexp.exit_codes import ExitCode
from fleetexp.store.store import Store
from tests.fleetexp.store.single import end_period, start_period

DEMO = Path(__file__).parents[3] / "configs" / "thp-2m-demo.yaml"
README = Path(__file__).parents[3] / "README.md"
BEGAN = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)
Invoke = Callable[..., Result]


@pytest.fixture
def running(store: Store, new_run: Callable[[], int]) -> int:
    """A run with one complete, one invalid and one running period."""
    run_id = new_run()
    store.set_run_state(run_id, RunState.RUNNING)
    first, second, third, *_ = store.periods(run_id)
    for place, period in enumerate((first, second, third)):
        start_period(store, period.period_id, BEGAN + timedelta(seconds=10 * place), "boot")
    end_period(store, first.period_id, BEGAN + timedelta(seconds=5), PeriodState.COMPLETE)
    end_period(store, second.period_id, BEGAN + timedelta(seconds=15), PeriodState.INVALID, "somebody wrote the knob")
    return run_id


# ------------------------------------------------------------------ status, runs
def test_status_shows_state_periods_and_what_goes_on(invoke: Invoke, url: str, running: int) -> None:
    result = invoke("status", str(running), "--store", url)
    assert result.exit_code == 0, result.stderr
    text = " ".join(result.stdout.split())
    assert f"run {running}, thp-2m-demo" in text
    assert "state running" in text
    assert "1 of 32 complete, 1 invalid" in text
    assert "invalid somebody wrote the knob" in text
    assert "web-17: " in text
    assert "by root@web-17 pid 9, fleet inline" in text
    assert max(len(line) for line in result.stdout.splitlines()) <= 80


def test_status_without_a_number_is_that_of_the_newest(
    invoke: Invoke, url: str, running: int, new_run: Callable[[], int]
) -> None:
    newest = new_run()
    found = json.loads(invoke("status", "--store", url, "--json").stdout)
    assert newest > running
    assert (found["run_id"], found["state"], found["periods"]) == (newest, "planned", {"planned": 32})


def test_watching_ends_with_the_run(
    invoke: Invoke, url: str, running: int, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fleetexp.cli import status

    looks: list[float] = []

    def nap(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            store.set_run_state(running, RunState.HALTED, "stopped by root")

    monkeypatch.setattr(status.time, "sleep", nap)
    result = invoke("status", str(running), "--watch", "--store", url)
    assert result.exit_code == 0, result.stderr
    assert len(looks) == 3
    assert result.stdout.count("state        running") == 1  # what has not changed is not said again
    assert "halted: stopped by root" in result.stdout


def test_watching_and_json_exclude_each_other(invoke: Invoke, url: str) -> None:
    assert invoke("status", "--watch", "--json", "--store", url).exit_code == ExitCode.USAGE


def test_runs_lists_the_newest_first(invoke: Invoke, url: str, running: int, new_run: Callable[[], int]) -> None:
    newest = new_run()
    lines = invoke("runs", "--store", url).stdout.splitlines()
    numbers = [line.split()[0] for line in lines[2:]]
    assert numbers == [str(newest), str(running)]
    found = json.loads(invoke("runs", "--store", url, "--json").stdout)
    assert [run["run_id"] for run in found["runs"]] == [newest, running]


def test_a_store_without_runs_says_how_to_begin(invoke: Invoke, url: str, store: Store) -> None:
    assert "fleetexp run SPEC.yaml" in invoke("runs", "--store", url).stdout
    result = invoke("status", "--store", url)
    assert result.exit_code == ExitCode.ERROR
    assert "the store holds no run" in result.stderr


def test_a_run_that_is_not_there_is_one_clear_line(invoke: Invoke, url: str, store: Store) -> None:
    for command in (["status", "77"], ["report", "77"], ["abort", "77"], ["resume", "77"]):
        result = invoke(*command, "--store", url)
        assert result.exit_code == ExitCode.ERROR, command
        assert result.stderr.startswith("error: "), command
        assert "77" in result.stderr, command


def test_a_store_that_is_not_there_is_not_made_by_reading(invoke: Invoke, tmp_path: Path) -> None:
    missing = tmp_path / "none.db"
    for command in (["status"], ["runs"], ["report"], ["sql", "select 1"], ["pause", "1"]):
        result = invoke(*command, "--store", f"sqlite:///{missing}")
        assert result.exit_code == ExitCode.ERROR, command
        assert result.stderr.startswith("error: "), command
        assert not missing.exists(), command


def test_the_store_can_be_named_in_the_environment(
    invoke: Invoke, url: str, running: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEETEXP_STORE", url)
    assert json.loads(invoke("status", "--json").stdout)["run_id"] == running


# ------------------------------------------------------------------ pause, abort
@pytest.fixture
def driven(store: Store, running: int) -> Iterator[list[tuple[str, str]]]:
    """The run has somebody who listens to it; what was heard."""
    heard: list[tuple[str, str]] = []
    over = threading.Event()

    def listen() -> None:
        while not over.wait(0.05):
            if (request := store.requested(running)) is not None:
                heard.append(request)

    listener = threading.Thread(target=listen)
    listener.start()
    yield heard
    over.set()
    listener.join()


@pytest.mark.parametrize("how", ["pause", "abort"])
def test_asking_a_run_to_stop_is_heard_by_the_process_that_drives_it(
    invoke: Invoke, url: str, running: int, driven: list[tuple[str, str]], how: str
) -> None:
    result = invoke(how, str(running), "--store", url)
    assert result.exit_code == 0, result.stderr
    assert f"asked run {running} to {how}, and it does" in result.stdout
    ((asked, who),) = driven
    assert asked == how
    assert " pid " in who
    assert "asked" not in invoke("status", "--store", url).stdout


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetexp.control.run_requests.HEARD_WITHIN_SECONDS", 0.3)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", ["pause", "abort"])
def test_a_request_that_nobody_hears_is_said_and_stays(
    invoke: Invoke, url: str, running: int, store: Store, how: str
) -> None:
    result = invoke(how, str(running), "--store", url)
    assert result.exit_code == ExitCode.ERROR
    assert result.stdout == ""
    assert f"nobody has heard the {how}" in result.stderr
    then = {"pause": "takes it up again", "abort": "ends it"}[how]
    assert f"'fleetexp resume {running}' {then}" in " ".join(result.stderr.split())
    assert store.asked(running) is not None
    shown = " ".join(invoke("status", "--store", url).stdout.split())
    assert f"asked {how}, by " in shown
    assert "so no process seems to drive this run; 'fleetexp resume" in shown
    assert f"{how}, by " in json.loads(invoke("status", "--store", url, "--json").stdout)["asked"]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("state", "code", "said"),
    [(RunState.COMPLETED, ExitCode.ERROR, "is over: completed"), (RunState.PAUSED, ExitCode.DONE, "is paused, and")],
)
def test_a_run_that_ends_before_it_hears_is_told_to_have_ended(  # noqa: PLR0917 - fixtures, then what is tried
    invoke: Invoke,
    url: str,
    running: int,
    monkeypatch: pytest.MonkeyPatch,
    state: RunState,
    code: ExitCode,
    said: str,
) -> None:
    really = Store.request

    def too_late(store: Store, run_id: int, how: RunRequest, who: str) -> None:
        store.set_run_state(run_id, state)
        really(store, run_id, how, who)

    monkeypatch.setattr(Store, "request", too_late)
    result = invoke("pause", str(running), "--store", url)
    assert result.exit_code == code
    assert said in " ".join(result.output.split())


def test_a_request_that_is_fresh_is_shown_as_not_heard_yet(
    invoke: Invoke, url: str, running: int, store: Store
) -> None:
    store.request(running, RunRequest.PAUSE, "ann")
    assert "pause, by ann: not heard yet" in invoke("status", "--store", url).stdout


def test_a_paused_run_that_is_aborted_is_ended_by_whoever_resumes_it(
    invoke: Invoke, url: str, running: int, store: Store
) -> None:
    store.set_run_state(running, RunState.PAUSED)
    result = invoke("abort", str(running), "--store", url)
    assert result.exit_code == 0
    assert f"'fleetexp resume {running}' ends it" in result.stdout
    assert f"'fleetexp resume {running}' will hear it" in invoke("status", "--store", url).stdout
    answer = invoke("abort", str(running), "--store", url, "--json")
    assert json.loads(answer.stdout) == {"run_id": running, "asked": "abort", "heard": False}


@pytest.mark.usefixtures("driven")
def test_asking_with_json_answers_with_one_object(invoke: Invoke, url: str, running: int) -> None:
    answer = json.loads(invoke("abort", str(running), "--store", url, "--json").stdout)
    assert answer == {"run_id": running, "asked": "abort", "heard": True}


def test_a_run_that_is_over_cannot_be_asked(invoke: Invoke, url: str, finished: int) -> None:
    for command in ("pause", "abort", "resume"):
        result = invoke(command, str(finished), "--store", url)
        assert result.exit_code == ExitCode.ERROR
        assert "is over" in result.stderr


# ------------------------------------------------------------------ sql, db
def test_sql_prints_tables_csv_and_json(invoke: Invoke, url: str, running: int) -> None:
    query = "select run_id, state from run order by run_id"
    table = invoke("sql", query, "--store", url)
    assert table.stdout.splitlines()[0].split() == ["run_id", "state"]
    assert table.stdout.splitlines()[2].split() == [str(running), "running"]
    rows = list(csv.reader(io.StringIO(invoke("sql", query, "--store", url, "--csv").stdout)))
    assert rows == [["run_id", "state"], [str(running), "running"]]
    found = json.loads(invoke("sql", query, "--store", url, "--json").stdout)
    assert found == {"columns": ["run_id", "state"], "rows": [[running, "running"]], "truncated": False}


def test_sql_reads_its_query_from_stdin(invoke: Invoke, url: str, running: int) -> None:
    result = invoke("sql", "-", "--store", url, "--csv", stdin="select count(*) as n from run")
    assert result.stdout == "n\n1\n"


def test_sql_says_where_rows_were_left_out(invoke: Invoke, url: str, running: int) -> None:
    result = invoke("sql", "select period_id from period", "--limit", "3", "--store", url, "--csv")
    assert len(result.stdout.splitlines()) == 4
    assert "only the first 3 rows" in result.stderr
    found = json.loads(invoke("sql", "select period_id from period", "--limit", "3", "--store", url, "--json").stdout)
    assert found["truncated"]


def test_sql_shows_null_as_nothing_and_floats_short(invoke: Invoke, url: str, store: Store) -> None:
    query = "select null as a, 1.0/3 as b, 'x' as c"
    assert invoke("sql", query, "--store", url).stdout.splitlines()[2].split() == ["0.333333", "x"]
    assert invoke("sql", query, "--store", url, "--csv").stdout.splitlines()[1].startswith(",0.333")
    assert invoke("sql", "select 1 as one where 1 = 0", "--store", url).stdout.splitlines()[0].split() == ["one"]


@pytest.mark.parametrize("query", ["delete from run", "drop table run", "select * from nowhere", "selec"])
def test_sql_cannot_change_anything_and_bad_sql_is_one_line(invoke: Invoke, url: str, running: int, query: str) -> None:
    result = invoke("sql", query, "--store", url)
    assert result.exit_code == ExitCode.ERROR
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert json.loads(invoke("runs", "--store", url, "--json").stdout)["runs"]


@pytest.mark.slow
def test_the_questions_in_readme_and_help_are_answered(invoke: Invoke, url: str, finished: int) -> None:
    texts = (README.read_text(), invoke("sql", "--help").stdout, invoke("sql").stdout)
    questions = [found[1] for text in texts for found in re.findall(r"fleetexp sql (['\"])(select .*?)\1", text)]
    assert len(questions) >= 3
    for question in questions:
        result = invoke("sql", question, "--store", url)
        assert result.exit_code == 0, result.stderr


def test_sql_without_a_query_documents_the_views(invoke: Invoke) -> None:
    result = invoke("sql")
    assert result.exit_code == 0
    for view in ("run_summary", "period_metrics", "effects", "thp_backing", "split_rates", "knob_audit"):
        assert f"{view}: " in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    names = {view["name"] for view in json.loads(invoke("sql", "--json").stdout)["views"]}
    assert {"effects", "host_timeline"} <= names


def test_db_upgrade_makes_the_schema_and_check_finds_it_sound(invoke: Invoke, url: str) -> None:
    done = invoke("db", "upgrade", "--store", url)
    assert done.exit_code == 0, done.stderr
    version = json.loads(invoke("db", "upgrade", "--store", url, "--json").stdout)["schema_version"]
    assert str(version) in done.stdout
    assert invoke("db", "check", "--store", url).stdout == "the store is sound\n"
    assert json.loads(invoke("db", "check", "--store", url, "--json").stdout) == {"sound": True, "problems": []}


def test_db_check_fails_with_what_it_found(invoke: Invoke, url: str, running: int) -> None:
    result = invoke("db", "check", "--store", url)
    assert result.exit_code == ExitCode.ERROR
    assert result.stdout.startswith("- ")
    assert json.loads(invoke("db", "check", "--store", url, "--json").stdout)["sound"] is False


def test_a_file_that_is_no_database_is_one_clear_line(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("certainly not a database, but longer than a header of sixteen bytes" * 20)
    result = invoke("runs", "--store", f"sqlite:///{tmp_path / 'x.db'}")
    assert result.exit_code == ExitCode.ERROR
    assert result.stderr.startswith("error: ")
    assert "unexpected" not in result.stderr


# ------------------------------------------------------------------ report
def test_report_prints_the_table_and_the_decision(invoke: Invoke, url: str, finished: int) -> None:
    result = invoke("report", "--store", url)
    assert result.exit_code == 0, result.stderr
    assert "chase_access_seconds" in result.stdout
    assert "decision: " in result.stdout
    assert "fleetexp sql" in result.stdout


def test_report_writes_html_markdown_and_json(invoke: Invoke, url: str, finished: int, tmp_path: Path) -> None:
    html = tmp_path / "out" / "report.html"
    result = invoke("report", str(finished), "--html", str(html), "--store", url)
    assert result.exit_code == 0, result.stderr
    assert html.read_text().lower().startswith("<!doctype html>")
    assert invoke("report", str(finished), "--markdown", "--store", url).stdout.startswith("#")
    found = json.loads(invoke("report", str(finished), "--json", "--store", url).stdout)
    assert found["findings"]["decision"]
    assert invoke("report", "--json", "--markdown", "--store", url).exit_code == ExitCode.USAGE


def test_a_run_without_findings_has_no_report(invoke: Invoke, url: str, running: int) -> None:
    result = invoke("report", "--store", url)
    assert result.exit_code == ExitCode.ERROR
    assert "has no findings: it is running" in result.stderr
    assert f"fleetexp status {running}" in result.stderr
