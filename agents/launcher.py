"""Commands that end with all they have started, whatever they become; `agents.launcher_process` sees to that."""

from __future__ import annotations

import atexit
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from agents.launcher_process import KILL, TERMINATE
from agents.own_cgroup import kill_cgroup, make_cgroup, remove_cgroup
from agents.process import is_alive, kill_descendants, kill_with_group, mark_process, send_signal
from agents.timeouts import start_seconds

_BOOT = "import sys; sys.path.append(sys.argv[1]); from agents.launcher_process import main; sys.exit(main())"
_GRACE_SECONDS = 1.0
_TIMES = 2  # a launcher that was killed is replaced


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What to start, and as whom: user, group and further groups, or None for ourselves.

    The time limit is this process's to keep; a moment later all is ended also where it stands still. Without
    `has_stdin` there is nothing to read.
    """

    argv: tuple[str, ...]
    program: str
    environment: Mapping[str, str]
    time_limit_seconds: float
    user: tuple[int, int, tuple[int, ...]] | None = None
    has_stdin: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandEnd:
    """How a command ended: `code` as subprocess has it, None where nobody knows; `gone`: whether all of it is dead."""

    code: int | None
    gone: bool
    cpu_seconds: float


class Launched:
    """A command that runs, with all that it starts. Its stdout and stderr are open until `close`.

    `fileno` becomes readable once it has ended, or its supervisor has: then `ended` answers at once.
    """

    def __init__(
        self, control: socket.socket, cgroup: Path | None, stdin: IO[bytes] | None, stdout: IO[bytes], stderr: IO[bytes]
    ) -> None:
        """Wait until it runs; OSError where it can't be started."""
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self._control = control
        self._cgroup = cgroup
        self._answers = control.makefile("rb")
        try:
            word, *numbers = self._answers.readline().split() or [b"failed", b"%d" % errno.EIO]
            if word == b"failed":
                raise OSError(int(numbers[0]), os.strerror(int(numbers[0])))
        except BaseException:
            self._answers.close()  # it would keep the socket open
            raise
        control.settimeout(None)
        self.pid, supervisor = map(int, numbers)
        self._leader, self._supervisor = mark_process(self.pid), mark_process(supervisor)

    def fileno(self) -> int:
        return self._control.fileno()

    def terminate(self) -> None:
        """SIGTERM the process group that the command leads."""
        self._tell(TERMINATE)

    def kill(self) -> None:
        """SIGKILL everything."""
        self._tell(KILL)

    def _tell(self, word: bytes) -> None:
        with suppress(OSError):  # it has ended
            self._control.sendall(word, socket.MSG_DONTWAIT)

    def kill_by_hand(self) -> bool:
        """SIGKILL everything without its supervisor, which hangs or is dead; whether all that can be seen is gone."""
        if self._supervisor is not None and is_alive(self._supervisor):
            kill_descendants(self._supervisor.pid)
            send_signal(self._supervisor, signal.SIGKILL)
        gone = self._leader is None or kill_with_group(self._leader)
        if self._cgroup is not None:
            gone = kill_cgroup(self._cgroup) and gone
            remove_cgroup(self._cgroup)
        return gone

    def ended(self) -> CommandEnd:
        """Wait for the end; for one caller, once."""
        words: list[bytes] = []
        with suppress(OSError):  # it died with a word of ours unread
            words = self._answers.readline().split()
        if len(words) == 4:
            return CommandEnd(code=int(words[1]), gone=words[2] == b"1", cpu_seconds=float(words[3]))
        return CommandEnd(code=None, gone=self.kill_by_hand(), cpu_seconds=0.0)

    def close(self) -> None:
        """Let go of the descriptors; what still runs is killed by its supervisor."""
        for file in (self._answers, self._control, self.stdin, self.stdout, self.stderr):
            if file is not None:
                with suppress(OSError):
                    file.close()


class Launcher:
    """The process that starts commands; it is started when first needed, and ends with this one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: socket.socket | None = None

    def launch(self, what: Launch) -> Launched:
        """Start a command in a session of its own; OSError where that fails, and then nothing runs or is left open."""
        order = _order(what, cgroup := make_cgroup())
        with ExitStack() as undo:
            if cgroup is not None:
                undo.callback(remove_cgroup, cgroup)
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            given, kept = _files(has_stdin=what.has_stdin, undo=undo)
            try:
                self._hand_over([theirs.fileno(), *given])
            finally:
                theirs.close()
                for fd in given:
                    os.close(fd)
            ours.settimeout(start_seconds())
            ours.sendall(order)
            launched = Launched(ours, cgroup, *kept)
            undo.pop_all()
        return launched

    def _hand_over(self, files: list[int]) -> None:
        with self._lock:
            for _ in range(_TIMES):
                if self._orders is None:
                    self._start()
                assert self._orders is not None  # noqa: S101 - just made
                try:
                    socket.send_fds(self._orders, [b"x"], files)
                    return
                except (BrokenPipeError, ConnectionError):
                    self._end()
            raise BrokenPipeError(errno.EPIPE, "the process that starts commands ends at once")

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _BOOT, str(Path(__file__).resolve().parents[1])],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ},
                start_new_session=True,
            )
        self._orders = ours

    def _end(self) -> None:
        if self._orders is not None:
            self._orders.close()
            self._orders = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End the process; what it has started keeps its supervisors."""
        with self._lock:
            self._end()


def _order(what: Launch, cgroup: Path | None) -> bytes:
    said = {
        "argv": what.argv,
        "program": what.program,
        "environment": dict(what.environment),
        "user": what.user,
        "cgroup": None if cgroup is None else str(cgroup),
        "seconds": what.time_limit_seconds + _GRACE_SECONDS,
    }
    return json.dumps(said).encode() + b"\n"


def _files(*, has_stdin: bool, undo: ExitStack) -> tuple[list[int], tuple[IO[bytes] | None, IO[bytes], IO[bytes]]]:
    """Return what the command gets as its stdin, stdout and stderr, and our ends of them."""
    stdin: IO[bytes] | None = None
    if has_stdin:
        read, write = os.pipe()
        stdin = undo.enter_context(os.fdopen(write, "wb", buffering=0))
    else:
        read = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    given, kept = [read], []
    for _ in range(2):
        read, write = os.pipe()
        given.append(write)
        kept.append(undo.enter_context(os.fdopen(read, "rb", buffering=0)))
    return given, (stdin, kept[0], kept[1])


LAUNCHER = Launcher()
atexit.register(LAUNCHER.close)
