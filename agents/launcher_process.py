"""The process that starts commands for the agent. Each gets a supervisor, which ends it with all that it has started.

A supervisor inherits whatever the command leaves behind, daemons too (PR_SET_CHILD_SUBREAPER), and puts it into a
cgroup of its own where the host has one. It ends all of it when the command ends, at the time limit, when it is told
to, and when the agent is gone. An order comes as descriptors (control, stdin, stdout, stderr) and, on the control, a
line of JSON; it answers `started PID SUPERVISOR` or `failed ERRNO`, and at last `ended STATUS GONE SECONDS`.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from agents.own_cgroup import TIMEOUT_SECONDS, is_populated, join_cgroup, remove_cgroup, strike_cgroup
from agents.process import kill_descendants
from agents.readable import readable_within

TERMINATE, KILL = b"t", b"k"
_FILES = 4
_PR_SET_CHILD_SUBREAPER = 36
_ENDING = frozenset({signal.SIGTERM, signal.SIGHUP, signal.SIGINT})
_NEVER_IGNORED = frozenset({signal.SIGKILL, signal.SIGSTOP})
_NOT_RUN = 127
_CHASING_SECONDS = 0.02
_CHUNK = 65536
_LOOK_AGAIN_SECONDS = 3600.0  # poll(2) takes no infinite wait as a number


def main() -> int:
    """Take orders from the socket that is our stdin, until the agent is gone."""
    prctl = ctypes.CDLL(None).prctl  # loaded once, for all that are forked
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors are not waited for: they tell how it ended
    orders = socket.socket(fileno=os.dup(0))
    while True:
        said, files, _, _ = socket.recv_fds(orders, 1, _FILES)
        if not said:
            return 0
        for fd in files:
            os.set_inheritable(fd, False)  # a command that held the control would keep its own supervisor waiting
        control = socket.socket(fileno=files.pop(0))
        try:
            if os.fork() == 0:
                orders.close()
                os.dup2(os.open(os.devnull, os.O_RDWR), 0)
                _end_with(partial(_supervise, control, files, prctl))
        except OSError as error:
            _say(control, f"failed {error.errno}")
        control.close()
        for fd in files:
            os.close(fd)


def _end_with(act: Callable[[], None]) -> NoReturn:
    """Do it in this forked process, which never returns to what its parent was doing."""
    try:
        act()
    finally:
        os._exit(0)


def _supervise(control: socket.socket, files: list[int], prctl: Any) -> None:  # noqa: ANN401 - ctypes has no type for it
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *_ENDING):
        signal.signal(number, lambda *_: None)
    with control.makefile("rb") as lines:
        order = json.loads(lines.readline())
    folder = None if order["cgroup"] is None else Path(order["cgroup"])
    deadline = time.monotonic() + order["seconds"]
    ended: list[int] = []  # the leader's exit status, once it is known
    leader, failed = _start(order, files)
    if failed:
        _say(control, f"failed {failed}")
    else:
        _say(control, f"started {leader} {os.getpid()}")
        while not ended and (left := deadline - time.monotonic()) > 0:
            ready = readable_within([control.fileno(), woken], min(left, _LOOK_AGAIN_SECONDS))
            if woken in ready and set(os.read(woken, 4096)) & _ENDING:
                break
            _reap(leader, ended)
            if control.fileno() in ready:
                if _heard(control) != TERMINATE:
                    break
                if not ended:
                    with suppress(OSError):
                        os.killpg(leader, signal.SIGTERM)
    gone = _end_all(folder, leader, ended)
    own, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    used = own.ru_utime + own.ru_stime + theirs.ru_utime + theirs.ru_stime
    _say(control, f"ended {ended[0] if ended else 0} {gone:d} {used}")


def _start(order: Mapping[str, Any], files: list[int]) -> tuple[int, int]:
    """Fork the command's leader; return its pid, and the error number where it could not become the program."""
    failed, failing = os.pipe()
    leader = os.fork()
    if leader == 0:
        _end_with(partial(_become, order, files, failing))
    for fd in (failing, *files):
        os.close(fd)
    said = os.read(failed, 16)
    os.close(failed)
    return leader, int(said or b"0")


def _become(order: Mapping[str, Any], files: list[int], failing: int) -> None:
    """Become the program: cgroup first and user last, so that it never runs outside the one or as another."""
    try:
        os.setsid()
        if order["cgroup"] is not None:
            with suppress(OSError):  # then the supervisor alone keeps hold of it
                join_cgroup(Path(order["cgroup"]))
        for number, fd in enumerate(files):
            os.dup2(fd, number)
        for number in signal.valid_signals() - _NEVER_IGNORED:  # Python ignores two, nohup(1) and service managers more
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if order["user"] is not None:
            uid, gid, groups = order["user"]
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        os.execve(order["program"], order["argv"], order["environment"])  # noqa: S606 - never a shell
    except OSError as error:
        os.write(failing, b"%d" % (error.errno or errno.EIO))
    except BaseException:
        os.write(failing, b"%d" % errno.EINVAL)
        raise
    finally:
        os._exit(_NOT_RUN)


def _end_all(folder: Path | None, leader: int, ended: list[int]) -> bool:
    """SIGKILL everything until nothing is left; whether that was so in time. A cgroup of ours is removed."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while _reap(leader, ended) or (folder is not None and is_populated(folder)):
        if time.monotonic() > deadline:
            return False
        if folder is not None:
            strike_cgroup(folder)
        kill_descendants(os.getpid())
        _chase(leader, ended)
        time.sleep(0.001)
    if folder is not None:
        remove_cgroup(folder)
    return True


def _chase(leader: int, ended: list[int]) -> None:
    """SIGKILL and reap our own children as fast as they can be listed, for a moment.

    One that forks and leaves is our child only while its next fork takes: when all of /proc has been looked through,
    a chain of them is hundreds of processes on. Needs CONFIG_PROC_CHILDREN.
    """
    deadline = time.monotonic() + _CHASING_SECONDS
    with suppress(OSError):
        fd = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY | os.O_CLOEXEC)
        try:
            while _reap(leader, ended) and time.monotonic() < deadline:
                for pid in os.pread(fd, _CHUNK, 0).split():
                    os.kill(int(pid), signal.SIGKILL)
        finally:
            os.close(fd)


def _reap(leader: int, ended: list[int]) -> bool:
    """Reap whoever has ended; whether any child is left. Without a child there is no descendant either."""
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return True
            if pid == leader:
                ended.append(os.waitstatus_to_exitcode(status))
    except ChildProcessError:
        return False


def _heard(control: socket.socket) -> bytes:
    try:
        return control.recv(1)
    except OSError:
        return b""


def _say(control: socket.socket, line: str) -> None:
    with suppress(OSError):  # the agent is gone
        control.sendall(line.encode() + b"\n")
