"""Tracing under a claim: an instance of our own, probes, and histograms that the kernel keeps. Nothing is recorded.

Where a function splits a page, one histogram counts by program and stack as it is entered, exactly; a second adds up
how long each call took until it returned, by the stack at its entry. Where a function may make a program wait, times
are added up by program and power of two. A stack is cut at 16 functions, a histogram at 2,048 keys; what is dropped is
told.
Source: Documentation/trace/histogram.rst (handlers, onmatch), kernel/trace/trace_events_hist.c.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agents.messages import KnobReason
from agents.sysroot import SysRoot
from agents.traced_calls import COUNTED_AS, SplitCause, Traced, TracedFunction
from agents.tracing.causes import classify
from agents.tracing.functions import NoTracing, Probe, Untraceable, find_probes, find_tracefs
from agents.tracing.histogram import LARGEST_BYTES, Histogram, parse_histogram
from agents.tracing.removal import name_of, remove_tracing, write_line

_STACKS = ("common_stacktrace", "stacktrace")  # as 6.3 and later name the key, and as those before
MICROSECOND = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class CallKey:
    """What calls are told apart by. `at_most` is the upper end of their times in microseconds, None where not kept."""

    function: TracedFunction
    program: str
    cause: SplitCause | None
    at_most: int | None = None


@dataclass(frozen=True, slots=True)
class CallSum:
    """Calls under one key so far, how many of them were timed, and their time in seconds."""

    calls: int = 0
    timed: int = 0
    seconds: float = 0.0

    def __add__(self, other: CallSum) -> CallSum:
        return CallSum(self.calls + other.calls, self.timed + other.timed, self.seconds + other.seconds)

    def __sub__(self, other: CallSum) -> CallSum:
        return CallSum(self.calls - other.calls, self.timed - other.timed, self.seconds - other.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceReading:
    """All sums since the trace began, and the calls that a histogram dropped, by function."""

    sums: Mapping[CallKey, CallSum]
    dropped: Mapping[TracedFunction, int]


class KernelTrace:
    """What is traced on this host under one claim, until `close`; `missing` says what is not, and why.

    Whoever undoes the claim removes all of it, at whatever moment this process dies (`agents.tracing.removal`).
    """

    def __init__(self, root: SysRoot, claim: str, missing: tuple[Untraceable, ...]) -> None:
        self._missing = missing
        self._root = root
        self._claim = claim
        self._counts: dict[TracedFunction, Path] = {}
        self._times: dict[TracedFunction, Path] = {}

    @property
    def missing(self) -> tuple[Untraceable, ...]:
        """What of it is not traced here, and why."""
        return self._missing

    @classmethod
    def start(cls, root: SysRoot, claim: str, wanted: Iterable[Traced]) -> KernelTrace:
        """Have the kernel count from now on. Never raises: what can't be had is in `missing`.

        For whoever holds the host under this claim. An instance has a buffer on each CPU, made as small as it can be.
        """
        probes, missing = find_probes(root, wanted)
        trace = cls(root, claim, missing)
        folder, name = find_tracefs(root), name_of(claim)
        if not probes or folder is None or name is None:
            return trace
        remove_tracing(root, claim, KnobReason.APPLY)
        placing = _Placing(Path("/") / folder, name)
        try:
            placing.make_instance()
        except OSError as error:
            trace._missing += (_refused(None, "a tracing instance", error),)
            return trace
        for probe in probes:
            trace._place(placing, probe)
        if not trace._counts and not trace._times:
            trace.close()
        return trace

    def _place(self, placing: _Placing, probe: Probe) -> None:
        function = probe.function
        try:
            placing.place_entry(probe)
            if function in COUNTED_AS:
                self._counts[function] = placing.count(probe)
        except OSError as error:
            self._missing += (_refused(function, f"a probe at {probe.symbol}", error),)
            return
        try:
            self._times[function] = placing.time(probe)
        except OSError as error:  # before 6.3 no synthetic event carries a stack: counted, not timed
            self._missing += (_refused(function, f"timing {probe.symbol}", error),)

    def read(self) -> TraceReading:
        """Read the histograms; OSError or ValueError where one can't be read."""
        sums: dict[CallKey, CallSum] = {}
        dropped: dict[TracedFunction, int] = {}

        def add(key: CallKey, more: CallSum) -> None:
            sums[key] = sums.get(key, CallSum()) + more

        for function, path in self._counts.items():
            counted = _histogram(path)
            dropped[function] = counted.dropped
            for entry in counted.entries:
                key = CallKey(function=function, program=entry.program, cause=classify(entry.frames))
                add(key, CallSum(calls=entry.hits))
        for function, path in self._times.items():
            timed = _histogram(path)
            splits = function in self._counts
            if not splits:
                dropped[function] = timed.dropped
            for entry in timed.entries:
                cause = classify(entry.frames) if splits else None
                key = CallKey(function=function, program=entry.program, cause=cause, at_most=entry.at_most)
                seconds = (entry.lat or 0) * MICROSECOND
                add(key, CallSum(calls=0 if splits else entry.hits, timed=entry.hits, seconds=seconds))
        return TraceReading(sums=sums, dropped=dropped)

    def close(self) -> None:
        """Remove instance and probes. Never raises: what is left goes when the claim is undone."""
        self._counts.clear()
        self._times.clear()
        remove_tracing(self._root, self._claim, KnobReason.REVERT)


