"""Commands of the user's: whatever they do, they end, they leave nothing behind, and what they said is kept."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agents.errors import WorkloadError
from agents.launcher import LAUNCHER, Launch, Launched
from agents.messages import WorkloadState
from agents.workloads import RunningWorkload, process
from agents.workloads.printed import OwnLines, Printed
from agents.workloads.running import Measured

Runs: TypeAlias = Any  # conftest.py
SIGNALS_OF_THE_C_LIBRARY = 0b11 << 31  # 32 and 33: posix_spawn(3) leaves them ignored, no signal(2) reaches them
FINISHED, FAILED, RUNNING = WorkloadState.FINISHED, WorkloadState.FAILED, WorkloadState.RUNNING


def reported(workload: RunningWorkload) -> list[tuple[str, float]]:
    return [(name, value) for _, name, value in workload.measurements()]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@pytest.fixture
def agent_under_nohup() -> Iterator[None]:
    """Commands are started by a process that ignores what nohup(1) ignores, and one more, and blocks a third."""
    LAUNCHER.close()
    kept = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGRTMIN)}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    for number, handler in kept.items():
        signal.signal(number, handler)
    LAUNCHER.close()


def test_a_host_too_slow_to_start_a_command_is_told_as_such(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.timeouts.START_SECONDS", 1e-6)
    with pytest.raises(WorkloadError, match=r"not started within .* FLEETEXP_TIMEOUT_FACTOR=4"):
        runs.command("echo ops 1")


def test_lines_are_measurements_as_soon_as_they_are_printed(runs: Runs) -> None:
    workload = runs.command("echo ops 1; echo ops 2; exec sleep 60")
    seen: list[tuple[str, float]] = []
    runs.until(lambda: len(seen.extend(reported(workload)) or seen) == 2)
    assert seen == [("ops", 1.0), ("ops", 2.0)]
    assert workload.poll() == (RUNNING, "")
    workload.stop()
    assert workload.poll() == (FINISHED, "stopped")


def test_a_program_that_ends_well_is_finished_and_its_last_json_object_counts(runs: Runs) -> None:
    workload = runs.command("""echo '{"ops": 1}'; echo n 7; printf '{"ops": 2, "p99_seconds": 0.5}'""")
    assert runs.ended(workload) == (FINISHED, "")
    assert reported(workload) == [("n", 7.0), ("ops", 2.0), ("p99_seconds", 0.5)]
    assert reported(workload) == []


def test_the_last_json_object_counts_also_when_it_is_stopped(runs: Runs) -> None:
    workload = runs.command("""echo n 1; echo '{"ops": 2}'; printf '{"ops": '; exec sleep 60""")
    runs.until(lambda: (runs.work_dir / "command.stdout").read_text().endswith('{"ops": '))
    workload.stop()
    assert workload.poll() == (FINISHED, "stopped")
    assert reported(workload) == [("n", 1.0), ("ops", 2.0)]


@pytest.mark.parametrize("script", ["echo ops 1; echo Hello, world; exec sleep 60", "printf 'no newline here'"])
def test_garbage_fails_it_at_once_with_the_line_quoted(runs: Runs, script: str) -> None:
    workload = runs.command(script)
    state, detail = runs.ended(workload, seconds=10)
    assert state is FAILED
    assert "not a measurement: 'Hello, world'" in detail or "not a measurement: 'no newline here'" in detail


def test_output_can_be_left_unread(runs: Runs) -> None:
    workload = runs.command("echo Hello, world", capture="none")
    assert runs.ended(workload) == (FINISHED, "")
    assert (runs.work_dir / "command.stdout").read_text() == "Hello, world\n"


@pytest.mark.parametrize(
    ("script", "detail"),
    [
        ("echo bad luck >&2; exit 3", "exit status 3; its last words: 'bad luck'"),
        ("exit 3", "exit status 3"),
        ("kill -SEGV $$", "killed by SIGSEGV"),
        ("kill -KILL $$", "killed by SIGKILL (out of memory? see the kernel log)"),
        ("kill -BUS $$", "killed by SIGBUS: the kernel had no page"),
        ("kill -40 $$", "killed by signal 40"),
    ],
)
def test_a_crash_is_a_failure_that_says_how(runs: Runs, script: str, detail: str) -> None:
    state, said = runs.ended(runs.command(script))
    assert state is FAILED
    assert said.startswith(detail)


def test_a_hang_ends_at_the_time_limit_and_is_a_failure(runs: Runs) -> None:
    workload = runs.command("echo ops 1; exec sleep 60", limit=0.3)
    assert runs.ended(workload, seconds=10) == (FAILED, "still running after its time limit of 0.3 s")
    assert reported(workload) == [("ops", 1.0)]


def test_its_own_timeout_counts_where_it_is_shorter(runs: Runs) -> None:
    workload = runs.command("exec sleep 60", limit=60.0, timeout_seconds=0.2)
    assert runs.ended(workload, seconds=10) == (FAILED, "still running after its time limit of 0.2 s")


def test_a_stopped_process_ends_at_the_time_limit_too(runs: Runs) -> None:
    assert runs.ended(runs.command("kill -STOP $$", limit=0.3), seconds=10)[0] is FAILED


def test_output_without_end_fills_neither_disk_nor_memory(runs: Runs) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    workload = runs.command("head -c 300000000 /dev/zero; head -c 300000000 /dev/zero >&2", capture="none")
    assert runs.ended(workload) == (FINISHED, "")
    kept = sum(path.stat().st_size for path in runs.work_dir.iterdir())
    assert 1_000_000 < kept < 1_500_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


def test_a_line_without_end_is_garbage_long_before_it_fills_the_memory(runs: Runs) -> None:
    workload = runs.command("tr '\\0' x < /dev/zero")
    state, detail = runs.ended(workload, seconds=20)
    assert state is FAILED
    assert "'xxxxxxxx" in detail and len(detail) < 500


def test_more_measurements_than_anybody_reads_are_a_failure(runs: Runs) -> None:
    workload = runs.command("yes 'ops 1'")
    state, detail = runs.ended(workload, seconds=20)
    assert state is FAILED
    assert "measurements between two samples" in detail
    assert len(workload.measurements()) < 2 * process.PENDING_AT_MOST


def test_what_ignores_sigterm_is_killed(runs: Runs) -> None:
    workload = runs.command("trap '' TERM; echo ready 1; while :; do sleep 0.01; done")
    runs.until(lambda: bool(workload.measurements()))
    begun = time.monotonic()
    workload.stop(timeout_seconds=0.2)
    assert time.monotonic() - begun < 5
    assert workload.poll() == (FINISHED, "stopped")


def test_a_program_may_end_on_sigterm_in_its_own_way(runs: Runs) -> None:
    workload = runs.command("trap 'echo last 9; exit 5' TERM; echo ready 1; while :; do sleep 0.01; done")
    runs.until(lambda: bool(workload.measurements()))
    workload.stop()
    assert workload.poll() == (FINISHED, "stopped")
    assert reported(workload) == [("last", 9.0)]


@pytest.mark.parametrize("ending", ["exit 0", "exec sleep 60"])
def test_children_left_in_its_group_do_not_outlive_it(runs: Runs, ending: str) -> None:
    workload = runs.command(f"trap '' TERM; sleep 300 & echo child $!; {ending}", limit=1.0)
    runs.ended(workload, seconds=10)
    ((_, child),) = reported(workload)
    runs.until(lambda: not alive(int(child)), seconds=5)


def test_nothing_is_left_behind_no_zombie_no_descriptor_no_thread(runs: Runs) -> None:
    def one() -> int:
        workload = runs.command("echo ops 1")
        runs.ended(workload)
        workload.stop()
        workload.stop()
        assert workload.pid is not None and workload.cgroup is None
        return workload.pid

    one()
    descriptors = len(os.listdir("/proc/self/fd"))
    pids = [one() for _ in range(5)]
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    runs.until(lambda: not any(thread.name.startswith("workload-") for thread in threading.enumerate()), seconds=5)


def test_it_leads_a_session_of_its_own(runs: Runs) -> None:
    workload = runs.command("exec sleep 60")
    assert workload.pid is not None
    assert os.getsid(workload.pid) == os.getpgid(workload.pid) == workload.pid


def test_it_gets_three_descriptors_and_no_signal_blocked_or_ignored(runs: Runs, agent_under_nohup: None) -> None:
    runs.ended(runs.start("command", argv=("ls", "/proc/self/fd"), capture="none"))
    assert (runs.work_dir / "command.stdout").read_text().split() == ["0", "1", "2", "3"]  # 3 is the folder itself
    runs.ended(runs.start("command", argv=("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"), capture="none"))
    _, blocked, _, ignored = (runs.work_dir / "command.stdout").read_text().split()
    assert (int(blocked, 16), int(ignored, 16) & ~SIGNALS_OF_THE_C_LIBRARY) == (0, 0)


def test_it_gets_a_small_clean_environment_and_its_own_variables(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    workload = runs.start("command", argv=("env",), env=("A=1", "B=x=y z"), capture="none")
    runs.ended(workload)
    lines = (runs.work_dir / "command.stdout").read_text().splitlines()
    assert {"A=1", "B=x=y z"} <= set(lines)
    assert "secret" not in " ".join(lines)
    assert any(line.startswith("PATH=") for line in lines)


def test_no_shell_reads_its_words(runs: Runs, tmp_path: Path) -> None:
    workload = runs.start("command", argv=("printf", "%s\n", f"$(touch {tmp_path}/made) ; *"), capture="none")
    runs.ended(workload)
    assert (runs.work_dir / "command.stdout").read_text() == f"$(touch {tmp_path}/made) ; *\n"
    assert not (tmp_path / "made").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_it_runs_as_the_user_named_with_that_users_groups_and_home(runs: Runs) -> None:
    workload = runs.command("id -u >&2; id -G >&2; echo $HOME $USER >&2; cat /etc/shadow >&2", user="nobody")
    assert runs.ended(workload)[0] is FAILED
    lines = (runs.work_dir / "command.stderr").read_text().splitlines()
    assert lines[0] == "65534"
    assert "0" not in lines[1].split()
    assert lines[2].endswith(" nobody")
    assert "Permission denied" in lines[3]


def test_a_user_that_is_ourselves_needs_no_switch(runs: Runs) -> None:
    import pwd

    workload = runs.command("echo ops 1", user=pwd.getpwuid(os.geteuid()).pw_name)
    assert runs.ended(workload) == (FINISHED, "")


def test_a_file_that_is_no_program_is_an_error_and_nothing_is_left_open(runs: Runs, tmp_path: Path) -> None:
    script = tmp_path / "no-program"
    script.write_bytes(b"\x00\x01 not a program")
    script.chmod(0o755)
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(WorkloadError, match="can't be started: Exec format error") as caught:
        runs.start("command", argv=(str(script),))
    assert caught.value.where == str(script)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_more_words_than_the_kernel_takes_are_an_error(runs: Runs) -> None:
    with pytest.raises(WorkloadError, match="can't be started: Argument list too long") as caught:
        runs.start("command", argv=("echo", *("x" * 100_000,) * 100))
    assert caught.value.remedy == "give it fewer or shorter words"
    workload = runs.start("command", argv=("echo", *("x" * 10_000,) * 100), capture="none")  # 1 MB is taken
    assert runs.ended(workload) == (FINISHED, "")


def test_a_missing_program_is_an_error_before_anything_starts(runs: Runs) -> None:
    with pytest.raises(WorkloadError, match="no program 'no-such-program'"):
        runs.start("command", argv=("no-such-program",))
    assert not runs.work_dir.exists()


def test_a_place_for_the_output_that_cannot_be_written_is_an_error(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    runs.work_dir = tmp_path / "file" / "work"
    with pytest.raises(WorkloadError, match="output can't be kept"):
        runs.command("echo ops 1")


@pytest.mark.parametrize("at_once", [2, 8])
def test_stop_may_be_called_from_several_threads(runs: Runs, at_once: int) -> None:
    workload = runs.command("exec sleep 60")
    threads = [threading.Thread(target=workload.stop) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert workload.poll() == (FINISHED, "stopped")


def test_a_process_that_can_not_be_killed_is_said_to_be_so(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # A process in an uninterruptible sleep can't be made here: the signals are withheld instead.
    workload = runs.command("exec sleep 60")
    monkeypatch.setattr(process, "_AFTER_KILL_SECONDS", 0.05)
    for way in ("terminate", "kill", "kill_by_hand"):
        monkeypatch.setattr(Launched, way, lambda _: None)
    workload.stop(timeout_seconds=0.05)
    assert workload.poll() == (FAILED, "the process could not be killed: it hangs in the kernel")
    assert "not gone" in caplog.text
    monkeypatch.undo()


class Defective:
    """Reads lines as nobody should: a defect of ours, which no program can bring about."""

    ready = True

    def line(self, line: bytes) -> list[Measured]:
        raise ZeroDivisionError(line.decode())

    def end(self) -> list[Measured]:
        return []


@pytest.mark.parametrize(
    ("printed", "detail"),
    [(OwnLines(), "a line that is not a measurement"), (Defective(), "a defect: ZeroDivisionError")],
)
def test_whatever_goes_wrong_while_it_is_read_ends_it_as_failed(printed: Printed, detail: str, tmp_path: Path) -> None:
    """Its thread used to wait then for a program that nobody ended, and the period went on without a word."""
    script = """printf '{"values": {"ops": 1}, "at": 1e300}\\n'; exec sleep 60"""
    workload = process.ProcessWorkload(
        Launch(
            argv=("sh", "-c", script),
            environment={"PATH": os.environ["PATH"]},
            program="/bin/sh",
            time_limit_seconds=30.0,
        ),
        name="w",
        printed=printed,
        work_dir=tmp_path,
        may_run_out=False,
    )
    try:
        deadline = time.monotonic() + 10
        while workload.poll()[0] not in {FAILED, FINISHED} or alive(workload.pid or 0):
            assert time.monotonic() < deadline, workload.poll()
            time.sleep(0.01)
        assert workload.poll()[0] is FAILED
        assert detail in workload.poll()[1]
    finally:
        workload.stop(timeout_seconds=0.1)
