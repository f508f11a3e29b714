"""The journal of a claim: what every knob held before, written down and fsynced before the first write.

One file of JSON lines, `journal.jsonl`, is open while a host is claimed; its first line is the header, put in place
whole by a rename. It is written ahead in zeros and keeps a reserve, so that on a full disk an apply is refused before
anything is written while an undo can still be recorded. A line torn by a crash is passed over on reading. At the end
it is closed with the outcome and moved to `closed/`, where the last 100 are kept.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from agents.clock import SYSTEM_CLOCK, Clock
from agents.errors import JournalError
from agents.journal_lines import (
    ClosedJournal,
    Header,
    JournalEntries,
    RestoreOutcome,
    change_record,
    header_record,
    parse_header,
    to_line,
)
from agents.messages import KnobChange, KnobReason
from agents.process import ProcessMark, mark_record
from agents.state_files import LARGEST_BYTES, StateFolder

__all__ = ["KEPT", "ClosedJournal", "Header", "Journal", "RestoreOutcome", "closed_journals"]

log = logging.getLogger(__name__)

KEPT = 100
_OPEN = "journal.jsonl"
_CLOSED = "closed"
_CHUNK_BYTES = 64 * 1024
_RESERVE_BYTES = 48 * 1024
_FULL_BYTES = LARGEST_BYTES - 1024 * 1024  # then nothing more is begun, and there is room to undo
_PIECE_BYTES = 1024 * 1024  # read at once; longer than any line of ours


class Journal:
    """The open journal of a host. Appending is for whoever holds the host lock."""

    def __init__(self, path: Path, fd: int, header: Header, end: int, clock: Clock) -> None:
        self.header = header
        self._path = path
        self._fd = fd
        self._end = end  # offset after the last whole line taken in
        self._entries = JournalEntries()
        self._clock = clock

    @classmethod
    def create(cls, state_dir: Path, header: Header, clock: Clock = SYSTEM_CLOCK) -> Journal:
        """Write the header durably; JournalError, and no file left behind, where that fails or could not be read."""
        path, folder, fresh = state_dir / _OPEN, StateFolder(state_dir), f"{_OPEN}.new"
        line = to_line({"kind": "claim", **header_record(header)})
        parse_header(line[:_PIECE_BYTES], path)
        try:
            folder.make()
            StateFolder(state_dir / _CLOSED).make()
            fd = folder.create(fresh)
        except OSError as error:
            raise _failed(path, error) from error
        journal = cls(path, fd, header, len(line), clock)
        try:
            journal._put(line, 0)
            journal._keep_reserve()
            folder.rename(fresh, _OPEN)
            folder.sync()
        except (OSError, JournalError) as error:
            os.close(fd)
            for left in (fresh, _OPEN):
                with suppress(OSError, JournalError):
                    folder.remove(left)
            raise error if isinstance(error, JournalError) else _failed(path, error) from error
        return journal

    @classmethod
    def open(cls, state_dir: Path, *, read_only: bool = False, clock: Clock = SYSTEM_CLOCK) -> Journal | None:
        """Open the journal of the claim that holds this host; None where nobody does. JournalError if unreadable."""
        path = state_dir / _OPEN
        try:
            folder = StateFolder(state_dir)
            fd = folder.open(_OPEN) if read_only else folder.open_to_write(_OPEN)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _failed(path, error) from error
        try:
            first, newline, _ = _written(fd, 0).partition(b"\n")
            journal = cls(path, fd, parse_header(first, path), len(first + newline), clock)
        except JournalError:
            os.close(fd)
            raise
        if not journal._read_on().closed:
            return journal
        # Closed, and not yet moved away: whoever closed it had no room or no time.
        if read_only:
            journal.leave()
        else:
            journal._archive()
        return None

    # ------------------------------------------------------------------------------------------------ writing
    def intend(self, knob: str, before: str, wanted: str, reason: KnobReason) -> None:
        """Write down a write before it is made; JournalError, and it must not be made, where that can't be done."""
        record = {"kind": "intent", "knob": knob, "before": before, "wanted": wanted}
        self._append_with_reserve({**record, "reason": reason.value, "at": self._clock.now().isoformat()})

    def record(self, change: KnobChange) -> None:
        """Write down a write after it was read back; the reserve serves where the disk is full."""
        self._append({"kind": "change", **change_record(change)})

    def guard(self, process: ProcessMark) -> None:
        """Write down a workload that has to die before the knobs are undone."""
        self._append_with_reserve({"kind": "guard", **mark_record(process)})

    def unguard(self, pid: int) -> None:
        """Write down that a workload has ended."""
        self._append({"kind": "unguard", "pid": pid})

    def close(self, outcome: RestoreOutcome, detail: str = "") -> None:
        """End the claim. Does what a full or vanished disk lets it do: by now nothing is left to undo."""
        try:
            self._append(
                {"kind": "close", "outcome": outcome.value, "detail": detail, "at": self._clock.now().isoformat()}
            )
        except JournalError as error:
            log.warning("the end of claim %s could not be recorded: %s", self.header.claim, error)
        self._archive()

    def leave(self) -> None:
        """Close the descriptor; the journal stays as it is."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # ------------------------------------------------------------------------------------------------ reading
    @property
    def changes(self) -> tuple[KnobChange, ...]:
        """Every write made under this claim so far, in order."""
        return tuple(self._read_on().changes)

    @property
    def guarded(self) -> tuple[ProcessMark, ...]:
        """The workloads that have to die before the knobs are undone."""
        return tuple(self._read_on().guarded.values())

    def is_open(self) -> bool:
        """Whether this claim still is the one that holds the host.

        A state folder that somebody removed ends no claim: what the knobs held is known here all the same.
        """
        if self._fd < 0 or self._read_on().closed is not None:
            return False
        return self.in_place or not self._path.exists()

    @property
    def in_place(self) -> bool:
        """Whether the open journal of the host is this one, without reading it."""
        try:
            here, there = os.fstat(self._fd), self._path.lstat()
        except OSError:
            return False
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)

    def _read_on(self) -> JournalEntries:
        """Take in the whole lines that agent or guardian have written since."""
        if self._fd >= 0:
            self._end = _take_in(self._fd, self._end, self._entries)
        return self._entries

    # ------------------------------------------------------------------------------------------------ the file
    def _append_with_reserve(self, record: Mapping[str, object]) -> None:
        self._read_on()
        if self._end > _FULL_BYTES:
            raise JournalError(
                f"the journal is full: {self._end:,} bytes",
                where=str(self._path),
                remedy="end this run and start another: its host gets a journal of its own",
            )
        try:
            self._keep_reserve()
        except OSError as error:
            raise _failed(self._path, error) from error
        self._append(record)

    def _append(self, record: Mapping[str, object]) -> None:
        self._read_on()
        line = to_line(record)
        try:
            if torn := _written(self._fd, self._end):
                # Whoever wrote last died in the middle of a line: close it off, so that only that one is lost.
                self._put(b"\n", self._end + len(torn))
                self._read_on()
            self._put(line, self._end)
            os.fdatasync(self._fd)
        except OSError as error:
            raise _failed(self._path, error) from error

    def _put(self, data: bytes, offset: int) -> None:
        while data:
            written = os.pwrite(self._fd, data, offset)
            data, offset = data[written:], offset + written

    def _keep_reserve(self) -> None:
        """Keep room behind what is used: zeros really written, since only those are sure to have a place."""
        size = os.fstat(self._fd).st_size
        if size - self._end >= _RESERVE_BYTES:
            return
        start = max(size, self._end)
        try:
            self._put(bytes(_CHUNK_BYTES), start)
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, start)
            raise

    def _archive(self) -> None:
        folder, closed = StateFolder(self._path.parent), StateFolder(self._path.parent / _CLOSED)
        stamp = self.header.claimed_at.strftime("%Y%m%dT%H%M%S.%f")
        try:
            self._read_on()
            os.ftruncate(self._fd, self._end + len(_written(self._fd, self._end)))
            os.fsync(self._fd)
            if self.in_place:
                folder.rename(_OPEN, f"{stamp}-{self.header.claim}.jsonl", into=closed)
                closed.sync()
                folder.sync()
            for old in _journals(closed)[:-KEPT]:
                closed.remove(old)
        except (OSError, JournalError) as error:
            log.warning("the closed journal %s could not be moved away: %s", self._path, error)
        self.leave()


def closed_journals(state_dir: Path, run: str | None = None) -> tuple[ClosedJournal, ...]:
    """Return how the claims of this host ended, oldest first; of one run only, where it is named."""
    found: dict[str, ClosedJournal] = {}
    closed = StateFolder(state_dir / _CLOSED)
    for folder, name in _in_order_of_closing(StateFolder(state_dir), closed):
        entries = JournalEntries()
        try:
            fd = folder.open(name)
            try:
                first, newline, _ = _written(fd, 0).partition(b"\n")
                header = parse_header(first, folder.path / name)
                _take_in(fd, len(first + newline), entries)
            finally:
                os.close(fd)
        except FileNotFoundError:
            continue
        except (OSError, JournalError) as error:
            log.warning("a closed journal can't be read: %s", error)
            continue
        ended = entries.closed is not None or folder is closed
        if ended and run in (None, header.run):
            found[header.claim] = ClosedJournal.of(header, entries)
    return tuple(sorted(found.values(), key=lambda closed: closed.claimed_at))


def _in_order_of_closing(open_one: StateFolder, closed: StateFolder) -> Iterator[tuple[StateFolder, str]]:
    """The one that is about to be moved comes first, and the folder is listed after it: no move can hide one."""
    yield open_one, _OPEN
    for name in _journals(closed):
        yield closed, name


def _take_in(fd: int, start: int, entries: JournalEntries) -> int:
    """Take in the whole lines from an offset on, piece by piece; returns the offset after the last."""
    while True:
        piece = _written(fd, start)
        whole, newline, _ = piece.rpartition(b"\n")
        full = len(piece) == _PIECE_BYTES
        if not newline and full:
            whole = piece  # no line of ours is so long: passed over
        entries.take_in(whole.split(b"\n"))
        start += len(whole + newline)
        if not full:
            return start


def _written(fd: int, start: int) -> bytes:
    """Return what is written from an offset on, a piece at most, up to the zeros written ahead."""
    data = os.pread(fd, _PIECE_BYTES, start)
    end = data.find(b"\0")
    return data if end < 0 else data[:end]


def _journals(closed: StateFolder) -> list[str]:
    return [name for name in closed.names() if name.endswith(".jsonl")]


def _failed(path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"the journal can't be used: {error.strerror}",
        where=str(path),
        remedy="make room on the disk of the state folder, and run as a user who may write there",
    )
