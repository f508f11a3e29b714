"""Processes by pid and start time: the right one dies, with its family, and no other."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from agents import process as process_module
from agents.errors import HostClaimed, JournalError
from agents.host_lock import HostLock
from agents.process import is_alive, is_stopped, kill_with_group, mark_process, send_signal

Spawn = Callable[..., subprocess.Popen[str]]
FAMILY = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); {after}"
HOLD = """
import sys
from pathlib import Path
from agents.host_lock import HostLock
with HostLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start a Python program in a session of its own; it is killed and reaped at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=Path(__file__).parents[2],
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_we_are_alive_and_a_number_nobody_has_is_not() -> None:
    mine = mark_process(os.getpid())
    assert mine is not None
    assert is_alive(mine)
    assert not is_stopped(mine)
    assert mark_process(2**22 + 1) is None
    assert not is_alive(replace(mine, pid=2**22 + 1))


def test_a_zombie_is_dead(spawn: Spawn, wait_until: Callable[..., float]) -> None:
    process = spawn("pass")
    mark = mark_process(process.pid)
    wait_until(lambda: mark_process(process.pid) is None)
    assert mark is None or not is_alive(mark)


def test_a_stopped_process_is_seen_and_can_be_signalled(spawn: Spawn, wait_until: Callable[..., float]) -> None:
    mark = mark_process(spawn("import time; time.sleep(60)").pid)
    assert mark is not None
    assert send_signal(mark, signal.SIGSTOP)
    wait_until(lambda: is_stopped(mark))
    assert is_alive(mark)
    assert kill_with_group(mark)
    assert not send_signal(mark, signal.SIGTERM)


def test_a_family_dies_with_its_head(spawn: Spawn) -> None:
    process = spawn(FAMILY.format(after="p.wait()"))
    child = mark_process(int(line(process)))
    head = mark_process(process.pid)
    assert child is not None
    assert head is not None
    assert kill_with_group(head)
    assert not is_alive(head)
    assert not is_alive(child)


def test_a_family_dies_also_after_its_head_has_gone(spawn: Spawn, wait_until: Callable[..., float]) -> None:
    process = spawn(FAMILY.format(after="sys.stdin.read()"))
    child = mark_process(int(line(process)))
    head = mark_process(process.pid)
    assert child is not None
    assert head is not None
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None
    assert process.wait(timeout=10) == 0
    assert is_alive(child)
    assert kill_with_group(head)
    assert not is_alive(child)


def test_a_recycled_number_is_left_alone(spawn: Spawn) -> None:
    process = spawn(FAMILY.format(after="p.wait()"))
    child = mark_process(int(line(process)))
    head = mark_process(process.pid)
    assert child is not None
    assert head is not None
    earlier = replace(head, started=head.started - 1)
    assert kill_with_group(earlier)  # nothing of it is left, and nothing else is touched
    assert not send_signal(earlier, signal.SIGKILL)
    assert is_alive(head)
    assert is_alive(child)


def test_where_the_kernel_opens_no_pids_the_right_one_dies_and_no_other(
    spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_pid: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", missing)
    family = spawn(FAMILY.format(after="sys.stdin.read()"))
    child, mark = int(line(family)), mark_process(family.pid)
    assert mark is not None
    assert not send_signal(replace(mark, started=mark.started + 1), signal.SIGKILL)
    assert is_alive(mark)
    assert kill_with_group(mark)
    assert not is_alive(mark)
    assert mark_process(child) is None


def test_what_cannot_be_killed_is_reported() -> None:
    mine = mark_process(os.getpid())
    assert mine is not None
    # A member that may not be touched: ourselves, as the guardian would be if it were listed.
    assert kill_with_group(mine, timeout_seconds=0.0)
    assert is_alive(mine)


def test_the_host_lock_is_exclusive_and_names_its_holder(spawn: Spawn, tmp_path: Path) -> None:
    process = spawn(HOLD, str(tmp_path))
    assert line(process) == "held"
    with pytest.raises(HostClaimed, match=f"process {process.pid} has been changing"):
        HostLock(tmp_path, timeout_seconds=0.05).__enter__()
    lock = HostLock(tmp_path)
    holder = lock.holder()
    assert holder is not None
    assert holder.pid == process.pid
    process.kill()
    assert lock.acquire(10)  # a dead holder holds nothing
    lock.release()
    lock.release()


def test_the_host_lock_holds_between_threads_of_one_process_too(tmp_path: Path) -> None:
    with HostLock(tmp_path), pytest.raises(HostClaimed):
        HostLock(tmp_path, timeout_seconds=0.0).__enter__()
    with HostLock(tmp_path, timeout_seconds=0.0):
        pass


def test_a_lock_without_a_readable_signature_still_refuses(tmp_path: Path) -> None:
    with HostLock(tmp_path):
        (tmp_path / "state.lock").write_text("garbage")
        assert HostLock(tmp_path).holder() is None
        with pytest.raises(HostClaimed, match="another process"):
            HostLock(tmp_path, timeout_seconds=0.0).__enter__()


def test_a_state_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="state folder"):
        HostLock(tmp_path / "nowhere").__enter__()


def test_a_process_that_says_what_no_process_can_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "_PROC", tmp_path)
    (tmp_path / "7").mkdir()
    fields = " ".join(["1"] * 30)
    for said, known in (
        (f"7 (a) 1 (b) S {fields}", True),
        (f"7 (a) S {fields[:20]}", False),
        (f"7 (a) S {'9' * 10_000} {fields}", False),
        (f"7 (a) S \N{ARABIC-INDIC DIGIT ONE}x {fields}", False),
        ("", False),
    ):
        (tmp_path / "7/stat").write_text(said)
        assert (mark_process(7) is not None) == known


WITHOUT_PIDFD = """
import ctypes, errno, signal, struct, subprocess, sys
from agents.process import is_alive, kill_with_group, mark_process, send_signal
refused = int(sys.argv[1])
PIDFD_OPEN = 434  # on every architecture
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, PIDFD_OPEN), (0x06, 0, 0, 0x00050000 | refused), (0x06, 0, 0, 0x7FFF0000)]
code = b"".join(struct.pack("HBBI", *rule) for rule in rules)
buffer = ctypes.create_string_buffer(code)
program = struct.pack("HxxxxxxP", len(rules), ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()
if refused == 0:  # a Python that was built where the kernel's headers had no pidfd
    import os
    del os.pidfd_open, signal.pidfd_send_signal
one = subprocess.Popen(["sleep", "60"])
leader = subprocess.Popen(["sh", "-c", "sleep 60 & wait"], start_new_session=True)
mark, group = mark_process(one.pid), mark_process(leader.pid)
try:
    print(send_signal(mark, signal.SIGKILL), flush=True)
    print(one.wait(5), send_signal(mark, signal.SIGKILL), kill_with_group(group), flush=True)
finally:
    for process in (one, leader):
        process.kill()
"""


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param(errno.ENOSYS, id="a kernel before 5.3, as RHEL 8 has it"),
        pytest.param(errno.EPERM, id="a container whose filter doesn't know the call"),
        pytest.param(errno.EMFILE, id="no descriptor is left"),
        pytest.param(0, id="a Python built without it"),
    ],
)
def test_a_process_is_ended_also_where_it_can_not_be_held_by_a_descriptor(spawn: Spawn, refused: int) -> None:
    child = spawn(WITHOUT_PIDFD, str(refused))
    assert (line(child), line(child)) == ("True", "-9 False True")
