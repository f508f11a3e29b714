"""Pages are understood in a process of its own: what a stranger wrote can't hold up who renews the lease.

Python's threads take turns: one that is long inside a single call of C holds all of them up. A process that is late is
killed, and the next page gets another.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from agents.collectors.own_cost import add_child_seconds
from agents.messages import MetricSource
from agents.metric_sources.cancellation import Cancellation
from agents.metric_sources.page import SourcePage
from agents.metric_sources.parser_process import ANSWER_AT_MOST, read_answer, request_line
from agents.metric_sources.picking import Found
from agents.metric_sources.unreadable import Unreadable
from agents.readable import readable_within
from agents.timeouts import start_seconds

_IDLE_AT_MOST = 2
_BOOT = "import sys; sys.path += sys.argv[1:]; from agents.metric_sources.parser_process import main; sys.exit(main())"


class Readers:
    """As many processes as there are pages being understood at once; one or two wait for the next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        self._idle: list[_ParserClient] = []

    def pick(self, page: SourcePage, sources: Sequence[MetricSource], *, seconds: float, cut: Cancellation) -> Found:
        """Return what each source finds on the page (`agents.metric_sources.picking.pick`), within so many seconds.

        Unreadable where they do not suffice. What a new process takes to start is not counted.
        """
        reader = self._ready()
        found: Found | None = None
        try:
            with cut.after(seconds), cut.by(reader.kill):
                found = reader.ask(page, sources, seconds=seconds)
        finally:
            with self._lock:
                kept = found is not None and not cut.done and len(self._idle) < _IDLE_AT_MOST
                if kept:
                    self._idle.append(reader)
            if not kept:
                reader.close()
        if cut.done:
            raise Unreadable(
                "it was not understood in time", "let it be shorter, or give the source a longer 'timeout'"
            )
        if found is None:
            raise Unreadable("the process that understands it has ended", "let the page be shorter")
        return found

    def _ready(self) -> _ParserClient:
        """Return one that waits, or start one: one at a time, for meanwhile another may be free."""
        return self._waiting() or self._started()

    def _waiting(self) -> _ParserClient | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _started(self) -> _ParserClient:
        with self._starting:
            return self._waiting() or _ParserClient()

    def close(self) -> None:
        """End the processes that wait."""
        with self._lock:
            idle, self._idle = self._idle, []
        for reader in idle:
            reader.close()


class _ParserClient:
    """One process. It ends by itself once its requests do, so also when the agent is killed."""

    def __init__(self) -> None:
        self._counted = 0.0
        try:
            self._process = _start()
        except (OSError, subprocess.SubprocessError) as error:
            raise Unreadable(
                f"no process can be started to understand it: {getattr(error, 'strerror', None) or error}",
                "see how many processes this user may have",
            ) from error
        if not self._is_ready():
            self.close()
            raise Unreadable(
                f"the process that understands it did not start in {start_seconds():g} s", "see how busy this host is"
            )

    def _is_ready(self) -> bool:
        answers = self._process.stdout
        assert answers is not None  # noqa: S101 - asked for where it was started
        return bool(readable_within([answers.fileno()], start_seconds())) and answers.readline(2) == b"\n"

    def ask(self, page: SourcePage, sources: Sequence[MetricSource], *, seconds: float) -> Found | None:
        """Return the answer, or None where the process ended without one."""
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None  # noqa: S101 - asked for where it was started
        assert answers is not None  # noqa: S101
        try:
            for part in (request_line(page, sources, seconds=seconds), page.body):
                left = memoryview(part)
                while left:
                    left = left[os.write(asked.fileno(), left) :]
            line = answers.readline(ANSWER_AT_MOST)
        except OSError:
            return None
        if not line.endswith(b"\n"):
            return None
        answer = read_answer(line)
        self._count(answer.cpu_seconds)
        return answer.found

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGKILL)  # Popen's own would wait for it, and lose what it used

    def close(self) -> None:
        self.kill()
        with self._process:  # closes the pipes
            _, status, used = os.wait4(self._process.pid, 0)
            self._process.returncode = os.waitstatus_to_exitcode(status)
        self._count(used.ru_utime + used.ru_stime)

    def _count(self, cpu_seconds: float) -> None:
        add_child_seconds(max(0.0, cpu_seconds - self._counted))
        self._counted = max(cpu_seconds, self._counted)


def _start() -> subprocess.Popen[bytes]:
    """Start this Python alone with its standard library, this package, and the folder of the Prometheus library."""
    library = find_spec("prometheus_client")
    folders = [str(Path(__file__).resolve().parents[2])]
    if library is not None and library.origin is not None:
        folders.append(str(Path(library.origin).parents[1]))
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _BOOT, *folders],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ},
        start_new_session=True,
    )


READERS = Readers()
atexit.register(READERS.close)
