"""How long a claim may go unheard: the lease an agent renews, and the note its guardian keeps, both rewritten in place.

Both are files of a fixed size written once and fsynced when the claim is taken, so that a full disk stops neither a
renewal nor the guardian. Instants are seconds of CLOCK_BOOTTIME, which counts through a suspend and never steps.
"""

from __future__ import annotations

import json
import os
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from agents.clock import SYSTEM_CLOCK, Clock
from agents.errors import JournalError
from agents.json_fields import as_number, as_text, read_object
from agents.process import ProcessMark, mark_record, parse_mark
from agents.state_files import StateFolder

T = TypeVar("T")

_RECORD_BYTES = 2048
_DETAIL_BYTES = 500
_READS = 20


def boot_seconds() -> float:
    """Return the time since boot in seconds, suspend included (CLOCK_BOOTTIME)."""
    return SYSTEM_CLOCK.boot_seconds()


class RewrittenRecord:
    """A small JSON object in a file of fixed size, replaced by one pwrite; a torn read is seen by its checksum.

    May be used, and closed, by several threads at once.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd
        self._using = threading.Lock()  # else a file that is opened once this is closed could be the one written

    @classmethod
    def create(cls, path: Path, content: Mapping[str, object]) -> RewrittenRecord:
        """Put a new file in the place of `path`, durable before it is seen; whoever has the old one open keeps it."""
        folder, fresh = StateFolder(path.parent), f"{path.name}.new"
        try:
            fd = folder.create(fresh)
        except OSError as error:
            raise _no_room(path, error) from error
        record = cls(path, fd)
        try:
            record.write(content)
            os.fsync(fd)
            folder.rename(fresh, path.name)
        except (OSError, JournalError) as error:
            record.close()
            folder.remove(fresh)
            raise error if isinstance(error, JournalError) else _no_room(path, error) from error
        return record

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> RewrittenRecord | None:
        """Open the record; None where there is none."""
        try:
            return cls(path, StateFolder(path.parent).open(path.name, os.O_RDONLY if read_only else os.O_RDWR))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise JournalError(
                f"can't be opened: {error.strerror}", str(path), "run as the user who claimed"
            ) from error

    def write(self, content: Mapping[str, object]) -> None:
        text = json.dumps(content).encode()
        line = b"%08x %b\n" % (zlib.crc32(text), text)
        try:
            with self._using:
                written = os.pwrite(self._fd, line.ljust(_RECORD_BYTES), 0)
            if written < len(line):
                raise OSError(28, "no room for the whole record")
        except OSError as error:
            raise _no_room(self._path, error) from error

    def read(self, understand: Callable[[Mapping[str, object]], T]) -> T:
        """Return what the content says; JournalError where it stays unreadable, or `understand` raises ValueError."""
        why = "it is torn"
        try:
            for _ in range(_READS):
                with self._using:
                    said = os.pread(self._fd, _RECORD_BYTES, 0)
                checksum, _, text = said.strip(b" \n\0").partition(b" ")
                if checksum == b"%08x" % zlib.crc32(text):
                    return understand(read_object(text))
                time.sleep(0.001)
        except OSError as error:
            why = error.strerror or str(error)
        except ValueError as error:
            why = str(error)
        raise JournalError(
            f"the record is damaged: {why}", str(self._path), "restore the host with 'fleetexp restore --force'"
        )

    def close(self) -> None:
        with self._using:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


def _no_room(path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"can't be written: {error.strerror}",
        str(path),
        "make room on the disk of the state folder, or make it writable",
    )


# ------------------------------------------------------------------------------------------------ the agent's side
@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseState:
    """What the lease says: until when, and whether the claim it belongs to is over."""

    claim: str
    expires_at_boot_seconds: float
    over: bool
    clock: Clock = field(default=SYSTEM_CLOCK, repr=False, compare=False)

    @property
    def remaining_seconds(self) -> float:
        return max(0.0, self.expires_at_boot_seconds - self.clock.boot_seconds())

    @property
    def expired(self) -> bool:
        return self.clock.boot_seconds() >= self.expires_at_boot_seconds


class Lease:
    """The lease of a host's open claim."""

    def __init__(self, record: RewrittenRecord, clock: Clock = SYSTEM_CLOCK) -> None:
        self._record = record
        self._clock = clock

    @staticmethod
    def _path(state_dir: Path) -> Path:
        return state_dir / "lease"

    @classmethod
    def create(cls, state_dir: Path, *, claim: str, seconds: float, clock: Clock = SYSTEM_CLOCK) -> Lease:
        content = _lease_content(claim, clock.boot_seconds() + seconds, over=False)
        return cls(RewrittenRecord.create(cls._path(state_dir), content), clock)

    @classmethod
    def open(cls, state_dir: Path, *, read_only: bool = False, clock: Clock = SYSTEM_CLOCK) -> Lease | None:
        record = RewrittenRecord.open(cls._path(state_dir), read_only=read_only)
        return None if record is None else cls(record, clock)

    def read(self) -> LeaseState:
        """Return the state; JournalError where the record is damaged."""
        return self._record.read(self._understand)

    def _understand(self, content: Mapping[str, object]) -> LeaseState:
        return LeaseState(
            claim=as_text(content.get("claim"), "claim"),
            expires_at_boot_seconds=as_number(content.get("expires"), "expires"),
            over=content.get("over") is True,
            clock=self._clock,
        )

    def extend(self, claim: str, until_boot_seconds: float) -> None:
        self._record.write(_lease_content(claim, until_boot_seconds, over=False))

    def finish(self, claim: str) -> None:
        """Say that the claim is over: its guardian leaves."""
        self._record.write(_lease_content(claim, 0.0, over=True))

    def close(self) -> None:
        self._record.close()


