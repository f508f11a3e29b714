"""The lines of a journal: what each says, how it is written, and what all of them amount to."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from agents.errors import JournalError
from agents.messages import KnobChange, KnobReason
from agents.process import ProcessMark

log = logging.getLogger(__name__)


class Outcome(StrEnum):
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
class Entries:
    """What the lines after the header amount to."""

    changes: list[KnobChange] = field(default_factory=list)
    guarded: dict[int, ProcessMark] = field(default_factory=dict)
    closed: tuple[datetime, Outcome, str] | None = None

    def take_in(self, lines: Iterable[bytes]) -> None:
        """Add further lines; one torn by a crash says nothing."""
        for line in lines:
            try:
                _take_in(json.loads(line), self)
            except (ValueError, KeyError, TypeError):
                if line:
                    log.debug("passed over a torn line of a journal: %r", line[:80])


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedJournal:
    """How one claim ended, and every write made under it, in order."""

    claim: str
    run: str
    owner: str
    boot_id: str
    claimed_at: datetime
    closed_at: datetime
    outcome: Outcome
    detail: str
    found: Mapping[str, str]
    changes: tuple[KnobChange, ...]

    @classmethod
    def of(cls, header: Header, entries: Entries) -> ClosedJournal:
        """Put the header and the lines after it together."""
        closed_at, outcome, detail = entries.closed or (header.claimed_at, Outcome.UNRECORDED, "")
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
        "agent": None if agent is None else {"pid": agent.pid, "started": agent.started, "session": agent.session},
        "found": dict(header.found),
    }


def parse_header(line: bytes, path: Path) -> Header:
    try:
        record = json.loads(line)
        if record["kind"] != "claim":
            raise ValueError("the first line is not a claim")
        return Header(
            claim=record["claim"],
            run=record["run"],
            owner=record["owner"],
            boot_id=record["boot_id"],
            claimed_at=datetime.fromisoformat(record["claimed_at"]),
            lease_seconds=float(record["lease_seconds"]),
            agent=None if record["agent"] is None else ProcessMark(**record["agent"]),
            found={str(name): str(value) for name, value in record["found"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
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


def _take_in(record: Mapping[str, object], entries: Entries) -> None:
    match record["kind"]:
        case "change":
            entries.changes.append(
                KnobChange(
                    knob=str(record["knob"]),
                    before=str(record["before"]),
                    wanted=str(record["wanted"]),
                    after=str(record["after"]),
                    reason=KnobReason(str(record["reason"])),
                    changed_at=datetime.fromisoformat(str(record["at"])),
                    error=None if record["error"] is None else str(record["error"]),
                )
            )
        case "guard":
            pid, started, session = (int(str(record[name])) for name in ("pid", "started", "session"))
            entries.guarded[pid] = ProcessMark(pid=pid, started=started, session=session)
        case "unguard":
            entries.guarded.pop(int(str(record["pid"])), None)
        case "close":
            at = datetime.fromisoformat(str(record["at"]))
            entries.closed = (at, Outcome(str(record["outcome"])), str(record["detail"]))
