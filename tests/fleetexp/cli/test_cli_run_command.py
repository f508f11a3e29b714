"""`fleetexp run` and `resume` from end to end: the agent in this process, a made host, a workload of the system."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from agents.claim import claim_status
from agents.readable import readable_within
from agents.sysroot import FolderRoot
from fleetexp.exit_codes import ExitCode

FILE = "sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled"
SPEC = """\
name: quick-check
hypothesis: the knob changes nothing that this command measures
design: switchback
control: never
arms:
  never: {thp/2048kB/enabled: never}
  always: {thp/2048kB/enabled: always}
assignment: {order: pairs, seed: 3}
periods: {washout: 100ms, measure: 600ms, blocks: 3, sample_every: 200ms}
workload:
  command: {argv: [/bin/sh, -c, "echo score 1.$$; sleep 0.2"], timeout: 5s}
metrics:
  primary: score
  better: {score: increase}
safety: {lease: 10s}
"""
Invoke = Callable[..., Result]
HostTree = Callable[..., FolderRoot]


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "quick-check.yaml"
    path.write_text(SPEC)
    return path


def test_a_run_ends_with_table_decision_report_and_commands(invoke: Invoke, host_tree: HostTree, spec: Path) -> None:
    root = host_tree()
    result = invoke("run", str(spec), "--fleet", "inline", "--root", str(root.root))
    assert result.exit_code == 0, result.stderr
    out = result.stdout
    assert "blast radius" in out
    assert "measuring" in out
    assert re.search(r"^score +\S+ +\S+", out, re.MULTILINE)
    assert "decision: " in out
    assert out.count("fleetexp sql") >= 1
    report = Path(out.split("report: ")[1].splitlines()[0])
    assert report.read_text().lower().startswith("<!doctype html>")
    assert root.read(FILE).strip() in {b"inherit", b"always [inherit] madvise never"}
    assert claim_status(root) is None
    assert max(map(len, out.splitlines())) <= 80
    again = invoke("report", "--markdown")
    assert again.exit_code == 0
    assert "quick-check" in again.stdout
    for command in re.findall(r"fleetexp sql (\"[^\"]+\")$", out, re.MULTILINE):
        assert invoke("sql", command.strip('"')).exit_code == 0, command


@pytest.mark.slow
def test_json_is_one_object_and_progress_goes_to_stderr(invoke: Invoke, host_tree: HostTree, spec: Path) -> None:
    root = host_tree()
    result = invoke("run", str(spec), "--fleet", "inline", "--root", str(root.root), "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["state"] == "completed"
    assert found["findings"]["estimates"]
    assert Path(found["report"]).is_file()
    assert "measuring" in result.stderr


@pytest.mark.slow
def test_a_report_that_cannot_be_written_does_not_hide_how_the_run_ended(
    invoke: Invoke, host_tree: HostTree, spec: Path
) -> None:
    root = host_tree()
    Path("in-the-way").write_text("a file where the folder of the reports should be")
    command = ["run", str(spec), "--fleet", "inline", "--root", str(root.root), "--reports"]
    result = invoke(*command, "in-the-way/reports")
    assert result.exit_code == ExitCode.ERROR
    assert "decision: " in result.stdout
    assert "error: Not a directory [in-the-way" in result.stderr
    assert "'fleetexp report 1' shows it again" in result.stderr
    assert invoke("report", "1").exit_code == 0


def on_a_read_only_sys(command: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run a command where /sys is a read-only one of its own."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a read-only /sys of one's own needs root and unshare")
    script = f"mount -o remount,bind,ro /sys && exec {sys.executable} {command}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False
    )
    if "mount:" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert done.returncode == ExitCode.ERROR
    assert len(done.stderr.splitlines()) == 1
    assert "can't be written" in done.stderr
    return done


def test_a_host_that_cannot_be_written_is_refused_before_anything_starts(tmp_path: Path, spec: Path) -> None:
    done = on_a_read_only_sys(f"-m fleetexp run {spec}", tmp_path)
    assert done.stdout == ""
    assert "fleetexp doctor" in done.stderr
    assert not (tmp_path / "fleetexp.db").exists()


def test_a_host_that_cannot_be_written_is_refused_before_what_an_analysis_needs_is_loaded(
    tmp_path: Path, spec: Path
) -> None:
    (tmp_path / "told.py").write_text(
        "import atexit, runpy, sys\n"
        "atexit.register(lambda: print(*sys.modules))\n"
        "runpy.run_module('fleetexp', run_name='__main__', alter_sys=True)\n"
    )
    loaded = {name.split(".")[0] for name in on_a_read_only_sys(f"told.py run {spec}", tmp_path).stdout.split()}
    assert {"fleetexp", "click", "sqlalchemy"} <= loaded
    assert loaded & {"ray", "pandas", "pyarrow", "scipy", "numba", "matplotlib", "rich", "jinja2"} == set()


def _until(text: str, descriptor: int, seen: list[str], seconds: float = 60.0) -> None:
    """Read from a terminal until it has shown the text."""
    deadline = time.monotonic() + seconds
    while text not in "".join(seen):
        assert time.monotonic() < deadline, "".join(seen)
        if readable_within([descriptor], 0.5):
            try:
                seen.append(os.read(descriptor, 65536).decode(errors="replace"))
            except OSError:  # the other side has closed
                break


@pytest.mark.slow
def test_ctrl_c_puts_the_host_back_and_a_second_one_changes_nothing(host_tree: HostTree, spec: Path) -> None:
    root = host_tree()
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "fleetexp", "run", str(spec), "--fleet", "inline", "--root", str(root.root)]
    process = subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=follower, cwd=spec.parent, start_new_session=True
    )
    os.close(follower)
    seen: list[str] = []
    try:
        _until("block 2 of 3", leader, seen)
        process.send_signal(signal.SIGINT)
        _until("Putting every knob back", leader, seen)
        process.send_signal(signal.SIGINT)
        _until("kept and marked", leader, seen)
        assert process.wait(timeout=60) == ExitCode.HALTED, "".join(seen)
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    assert "Traceback" not in "".join(seen)
    assert root.read(FILE).strip() == b"inherit"
    assert claim_status(root) is None


@pytest.mark.slow
def test_a_pipe_that_is_closed_does_not_stop_the_run(host_tree: HostTree, spec: Path) -> None:
    root = host_tree()
    command = [sys.executable, "-m", "fleetexp", "run", str(spec), "--fleet", "inline", "--root", str(root.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=spec.parent) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if b"block 1 of 3" in line:
                break
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read().decode()
        assert process.wait(timeout=60) == ExitCode.DONE, said
    assert "the run goes on" in said
    assert "Traceback" not in said
    with contextlib.closing(sqlite3.connect(spec.parent / "fleetexp.db")) as database:
        assert database.execute("SELECT state FROM run").fetchall() == [("completed",)]
    assert root.read(FILE).strip() == b"inherit"


@pytest.mark.slow
def test_a_paused_run_is_resumed_from_another_terminal(invoke: Invoke, host_tree: HostTree, spec: Path) -> None:
    root = host_tree()
    command = [sys.executable, "-m", "fleetexp", "run", str(spec), "--fleet", "inline", "--root", str(root.root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=spec.parent)
    assert process.stdout is not None
    said = ""
    while "block 2 of 3" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    assert invoke("pause", "1").exit_code == 0
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == ExitCode.DONE, said + rest
    assert "fleetexp resume 1" in rest
    assert root.read(FILE).strip() == b"inherit"
    assert json.loads(invoke("status", "1", "--json").stdout)["state"] == "paused"
    resumed = invoke("resume", "1", "--root", str(root.root))
    assert resumed.exit_code == 0, resumed.stderr
    assert "decision: " in resumed.stdout
    assert claim_status(root) is None
