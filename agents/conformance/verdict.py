"""What a scenario found: checks, a verdict, and a cause that a program can act on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class PageVerdict(StrEnum):
    """Whether a page size behaved in one scenario."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    SKIP = "skip"  # it could not be tried here


class VerdictCause(StrEnum):
    """What a verdict is owed to."""

    NONE = ""  # a pass
    # failures
    EXPECTATION = "expectation"  # a counter, a call or the process's own memory is not as the kernel documents it
    DATA = "data"  # memory does not hold what was written to it
    CRASHED = "crashed"  # the process of the scenario was killed by a signal
    HUNG = "hung"  # it did not end in its time
    KERNEL = "kernel"  # the kernel complained: oops, bad page, a new taint
    BROKEN = "broken"  # the scenario itself failed: an error of ours
    # skips
    NO_PAGE = "no_page"  # the kernel gave no page of this size
    NO_SWAP = "no_swap"
    ONE_NODE = "one_node"
    NO_CALL = "no_call"  # the kernel, or a filter in front of it, does not know the call
    NO_MEMORY = "no_memory"
    NO_MEMORY_CGROUP = "no_memory_cgroup"
    OFF = "off"  # the kernel has it, and it is switched off
    TOO_SMALL = "too_small"  # pages of this size are too small for it
    NO_COUNTER = "no_counter"  # nothing that the scenario looks at is counted by this kernel, for this size
    OTHERS = "others"  # other processes of the host moved the counters all the time
    GIVEN_UP = "given_up"  # the host had been given up before


class Outcome(StrEnum):
    """How one check came out."""

    HELD = "held"
    BROKEN = "broken"
    EXCEEDED = "exceeded"  # a counter of the whole host rose by more: that may have been others
    ABSENT = "absent"  # this kernel does not count it
    UNCLEAR = "unclear"  # the counter rises without us too
    TOLD = "told"  # no document promises anything: it is told, not judged


class Subject(StrEnum):
    """What a check looks at."""

    COUNTER = "counter"
    DATA = "data"
    MEMORY = "memory"  # this process's own, as the kernel tells it
    CALL = "call"


@dataclass(frozen=True, slots=True, kw_only=True)
class PageCheck:
    """One thing looked at; `wanted` and `seen` as people read them, `counter` the file's own name of what rose."""

    subject: Subject
    what: str
    wanted: str
    seen: str
    outcome: Outcome
    counter: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioResult:
    """The verdict on one scenario; `before` and `after` are counters of the whole host, by their kernel's names."""

    name: str
    verdict: PageVerdict
    cause: VerdictCause
    detail: str
    seconds: float
    attempts: int
    checks: tuple[PageCheck, ...] = ()
    before: Mapping[str, int] = field(default_factory=dict)
    after: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What is tried, where, since when."""

    host: str
    kernel: str
    architecture: str
    boot_id: str
    size_kib: int
    begun_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Conformance:
    """All verdicts on a page size, on one host under one kernel. `given_up`: why the rest was not tried, or ''."""

    trial: Trial
    ended_at: datetime
    results: tuple[ScenarioResult, ...]
    given_up: str

    def count(self, verdict: PageVerdict) -> int:
        return sum(result.verdict is verdict for result in self.results)


def judge(checks: Iterable[PageCheck]) -> tuple[PageVerdict, VerdictCause, str]:
    """Return the verdict that checks amount to, its cause, and what was wrong in words; data come first."""
    checks = tuple(checks)
    wrong = [check for check in checks if check.outcome in {Outcome.BROKEN, Outcome.EXCEEDED}]
    if wrong:
        said = "; ".join(f"{check.what}: wanted {check.wanted}, seen {check.seen}" for check in wrong)
        lost = any(check.subject is Subject.DATA for check in wrong)
        return PageVerdict.FAIL, VerdictCause.DATA if lost else VerdictCause.EXPECTATION, said
    held = [check for check in checks if check.outcome is Outcome.HELD]
    if not held or all(check.subject is Subject.DATA for check in held):
        # That memory holds its data says nothing of a page size where nothing else could be looked at.
        if unclear := [check.what for check in checks if check.outcome is Outcome.UNCLEAR]:
            said = f"other processes of this host move {', '.join(unclear)}: stop them, and try again"
            return PageVerdict.SKIP, VerdictCause.OTHERS, said
        if not held or any(check.outcome is Outcome.ABSENT for check in checks):
            said = ", ".join(check.what for check in checks if check.outcome is Outcome.ABSENT)
            return (
                PageVerdict.SKIP,
                VerdictCause.NO_COUNTER,
                f"this kernel does not count {said or 'anything that is looked at'}",
            )
    return PageVerdict.PASS, VerdictCause.NONE, ""
