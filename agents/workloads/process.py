"""A workload that runs: its output is drained, its time bounded, its end and that of all it started certain."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import selectors
import signal
import threading
import time
from pathlib import Path

from agents.errors import StateRefused, WorkloadError
from agents.launcher import LAUNCHER, Launch, Launched
from agents.messages import WorkloadState
from agents.timeouts import VARIABLE, start_seconds
from agents.workloads.kept_output import KeptOutput
from agents.workloads.printed import LINE_BYTES_AT_MOST, Printed, quoted
from agents.workloads.running import Measured

log = logging.getLogger(__name__)

PENDING_AT_MOST = 100_000  # measurements between two calls of `measurements`
GO = b"go\n"
_CHUNK = 65536
_LAST_CHUNKS = 64  # what is read after the end: more than a pipe holds, less than for ever
_AFTER_KILL_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 3600.0  # select(2) takes no infinite wait as a number
_LIVE = frozenset({WorkloadState.STARTING, WorkloadState.RUNNING})


class ProcessWorkload:
    """One command from its start to its last word. A thread drains it, so nothing it prints can block it.

    When its leader ends, what it left behind is killed. A line that is not a measurement, or more time than allowed,
    ends it as failed.
    """

    cgroup: str | None = None

    def __init__(
        self,
        launch: Launch,
        *,
        name: str,
        printed: Printed,
        work_dir: Path,
        may_run_out: bool,
        order: bytes | None = None,
    ) -> None:
        """Start the process; WorkloadError where that fails, and then nothing runs and nothing is left open.

        `may_run_out`: whether the time limit is a good end for one that has reported anything. `order` is written to
        its stdin, where it has one, which then stays open.
        """
        self._name = name
        self._printed = printed
        self._limit = launch.time_limit_seconds
        self._may_run_out = may_run_out
        self._line = bytearray()
        self._measured: list[Measured] = []
        self._reported = False
        self._stopping = False
        self._state = WorkloadState.RUNNING if printed.ready else WorkloadState.STARTING
        self._detail = ""
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._settled = threading.Event()  # no longer starting
        if printed.ready:
            self._settled.set()
        with contextlib.ExitStack() as undo:
            self._stdout = _keep(work_dir, f"{name}.stdout")
            undo.callback(self._stdout.close)
            self._stderr = _keep(work_dir, f"{name}.stderr")
            undo.callback(self._stderr.close)
            self._launched = _start(launch)
            undo.pop_all()
        self.pid: int | None = self._launched.pid
        if order is not None:
            self._write(order)
        self._takers = {
            self._launched.stdout.fileno(): self._take_stdout,
            self._launched.stderr.fileno(): self._stderr.write,
        }
        threading.Thread(target=self._watch, name=f"workload-{self.pid}", daemon=True).start()

    def poll(self) -> tuple[WorkloadState, str]:
        with self._lock:
            return self._state, self._detail

    def wait_until_ready(self, timeout_seconds: float) -> None:
        if not self._settled.wait(timeout_seconds):
            raise WorkloadError(
                f"the workload was not ready to measure after {timeout_seconds:g} s",
                where=self._name,
                remedy="a smaller region, or look at what else this host is doing",
            )
        state, detail = self.poll()
        if state is WorkloadState.FAILED:
            raise WorkloadError(f"the workload failed before it could measure: {detail}", where=self._name)

    def go(self) -> None:
        self._write(GO)

    def _write(self, line: bytes) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):  # it has ended: `poll` says why
            if self._launched.stdin is not None:
                self._launched.stdin.write(line)

    def measurements(self) -> list[Measured]:
        with self._lock:
            measured, self._measured = self._measured, []
            return measured

    def stop(self, timeout_seconds: float = 10.0) -> bool:
        with self._lock:
            self._stopping = True
            self._launched.terminate()
        if self._over.wait(timeout_seconds):
            return True
        self._launched.kill()
        if self._over.wait(_AFTER_KILL_SECONDS):
            return True
        self._launched.kill_by_hand()
        if self._over.wait(_AFTER_KILL_SECONDS):
            return True
        self._not_gone()
        return False

    def _not_gone(self) -> None:
        log.error("workload %s, process %d: not gone after SIGKILL", self._name, self.pid)
        self._settle(WorkloadState.FAILED, "the process could not be killed: it hangs in the kernel")

    # ------------------------------------------------------------------ the thread
    def _watch(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                for descriptor in self._takers:
                    os.set_blocking(descriptor, False)
                    selector.register(descriptor, selectors.EVENT_READ)
                selector.register(self._launched, selectors.EVENT_READ)
                self._drain_until_ended(selector)
            for descriptor in self._takers:
                for _ in range(_LAST_CHUNKS):
                    if not self._read(descriptor):
                        break
        except BaseException as error:  # a thread that ended here would wait for a program that nobody ends
            log.exception("workload %s: reading it failed", self._name)
            self._fail(f"a defect: {error!r}")
        finally:
            self._close()

    def _drain_until_ended(self, selector: selectors.BaseSelector) -> None:
        deadline = time.monotonic() + self._limit
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                self._run_out()
                deadline, left = math.inf, math.inf
            ready = [key.fileobj for key, _ in selector.select(min(left, _LOOK_AGAIN_SECONDS))]
            for descriptor in ready:
                if isinstance(descriptor, int) and self._read(descriptor) is False:
                    selector.unregister(descriptor)
            if self._launched in ready:
                return

    def _read(self, descriptor: int) -> bool | None:
        """Take one chunk; False at the end of the output, None where there is nothing now."""
        try:
            chunk = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return None
        self._takers[descriptor](chunk)
        return bool(chunk)

    def _close(self) -> None:
        ended = self._launched.ended()
        if not ended.gone:
            self._not_gone()
        with self._lock:
            self._launched.close()
            self._stdout.close()
            self._stderr.close()
            self._end(ended.code)
        self._over.set()

    def _take_stdout(self, chunk: bytes) -> None:
        self._stdout.write(chunk)
        self._understand(chunk)

    def _understand(self, chunk: bytes) -> None:
        with self._lock:
            if self._state not in _LIVE:
                return
            *lines, rest = (bytes(self._line) + chunk).split(b"\n")
            self._line[:] = rest[: LINE_BYTES_AT_MOST + 1]
            try:
                for line in lines:
                    self._report(self._printed.line(line[: LINE_BYTES_AT_MOST + 1]))
                if len(rest) > LINE_BYTES_AT_MOST:
                    self._report(self._printed.line(bytes(self._line)))
                    self._line.clear()
            except WorkloadError as error:
                self._fail(str(error))
            if self._state is WorkloadState.STARTING and self._printed.ready:
                self._state = WorkloadState.RUNNING
                self._settled.set()

    def _report(self, measured: list[Measured]) -> None:
        self._reported = self._reported or bool(measured)
        self._measured += measured
        if len(self._measured) > PENDING_AT_MOST:
            raise WorkloadError(
                f"more than {PENDING_AT_MOST:,} measurements between two samples",
                where=self._name,
                remedy="report less often",
            )

    # ------------------------------------------------------------------ ways to end
    def _run_out(self) -> None:
        with self._lock:
            if self._may_run_out and self._reported:
                self._settle(WorkloadState.FINISHED, f"ended by its time limit of {self._limit:g} s")
            else:
                self._settle(WorkloadState.FAILED, f"still running after its time limit of {self._limit:g} s")
            self._launched.kill()

    def _fail(self, detail: str) -> None:
        self._settle(WorkloadState.FAILED, detail)
        self._launched.kill()

    def _end(self, code: int | None) -> None:
        if self._state not in _LIVE:
            return
        stopped = self._stopping  # a program may answer SIGTERM with any exit status
        if code != 0 and not stopped:
            self._settle(WorkloadState.FAILED, _ending(code, self._stderr.last_line()))
            return
        try:
            if self._line.strip() and not stopped:  # a last line without its newline; half a line when stopped
                self._report(self._printed.line(bytes(self._line)))
            self._report(self._printed.end())
        except WorkloadError as error:
            self._settle(WorkloadState.FAILED, str(error))
            return
        if stopped and not self._printed.ready:
            self._settle(WorkloadState.FAILED, "stopped before it was ready to measure")
        else:
            self._settle(WorkloadState.FINISHED, "stopped" if stopped else "")

    def _settle(self, state: WorkloadState, detail: str) -> None:
        with self._lock:
            if self._state in _LIVE:
                self._state, self._detail = state, detail
            self._settled.set()


def _keep(work_dir: Path, name: str) -> KeptOutput:
    try:
        return KeptOutput(work_dir / name)
    except StateRefused as error:
        raise WorkloadError(error.what, error.where, error.remedy) from error
    except OSError as error:
        raise WorkloadError(
            f"the workload's output can't be kept: {error.strerror}",
            where=str(work_dir / name),
            remedy="make room on the disk, or make the folder writable for the agent",
        ) from error


def _start(launch: Launch) -> Launched:
    try:
        return LAUNCHER.launch(launch)
    except TimeoutError as error:
        raise WorkloadError(
            f"the workload was not started within {start_seconds():g} s",
            where=launch.program,
            remedy=f"look at what else this host is doing; {VARIABLE}=4 in the agent's environment waits longer",
        ) from error
    except OSError as error:
        raise WorkloadError(
            f"the workload can't be started: {error.strerror or error}",
            where=launch.program,
            remedy="give it fewer or shorter words"
            if error.errno == errno.E2BIG
            else "check that the file is a program that this user may run",
        ) from error


def _ending(code: int | None, last_words: bytes) -> str:
    if code is None:
        how = "the process that supervises it was killed"
    elif code < 0:
        names = {number.value: number.name for number in signal.Signals}
        how = f"killed by {names.get(-code, f'signal {-code}')}"
        if -code == signal.SIGBUS:
            how += ": the kernel had no page for the memory it touched (a cgroup or NUMA limit on hugetlb?)"
        elif -code == signal.SIGKILL:
            how += " (out of memory? see the kernel log)"
    else:
        how = f"exit status {code}"
    return f"{how}; its last words: {quoted(last_words)}" if last_words else how
