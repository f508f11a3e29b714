"""Questions answered in a process of their own, which has limits of memory and of time, and is killed when it is late.

Within one step of a query a database may work for hours without hearing an interrupt: `instr`, LIKE or `replace` on
long texts, a sort. And what a query makes of memory is known when it has been made.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, Pipe
from types import FrameType
from typing import TYPE_CHECKING, Any

from fleetexp.errors import QueryRefused, QueryTooLong, StoreError
from fleetexp.secret import without_secrets
from fleetexp.shipped import PACKAGES
from fleetexp.store.url import StoreUrl, parse_url

if TYPE_CHECKING:
    from fleetexp.store.read_only.answer import BatchReader, QueryResult
    from fleetexp.store.values import Row

MESSAGE_AT_MOST = 64 << 20
GRACE_SECONDS = 0.2  # in which the database ends the query itself, and gives back what it holds
_BOOT = (
    "import sys; sys.path[:0] = sys.argv[2:]; from fleetexp.store.read_only.question_process import main; "
    "sys.exit(main(int(sys.argv[1])))"
)


@contextmanager
def isolated_reader(url: StoreUrl, *, timeout_seconds: float) -> Iterator[BatchReader]:
    """Open a store for questions as `reader` does: all that is done with it may take `timeout_seconds`.

    QueryTooLong is raised when they are over, in the midst of whatever is done then, and QueryRefused where a question
    needs too much memory. Of the main thread only: the clock is a signal.
    """
    database = parse_url(url)
    where = database.name
    with _started() as (process, connection):
        found = _IsolatedReader(connection, where)
        found.hear()  # it is there: time runs from now on

        def ring(_signal: int, _frame: FrameType | None) -> None:
            if found.late is not None:  # for the second time: something else than the process is waited for
                raise found.late
            found.late = QueryTooLong.after(timeout_seconds, where)
            process.kill()

        with _alarm(timeout_seconds + GRACE_SECONDS, ring):
            found.say((database.handed_over(), timeout_seconds))
            yield found


@contextmanager
def _alarm(seconds: float, ring: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Ring when the time is over, and from then on again and again: Python drops what is raised at a bad moment."""
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, GRACE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _started() -> Iterator[tuple[subprocess.Popen[bytes], Connection]]:
    """Start the process with the packages of this one and nothing of the folder that it is started in."""
    ours, theirs = Pipe()
    folders = [PACKAGES, *filter(None, sys.path)]
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BOOT, str(theirs.fileno()), *folders],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=without_secrets(os.environ),
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C is for this process, which ends that one
        )
        theirs.close()
        try:
            yield process, ours
        finally:
            process.kill()
            process.wait()


class _IsolatedReader:
    def __init__(self, process: Connection, where: str) -> None:
        self._process = process
        self._where = where
        self._open: Iterator[list[Row]] = iter(())
        self.late: QueryTooLong | None = None

    def ask(self, sql: str, *, batch_rows: int) -> QueryResult:
        from fleetexp.store.read_only.answer import QueryResult  # noqa: PLC0415 - while the process does the same

        for _ in self._open:  # what is still on its way of the answer before
            pass
        self.say((sql, batch_rows))
        columns, kinds = self.hear()
        self._open = self._batches()
        return QueryResult(columns=columns, kinds=kinds, batches=self._open)

    def _batches(self) -> Iterator[list[Row]]:
        while rows := self.hear():
            yield rows

    def say(self, what: object) -> None:
        with suppress(OSError):  # it has ended, and said before why
            self._process.send(what)

    def hear(self) -> Any:  # noqa: ANN401 - names and kinds, or rows
        """Return what the process says next; what it raised is raised here."""
        if self.late is not None:
            raise self.late
        try:
            said = pickle.loads(self._process.recv_bytes(MESSAGE_AT_MOST))  # noqa: S301 - our own process
        except (EOFError, OSError) as error:
            raise self.late or QueryRefused(
                "the process that answers has ended", self._where, "the kernel log says whether memory ran out"
            ) from error
        if isinstance(said, StoreError):
            raise said
        return said
