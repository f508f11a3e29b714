"""What `fleetexp sql` is asked ends in its time, with its output, in bounded memory; nothing half-written is left."""

# ruff: noqa: S608 - it asks whatever can be asked
from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg
import pytest
from click.testing import Result

from fleetexp.exit_codes import ExitCode
from fleetexp.store.store import open_store
from tests.postgresql_server import Server

# The alarm rings on where Python drops what it raises, in a callback of Hypothesis' say; pytest would not.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

Invoke = Callable[..., Result]
OVERRUN_SECONDS = 6.0  # what other work on the machine may add, and the start of the process
MOST_MEMORY_KIB = 900 << 10
ROWS = "with recursive n(i) as (select 1 union all select i + 1 from n) "
PATCHED = (
    "with recursive n(i) as (select 1 union all select i + 1 from n limit 400000) "
    "select length(json_patch(a, a)) from (select json_group_object('k' || i, i) a from n)"
)
DOUBLED = ", ".join(f"a{step}(x) as (select x + x from a{step - 1})" for step in range(1, 40))
# Each ran on for 20 s and more with --timeout 3.
SEARCH = "select instr(zeroblob(15000000), cast(zeroblob(7000000) as blob) || x'01')"
ENDLESS = {
    "a text in one step": "select length(printf('%.*c', 2000000000, 'a')), length(printf('%.*c', 2000000000, 'a'))",
    "long texts without end": ROWS + "select printf('%.*c', 16000000, 'a') as a from n",
    "a replacement in one step": "select length(replace(hex(zeroblob(4000000)), hex(zeroblob(2000000)) || '1', 'x'))",
    "a document in one step": PATCHED,
    "a plan without end": "with a0(x) as (select 1), " + DOUBLED + " select x from a39",
    "a wide join": ROWS + "select * from n a, n b, n c, n d, n e, n f, n g, n h",
    "a sort without end": ROWS + "select i from n order by -i",
}
OUT_OF_MEMORY_FIRST = {"a plan without end": ("more than 512 MiB of memory",)}  # where the machine is fast
TOO_LARGE = {
    "select zeroblob(1000000000)": "too big",
    "select length(randomblob(1000000000))": "too big",
    "select hex(zeroblob(5000000)) like '%' || hex(zeroblob(20000))": "too complex",
    "select " + ", ".join(["hex(zeroblob(8000000))"] * 200): "MiB",
    "select " + "(" * 5000 + "1" + ")" * 5000: "the query failed",
    "select " + " + ".join(["1"] * 5000): "the query failed",
    " union all ".join(["select 1"] * 1000): "the query failed",
    "select '" + "x" * 1_000_000 + "'": "more than 1,000,000 characters",
}


@pytest.fixture
def empty_url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    open_store(url).close()
    return url


def ends_in_time(invoke: Invoke, *arguments: str, seconds: float = 0.5, or_by: Sequence[str] = ()) -> Result:
    begun = time.monotonic()
    result = invoke("sql", *arguments, "--timeout", str(seconds))
    assert time.monotonic() - begun < seconds + OVERRUN_SECONDS
    assert result.exit_code == ExitCode.ERROR
    assert any(limit in result.stderr for limit in (f"longer than {seconds:g} s", *or_by)), result.stderr
    return result


def test_rows_without_end_are_cut_off_and_no_half_of_a_file_is_left(
    invoke: Invoke, empty_url: str, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    rows = ROWS + "select i, i * 0.5 as half from n"
    assert ends_in_time(invoke, rows, "--csv", "--store", empty_url).stdout.startswith("i,half\n1,0.5\n")
    ends_in_time(invoke, rows, "--parquet", "all.parquet", "--store", empty_url)
    assert sorted(tmp_path.iterdir()) == before


def test_what_hears_no_interrupt_is_ended_all_the_same(invoke: Invoke, empty_url: str) -> None:
    ends_in_time(invoke, SEARCH, "--store", empty_url)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("form", [["--csv"], ["--parquet", "out.parquet"]])
def test_every_way_to_compute_without_end_is_cut_off(
    invoke: Invoke, empty_url: str, name: str, form: list[str]
) -> None:
    or_by = OUT_OF_MEMORY_FIRST.get(name, ())
    ends_in_time(invoke, ENDLESS[name], *form, "--store", empty_url, seconds=1.0, or_by=or_by)


@pytest.mark.slow
@pytest.mark.parametrize("sql", TOO_LARGE, ids=lambda sql: sql[:40])
def test_what_is_too_large_is_refused(invoke: Invoke, empty_url: str, sql: str) -> None:
    result = invoke("sql", "-", "--csv", "--store", empty_url, stdin=sql)
    assert result.exit_code == ExitCode.ERROR
    assert TOO_LARGE[sql] in result.stderr, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_table_and_json_are_held_as_a_whole_and_bounded(invoke: Invoke, empty_url: str, form: list[str]) -> None:
    sql = ROWS + "select printf('%.*c', 100000, 'a') from n"
    result = invoke("sql", sql, *form, "--limit", "100000", "--store", empty_url)
    assert result.exit_code == ExitCode.ERROR
    assert "the answer takes more than 32 MiB" in result.stderr


def ended(*arguments: str, read: bool) -> tuple[int, float, int]:
    """Return exit code, seconds, and the most memory in KiB of the command or the process that it started."""
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "fleetexp", "sql", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout is not None
    while read and process.stdout.read(1 << 20):
        pass
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    return process.returncode, time.monotonic() - begun, used.ru_maxrss


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDLESS)
def test_memory_is_bounded(empty_url: str, name: str) -> None:
    code, seconds, kib = ended(ENDLESS[name], "--csv", "--timeout", "3", "--store", empty_url, read=True)
    assert code == ExitCode.ERROR
    assert seconds < 3 + OVERRUN_SECONDS
    assert kib < MOST_MEMORY_KIB


@pytest.mark.slow
def test_an_output_that_nobody_reads_ends_in_time_too(empty_url: str) -> None:
    code, seconds, _ = ended(ROWS + "select i from n", "--csv", "--timeout", "1", "--store", empty_url, read=False)
    assert code == ExitCode.ERROR
    assert seconds < 1 + OVERRUN_SECONDS


@pytest.mark.postgresql
def test_postgresql_ends_with_the_question(invoke: Invoke, postgresql: Server, tmp_path: Path) -> None:
    url = postgresql.new_database()
    for sql in ("select i, repeat('x', 1000) from generate_series(1, 1000000000) i", ROWS + "select count(*) from n"):
        for form in (["--csv"], ["--parquet", "out.parquet"]):
            ends_in_time(invoke, sql, *form, "--store", url)
    assert list(tmp_path.iterdir()) == []
    with psycopg.connect(url, autocommit=True) as connection:
        others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        until = time.monotonic() + 5
        while (found := connection.execute(others).fetchone()) != (0,) and time.monotonic() < until:
            time.sleep(0.05)
        assert found == (0,)


@pytest.mark.slow
@pytest.mark.postgresql
def test_a_value_of_a_gigabyte_takes_no_gigabyte_here(postgresql: Server) -> None:
    sql = "select repeat('x', 1000000000)"
    code, _, kib = ended(sql, "--csv", "--timeout", "30", "--store", postgresql.new_database(), read=True)
    assert code == ExitCode.ERROR
    assert kib < MOST_MEMORY_KIB