def _lease_content(claim: str, expires: float, *, over: bool) -> dict[str, object]:
    return {"claim": claim, "expires": expires, "over": over}


# --------------------------------------------------------------------------------------------- the guardian's side
class Phase(StrEnum):
    """What a guardian is doing: starting -> watching -> undoing -> done, with stuck where an undo doesn't succeed."""

    STARTING = "starting"
    WATCHING = "watching"
    UNDOING = "undoing"
    STUCK = "stuck"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardianState:
    """What the guardian last wrote down; `process` is None until one has started."""

    claim: str
    phase: Phase
    process: ProcessMark | None
    detail: str = ""

    @property
    def has_taken_over(self) -> bool:
        """Whether the guardian has begun to undo: from then on nobody may write under the claim."""
        return self.phase in (Phase.UNDOING, Phase.STUCK, Phase.DONE)


class GuardianNote:
    """The guardian's own record of itself, read by agent, `doctor` and the next claim."""

    def __init__(self, record: RewrittenRecord) -> None:
        self._record = record

    @staticmethod
    def _path(state_dir: Path) -> Path:
        return state_dir / "guardian"

    @classmethod
    def create(cls, state_dir: Path, *, claim: str) -> GuardianNote:
        state = GuardianState(claim=claim, phase=Phase.STARTING, process=None)
        return cls(RewrittenRecord.create(cls._path(state_dir), _note_content(state)))

    @classmethod
    def open(cls, state_dir: Path, *, read_only: bool = False) -> GuardianNote | None:
        record = RewrittenRecord.open(cls._path(state_dir), read_only=read_only)
        return None if record is None else cls(record)

    def read(self) -> GuardianState:
        """Return the state; JournalError where the record is damaged."""
        return self._record.read(_understand_note)

    def write(self, state: GuardianState) -> None:
        self._record.write(_note_content(state))

    def close(self) -> None:
        self._record.close()


def _note_content(state: GuardianState) -> dict[str, object]:
    process = state.process
    return {
        "claim": state.claim,
        "phase": state.phase.value,
        "process": None if process is None else mark_record(process),
        # Of plain characters only: others take six bytes each, and the record has a fixed size.
        "detail": "".join(sign if " " <= sign <= "~" else "?" for sign in state.detail[:_DETAIL_BYTES]),
    }


def _understand_note(content: Mapping[str, object]) -> GuardianState:
    process = content.get("process")
    return GuardianState(
        claim=as_text(content.get("claim"), "claim"),
        phase=Phase(as_text(content.get("phase"), "phase")),
        process=None if process is None else parse_mark(process),
        detail=as_text(content.get("detail"), "detail"),
    )
