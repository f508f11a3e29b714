"""Files that commands write: whole or not at all, through no link, in the place of nothing that isn't ours."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from pathlib import Path

import pytest

from analysis.report import REPORT_MARK
from fleetexp.cli.output_file import Over, write_output
from fleetexp.cli.result import conclude, write_page
from fleetexp.control.progress import RunOutcome
from fleetexp.domain import RunState
from fleetexp.errors import RunError
from fleetexp.exit_codes import ExitCode
from tests.fleetexp.cli.conftest import Invoke

KEPT = "somebody's notes\n"
# command -> its arguments, with the file it writes last
WRITERS: dict[str, tuple[str, ...]] = {
    "report": ("report", "--store", "URL", "--html"),
    "comparison": ("report", "--compare", "1", "1", "--store", "URL", "--html"),
    "init": ("init",),
    "example": ("example", "thp-2m-demo"),
    "parquet": ("sql", "select 1 as a", "--store", "URL", "--parquet"),
    "export": ("export", "1", "--store", "URL", "--to"),
}
written_by = pytest.mark.parametrize("writer", WRITERS)


def arguments(writer: str, url: str, target: Path) -> list[str]:
    return [*(url if word == "URL" else word for word in WRITERS[writer]), str(target)]


@written_by
def test_a_file_of_somebody_else_is_kept(invoke: Invoke, url: str, finished: int, tmp_path: Path, writer: str) -> None:
    target = tmp_path / "out"
    target.write_text(KEPT)
    result = invoke(*arguments(writer, url, target))
    assert result.exit_code == ExitCode.ERROR
    assert result.stderr.startswith("error: ")
    assert str(target) in result.stderr
    assert " — " in result.stderr
    assert target.read_text() == KEPT
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".out")]


@written_by
@pytest.mark.parametrize("victim", ["there", "missing"])
@pytest.mark.usefixtures("finished")
def test_no_link_is_followed(invoke: Invoke, url: str, tmp_path: Path, writer: str, victim: str) -> None:
    behind, target = tmp_path / "behind", tmp_path / "out"
    if victim == "there":
        behind.write_text(f"{REPORT_MARK}{KEPT}")  # even one that looks like a report of ours
    target.symlink_to(behind)
    result = invoke(*arguments(writer, url, target))
    assert result.exit_code == ExitCode.ERROR
    assert target.is_symlink()
    assert behind.exists() == (victim == "there")
    if victim == "there":
        assert behind.read_text() == f"{REPORT_MARK}{KEPT}"


@written_by
def test_a_pipe_is_neither_opened_nor_replaced(
    invoke: Invoke, url: str, finished: int, tmp_path: Path, writer: str
) -> None:
    target = tmp_path / "out"
    os.mkfifo(target)
    assert invoke(*arguments(writer, url, target)).exit_code == ExitCode.ERROR
    assert stat.S_ISFIFO(target.lstat().st_mode)


def test_a_report_takes_the_place_of_an_earlier_one(invoke: Invoke, url: str, finished: int, tmp_path: Path) -> None:
    target = tmp_path / "out.html"
    for _ in range(2):
        assert invoke("report", "--store", url, "--html", str(target)).exit_code == 0
    first = target.stat().st_ino
    assert invoke("report", "--compare", "1", "1", "--store", url, "--html", str(target)).exit_code == 0
    assert target.stat().st_ino != first
    assert os.listdir(tmp_path).count("out.html") == 1


def test_another_file_is_written_over_where_it_is_asked_for(
    invoke: Invoke, url: str, finished: int, tmp_path: Path
) -> None:
    behind, target = tmp_path / "behind", tmp_path / "out.html"
    behind.write_text(KEPT)
    target.write_text(KEPT)
    refused = invoke("report", "--store", url, "--html", str(target))
    assert "--force" in refused.stderr
    assert invoke("report", "--store", url, "--html", str(target), "--force").exit_code == 0
    assert REPORT_MARK in target.read_text()
    target.unlink()
    target.symlink_to(behind)
    assert invoke("report", "--store", url, "--html", str(target), "--force").exit_code == 0
    assert not target.is_symlink()
    assert behind.read_text() == KEPT
    assert invoke("report", "--store", url, "--force").exit_code == ExitCode.USAGE
    assert invoke("example", "thp-2m-demo", str(behind), "--force").exit_code == 0
    assert behind.read_text() != KEPT


def test_a_page_whose_name_is_taken_is_refused_before_it_is_made(tmp_path: Path) -> None:
    target = tmp_path / "out.html"
    target.write_text(KEPT)
    with pytest.raises(RunError, match="there already"):
        write_page(lambda: pytest.fail("the page was made for nothing"), target, force=False)


def test_a_run_leaves_a_file_in_the_place_of_its_report_alone(url: str, finished: int, tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    reports.mkdir()
    target = reports / f"run-{finished}.html"
    target.write_text(KEPT)
    outcome = RunOutcome(run_id=finished, state=RunState.COMPLETED, decision=None, reason="", exit_code=ExitCode.DONE)
    with pytest.raises(RunError, match="there already"):
        conclude(outcome, store_url=url, reports=reports)
    assert target.read_text() == KEPT
    target.unlink()
    for _ in range(2):
        assert conclude(outcome, store_url=url, reports=reports).html == target


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0, 0o666)])
def test_the_mode_is_what_the_umask_gives(tmp_path: Path, umask: int, mode: int) -> None:
    target = tmp_path / "out"
    before = os.umask(umask)
    try:
        write_output("text", target, Over.NOTHING, remedy="")
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == mode


def test_on_a_full_disk_nothing_is_there_and_the_earlier_report_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    target.write_text(f"<!DOCTYPE html>{REPORT_MARK}")
    monkeypatch.chdir("/")
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_output("x" * 10**6, target, Over.REPORT, remedy="")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == ["out"]
    assert target.read_text() == f"<!DOCTYPE html>{REPORT_MARK}"


def test_a_link_put_there_meanwhile_is_not_followed(tmp_path: Path) -> None:
    victim, target, link = tmp_path / "victim", tmp_path / "out", tmp_path / "link"
    victim.write_text(f"{REPORT_MARK}{KEPT}")
    stop = threading.Event()

    def plant() -> None:
        while not stop.is_set():
            with contextlib.suppress(FileExistsError):
                link.symlink_to(victim)
            link.replace(target)
            target.unlink(missing_ok=True)

    thread = threading.Thread(target=plant)
    thread.start()
    try:
        for over in [*Over] * 200:
            with contextlib.suppress(RunError, FileNotFoundError):
                write_output(f"{REPORT_MARK}ours", target, over, remedy="")
    finally:
        stop.set()
        thread.join()
    assert victim.read_text() == f"{REPORT_MARK}{KEPT}"


def test_a_folder_that_is_missing_is_named_by_the_file_that_was_asked_for(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("init", str(tmp_path / "no" / "spec.yaml"))
    assert result.exit_code == ExitCode.ERROR
    assert result.stderr.strip() == f"error: No such file or directory [{tmp_path}/no/spec.yaml]"
