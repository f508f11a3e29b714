"""Commands that try to outlive their end: whatever they become, nothing of them is left, with each means a host has."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agents import launcher, own_cgroup
from agents.claim import restore, take_claim
from agents.messages import WorkloadState
from agents.metric_sources.cancellation import Cancellation
from agents.metric_sources.command_output import run_command
from agents.own_cgroup import end_cgroups_of, end_left_over_cgroups, kill_cgroup, make_cgroup, remove_cgroup
from agents.process import is_alive, is_stopped, mark_process, send_signal
from agents.sysroot import FolderRoot
from agents.workloads import process as workload_process

Runs: TypeAlias = Any  # conftest.py
ROOT = os.geteuid() == 0
ANYBODYS_PYTHON = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin") or sys.executable
# What each leaves behind. `alive` is called by whoever lives too shortly to be seen in /proc.
PROGRAMS = {
    "a session of its own": """
if os.fork() == 0:
    os.setsid()
    time.sleep(300)
""",
    "a daemon that ignores and stops": """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        os.closerange(0, 3)
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(300)
    os._exit(0)
""",
    "three hundred sessions": """
for _ in range(300):
    if os.fork() == 0:
        os.setsid()
        time.sleep(300)
""",
    "a runner that forks and leaves": """
if os.fork() == 0:
    while time.monotonic() < end:
        if os.fork():
            os._exit(0)
        os.setsid()
        alive()
""",
    "runners of one group": """
for _ in range(20):
    if os.fork() == 0:
        while time.monotonic() < end:
            if os.fork():
                os._exit(0)
            alive()
            time.sleep(0.0005)
""",
    "a reaper of its own": """
import ctypes
if os.fork() == 0:
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    os.setsid()
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            time.sleep(300)
    time.sleep(300)
""",
}
HEAD = """
import os, signal, sys, time
end, mark = time.monotonic() + 20, os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
def alive():
    os.write(mark, b".")
