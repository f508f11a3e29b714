"""Fork: what does it cost the page, with and without copy-on-write?"""

from __future__ import annotations

from agents.conformance.bench import Bench
from agents.conformance.counters import Count, Level
from agents.conformance.fork import in_a_fork


def fork_and_write(bench: Bench) -> None:
    """A child that writes one base page gets its own copy; the parent's memory does not change.

    The mapping is split once: a PMD by the child's write, a PUD by the fork itself.
    """
    with bench.page() as (_, pattern):
        half = bench.pages // 2

        def child() -> int:
            pattern.change(half)
            return pattern.damaged()

        with bench.counting() as rise:
            bench.check_data("the child's memory after its write", in_a_fork(child))
        bench.check_data("the parent's memory after the child's write", pattern.damaged())
    rise.check(Count.MAPPING_SPLIT, 1)
    rise.check(Count.SPLIT, 0)


def fork_and_read(bench: Bench) -> None:
    """A child that only reads leaves the page whole; a PUD mapping is split by the fork all the same."""
    with bench.page() as (_, pattern):
        with bench.counting() as rise:
            bench.check_data("the child's memory", in_a_fork(pattern.damaged))
        bench.check_data("the parent's memory", pattern.damaged())
        pattern.change(0)
        bench.check_data("the parent's memory after its own write", pattern.damaged())
    rise.check(Count.MAPPING_SPLIT, 1 if bench.level is Level.PUD else 0)
    rise.check(Count.SPLIT, 0)
