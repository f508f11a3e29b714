"""The lock under which knobs and journal of a host change hands: one flock, shared by agent, guardian and restore."""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from agents.errors import HostClaimed, JournalError
from agents.json_fields import read_object
from agents.process import ProcessMark, mark_process, mark_record, parse_mark
from agents.state_files import StateFolder

_NAME = "state.lock"
_RECORD_BYTES = 128
_RETRY_SECONDS = 0.01


class HostLock:
    """An exclusive flock that says who holds it; also between threads. Not re-entrant.

    HostClaimed where it can't be had within `timeout_seconds`, JournalError where the state folder can't be used.
    """

    def __init__(self, state_dir: Path, *, timeout_seconds: float = 10.0) -> None:
        self._folder = StateFolder(state_dir)
        self._timeout = timeout_seconds
        self._fd = -1

    def __enter__(self) -> HostLock:
        if not self.acquire(self._timeout):
            holder = self.holder()
            who = "another process" if holder is None else f"process {holder.pid}"
            raise HostClaimed(
                f"{who} has been changing this host's knobs for longer than {self._timeout:g} s",
                where=str(self._folder.path / _NAME),
                remedy="let it finish, or end it if it is stuck",
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self, timeout_seconds: float) -> bool:
        """Try for so long; True where the lock is now ours."""
        try:
            fd = self._folder.open_to_write(_NAME, os.O_CREAT)
        except OSError as error:
            raise JournalError(
                f"the state folder can't be used: {error.strerror}",
                where=str(self._folder.path / _NAME),
                remedy="run as a user who may write there, with room on the disk",
            ) from error
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() >= deadline:
                    os.close(fd)
                    return False
                time.sleep(_RETRY_SECONDS)
                continue
            self._fd = fd
            self._sign()
            return True

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def holder(self) -> ProcessMark | None:
        """Return the process that took the lock last, as far as it could write that down."""
        try:
            fd = self._folder.open(_NAME)
            try:
                return parse_mark(read_object(os.pread(fd, _RECORD_BYTES, 0)))
            finally:
                os.close(fd)
        except (OSError, ValueError, JournalError):
            return None

    def _sign(self) -> None:
        mine = mark_process(os.getpid())
        if mine is not None:
            record = json.dumps(mark_record(mine))
            # A full disk may keep us from signing the first time; the lock holds all the same.
            with suppress(OSError):
                os.pwrite(self._fd, record.ljust(_RECORD_BYTES).encode(), 0)
