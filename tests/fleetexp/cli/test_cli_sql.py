"""`fleetexp sql` and `fleetexp export` as a user meets them: formats, widths, and texts that nobody obeys."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import Result

from fleetexp.cli.grid import grid
from fleetexp.domain import EventKind
from fleetexp.exit_codes import ExitCode
from fleetexp.store.store import open_store
from fleetexp.store.views.all_views import VIEWS
from tests.fleetexp.store.example_run import fill
from tests.fleetexp.store.rows import make_plan, new_run

Invoke = Callable[..., Result]
HOSTILE = "<b>x</b>'; DROP TABLE run; --\x1b[31m\x07\x9b2J\u202e\r\n=1+1|\t,\""
NUMBERS = (
    "with recursive n(i) as (select 1 union all select i + 1 from n where i < {}) select i, i * 0.5 as half from n"
)


@pytest.fixture(scope="module")
def example_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("example") / "example.db"
    open_store(f"sqlite:///{path}").close()
    fill(f"sqlite:///{path}")
    return path


@pytest.fixture
def url(example_file: Path, tmp_path: Path) -> str:
    shutil.copyfile(example_file, tmp_path / "runs.db")
    return f"sqlite:///{tmp_path / 'runs.db'}"


@pytest.fixture
def hostile_url(tmp_path: Path) -> str:
    """A store in which every text is as bad as texts can be."""
    url = f"sqlite:///{tmp_path / 'hostile.db'}"
    with contextlib.closing(open_store(url)) as store:
        run_id = new_run(store, make_plan([HOSTILE]), name=HOSTILE)
        store.record_event(run_id, EventKind.DRIFT, HOSTILE, host=HOSTILE)
    return url


# ------------------------------------------------------------------ what there is
def test_one_view_is_described_by_its_name(invoke: Invoke) -> None:
    result = invoke("sql", "fault_outcomes")
    assert result.exit_code == 0
    assert result.stdout.startswith("fault_outcomes: How many faults")
    assert "memory_free_bytes" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    found = json.loads(invoke("sql", "fault_outcomes", "--json").stdout)
    assert found["kinds"]["size_kib"] == "whole number"
    assert invoke("sql", "knob_change").stdout.startswith("knob_change: One write")


def test_every_view_column_and_table_is_listed_without_a_store(invoke: Invoke) -> None:
    listed = invoke("sql").stdout
    for view in VIEWS:
        part = listed.split(f"{view.name}: ", 1)[1]
        assert all(f"    {name}: " in listed or name in part for name in view.columns), view.name
    assert "guardrail_check" in listed
    assert {table["name"] for table in json.loads(invoke("sql", "--json").stdout)["tables"]} >= {"run", "sample"}


# ------------------------------------------------------------------ formats
def test_csv_and_parquet_hold_every_row(invoke: Invoke, url: str, tmp_path: Path) -> None:
    assert len(invoke("sql", NUMBERS.format(25_000), "--csv", "--store", url).stdout.splitlines()) == 25_001
    done = invoke("sql", NUMBERS.format(25_000), "--parquet", "n.parquet", "--store", url)
    assert done.stdout == "25000 rows: n.parquet\n"
    table = pq.read_table(tmp_path / "n.parquet")
    assert [str(field.type) for field in table.schema] == ["int64", "double"]
    assert table["i"].to_pylist() == list(range(1, 25_001))


def test_parquet_takes_limits_nulls_instants_and_mixed_columns(invoke: Invoke, url: str, tmp_path: Path) -> None:
    query = "select taken_at, null as empty, case sequence when 0 then 1 else 'x' end as mixed from sample"
    done = invoke("sql", query, "--parquet", "s.parquet", "--limit", "2", "--store", url)
    assert "only the first 2 rows" in done.stderr
    table = pq.read_table(tmp_path / "s.parquet")
    assert [str(field.type) for field in table.schema] == ["timestamp[us, tz=UTC]", "string", "string"]
    assert (table.num_rows, table["mixed"].to_pylist()) == (2, ["1", "x"])


def test_parquet_overwrites_nothing_and_leaves_nothing_half_done(invoke: Invoke, url: str, tmp_path: Path) -> None:
    (tmp_path / "mine.parquet").write_text("mine")
    refused = invoke("sql", "select 1", "--parquet", "mine.parquet", "--store", url)
    assert refused.exit_code == ExitCode.ERROR
    assert "there is a file already" in refused.stderr
    before = sorted(path.name for path in tmp_path.iterdir())
    for query in ("select 1 as a, 2 as a", "select * from nowhere", "delete from run"):
        assert invoke("sql", query, "--parquet", "new.parquet", "--store", url).exit_code == ExitCode.ERROR
    assert invoke("sql", "select 1", "--parquet", "no/such/folder.parquet", "--store", url).exit_code == ExitCode.ERROR
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "mine.parquet").read_text() == "mine"


def test_formats_exclude_each_other(invoke: Invoke, url: str) -> None:
    for more in (["--csv", "--json"], ["--csv", "--parquet", "x"], ["--json", "--parquet", "x"]):
        assert invoke("sql", "select 1", *more, "--store", url).exit_code == ExitCode.USAGE


def test_instants_are_written_as_text_in_utc(invoke: Invoke, url: str) -> None:
    query = "select created_at from run where run_id = 1"
    assert invoke("sql", query, "--csv", "--store", url).stdout.splitlines()[1] == "2026-02-02T10:00:00.000000Z"
    assert json.loads(invoke("sql", query, "--json", "--store", url).stdout)["rows"] == [
        ["2026-02-02T10:00:00.000000Z"]
    ]
    assert invoke("sql", query, "--store", url).stdout.splitlines()[2] == "2026-02-02 10:00:00"


def test_what_takes_too_long_is_cut_off(invoke: Invoke, url: str) -> None:
    result = invoke("sql", NUMBERS.format(10**12), "--csv", "--timeout", "20", "--limit", "1", "--store", url)
    assert result.exit_code == 0  # what comes at once is not cut off
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
    result = invoke("sql", endless, "--timeout", "0.2", "--store", url)
    assert result.exit_code == ExitCode.ERROR
    assert "longer than 0.2 s" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("form", [["--csv"], ["--parquet", "/dev/shm/fleetexp-test-large.parquet"]])
def test_a_large_answer_needs_no_more_memory_than_a_small_one(url: str, tmp_path: Path, form: list[str]) -> None:
    def peak_kib(rows: int) -> int:
        Path("/dev/shm/fleetexp-test-large.parquet").unlink(missing_ok=True)
        with (tmp_path / "out").open("wb") as out:
            code = (
                "import resource, sys\nfrom fleetexp.cli.main import cli\n"
                "try: cli(sys.argv[1:])\n"
                "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
            )
            command = [sys.executable, "-c", code, "sql", NUMBERS.format(rows), *form, "--store", url]
            done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, timeout=100, check=True)
        return int(done.stderr.split()[-1])

    try:
        assert peak_kib(2_000_000) < peak_kib(50_000) + 60_000
    finally:
        Path("/dev/shm/fleetexp-test-large.parquet").unlink(missing_ok=True)


# ------------------------------------------------------------------ texts that nobody obeys
@pytest.mark.slow
def test_hostile_texts_reach_the_terminal_as_text(invoke: Invoke, hostile_url: str) -> None:
    for query in ("select name from host", "select * from run_summary", "select * from host_timeline"):
        for more in ([], ["--json"]):
            out = invoke("sql", query, *more, "--store", hostile_url).stdout
            assert out
            assert all(c.isprintable() or c == "\n" for c in out), (query, more)
    assert "DROP TABLE run" in invoke("sql", "select name from host", "--store", hostile_url).stdout
    assert json.loads(invoke("sql", "select name from host", "--json", "--store", hostile_url).stdout)["rows"] == [
        [HOSTILE]
    ]
    assert invoke("sql", "select count(*) from run", "--csv", "--store", hostile_url).stdout.splitlines()[1] == "1"


def test_hostile_names_of_columns_and_errors_are_shown_too(invoke: Invoke, hostile_url: str) -> None:
    for query in ('select 1 as "\x1b[31mred"', "select \x1b[31m", 'select "\x9b2J" from run'):
        for more in ([], ["--json"]):
            result = invoke("sql", query, *more, "--store", hostile_url)
            assert all(c.isprintable() or c == "\n" for c in result.stdout + result.stderr), query


def test_csv_gives_a_program_the_text_as_it_is(
    fleetexp: Callable[..., subprocess.CompletedProcess[str]], hostile_url: str
) -> None:
    out = fleetexp("sql", "select name from host", "--csv", "--store", hostile_url).stdout
    (_, (name,)) = csv.reader(io.StringIO(out, newline=""))
    assert name.replace("\r\n", "\n") == HOSTILE.replace("\r\n", "\n")  # text mode of the pipe


@pytest.mark.parametrize(("option", "mark"), [("--csv", "'"), ("--csv-raw", "")])
def test_csv_hands_a_spreadsheet_no_formula(invoke: Invoke, url: str, option: str, mark: str) -> None:
    texts = [f"{sign}cmd|'/c calc'!A1" for sign in (*"=+-@\t\r\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")]
    asked = ", ".join(f"""'{text.replace("'", "''")}' as "{text}\"""" for text in texts)
    out = invoke("sql", f"select {asked}", option, "--store", url).stdout
    assert [*csv.reader(io.StringIO(out, newline=""))] == [[mark + text for text in texts]] * 2


def test_numbers_stay_numbers_in_csv(invoke: Invoke, url: str) -> None:
    sql = "select -5 as a, -2.5e-7 as b, '-5' as c, '+1.5E3' as d, '-' as e, '-1+1' as f, 'a=b' as g, null as h"
    for option in ("--csv", "--csv-raw"):
        (row,) = csv.DictReader(io.StringIO(invoke("sql", sql, option, "--store", url).stdout))
        assert [row[name] for name in "abcdgh"] == ["-5", "-2.5e-07", "-5", "+1.5E3", "a=b", ""]
        assert (row["e"], row["f"]) == (("'-", "'-1+1") if option == "--csv" else ("-", "-1+1"))


# ------------------------------------------------------------------ tables
def test_a_table_fits_its_width_and_numbers_are_never_cut() -> None:
    headers = ["host", "some_long_name_of_a_number", "why"]
    rows = [["web-1", "123456789.125", "because " * 60], ["web-2", "5", ""]]
    lines = list(grid(headers, rows, frozenset({1}), 60))
    assert max(map(len, lines)) <= 60
    assert any("123456789.125" in line for line in lines)
    assert any(line.split()[:2] == ["web-2", "5"] for line in lines)
    assert "..." in "\n".join(lines)
    ends = {line.index(number) + len(number) for line in lines for number in ("123456789.125",) if number in line}
    assert {line.index("5") + 1 for line in lines if line.startswith("web-2")} == ends  # flush right


def test_too_many_columns_become_a_block_for_each_row() -> None:
    headers = [f"column_{place}" for place in range(20)]
    lines = list(grid(headers, [[str(10**9 + place) for place in range(20)]] * 2, frozenset(range(20)), 80))
    assert lines[0].startswith("-- row 1 -")
    assert len(lines) == 42
    assert lines[1].split() == ["column_0", "1000000000"]


def test_wide_characters_take_two_columns() -> None:
    lines = list(grid(["name", "n"], [["漢字" * 30, "1"], ["a", "2"]], frozenset({1}), 40))
    from rich.cells import cell_len

    assert max(cell_len(line) for line in lines) <= 40
    assert {cell_len(line) for line in lines if line.endswith(("1", "2"))} == {cell_len(lines[1])}


def test_no_rows_still_show_the_names(invoke: Invoke, url: str) -> None:
    assert "run_id" in invoke("sql", "select * from run_summary where run_id = 99", "--store", url).stdout


# ------------------------------------------------------------------ export
def test_export_writes_a_folder_and_says_so(invoke: Invoke, url: str, tmp_path: Path) -> None:
    done = invoke("export", "1", "--to", "run-1", "--store", url)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("run 1: ")
    manifest = json.loads((tmp_path / "run-1" / "manifest.json").read_text())
    assert sum(file["rows"] for file in manifest["files"]) > 300
    again = invoke("export", "1", "--to", "run-1", "--store", url)
    assert again.exit_code == ExitCode.ERROR
    assert "there is an export already" in again.stderr
    found = json.loads(invoke("export", "2", "--to", "run-2", "--json", "--store", url).stdout)
    assert found["manifest"]["run_id"] == 2


def test_export_of_what_is_not_there_is_one_clear_line(invoke: Invoke, url: str, tmp_path: Path) -> None:
    result = invoke("export", "77", "--to", "out", "--store", url)
    assert result.exit_code == ExitCode.ERROR
    assert "there is no run 77" in result.stderr
    assert not (tmp_path / "out").exists()
    assert invoke("export", "1", "--store", url).exit_code == ExitCode.USAGE
    missing = invoke("export", "1", "--to", "out", "--store", f"sqlite:///{tmp_path / 'none.db'}")
    assert missing.exit_code == ExitCode.ERROR
    assert not (tmp_path / "none.db").exists()
