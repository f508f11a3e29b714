"""Putting knobs back: a function of a host's root and what was found there, for agent, guardian and restore alike."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from agents.errors import KnobError
from agents.journal import Journal
from agents.knobs import Knob, attempt_write, find_knob, read_knob
from agents.messages import KnobChange, KnobReason
from agents.own_cgroup import end_cgroups_of
from agents.process import kill_with_group, process_named
from agents.sysroot import SysRoot
from agents.tracing.removal import remove_tracing

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 1.5  # shorter than the guardian waits for whoever holds the host lock
_FIRST_PAUSE_SECONDS = 0.02
_NUMBER = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnobDrift:
    """A knob that doesn't read as wanted; `actual` is '' where it can't be read."""

    knob: str
    wanted: str
    actual: str


def differences(root: SysRoot, wanted: Mapping[str, str]) -> tuple[KnobDrift, ...]:
    """Return the knobs that do not read as wanted."""
    read = ((name, value, _reading(root, name)) for name, value in wanted.items())
    return tuple(KnobDrift(knob=name, wanted=value, actual=now) for name, value, now in read if now != value)


def shrinking_first(root: SysRoot, wanted: Iterable[tuple[Knob, str]]) -> list[tuple[Knob, str]]:
    """Order writes so that pools give pages back before anything asks for more."""

    def grows(item: tuple[Knob, str]) -> bool:
        knob, value = item
        now = _reading(root, knob.name) if knob.is_pool else ""
        return not (_NUMBER.fullmatch(now) and _NUMBER.fullmatch(value) and int(value) < int(now))

    return sorted(wanted, key=grows)


def kill_guarded(root: SysRoot, journal: Journal) -> None:
    """SIGKILL the workloads that are written down, and all else that their agent started.

    Huge pages they have mapped can't be given back.
    """
    for written in journal.guarded:
        if (workload := process_named(root, written)) is not None:
            kill_with_group(workload)
    if (agent := process_named(root, journal.header.agent)) is not None:
        end_cgroups_of(agent)


def restore_knobs(
    root: SysRoot, found: Mapping[str, str], reason: KnobReason, *, timeout_seconds: float = TIMEOUT_SECONDS
) -> tuple[KnobChange, ...]:
    """Write what was found back to every knob, read it back, and try again for a while where it doesn't hold.

    One change per knob, the last knob first; what went wrong is in `error`. Never raises.
    """
    changes: dict[str, KnobChange] = {}
    deadline, pause = root.clock.monotonic() + timeout_seconds, _FIRST_PAUSE_SECONDS
    again = [*found][::-1]
    while True:
        for name in _in_order(root, found, again):
            change = _put_back(root, name, found[name], reason)
            changes[name] = replace(change, before=changes[name].before) if name in changes else change
        # One knob can move another (THP raises min_free_kbytes, a pool that of its node): look at all of them again.
        again = [drift.knob for drift in differences(root, found)]
        if not again or root.clock.monotonic() + pause > deadline:
            break
        root.clock.sleep(pause)
        pause *= 2
        make_room(root, again)
    for name, change in changes.items():
        changes[name] = _as_it_stands(change, _reading(root, name))
    return tuple(changes.values())


def restore_journaled(
    root: SysRoot, journal: Journal, reason: KnobReason, *, repeated: bool = False
) -> tuple[KnobChange, ...]:
    """Undo a claim, its tracing with it, and record it where the disk allows: putting back comes first.

    Raises nothing. `repeated` records only what has moved since, so that endless retries don't fill the journal.
    """
    changes = (*restore_knobs(root, journal.header.found, reason), *remove_tracing(root, journal.header.claim, reason))
    for change in changes:
        if change.before != change.after or (change.error and not repeated):
            record_if_possible(journal, change)
    return changes


def record_if_possible(journal: Journal, change: KnobChange) -> None:
    """Record a change that has been made; a failure is logged, because the host matters more."""
    try:
        journal.record(change)
    except Exception:
        log.exception("a change of %s could not be recorded", change.knob)


def _in_order(root: SysRoot, found: Mapping[str, str], names: list[str]) -> list[str]:
    known: list[tuple[Knob, str]] = []
    for name in names:
        with suppress(KnobError, OSError):
            known.append((find_knob(root, name), found[name]))
    ordered = [knob.name for knob, _ in shrinking_first(root, known)]
    return ordered + [name for name in names if name not in ordered]


def _put_back(root: SysRoot, name: str, value: str, reason: KnobReason) -> KnobChange:
    try:
        change, _ = attempt_write(root, find_knob(root, name), value, reason)
        return change
    except Exception as error:
        return KnobChange(
            knob=name, before="", wanted=value, after="", reason=reason, changed_at=root.clock.now(), error=str(error)
        )


def _as_it_stands(change: KnobChange, now: str) -> KnobChange:
    """Judge a change by what its knob reads in the end: pages come free late, and others may write again."""
    if now == change.wanted:
        return replace(change, after=now, error=None)
    return replace(change, after=now, error=change.error or f"{change.knob} was put back and reads {now!r} again")


def _reading(root: SysRoot, name: str) -> str:
    try:
        return read_knob(root, find_knob(root, name))
    except (KnobError, OSError):
        return ""


def make_room(root: SysRoot, names: list[str]) -> None:
    """Compact memory where a pool lacks pages; a request to the kernel that leaves no setting behind."""
    if any(name.endswith("/nr_hugepages") for name in names):
        with suppress(OSError):
            root.write("proc/sys/vm/compact_memory", b"1")
