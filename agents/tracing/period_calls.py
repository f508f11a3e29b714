"""The calls of one period: the trace is read where the collectors are first and last, so that both count the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from agents.messages import HostEventKind
from agents.traced_calls import COUNTED_AS, SplitCause, TracedCalls, TracedFunction
from agents.tracing.functions import Untraceable
from agents.tracing.kernel_trace import MICROSECOND, CallKey, CallSum, TraceReading

MOST_PROGRAMS = 50  # of a period; the others are told together


class Sampled(Protocol):
    """The collectors, as a period asks them (`agents.period.SampleSource`)."""

    def sample(self) -> dict[str, float]: ...
    def boundary(self) -> dict[str, float]: ...
    def events(self) -> list[tuple[HostEventKind, str]]: ...


class Trace(Protocol):
    """What is traced (`agents.tracing.kernel_trace.KernelTrace`)."""

    @property
    def missing(self) -> tuple[Untraceable, ...]: ...
    def read(self) -> TraceReading: ...
    def close(self) -> None: ...


class TracedSource:
    """Collectors with a trace beside them: what a period samples, and afterwards `calls`."""

    def __init__(self, source: Sampled, trace: Trace) -> None:
        self._source = source
        self._trace = trace
        self._first: TraceReading | None = None
        self._last: TraceReading | None = None
        self._events = [(HostEventKind.TRACE_INCOMPLETE, one.text) for one in trace.missing]

    def sample(self) -> dict[str, float]:
        return self._source.sample()

    def boundary(self) -> dict[str, float]:
        values = self._source.boundary()
        try:
            reading = self._trace.read()
        except (OSError, ValueError) as error:
            self._events.append((HostEventKind.TRACE_INCOMPLETE, f"a histogram of the trace can't be read: {error}"))
            return values
        if self._first is None:
            self._first = reading
        self._last = reading
        for function, more in _dropped(self._first, reading).items():
            if more:
                self._events.append(
                    (
                        HostEventKind.TRACE_INCOMPLETE,
                        f"of {more:,} calls of {function} the kernel kept neither program nor stack:"
                        " its histogram was full, or two CPUs began the same entry at once",
                    )
                )
        return values

    def events(self) -> list[tuple[HostEventKind, str]]:
        own, self._events = self._events, []
        return [*self._source.events(), *own]

    def close(self) -> None:
        """Take the trace away; `calls` stay."""
        self._trace.close()

    @property
    def calls(self) -> tuple[TracedCalls, ...]:
        """What was called between the first reading of the period and the last; the most frequent first."""
        if self._first is None or self._last is None:
            return ()
        rose = {key: total - self._first.sums.get(key, CallSum()) for key, total in self._last.sums.items()}
        for function, more in _dropped(self._first, self._last).items():
            cause = SplitCause.NOT_KEPT if function in COUNTED_AS else None
            rose[CallKey(function=function, program="", cause=cause)] = CallSum(calls=more)
        return _rows({key: more for key, more in rose.items() if more.calls > 0 or more.timed > 0})


def _dropped(first: TraceReading, last: TraceReading) -> dict[TracedFunction, int]:
    """Count the calls between two readings that the kernel's histograms dropped, by function."""
    return {function: dropped - first.dropped.get(function, 0) for function, dropped in last.dropped.items()}


def _rows(sums: dict[CallKey, CallSum]) -> tuple[TracedCalls, ...]:
    by_program: dict[str, int] = {}
    for key, more in sums.items():
        by_program[key.program] = by_program.get(key.program, 0) + more.calls
    kept = set(sorted(by_program, key=lambda program: (-by_program[program], program))[:MOST_PROGRAMS])
    merged: dict[CallKey, tuple[CallSum, int]] = {}
    for key, more in sums.items():
        whole = replace(key, program=key.program if key.program in kept else "", at_most=None)
        total, longest = merged.get(whole, (CallSum(), 0))
        merged[whole] = (total + more, max(longest, key.at_most or 0))
    rows = (
        TracedCalls(
            function=key.function,
            program=key.program,
            cause=key.cause,
            calls=total.calls,
            timed=total.timed,
            seconds=total.seconds if total.timed else None,
            longest_seconds=longest * MICROSECOND if longest else None,
        )
        for key, (total, longest) in merged.items()
    )
    return tuple(sorted(rows, key=lambda row: (row.function, -row.calls, row.program)))