class _Placing:
    """Commands for tracefs: everything placed bears one name."""

    def __init__(self, tracefs: Path, name: str) -> None:
        self._tracefs = tracefs
        self._name = name
        self._instance = tracefs / "instances" / name

    def make_instance(self) -> None:
        self._instance.mkdir()
        with suppress(OSError):  # nothing is ever recorded in it
            write_line(self._instance / "buffer_size_kb", "1")

    def place_entry(self, probe: Probe) -> None:
        self._command("kprobe_events", f"p:{self._name}/{probe.function} {probe.symbol} comm=$comm {probe.fetch}")

    def count(self, probe: Probe) -> Path:
        """Count by program and stack; returns the histogram's file."""
        event = f"{self._name}/{probe.function}"
        condition = f" if {probe.condition}" if probe.condition else ""
        for stack in _STACKS:
            try:
                self._trigger(event, f"hist:keys=comm,{stack}{condition}")
                break
            except OSError as error:
                if error.errno != errno.EINVAL or stack == _STACKS[-1]:
                    raise
        return self._hist(event)

    def time(self, probe: Probe) -> Path:
        """Add up how long calls take; returns the histogram's file."""
        name, function = self._name, probe.function
        condition = f" if {probe.condition}" if probe.condition else ""
        splits = function in COUNTED_AS
        entered, returned, timed = f"{name}/{function}", f"{name}/{function}_return", f"{name}_{function}"
        kept, passed, field = (
            (",stack=common_stacktrace", ",from=$stack", "; unsigned long stack[]") if splits else ("", "", "")
        )
        arguments = "$lat,comm,$from" if splits else "$lat,comm"
        self._command("kprobe_events", f"r:{returned} {probe.symbol} comm=$comm")
        self._command("dynamic_events", f"s:{timed} u64 lat; char comm[]{field}")
        self._trigger(entered, f"hist:keys=common_pid:begun=common_timestamp.usecs{kept}{condition}")
        self._trigger(
            returned,
            f"hist:keys=common_pid:lat=common_timestamp.usecs-$begun{passed}"
            f":onmatch({name}.{function}).trace({timed},{arguments})",
        )
        self._trigger(f"synthetic/{timed}", f"hist:keys=comm,{'stack.stacktrace' if splits else 'lat.log2'}:vals=lat")
        return self._hist(f"synthetic/{timed}")

    def _command(self, file: str, line: str) -> None:
        write_line(self._tracefs / file, line.rstrip())

    def _trigger(self, event: str, line: str) -> None:
        write_line(self._instance / "events" / event / "trigger", line)

    def _hist(self, event: str) -> Path:
        return self._instance / "events" / event / "hist"


def _histogram(path: Path) -> Histogram:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        return parse_histogram(file.read(LARGEST_BYTES + 1))


def _refused(function: TracedFunction | None, what: str, error: OSError) -> Untraceable:
    return Untraceable(
        function=function, cause=NoTracing.REFUSED, text=f"the kernel refused {what}: {error.strerror or error}"
    )