"""
STAYS = "\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.write(1, b'ready 1\\n')\ntime.sleep(300)\n"


class Mark:
    """What every process that a program starts carries as its last argument: a file that the short-lived write to."""

    def __init__(self) -> None:
        fd, name = tempfile.mkstemp(prefix="fleetexp-mark-")
        os.fchmod(fd, 0o666)
        os.close(fd)
        self.file = Path(name)

    def argv(self, program: str, *, stays: bool) -> tuple[str, ...]:
        return (ANYBODYS_PYTHON, "-I", "-S", "-c", HEAD + program + (STAYS if stays else ""), str(self.file))

    def pids(self) -> list[int]:
        found = []
        for entry in filter(str.isdecimal, os.listdir("/proc")):
            with suppress(OSError):
                if Path("/proc", entry, "cmdline").read_bytes().rstrip(b"\0").endswith(os.fsencode(self.file)):
                    found.append(int(entry))
        return found

    def left(self) -> int:
        """Return how many processes still run; one too short-lived to be seen counts as one."""
        before = self.file.stat().st_size
        pids = self.pids()
        time.sleep(0.05)
        return len(pids) or int(self.file.stat().st_size != before)

    def clear(self) -> None:
        """Kill what is left, so that a failure leaves nothing behind."""
        deadline = time.monotonic() + 25
        while self.left() and time.monotonic() < deadline:
            for pid in self.pids():
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        self.file.unlink()


@pytest.fixture
def marks() -> Iterator[Callable[[], Mark]]:
    made: list[Mark] = []

    def make() -> Mark:
        made.append(Mark())
        return made[-1]

    yield make
    for mark in made:
        mark.clear()


def own_cgroups(pid: int) -> list[str]:
    return [str(folder) for folder, maker in own_cgroup._all_of_ours() if maker.pid == pid]


MEANS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "cgroup 2": lambda patch: patch.setattr(own_cgroup, "FREEZER", Path("/nowhere")),
    "the freezer of cgroup 1": lambda patch: patch.setattr(own_cgroup, "UNIFIED", ()),
    "no cgroup": lambda patch: patch.setattr(launcher, "make_cgroup", lambda: None),
}
slow, needs_root = pytest.mark.slow, pytest.mark.skipif(not ROOT, reason="only root can become another user")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(("cgroup 2", "nobody", "leader"), marks=needs_root),
        pytest.param(("no cgroup", "nobody", "leader"), marks=needs_root),
        pytest.param(("the freezer of cgroup 1", "nobody", "limit"), marks=needs_root),
        ("cgroup 2", None, "stop"),
        *(
            pytest.param((means, user, ending), marks=[slow, needs_root])
            for means in MEANS
            for user in ("nobody", None)
            for ending in ("leader", "stop", "limit")
        ),
    ],
    ids=str,
)
def test_nothing_outlives_a_command_however_it_ends(
    runs: Runs,
    marks: Callable[[], Mark],
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[str, str | None, str],
) -> None:
    means, user, ending = case
    MEANS[means](monkeypatch)  # where this machine has no such hierarchy, the one without is what is tested
    options = {} if user is None else {"user": user}
    limit = 1.5 if ending == "limit" else 30.0
    started = {}
    for name, program in PROGRAMS.items():
        mark = marks()
        argv = mark.argv(program, stays=ending != "leader")
        started[name] = mark, runs.start("command", argv=argv, limit=limit, **options)
    for name, (mark, workload) in started.items():
        if ending == "stop":
            runs.until(lambda workload=workload: bool(workload.measurements()))
            assert mark.left()
            workload.stop(timeout_seconds=0.2)
        state, said = runs.ended(workload, seconds=10)
        assert state is (WorkloadState.FAILED if ending == "limit" else WorkloadState.FINISHED), (name, said)
        workload.stop()  # waits until all of it is gone
        assert mark.left() == 0, name
    assert own_cgroups(os.getpid()) == []


def test_nothing_outlives_the_agent_that_was_killed(marks: Callable[[], Mark], tmp_path: Path) -> None:
    mark = marks()
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, str(tmp_path), *mark.argv(PROGRAMS["three hundred sessions"], stays=True)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    with agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"ready\n"
        assert mark.left() > 300
        agent.kill()
    until(lambda: mark.left() == 0)
    until(lambda: own_cgroups(agent.pid) == [])


AGENT = """
import sys, time
from pathlib import Path
from agents.messages import WorkloadSpec
from agents.sysroot import FolderRoot
from agents.workloads import start_workload
spec = WorkloadSpec(kind="command", options={"argv": tuple(sys.argv[2:])})
workload = start_workload(spec, root=FolderRoot(), work_dir=Path(sys.argv[1]), time_limit_seconds=60)
while not workload.measurements():
    time.sleep(0.01)
print("ready", flush=True)
time.sleep(300)
"""


def until(true: Callable[[], bool], *, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.01)


def test_nothing_is_left_either_where_its_supervisor_is_killed_or_stopped(
    runs: Runs, marks: Callable[[], Mark], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a cgroup: a command of the agent's own user can kill or stop whatever else this user runs."""
    monkeypatch.setattr(workload_process, "_AFTER_KILL_SECONDS", 0.5)
    for number in (signal.SIGKILL, signal.SIGSTOP):
        mark = marks()
        workload = runs.start("command", argv=mark.argv(PROGRAMS["a session of its own"], stays=True))
        runs.until(lambda workload=workload: bool(workload.measurements()))
        supervisor = mark_process(int(Path(f"/proc/{workload.pid}/stat").read_text().rpartition(")")[2].split()[1]))
        assert supervisor is not None
        assert send_signal(supervisor, number)
        if number == signal.SIGKILL:
            state, said = runs.ended(workload)
            assert (state, said.startswith("the process that supervises it was killed")) == (WorkloadState.FAILED, True)
        workload.stop(timeout_seconds=0.1)
        assert mark.left() == (0 if [*own_cgroup._own_folders(own_cgroup.ENDABLE)] else 1)
        assert not is_alive(supervisor) and not is_stopped(supervisor)
        assert own_cgroups(os.getpid()) == []


