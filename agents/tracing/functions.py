"""Which functions of this kernel are traced, and why one can't be: names differ by version, arguments by function.

Found by reading alone: /proc/kallsyms names them, tracefs says what the kernel was built with. Whether a probe is taken
the kernel says when it is placed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from agents.sysroot import SysRoot
from agents.traced_calls import OF_PUD, Traced, TracedFunction

_PUD_SIZE = "sys/kernel/mm/transparent_hugepage/hugepages-1048576kB"
TRACEFS = ("sys/kernel/tracing", "sys/kernel/debug/tracing")


class NoTracing(StrEnum):
    """Why something can't be traced here."""

    NOT_REAL = "not_real"  # a simulated host, a folder
    NO_TRACEFS = "no_tracefs"
    NO_KPROBES = "no_kprobes"
    NO_HISTOGRAMS = "no_histograms"
    NOT_PERMITTED = "not_permitted"
    NO_FUNCTION = "no_function"
    AMBIGUOUS = "ambiguous"  # its function is called also where nothing is split, and no argument tells
    REFUSED = "refused"  # the kernel took no probe, or no trigger


@dataclass(frozen=True, slots=True, kw_only=True)
class Untraceable:
    """Why one function, or all of them (None), can't be traced: the fact, and the same in words."""

    function: TracedFunction | None
    cause: NoTracing
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Where a probe goes. `condition` holds where the call does something: over `entry`, read as `fetch` says."""

    function: TracedFunction
    symbol: str
    fetch: str = ""
    condition: str = ""


@dataclass(frozen=True, slots=True)
class _Candidate:
    symbol: str
    entry_argument: int = 0  # of the pointer to the page table's entry, where the function looks whether it is huge


# In the order of preference. What *_locked of 4.18 to 6.9 and 6.18 is, the compiler of 6.12 put into its only caller.
# Linux mm/huge_memory.c, mm/page_alloc.c; the RFC for PUD-sized pages.
_CANDIDATES: dict[TracedFunction, tuple[_Candidate, ...]] = {
    TracedFunction.SPLIT_PMD: (
        _Candidate("__split_huge_pmd_locked"),
        _Candidate("split_huge_pmd_locked", 3),
        _Candidate("__split_huge_pmd", 2),
    ),
    TracedFunction.SPLIT_PUD: (_Candidate("__split_huge_pud_locked"), _Candidate("__split_huge_pud", 2)),
    TracedFunction.FAULT_PMD: (_Candidate("do_huge_pmd_anonymous_page"),),
    TracedFunction.FAULT_PUD: (_Candidate("do_huge_pud_anonymous_page"),),
    TracedFunction.CONTIGUOUS: (_Candidate("alloc_contig_pages_noprof"), _Candidate("alloc_contig_pages")),
}
# How an entry says that it maps a huge page. x86: _PAGE_PSE, arch/x86/include/asm/pgtable_types.h; arm64: valid and no
# table, arch/arm64/include/asm/pgtable-hwdef.h. An entry that is being migrated is neither, and is split as well.
_IS_HUGE = {"x86_64": "entry & 0x80", "aarch64": "entry & 0x1 && !(entry & 0x2)"}
_NEEDED_FILES = (
    ("kprobe_events", NoTracing.NO_KPROBES, "this kernel was built without kprobes (CONFIG_KPROBE_EVENTS)"),
    ("instances", NoTracing.NO_HISTOGRAMS, "this kernel has no tracing instances"),
)


def find_tracefs(root: SysRoot) -> str | None:
    """Return the folder of tracefs; None where none is mounted, or this user may not look into it."""
    for folder in TRACEFS:
        with suppress(PermissionError):
            if root.exists(f"{folder}/trace_clock"):
                return folder
    return None


def _is_closed(root: SysRoot) -> bool:
    """Whether tracefs may be there, and not for this user."""
    for folder in TRACEFS:
        try:
            root.exists(f"{folder}/trace_clock")
        except PermissionError:
            return True
    return False


def find_probes(
    root: SysRoot, wanted: Iterable[Traced], *, architecture: str | None = None
) -> tuple[tuple[Probe, ...], tuple[Untraceable, ...]]:
    """Return the probes of what is wanted and why the others can't be; reads only."""
    functions = [function for function in TracedFunction if function.asked_by in set(wanted)]
    if not root.exists(_PUD_SIZE):
        functions = [function for function in functions if function not in OF_PUD]  # nothing to trace, nothing missing
    if not functions:
        return (), ()
    if (missing := _facility(root)) is not None:
        return (), (missing,)
    symbols = _symbols(root, {one.symbol for function in functions for one in _CANDIDATES[function]})
    machine = architecture or os.uname().machine
    found = [_probe(function, symbols, machine) for function in functions]
    return tuple(one for one in found if isinstance(one, Probe)), tuple(
        one for one in found if isinstance(one, Untraceable)
    )


def _facility(root: SysRoot) -> Untraceable | None:
    """What keeps all of it from being traced."""

    def missing(cause: NoTracing, text: str) -> Untraceable:
        return Untraceable(function=None, cause=cause, text=text)

    if not root.real:
        return missing(NoTracing.NOT_REAL, "this host is not a machine with a kernel of its own")
    folder = find_tracefs(root)
    if folder is None and _is_closed(root):
        return missing(NoTracing.NOT_PERMITTED, "this user may not look into tracefs: it takes root")
    if folder is None:
        return missing(
            NoTracing.NO_TRACEFS, "tracefs is not mounted: 'mount -t tracefs tracefs /sys/kernel/tracing' mounts it"
        )
    for name, cause, text in _NEEDED_FILES:
        if not root.exists(f"{folder}/{name}"):
            return missing(cause, text)
    if not root.writable(f"{folder}/kprobe_events"):
        return missing(
            NoTracing.NOT_PERMITTED, f"/{folder}/kprobe_events can't be written: it takes root, and no kernel lockdown"
        )
    try:
        readme = root.read(f"{folder}/README")
    except OSError:
        readme = b""
    if b"hist:keys=" not in readme:
        return missing(
            NoTracing.NO_HISTOGRAMS, "this kernel was built without histogram triggers (CONFIG_HIST_TRIGGERS)"
        )
    return None


def _symbols(root: SysRoot, wanted: set[str]) -> dict[str, int]:
    """Count how often each wanted function stands among the kernel's symbols."""
    try:
        text = root.read("proc/kallsyms")
    except OSError:
        return {}
    names = "|".join(map(re.escape, sorted(wanted))).encode()
    found: dict[str, int] = {}
    for name in re.findall(rb" [tTwW] (" + names + rb")\n", text):
        found[name.decode()] = found.get(name.decode(), 0) + 1
    return found


def _probe(function: TracedFunction, symbols: dict[str, int], machine: str) -> Probe | Untraceable:
    candidates = _CANDIDATES[function]
    there = [one for one in candidates if symbols.get(one.symbol) == 1]
    if not there:
        names = ", ".join(one.symbol for one in candidates)
        return Untraceable(
            function=function, cause=NoTracing.NO_FUNCTION, text=f"this kernel has no function for it: not {names}"
        )
    first = there[0]
    if not first.entry_argument:
        return Probe(function=function, symbol=first.symbol)
    if machine not in _IS_HUGE:
        return Untraceable(
            function=function,
            cause=NoTracing.AMBIGUOUS,
            text=f"{first.symbol} is called also where nothing is split, and on {machine} no rule tells these apart",
        )
    return Probe(
        function=function,
        symbol=first.symbol,
        fetch=f"entry=+0($arg{first.entry_argument}):x64",
        condition=_IS_HUGE[machine],
    )
