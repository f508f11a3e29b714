"""Events counted over all CPUs, or over a cgroup's tasks on all CPUs: one descriptor for each event and CPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from agents.catalogue.table import EVENT_NAMES
from agents.perf.cpus import parse_numbers
from agents.perf.events import PerfEvent, find_events
from agents.perf.scaling import COVERAGE_FLOOR, Reading, ScaledCount, emit
from agents.perf.syscall import open_event, read_event, unreadable, why_not
from agents.sysroot import Reader, SysRoot

ONLINE = "sys/devices/system/cpu/online"


class _Counted:
    """One event: its descriptors by CPU and its scaled count."""

    __slots__ = ("count", "event", "fds", "metric")

    def __init__(self, event: PerfEvent, metric: str, floor: float) -> None:
        self.event = event
        self.metric = metric
        self.fds: dict[int, int] = {}
        self.count = ScaledCount(floor)

    def open_on(self, cpu: int, cgroup_fd: int) -> None:
        event = self.event
        self.fds[cpu] = open_event(
            event.kind,
            event.config,
            cpu=cpu,
            cgroup_fd=cgroup_fd,
            config1=event.config1,
            config2=event.config2,
        )
        # What is read now is where counting starts: a cgroup's event can begin with the age of its context as time.
        if (start := read_event(self.fds[cpu])) is not None:
            self.count.start_afresh({cpu: start})

    def close_on(self, cpu: int) -> None:
        if (fd := self.fds.pop(cpu, None)) is not None:
            os.close(fd)
            self.count.forget(cpu)

    def close(self) -> None:
        for cpu in tuple(self.fds):
            self.close_on(cpu)


class PerfCounters:
    """Counters that run from construction to `close`.

    `cgroup` is the directory of a cgroup in a hierarchy with perf events (v2, or v1 perf_event). `unavailable` gives,
    for each metric that is not counted, the reason. `lost` is called with a sentence when something goes away.
    """

    def __init__(
        self,
        root: SysRoot,
        *,
        cgroup: Path | None = None,
        prefix: str = "",
        floor: float = COVERAGE_FLOOR,
        lost: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.unavailable: dict[str, str] = {}
        self._root = root
        self._cgroup = cgroup
        self._prefix = prefix
        self._floor = floor
        self._lost = lost
        self._counted: list[_Counted] = []
        self._online: Reader | None = None
        self._online_text = b""
        self._identity: tuple[int, int] | None = None
        self._open_all()

    def collect(self, out: dict[str, float], *, boundary: bool = False) -> None:
        """Add each event's scaled count, and the times it was wanted and counted, to `out`."""
        if not self._counted:
            return
        self._follow_cgroup()
        self._follow_cpus()
        for one, readings in zip(self._counted, self._readings(), strict=True):
            emit(one.metric, one.count, readings, out, self.unavailable, boundary=boundary)
            if one.count.still and self._cgroup is None:  # a cgroup that sleeps rightly stands still
                self._revive(one)

    def _readings(self) -> list[dict[int, Reading]]:
        """Read every event, one CPU after the other: each is interrupted for its own, and woken once instead of often.

        An event that the kernel has closed, because its CPU is going away, is given up.
        """
        asked = self._by_cpu()
        read = [read_event(self._counted[place].fds[cpu]) for cpu, place in asked]
        found: list[dict[int, Reading]] = [{} for _ in self._counted]
        for (cpu, place), reading in zip(asked, read, strict=True):
            if reading is None:
                self._counted[place].close_on(cpu)
            else:
                found[place][cpu] = reading
        return found

    def _by_cpu(self) -> list[tuple[int, int]]:
        """Every open descriptor in the order of reading, as (CPU, place of its event)."""
        return sorted((cpu, place) for place, one in enumerate(self._counted) for cpu in one.fds)

    def _revive(self, one: _Counted) -> None:
        """Open an event anew on a CPU that went and came back between two samples: it would read the same for ever."""
        for cpu in tuple(one.count.still):
            one.close_on(cpu)
            self._lost(f"perf event {one.metric} on CPU {cpu}: it stood still and was opened anew")
            if not self._open_on(one, [cpu]):
                return

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that one `collect` reads, beside the events."""
        return (ONLINE,) if self._counted and self._online is not None else ()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Every open event, for whoever measures what reading them costs."""
        return tuple(self._counted[place].fds[cpu] for cpu, place in self._by_cpu())

    def close(self) -> None:
        for one in self._counted:
            one.close()
        self._counted.clear()
        if self._online is not None:
            self._online.close()
            self._online = None

    # ------------------------------------------------------------------ opening and following
    def _refuse(self, names: Iterable[str], reason: str) -> None:
        self.unavailable.update({self._prefix + name: reason for name in names})

    def _open_all(self) -> None:
        try:
            self._online = self._root.reader(ONLINE)
            self._online_text = self._online.read()
            cpus = parse_numbers(self._online_text)
            self._identity = self._identify()
        except OSError as error:
            self._refuse(EVENT_NAMES, unreadable(error, ONLINE))
            return
        events, missing = find_events(self._root)
        for name, reason in missing.items():
            self._refuse([name], reason)
        for event in events:
            one = _Counted(event, self._prefix + event.name, self._floor)
            if self._open_on(one, cpus):
                self._counted.append(one)

    def _open_on(self, one: _Counted, cpus: Iterable[int]) -> bool:
        """Open an event on these CPUs too; where that fails it is closed everywhere: half a count is no count."""
        cgroup_fd = -1
        try:
            if self._cgroup is not None:
                cgroup_fd = os.open(self._cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            for cpu in sorted(cpus):
                one.open_on(cpu, cgroup_fd)
        except OSError as error:
            one.close()
            self.unavailable[one.metric] = why_not(error)
            return False
        finally:
            if cgroup_fd >= 0:
                os.close(cgroup_fd)
        return True

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
        for one in self._counted:
            one.close()
        if now == (-1, -1):
            self._refuse([one.event.name for one in self._counted], "the cgroup was removed")
            self._counted.clear()
            return
        self._identity = now
        cpus = parse_numbers(self._online_text)
        self._counted = [one for one in self._counted if self._open_on(one, cpus)]

    def _follow_cpus(self) -> None:
        """Close events of CPUs that went offline and open them on CPUs that came back."""
        if self._online is None:
            return
        text = self._online.read()
        if text == self._online_text:
            return
        before, now = parse_numbers(self._online_text), parse_numbers(text)
        self._online_text = text
        for cpu in sorted(before - now):
            for one in self._counted:
                one.close_on(cpu)
            self._lost(f"perf events of CPU {cpu}: it went offline")
        if added := now - before:
            self._counted = [one for one in self._counted if self._open_on(one, added)]