def test_a_source_leaves_nothing_behind_either(marks: Callable[[], Mark]) -> None:
    for name, program in PROGRAMS.items():
        mark = marks()
        argv = mark.argv(program, stays=False)
        run_command(argv, user="nobody" if ROOT else None, timeout_seconds=10.0, cut=Cancellation())
        assert mark.left() == 0, name
    assert own_cgroups(os.getpid()) == []


@pytest.fixture
def in_a_cgroup(marks: Callable[[], Mark]) -> Iterator[Callable[[], tuple[Path, subprocess.Popen[bytes], Mark]]]:
    """Start runners in a cgroup of their own, with nobody to supervise them; skip where this host has none."""
    made: list[tuple[Path, subprocess.Popen[bytes]]] = []

    def make() -> tuple[Path, subprocess.Popen[bytes], Mark]:
        folder, mark = make_cgroup(), marks()
        if folder is None:
            pytest.skip("no cgroup can be made here")
        program = f"open({str(folder / 'cgroup.procs')!r}, 'w').write('0')\n" + PROGRAMS["runners of one group"]
        argv = mark.argv(program + PROGRAMS["a runner that forks and leaves"], stays=True)
        process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready 1\n"
        made.append((folder, process))
        return folder, process, mark

    yield make
    for folder, process in made:
        kill_cgroup(folder)
        remove_cgroup(folder)
        with process:
            process.kill()


@pytest.mark.parametrize("way", ["at one stroke", "frozen", "frozen in version 1"])
def test_a_cgroup_is_ended_by_what_the_kernel_has(
    in_a_cgroup: Callable[[], tuple[Path, subprocess.Popen[bytes], Mark]], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    write = own_cgroup._write

    def without_kill(path: Path, value: bytes) -> None:
        if path.name == "cgroup.kill" and way != "at one stroke":  # as before Linux 5.14
            raise FileNotFoundError(path)
        write(path, value)

    if way == "frozen in version 1":
        monkeypatch.setattr(own_cgroup, "UNIFIED", ())
    monkeypatch.setattr(own_cgroup, "_write", without_kill)
    folder, process, mark = in_a_cgroup()
    assert kill_cgroup(folder)
    assert process.wait(5) == -signal.SIGKILL
    assert mark.left() == 0
    remove_cgroup(folder)
    assert not folder.exists()


def test_what_a_dead_agent_left_is_ended_and_what_others_made_is_not(
    in_a_cgroup: Callable[[], tuple[Path, subprocess.Popen[bytes], Mark]],
) -> None:
    ours, process, mark = in_a_cgroup()
    namespace, pid, started = ours.name.split("-")[1:4]
    # The same process number in another namespace, one that was recycled, a name that is none of ours.
    elsewhere, dead, foreign = (
        ours.with_name(name)
        for name in (f"fleetexp-1-{pid}-{started}-1", f"fleetexp-{namespace}-{pid}-1-1", f"fleetexp-{pid}")
    )
    for folder in (elsewhere, dead, foreign):
        folder.mkdir()
    try:
        assert end_left_over_cgroups()
        assert not dead.exists()
        assert ours.exists() and elsewhere.exists() and foreign.exists()
        assert process.poll() is None and mark.left()
        agent = mark_process(os.getpid())
        assert agent is not None
        assert end_cgroups_of(agent)
        assert not ours.exists() and elsewhere.exists() and foreign.exists()
        assert process.wait(5) == -signal.SIGKILL
        assert mark.left() == 0
    finally:
        for folder in (elsewhere, dead, foreign):
            remove_cgroup(folder)


def test_a_trees_journal_ends_no_cgroup_of_this_machine(
    in_a_cgroup: Callable[[], tuple[Path, subprocess.Popen[bytes], Mark]], host_tree: Callable[..., FolderRoot]
) -> None:
    _, process, mark = in_a_cgroup()
    root = host_tree()  # its journal names this process as the agent, as one copied from this machine would
    claim = take_claim(root, run="r1", owner="o", knobs=["thp/2048kB/enabled"], lease_seconds=60, guardian_command=())
    claim.leave()
    assert all(change.ok for change in restore(root, force=True))
    assert process.poll() is None
    assert mark.left()
