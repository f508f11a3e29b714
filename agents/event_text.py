"""Events as users of perf write them: 'cpu/event=0x24,umask=0x3f/u', 'r1a8', 'dTLB-load-misses:k'.

What is understood is what perf-list(1) says of one event that is counted. What each term of a PMU means only its host
knows (`agents.perf.own_events`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

TYPE_HARDWARE, TYPE_SOFTWARE, TYPE_HW_CACHE, TYPE_RAW = 0, 1, 3, 4  # include/uapi/linux/perf_event.h
_RAW = re.compile(r"r([0-9a-fA-F]{1,16})")
_OF_PMU = re.compile(r"([A-Za-z][A-Za-z0-9_-]{0,63})/([^/]*)/(.*)")
_TERM = re.compile(r"([A-Za-z_][A-Za-z0-9_-]{0,63})(?:=(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}))?")
_LABEL = re.compile(r"name=([A-Za-z0-9_.:-]{1,100})")
_LONGEST = 500
_NO_COUNTERS = re.compile(r"[ku]probe|tracepoint|breakpoint|intel_(?:bts|pt)|cs_etm.*|arm_spe.*|hisi_ptt.*")
_OF_SAMPLING = re.compile(
    "period|freq|time|branch_type|call-graph|(?:max-)?stack(?:-size)?|(?:no-)?(?:inherit|overwrite)|driver-config|percore|"
    "aux-.*|metric-id"
)


class EventTextError(ValueError):
    """The text is not an event that can be counted: `what`, and the `remedy`."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what} — {remedy}")
        self.what = what
        self.remedy = remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class EventText:
    """An event as it was written. `generic` is its type and config where the kernel's interface itself has it.

    Else it is of a PMU, described by terms; one without a value is a name in sysfs, or a field of one bit that is set.
    """

    text: str
    generic: tuple[int, int] | None = None
    pmu: str = ""
    terms: tuple[tuple[str, int | None], ...] = ()
    label: str = ""
    user: bool = True
    kernel: bool = True


def parse_event(text: str) -> EventText:
    """Understand one event; EventTextError where it is none, or none that is counted."""
    if len(text) > _LONGEST or not text.isascii() or not text.isprintable() or " " in text:
        raise EventTextError(f"{text[:40]!r}... is not an event of perf", "write one event, without spaces")
    if match := _OF_PMU.fullmatch(text):
        pmu, terms, modifiers = match.groups()
        if _NO_COUNTERS.fullmatch(pmu):
            raise EventTextError(
                f"the PMU {pmu} does not count, it traces or places probes", "name an event of another"
            )
        found, label = _terms(terms)
        user, kernel = _modifiers(modifiers)
        return EventText(text=text, pmu=pmu, terms=found, label=label, user=user, kernel=kernel)
    name, colon, modifiers = text.partition(":")
    raw = _RAW.fullmatch(name)
    generic = (TYPE_RAW, int(raw[1], 16)) if raw else GENERIC.get(name)
    if generic is None:
        near = difflib.get_close_matches(name, GENERIC, n=1)
        hint = f"did you mean {near[0]!r}? Else write" if near else "write"
        raise EventTextError(
            f"{text!r} is not an event of perf",
            f"{hint} one of a PMU as 'cpu/event=0x24,umask=0x3f/', a raw code as 'r1a8', a name of 'perf list'",
        )
    if colon and not modifiers:
        raise EventTextError(f"{text!r} ends in ':'", "write ':u' or ':k', or nothing")
    user, kernel = _modifiers(modifiers)
    return EventText(text=text, generic=generic, user=user, kernel=kernel)


def _modifiers(letters: str) -> tuple[bool, bool]:
    """Return whether user's and kernel's code is counted."""
    if not re.fullmatch("|u|k|uk|ku", letters):
        raise EventTextError(
            f"the modifier {letters!r} is not known", "write 'u' for user code or 'k' for the kernel's"
        )
    return letters != "k", letters != "u"


def _terms(text: str) -> tuple[tuple[tuple[str, int | None], ...], str]:
    found: dict[str, int | None] = {}
    label = ""
    for part in text.split(","):
        if match := _LABEL.fullmatch(part):
            if label:
                raise EventTextError("the term name stands twice", "keep one")
            label = match[1]
            continue
        name, value = _term(part)
        if name in found:
            raise EventTextError(f"the term {name} stands twice", "keep one")
        found[name] = value
    if not found:
        raise EventTextError("no term says which event", "write for example 'cpu/event=0x24,umask=0x3f/'")
    return tuple(found.items()), label


def _term(part: str) -> tuple[str, int | None]:
    match = _TERM.fullmatch(part)
    if match is None:
        raise EventTextError(f"{part!r} is not a term of an event", "write 'event=0x24' or a name of the PMU's events")
    name, value = match.groups()
    if _OF_SAMPLING.fullmatch(name):
        raise EventTextError(f"the term {name} is for recording, and here events are counted", "leave it out")
    try:
        number = None if value is None else int(value, 0)
    except ValueError:  # 010: octal to C, nothing to Python
        raise EventTextError(f"{value!r} may be octal or decimal", "write it without the 0, or as 0x...") from None
    if number is not None and number >= 1 << 64:
        raise EventTextError(f"{value} is wider than 64 bits", "see 'perf list --details' for the event's code")
    return name, number


def _generic() -> Iterator[tuple[str, tuple[int, int]]]:
    """The kernel's own events by perf's names: include/uapi/linux/perf_event.h, tools/perf/util/parse-events.c."""
    hardware = (
        "cycles cpu-cycles",
        "instructions",
        "cache-references",
        "cache-misses",
        "branches branch-instructions",
        "branch-misses",
        "bus-cycles",
        "stalled-cycles-frontend idle-cycles-frontend",
        "stalled-cycles-backend idle-cycles-backend",
        "ref-cycles",
    )
    software = (
        "cpu-clock",
        "task-clock",
        "page-faults faults",
        "context-switches cs",
        "cpu-migrations migrations",
        "minor-faults",
        "major-faults",
        "alignment-faults",
        "emulation-faults",
    )
    for kind, rows in ((TYPE_HARDWARE, hardware), (TYPE_SOFTWARE, software)):
        for config, names in enumerate(rows):
            yield from ((name, (kind, config)) for name in names.split())
    for cache, cache_name in enumerate(("L1-dcache", "L1-icache", "LLC", "dTLB", "iTLB", "branch", "node")):
        for operation, verb in enumerate(("load", "store", "prefetch")):
            many = f"{verb}es" if verb == "prefetch" else f"{verb}s"
            for result, ending in enumerate((many, f"{verb}-misses")):
                yield f"{cache_name}-{ending}", (TYPE_HW_CACHE, cache | operation << 8 | result << 16)


GENERIC: Mapping[str, tuple[int, int]] = MappingProxyType(dict(_generic()))
