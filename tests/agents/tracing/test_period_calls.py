"""What a period traced is what came between its first reading and its last; what was not traced is told."""

from __future__ import annotations

from dataclasses import dataclass, field

from agents.messages import HostEventKind
from agents.traced_calls import SplitCause, TracedCalls, TracedFunction
from agents.tracing.functions import NoTracing, Untraceable
from agents.tracing.kernel_trace import CallKey, CallSum, TraceReading
from agents.tracing.period_calls import MOST_PROGRAMS, TracedSource

FORKS = CallKey(function=TracedFunction.SPLIT_PUD, program="python", cause=SplitCause.FORK)


def faults(program: str, at_most: int) -> CallKey:
    return CallKey(function=TracedFunction.FAULT_PMD, program=program, cause=None, at_most=at_most)


class Collected:
    """Collectors that say nothing."""

    def sample(self) -> dict[str, float]:
        return {}

    def boundary(self) -> dict[str, float]:
        return {"thp_split_pud": 1.0}

    def events(self) -> list[tuple[HostEventKind, str]]:
        return []


@dataclass
class Readings:
    """A trace that reads as it is told."""

    readings: list[TraceReading | OSError]
    missing: tuple[Untraceable, ...] = field(default=())

    def read(self) -> TraceReading:
        found = self.readings.pop(0)
        if isinstance(found, OSError):
            raise found
        return found


def reading(dropped: int = 0, **sums: CallSum) -> TraceReading:
    keys = {"forks": FORKS, "fast": faults("web", 128), "slow": faults("web", 2048)}
    found = {keys[name]: total for name, total in sums.items()}
    return TraceReading(sums=found, dropped={TracedFunction.SPLIT_PUD: dropped})


def test_calls_of_before_the_period_are_not_its_own() -> None:
    first = reading(forks=CallSum(3, 3, 0.5), fast=CallSum(10, 10, 0.001))
    last = reading(forks=CallSum(5, 4, 0.75), fast=CallSum(10, 10, 0.001), slow=CallSum(2, 2, 0.003))
    source = TracedSource(Collected(), Readings([first, last]))
    assert source.boundary() == source.boundary() == {"thp_split_pud": 1.0}
    waited, split = source.calls
    assert waited.function is TracedFunction.FAULT_PMD
    assert (waited.calls, waited.timed, waited.seconds, waited.longest_seconds) == (2, 2, 0.003, 2048e-6)
    assert split == TracedCalls(
        function=TracedFunction.SPLIT_PUD, program="python", cause=SplitCause.FORK, calls=2, timed=1, seconds=0.25
    )
    assert source.events() == []


def test_what_could_not_be_timed_has_no_time() -> None:
    source = TracedSource(Collected(), Readings([reading(), reading(forks=CallSum(2, 0, 0.0))]))
    source.boundary(), source.boundary()
    assert [(row.calls, row.seconds) for row in source.calls] == [(2, None)]


def test_many_programs_are_told_together_and_none_is_lost() -> None:
    sums = {faults(f"p{number:03}", 64): CallSum(number + 1, number + 1, 0.001) for number in range(200)}
    source = TracedSource(Collected(), Readings([reading(), TraceReading(sums=sums, dropped={})]))
    source.boundary(), source.boundary()
    assert len(source.calls) == MOST_PROGRAMS + 1
    assert sum(row.calls for row in source.calls) == sum(range(1, 201))
    (others,) = [row for row in source.calls if row.program == ""]
    assert others.calls == sum(range(1, 201 - MOST_PROGRAMS))


def test_what_is_not_traced_is_an_event_of_the_period() -> None:
    missing = Untraceable(function=None, cause=NoTracing.NO_KPROBES, text="built without kprobes")
    source = TracedSource(Collected(), Readings([reading(), reading(dropped=7)], missing=(missing,)))
    source.boundary()
    assert source.events() == [(HostEventKind.TRACE_INCOMPLETE, "built without kprobes")]
    source.boundary()
    ((kind, detail),) = source.events()
    assert (kind, "7 calls of split_pud" in detail) == (HostEventKind.TRACE_INCOMPLETE, True)


def test_splits_that_the_kernels_histogram_dropped_are_counted_without_a_program() -> None:
    source = TracedSource(Collected(), Readings([reading(dropped=2), reading(dropped=3, forks=CallSum(4, 4, 0.5))]))
    source.boundary(), source.boundary()
    assert {(row.program, row.cause, row.calls, row.seconds) for row in source.calls} == {
        ("python", SplitCause.FORK, 4, 0.5),
        ("", SplitCause.NOT_KEPT, 1, None),
    }


def test_faults_that_the_kernels_histogram_dropped_are_counted_without_a_program() -> None:
    last = TraceReading(sums={faults("web", 128): CallSum(2, 2, 0.001)}, dropped={TracedFunction.FAULT_PMD: 5})
    source = TracedSource(Collected(), Readings([reading(), last]))
    source.boundary(), source.boundary()
    assert {(row.program, row.cause, row.calls, row.timed) for row in source.calls} == {
        ("web", None, 2, 2),
        ("", None, 5, 0),
    }


def test_a_histogram_that_can_not_be_read_ends_no_period() -> None:
    source = TracedSource(Collected(), Readings([reading(), OSError("gone")]))
    source.boundary()
    assert source.boundary() == {"thp_split_pud": 1.0}
    assert [kind for kind, _ in source.events()] == [HostEventKind.TRACE_INCOMPLETE]
    assert source.calls == ()
