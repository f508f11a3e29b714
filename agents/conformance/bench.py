"""What a scenario works with, in its own process: memory, counters, settings, and the checks that it makes."""

from __future__ import annotations

import errno
import mmap
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

from agents.conformance.counters import Count, Level, counter_name, level_of, read_counters
from agents.conformance.memory import Advice, Memory, Pattern
from agents.conformance.verdict import Outcome, PageCheck, Subject, VerdictCause
from agents.numbers import whole_number
from agents.sysroot import SysRoot

_NODE = re.compile(r"node([0-9]{1,5})")
_NO_CALL = frozenset({errno.ENOSYS, errno.EPERM})
_RSS_SLACK_PAGES = 256  # kernels add up a process's pages per CPU, and told them up to so many pages late (6.2 to 6.16)


class NotTried(Exception):
    """The scenario can't be tried here: its cause, and what to do about it."""

    def __init__(self, cause: VerdictCause, detail: str) -> None:
        super().__init__(cause, detail)
        self.cause = cause
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchHost:
    """What a scenario runs on."""

    root: SysRoot
    size_kib: int
    apply: Callable[[Mapping[str, str]], None]  # sets knobs until the next call; others read as they were found
    note: Callable[[PageCheck], None]


@dataclass(slots=True)
class Bench:
    """One scenario's place of work. Every `check_...` is told to the runner at once, so that a crash loses none."""

    host: BenchHost
    level: Level = field(init=False)
    counted: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.level = level_of(self.host.root, self.host.size_kib)
        self.counted = self.counts()

    @property
    def size(self) -> int:
        """Bytes of one huge page."""
        return self.host.size_kib * 1024

    @property
    def pages(self) -> int:
        """Base pages in one huge page."""
        return self.size // mmap.PAGESIZE

    @property
    def base(self) -> int:
        """Bytes of a base page."""
        return mmap.PAGESIZE

    @property
    def middle(self) -> int:
        """Where in a huge page a piece is worked on."""
        return self.size // 2

    @property
    def piece(self) -> int:
        """Bytes of a part of a huge page: what the level below maps, a base page at least."""
        return max(mmap.PAGESIZE, self.size // 512)

    # ------------------------------------------------------------------ memory
    @contextmanager
    def memory(self, extents: int = 1, *, advise: bool = True) -> Iterator[Memory]:
        """Map so many aligned huge pages meanwhile, untouched; MADV_HUGEPAGE unless told otherwise."""
        memory = Memory(extents * self.size, align=self.size)
        if advise:
            memory.advise(Advice.HUGEPAGE)
        try:
            yield memory
        finally:
            memory.close()

    @contextmanager
    def page(self) -> Iterator[tuple[Memory, Pattern]]:
        """Give one huge page that is really there, with a pattern in it; NotTried where the kernel gave none."""
        with self.memory() as memory:
            if not self.granted(memory):
                self.no_page()
            pattern = Pattern(memory)
            pattern.write()
            yield memory, pattern

    def no_page(self) -> NoReturn:
        """Say that the kernel gave smaller pages."""
        raise NotTried(VerdictCause.NO_PAGE, "the kernel gave smaller pages: free memory, compact it, and try again")

    def granted(self, memory: Memory, offset: int = 0) -> bool:
        """Touch one byte, and tell whether a whole huge page came with it, by this process's own memory alone."""
        return self.brought(memory, lambda: memory.touch(offset)) >= self.size

    def brought(self, memory: Memory, act: Callable[[], None]) -> int:
        """Return how many bytes more of a memory are there after an act.

        By mincore, which is exact; where a PUD-sized page may live mincore splits it, and the process's own sum of
        anonymous pages is exact enough.
        """
        if self.level is Level.PUD:
            before = self.own("RssAnon")
            act()
            return self.own("RssAnon") - before + _RSS_SLACK_PAGES * mmap.PAGESIZE
        before = memory.resident()
        act()
        return memory.resident() - before

    @property
    def nodes(self) -> tuple[int, ...]:
        """The NUMA nodes that have memory."""
        folder = "sys/devices/system/node"
        numbers = sorted(int(match[1]) for match in map(_NODE.fullmatch, self.host.root.names(folder)) if match)
        lines = ((n, self.host.root.read(f"{folder}/node{n}/meminfo")) for n in numbers)
        return tuple(n for n, data in lines if _kib_field(data, f"Node {n} MemTotal")) or (0,)

    def meminfo(self, field_name: str) -> int:
        """Return bytes as /proc/meminfo tells them; 0 where it doesn't."""
        return _kib_field(self.host.root.read("proc/meminfo"), field_name)

    def own(self, field_name: str) -> int:
        """Return bytes of this process as /proc/self/status tells them (VmPTE, VmSwap, RssAnon); 0 where it doesn't."""
        return _kib_field(self.host.root.read(f"proc/{os.getpid()}/status"), field_name)

    def apply(self, **knobs: str) -> None:
        """Set this size's own switch (`own`), the one at the top (`top`) or `defrag`; the others as they were found."""
        self.host.apply(knobs)

    def call(self, what: str, act: Callable[[], None]) -> None:
        """Make a system call that a kernel, or a filter in front of it, may not know: NotTried then."""
        try:
            act()
        except OSError as error:
            if error.errno in _NO_CALL:
                raise NotTried(VerdictCause.NO_CALL, f"{what} is not to be had here: {error.strerror}") from error
            raise

    # ------------------------------------------------------------------ checks
    def counts(self) -> dict[str, int]:
        return read_counters(self.host.root, self.host.size_kib)

    @contextmanager
    def counting(self) -> Iterator[Rise]:
        """Count meanwhile; check what rose once it is over."""
        rise = Rise(self, self.counts())
        yield rise
        rise.end(self.counts())

    def check(self, subject: Subject, what: str, *, held: bool, wanted: str, seen: str) -> None:
        """Note a check of something that others on the host can't move."""
        outcome = Outcome.HELD if held else Outcome.BROKEN
        self.host.note(PageCheck(subject=subject, what=what, wanted=wanted, seen=seen, outcome=outcome))

    def check_data(self, what: str, damaged: int) -> None:
        seen = f"{damaged} base pages differ" if damaged else "all of it"
        self.check(Subject.DATA, what, held=not damaged, wanted="what was written", seen=seen)

    def check_bytes(self, what: str, seen: int, *, at_least: int = 0, at_most: int | None = None) -> None:
        """Check an amount of this process's own memory."""
        held = seen >= at_least if at_most is None else at_least <= seen <= at_most
        wanted = f"{at_least:,} bytes or more" if at_most is None else f"{at_least:,} to {at_most:,} bytes"
        self.check(Subject.MEMORY, what, held=held, wanted=wanted, seen=f"{seen:,} bytes")

    def check_call(self, what: str, *, held: bool, wanted: str, seen: str) -> None:
        """Check what a call did; `seen` is told where it did not do what was wanted."""
        self.check(Subject.CALL, what, held=held, wanted=wanted, seen=wanted if held else seen)

    def tell(self, what: str, seen: str) -> None:
        """Note what no document promises."""
        check = PageCheck(subject=Subject.CALL, what=what, wanted="", seen=seen, outcome=Outcome.TOLD)
        self.host.note(check)


class Rise:
    """By how much the host's counters rose while a scenario did something."""

    def __init__(self, bench: Bench, before: Mapping[str, int]) -> None:
        self._bench = bench
        self._before = before
        self._after = before

    def end(self, after: Mapping[str, int]) -> None:
        self._after = after

    def of(self, count: Count) -> int | None:
        """Return the rise; None where this kernel does not count it."""
        name = counter_name(count, self._bench.level, self._before)
        return self._after[name] - self._before[name] if name and name in self._after else None

    def check(self, count: Count, wanted: int, *, at_least: bool = False, gauge: bool = False) -> None:
        """Check a counter of the whole host; a rise by more may be others' and is looked at again by the runner.

        `gauge`: others may have lowered it too.
        """
        rise = self.of(count)
        name = counter_name(count, self._bench.level, self._before)
        if rise is None:
            outcome, seen = Outcome.ABSENT, "not counted here"
        else:
            fewer = rise < wanted and not gauge
            more = rise != wanted and not fewer and not at_least
            outcome, seen = Outcome.BROKEN if fewer else Outcome.EXCEEDED if more else Outcome.HELD, f"{rise:+d}"
        self._bench.host.note(
            PageCheck(
                subject=Subject.COUNTER,
                what=name or count.value,
                wanted=f"{wanted:+d}{' or more' if at_least else ''}",
                seen=seen,
                outcome=outcome,
                counter=name,
            )
        )

    def check_sum(self, counts: Sequence[Count], at_least: int) -> None:
        """Check that counters of which the kernel may choose one rose together by so much or more."""
        rises = {count: rise for count in counts if (rise := self.of(count)) is not None}
        names = [counter_name(count, self._bench.level, self._before) for count in rises]
        total = sum(rises.values())
        self._bench.host.note(
            PageCheck(
                subject=Subject.COUNTER,
                what=" + ".join(names) or counts[0].value,
                wanted=f"{at_least:+d} or more",
                seen=f"{total:+d}" if rises else "not counted here",
                outcome=Outcome.ABSENT if not rises else Outcome.HELD if total >= at_least else Outcome.BROKEN,
            )
        )

    def tell(self, count: Count) -> None:
        """Note the rise of a counter of which nothing is promised."""
        rise = self.of(count)
        if rise is not None:
            self._bench.tell(counter_name(count, self._bench.level, self._before), f"{rise:+d}")


def _kib_field(data: bytes, field_name: str) -> int:
    """Return the bytes of a 'Name: 12 kB' line; 0 where there is none."""
    for line in data.decode(errors="replace").splitlines():
        name, _, rest = line.partition(":")
        if name == field_name:
            return whole_number(rest.split()[0].encode()) * 1024
    return 0
