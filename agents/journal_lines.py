"""The lines of a journal: what each says, how it is written, and what all of them amount to."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from agents.errors import JournalError
from agents.json_fields import as_instant, as_number, as_object, as_text, as_whole, read_object
from agents.messages import KnobChange, KnobReason
from agents.process import ProcessMark, mark_record, parse_mark

log = logging.getLogger(__name__)

_CLAIM = re.compile(r"[A-Za-z0-9._-]{1,64}")  # it is part of a file's name
_LONGEST_VALUE = 4096  # of a knob: the kernel takes a page at most
_MOST_KNOBS = 1000  # of a claim; each that a forged journal names costs milliseconds to look for


class RestoreOutcome(StrEnum):
    """How a claim ended."""

    RELEASED = "released"  # by its own agent, everything as found
    LEASE_EXPIRED = "lease_expired"  # undone by the guardian
    GUARDIAN_STOPPED = "guardian_stopped"  # undone by the guardian because it was told to terminate
    REBOOTED = "rebooted"  # the kernel had forgotten the knobs: nothing to write
    TAKEN_OVER = "taken_over"  # undone by the next claim, agent and guardian being dead
    RESTORED = "restored"  # undone by hand
    NOT_STARTED = "not_started"  # the claim failed before any knob was written
    UNRECORDED = "unrecorded"  # ended, and how could not be written down: the disk was gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What is known when a host is claimed. `found` is the original value of each claimed knob."""

    claim: str
    run: str
    owner: str
    boot_id: str
    claimed_at: datetime
    lease_seconds: float
    agent: ProcessMark | None
    found: Mapping[str, str]


@dataclass(slots=True, kw_only=True)
class JournalEntries:
    """What the lines after the header amount to."""

    changes: list[KnobChange] = field(default_factory=list)
    guarded: dict[int, ProcessMark] = field(default_factory=dict)
    closed: tuple[datetime, RestoreOutcome, str] | None = None

    def take_in(self, lines: Iterable[bytes]) -> None:
        """Add further lines; one torn by a crash says nothing."""
        for line in lines:
            if line:
                try:
                    _take_in(read_object(line), self)
                except ValueError as error:
                    log.debug("passed over a torn line of a journal: %s: %r", error, line[:80])


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedJournal:
    """How one claim ended, and every write made under it, in order."""

    claim: str
    run: str
    owner: str
    boot_id: str
    claimed_at: datetime
    closed_at: datetime
    outcome: RestoreOutcome
    detail: str
    found: Mapping[str, str]
    changes: tuple[KnobChange, ...]

    @classmethod
    def of(cls, header: Header, entries: JournalEntries) -> ClosedJournal:
        """Put the header and the lines after it together."""
        closed_at, outcome, detail = entries.closed or (header.claimed_at, RestoreOutcome.UNRECORDED, "")
        return cls(
            claim=header.claim,
            run=header.run,
            owner=header.owner,
            boot_id=header.boot_id,
            claimed_at=header.claimed_at,
            closed_at=closed_at,
            outcome=outcome,
            detail=detail,
            found=header.found,
            changes=tuple(entries.changes),
        )


def to_line(record: Mapping[str, object]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def header_record(header: Header) -> dict[str, object]:
    agent = header.agent
    return {
        "claim": header.claim,
        "run": header.run,
        "owner": header.owner,
        "boot_id": header.boot_id,
        "claimed_at": header.claimed_at.isoformat(),
        "lease_seconds": header.lease_seconds,
        "agent": None if agent is None else mark_record(agent),
        "found": dict(header.found),
    }


def parse_header(line: bytes, path: Path) -> Header:
    try:
        record = read_object(line)
        if record.get("kind") != "claim":
            raise ValueError("the first line is not a claim")
        claim, agent = as_text(record.get("claim"), "claim"), record.get("agent")
        if not _CLAIM.fullmatch(claim):
            raise ValueError(f"{claim[:80]!r} is not a name of a claim")
        found = as_object(record.get("found"), "found")
        if len(found) > _MOST_KNOBS:
            raise ValueError(f"it names {len(found):,} knobs, more than the {_MOST_KNOBS:,} that a claim can hold")
        return Header(
            claim=claim,
            run=as_text(record.get("run"), "run"),
            owner=as_text(record.get("owner"), "owner"),
            boot_id=as_text(record.get("boot_id"), "boot_id"),
            claimed_at=as_instant(record.get("claimed_at"), "claimed_at"),
            lease_seconds=as_number(record.get("lease_seconds"), "lease_seconds"),
            agent=None if agent is None else parse_mark(agent),
            found={
                as_text(name, "a knob's name"): as_text(value, "what a knob held", at_most=_LONGEST_VALUE)
                for name, value in found.items()
            },
        )
    except ValueError as error:
        raise JournalError(
            f"the journal can't be read: {error}",
            where=str(path),
            remedy="compare the host's knobs by hand, then move this file away",
        ) from error


def change_record(change: KnobChange) -> dict[str, object]:
    return {
        "knob": change.knob,
        "before": change.before,
        "wanted": change.wanted,
        "after": change.after,
        "reason": change.reason.value,
        "at": change.changed_at.isoformat(),
        "error": change.error,
    }


def _take_in(record: Mapping[str, object], entries: JournalEntries) -> None:
    def text(name: str) -> str:
        return as_text(record.get(name), name)

    match record.get("kind"):
        case "change":
            entries.changes.append(
                KnobChange(
                    knob=text("knob"),
                    before=text("before"),
                    wanted=text("wanted"),
                    after=text("after"),
                    reason=KnobReason(text("reason")),
                    changed_at=as_instant(record.get("at"), "at"),
                    error=None if record.get("error") is None else text("error"),
                )
            )
        case "guard":
            process = parse_mark(record)
            entries.guarded[process.pid] = process
        case "unguard":
            entries.guarded.pop(as_whole(record.get("pid"), "pid"), None)
        case "close":
            entries.closed = (as_instant(record.get("at"), "at"), RestoreOutcome(text("outcome")), text("detail"))
