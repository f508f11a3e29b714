"""Events counted over all CPUs, or over a cgroup's tasks on all CPUs, however CPUs and cgroups come and go."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from agents.catalogue.derived import derived_for
from agents.catalogue.table import COUNTED_ALWAYS
from agents.perf.cpus import parse_numbers
from agents.perf.events import find_events
from agents.perf.group import EventGroup, grouped
from agents.perf.own_events import find_own_events
from agents.perf.scaling import COVERAGE_FLOOR, TURN_SECONDS, Reading
from agents.perf.syscall import PerfEvent, require_cgroup, unreadable, why_not
from agents.sysroot import Reader, SysRoot

_FIRST_LOOK_SECONDS = 0.02  # until then what never fits may seem to have been counted half of the time
ONLINE = "sys/devices/system/cpu/online"


class PerfCounters:
    """Counters of these events that run from construction to `close`.

    `own` are events of the user's, by metric, as perf writes them; `prefix` is that of the other metrics. `cgroup` is
    the directory of a cgroup in a hierarchy with perf events (v2, or v1 perf_event). `unavailable` gives, for each
    metric that is not counted, the reason; `apart` names those that the CPU's counters do not hold together with what
    they are divided by. `lost` is called with a sentence when something goes away.
    """

    def __init__(
        self,
        root: SysRoot,
        names: Sequence[str] = COUNTED_ALWAYS,
        *,
        own: Mapping[str, str] = MappingProxyType({}),
        cgroup: Path | None = None,
        prefix: str = "",
        floor: float = COVERAGE_FLOOR,
        lost: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.unavailable: dict[str, str] = {}
        self.apart: list[str] = []
        self._same: dict[str, str] = {}  # metric -> the one that is the same event here, and is counted
        self._root = root
        self._names = names
        self._own = own
        self._cgroup = cgroup
        self._prefix = prefix
        self._floor = floor
        self._lost = lost
        self._groups: list[EventGroup] = []
        self._order: list[tuple[int, EventGroup]] = []  # every open group and CPU, as they are read
        self._online: Reader | None = None
        self._online_text = b""
        self._given_up = False
        self._identity: tuple[int, int] | None = None
        self._open_all()

    def collect(self, out: dict[str, float], *, boundary: bool = False) -> None:
        """Add each event's scaled count, and the times it was wanted and counted, to `out`."""
        if not self._groups:
            return
        self._follow_cgroup()
        self._follow_cpus()
        for group, readings in self._readings().items():
            group.counts.collect(readings, out, self.unavailable, boundary=boundary)
            if group.counts.still and self._cgroup is None:  # a cgroup that sleeps rightly stands still
                self._revive(group)
        self._take_apart()
        self._repeat(out)

    def _repeat(self, out: dict[str, float]) -> None:
        """Give what is the same event under several metrics to each of them."""
        for metric, counted in self._same.items():
            for ending in ("", "_time_enabled_seconds", "_time_running_seconds"):
                if counted + ending in out:
                    out[metric + ending] = out[counted + ending]
            self.unavailable.pop(metric, None)
            if counted in self.unavailable:
                self.unavailable[metric] = self.unavailable[counted]

    def _readings(self) -> dict[EventGroup, dict[int, Reading]]:
        """Read every group, one CPU after the other: each is interrupted for its own, and woken once instead of often.

        A group that the kernel has taken apart, because its CPU is going away or has been, is given up.
        """
        found: dict[EventGroup, dict[int, Reading]] = {group: {} for group in self._groups}
        for cpu, group in self._order:
            if (reading := group.read(cpu)) is not None:
                found[group][cpu] = reading
            else:
                self._give_up(group, cpu)
        return found

    def _set_order(self) -> None:
        cpus = sorted(set().union(*(group.fds for group in self._groups)))
        self._order = [(cpu, group) for cpu in cpus for group in self._groups if cpu in group.fds]

    def _give_up(self, group: EventGroup, cpu: int) -> None:
        """Close what no longer reads; it is opened anew at the next sample, where its CPU is online then."""
        group.close_on(cpu)
        self._set_order()
        self._given_up = True
        self._lost(f"perf events on CPU {cpu}: the kernel gave up {_words(group)}")

    def _revive(self, group: EventGroup) -> None:
        """Open a group anew on a CPU that went and came back between two samples: it would read the same for ever."""
        for cpu in group.counts.still:
            group.close_on(cpu)
            self._lost(f"perf events on CPU {cpu}: {_words(group)} stood still, opened anew")
        self._open_on([group], group.counts.still)

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that one `collect` reads, beside the events."""
        return (ONLINE,) if self._groups and self._online is not None else ()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What one `collect` reads of the events: one descriptor for each group and CPU."""
        return tuple(group.fds[cpu][0] for cpu, group in self._order)

    @property
    def counted(self) -> tuple[tuple[PerfEvent, int], ...]:
        """Every event that is counted, with its CPU, in the order of reading."""
        return tuple((event, cpu) for cpu, group in self._order for event in group.events)

    def close(self) -> None:
        self._close_groups()
        self._groups.clear()
        if self._online is not None:
            self._online.close()
            self._online = None

    # ------------------------------------------------------------------ opening and following
    def _close_groups(self) -> None:
        for group in self._groups:
            group.close()
        self._order = []

    def _refuse_all(self, reason: str) -> None:
        """Count nothing any more."""
        self._close_groups()
        self._refuse([event.name for group in self._groups for event in group.events], reason)
        self._groups.clear()

    def _refuse(self, metrics: Iterable[str], reason: str) -> None:
        self.unavailable.update(dict.fromkeys(metrics, reason))

    def _open_all(self) -> None:
        metrics = [*(self._prefix + name for name in self._names), *self._own]
        try:
            self._online = self._root.reader(ONLINE)
            self._online_text = self._online.read()
            cpus = parse_numbers(self._online_text)
            self._identity = self._identify()
        except OSError as error:
            self._refuse(metrics, unreadable(error, ONLINE))
            return
        except ValueError as error:
            self._refuse(metrics, f"/{ONLINE}: {error}")
            return
        found, missing = find_events(self._root, self._names)
        own, own_missing = find_own_events(self._root, self._own)
        self.unavailable |= {self._prefix + name: reason for name, reason in missing.items()} | own_missing
        events = [*(replace(event, name=self._prefix + event.name) for event in found), *own]
        first: dict[PerfEvent, str] = {}
        for event in events:
            counted = first.setdefault(replace(event, name="", event="", counts=""), event.name)
            if counted != event.name:
                self._same[event.name] = counted
        events = [event for event in events if event.name not in self._same]
        # Of a CPU that no table has nothing is known of its counters either: there each event goes alone.
        divisors = self._divisors() if any(event.pmu for event in found) else {}
        self._groups = grouped(events, divisors, floor=self._floor)
        self._open_on(self._groups, cpus)
        self._find_what_fits()
        self._repeat({})

    def _divisors(self) -> dict[str, str]:
        """Return for each metric that is divided by another, the other; each under the metric that is counted."""
        found: dict[str, str] = {}
        for ratio in derived_for(self._names):
            if len(ratio.numerator) == len(ratio.denominator) == 1:
                pair = (self._prefix + name for name, _ in (*ratio.numerator, *ratio.denominator))
                above, below = (self._same.get(name, name) for name in pair)
                if above != below:
                    found.setdefault(above, below)
        return found

    def _find_what_fits(self) -> None:
        """Wait until every group has had its turn, and make those smaller that can't have one."""
        if self._cgroup is not None:  # where no task runs nothing is counted: `collect` finds it out
            return
        if any(group.shares_counters for group in self._groups):
            time.sleep(_FIRST_LOOK_SECONDS)
        while any(group.waits for group in self._groups):
            time.sleep(TURN_SECONDS)
            for group, readings in self._readings().items():
                group.counts.add(readings)
            if not self._take_apart():
                return

    def _take_apart(self) -> bool:
        """Take the last event out of each group that does not fit the counters of a CPU; False where all fit."""
        unfit = [one for one in self._groups if one.counts.never and len(one.events) > 1]
        for group in unfit:
            cpus, last = tuple(group.fds), group.part()
            self._set_apart(last)
            self._open_on([group, last], cpus)
        return bool(unfit)

    def _set_apart(self, group: EventGroup) -> None:
        """Add a group of events that do not fit the one that they were in."""
        self._groups.append(group)
        self.apart += group.counts.metrics
        self._lost(f"perf events: {_words(group)} do not fit the CPU's counters together with what they are divided by")

    def _open_on(self, groups: Iterable[EventGroup], cpus: Collection[int]) -> None:
        """Open groups on these CPUs too; what is refused is left out, with the reason."""
        cgroup_fd = -1
        try:
            if self._cgroup is not None:
                cgroup_fd = os.open(self._cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                require_cgroup(cgroup_fd, self._cgroup, cpu=min(cpus))
            waiting = list(groups)
            for group in waiting:
                before, events = group.counts, {event.name: event for event in group.events}
                refused = group.open_on(cpus, cgroup_fd)
                too_many = [name for name, error in refused.items() if error.errno == errno.EINVAL and group.events]
                if too_many:
                    rest = EventGroup([events[name] for name in too_many])
                    rest.counts = before.only(too_many)
                    self._set_apart(rest)
                    waiting.append(rest)
                for metric in refused.keys() - too_many:
                    self.unavailable[metric] = why_not(refused[metric])
        except OSError as error:
            self._refuse_all(unreadable(error, str(self._cgroup)))  # the cgroup: no event raises here
        finally:
            if cgroup_fd >= 0:
                os.close(cgroup_fd)
        self._groups = [group for group in self._groups if group.events]
        self._set_order()

    def _identify(self) -> tuple[int, int] | None:
        if self._cgroup is None:
            return None
        status = self._cgroup.stat()
        return status.st_dev, status.st_ino

    def _follow_cgroup(self) -> None:
        """Reopen where the cgroup was removed or made anew: the old descriptors would count nothing, as zero."""
        try:
            now = self._identify()
        except OSError:
            now = (-1, -1)
        if now == self._identity:
            return
        self._lost(
            f"perf events of the cgroup {self._cgroup}: it was removed{' and made anew' if now != (-1, -1) else ''}"
        )
        if now == (-1, -1):
            self._refuse_all("the cgroup was removed")
            return
        self._close_groups()
        self._identity = now
        self._open_on(self._groups, parse_numbers(self._online_text))

    def _follow_cpus(self) -> None:
        """Close events of CPUs that went offline and open them on CPUs that came back, or whose events were lost."""
        if self._online is None:
            return
        text = self._online.read()
        if text == self._online_text and not self._given_up:
            return
        try:
            before, now = parse_numbers(self._online_text), parse_numbers(text)
        except ValueError as error:
            self._refuse_all(f"/{ONLINE}: {error}")
            return
        self._online_text, self._given_up = text, False
        for cpu in sorted(before - now):
            for group in self._groups:
                group.close_on(cpu)
            self._lost(f"perf events of CPU {cpu}: it went offline")
        self._open_on(self._groups, now)


def _words(group: EventGroup) -> str:
    return ", ".join(group.counts.metrics)
