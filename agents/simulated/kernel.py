"""The root of a simulated host: knobs with a kernel's manners, and counters that move as a model says."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from agents.knobs import find_knob
from agents.simulated.clock import HostClock
from agents.simulated.faults import Lie, Refuse
from agents.simulated.files import HUGETLB, KnobFile, MachineFiles, refused
from agents.simulated.response_model import ResponseModel

_DIED = 1 << 7  # taint: the kernel died recently


class _KnobReader:
    """A file of the model, read anew each time: `read` is found once, when it is opened."""

    __slots__ = ("begin", "read")

    def __init__(self, read: Callable[[], bytes]) -> None:
        self.begin = self.read = read

    def close(self) -> None:
        """Nothing is held."""


class SimulatedRoot:
    """A `SysRoot` in memory. `state_dir` is a real folder: journals and leases are real files there."""

    def __init__(
        self, machine: MachineFiles, response_model: ResponseModel, *, host: str, clock: HostClock, state_dir: Path
    ) -> None:
        self.response_model = response_model
        self.read_elsewhere: frozenset[str] = frozenset()  # metrics that a source gives: no workload reports them too
        self._machine = machine
        self._clock = clock
        self._state_dir = state_dir
        self._host = host
        self._refusals: list[tuple[str, Refuse]] = []
        self._lies: list[tuple[str, Lie]] = []
        self._values: dict[str, str] = {}
        self._log = b""
        self._taint = 0
        self._boots = 0
        self._shows: Mapping[str, Callable[[], bytes]] = {
            "proc/vmstat": self._vmstat,
            "proc/meminfo": self._meminfo,
            "proc/uptime": self._uptime,
            "dev/kmsg": self._kmsg,
            "proc/sys/kernel/hostname": f"{host}\n".encode().__bytes__,
            "proc/sys/kernel/tainted": self._tainted,
            "proc/sys/kernel/random/boot_id": self._boot_id,
        }
        self._boot()

    def __repr__(self) -> str:
        return f"SimulatedRoot({self._host!r})"

    @property
    def real(self) -> bool:
        return False

    @property
    def state_dir(self) -> Path:
        return self._state_dir

    @property
    def clock(self) -> HostClock:
        return self._clock

    # ------------------------------------------------------------------ what goes wrong
    def plant(self, fault: Refuse | Lie) -> None:
        """Have a knob misbehave while the fault lasts; UnknownKnob where this machine has none of that name."""
        path = self._place(find_knob(self, fault.knob).path)
        if isinstance(fault, Refuse):
            self._refusals.append((path, fault))
        else:
            self._lies.append((path, fault))

    def set(self, knob: str, value: str) -> None:
        """Write a knob as another program would, past every fault; ValueError where no kernel would take the value."""
        path = self._place(find_knob(self, knob).path)
        try:
            accepted = self._machine.knobs[path].accept(value.encode(), path)
        except OSError as error:
            raise ValueError(f"{value!r} is not a value of {knob}") from error
        self.catch_up()
        self._values[path] = accepted

    def oops(self, message: str) -> None:
        """Have the kernel cry for help."""
        self._say(message)
        self._taint |= _DIED

    def reboot(self) -> None:
        """Come up anew: another boot id, knobs as at every boot, counters from zero."""
        self._clock.boot()
        self._taint, self._log = 0, b""
        self.response_model.restart(self._clock.monotonic())
        self._boot()

    def _boot(self) -> None:
        self._boots += 1
        self._id = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{self._host} {self._boots} {self._state_dir}"))
        self._values = {path: knob.value for path, knob in self._machine.knobs.items()}
        self._say(f"Linux version {self._machine.kernel}")

    def _say(self, message: str) -> None:
        self._log += f"6,{self._log.count(10)},{int(self._clock.boot_seconds() * 1e6)},-;{message}\n".encode()

    # ------------------------------------------------------------------ SysRoot
    def read(self, path: str) -> bytes:
        return self._source(path)()

    def write(self, path: str, value: bytes) -> None:
        path = self._place(path)
        knob = self._machine.knobs.get(path)
        if knob is None:
            raise refused(errno.EACCES if self.exists(path) else errno.ENOENT, path)
        now = self._clock.monotonic()
        for place, refusal in self._refusals:
            if place == path and refusal.at_seconds <= now < refusal.until_seconds:
                raise refused(refusal.number, path)
        accepted = knob.accept(value, path)
        self.catch_up()
        lie = self._lie(path)
        if lie is None:
            self._values[path] = self._granted(path, knob, accepted)
        elif lie.shows:
            self._values[path] = lie.shows

    def exists(self, path: str) -> bool:
        machine, path = self._machine, self._place(path)
        known = path in machine.knobs or path in machine.texts or path in machine.moving or path in machine.folders
        return known or (path.startswith("perf/") and path[5:] in self.response_model.events())

    def writable(self, path: str) -> bool:
        return self._place(path) in self._machine.knobs

    def names(self, path: str) -> list[str]:
        return sorted(self.response_model.events()) if path == "perf" else list(self._machine.folders.get(path, ()))

    def reader(self, path: str) -> _KnobReader:
        return _KnobReader(self._source(path))

    def _source(self, path: str) -> Callable[[], bytes]:
        """Find what shows a file, as opening it would."""
        path, machine = self._place(path), self._machine
        if (knob := machine.knobs.get(path)) is not None:
            if knob.write_only:
                raise refused(errno.EACCES, path)
            return partial(self._knob, path, knob)
        if (text := machine.texts.get(path)) is not None:
            return text.__bytes__
        if (stat := machine.stats.get(path)) is not None:
            return partial(self._stat, *stat)
        if path.startswith("perf/") and path[5:] in self.response_model.events():
            return partial(self._event, path[5:])
        if path.startswith(HUGETLB) and path in machine.moving:
            return partial(self._free_pages, path.replace("free_hugepages", "nr_hugepages"))
        shows = self._shows.get(path)
        if shows is None:
            raise refused(errno.EISDIR if path in machine.folders else errno.ENOENT, path)
        return shows

    # ------------------------------------------------------------------ what is there
    @property
    def values(self) -> Mapping[str, str]:
        """What each knob file really holds, by its path."""
        return self._values

    def catch_up(self) -> None:
        """Let the model move on to the present."""
        self.response_model.advance(self._clock.monotonic(), self._values)

    @property
    def changed(self) -> bool:
        """Whether any knob holds something else than a boot leaves in it."""
        return any(self._values[path] != knob.value for path, knob in self._machine.knobs.items())

    def _place(self, path: str) -> str:
        return self._machine.same_as.get(path, path)

    def _lie(self, path: str) -> Lie | None:
        now = self._clock.monotonic()
        there = (lie for place, lie in self._lies if place == path and lie.at_seconds <= now < lie.until_seconds)
        return next(there, None)

    def _granted(self, path: str, knob: KnobFile, value: str) -> str:
        if not knob.pool_kib:
            return value
        return str(self.response_model.grant(knob.pool_kib, int(self._values[path]), int(value)))

    # ------------------------------------------------------------------ what files show
    def _knob(self, path: str, knob: KnobFile) -> bytes:
        return knob.text(self._values[path])

    def _stat(self, size_kib: int, stat: str) -> bytes:
        self.catch_up()
        return b"%d\n" % self.response_model.thp_stat(size_kib, stat)

    def _event(self, name: str) -> bytes:
        self.catch_up()
        enabled = int(self._clock.boot_seconds() * 1e9)
        return b"0 %d %d %d\n" % (self.response_model.events()[name], enabled, enabled)

    def _free_pages(self, pool: str) -> bytes:
        return f"{self._values[pool]}\n".encode()

    def _uptime(self) -> bytes:
        return f"{self._clock.boot_seconds():.2f} 0.00\n".encode()

    def _kmsg(self) -> bytes:
        return self._log

    def _tainted(self) -> bytes:
        return b"%d\n" % self._taint

    def _boot_id(self) -> bytes:
        return f"{self._id}\n".encode()

    def _vmstat(self) -> bytes:
        self.catch_up()
        return "".join([f"{name} {count}\n" for name, count in self.response_model.vmstat().items()]).encode()

    def _meminfo(self) -> bytes:
        self.catch_up()
        pools = {knob.pool_kib: int(self._values[path]) for path, knob in self._machine.knobs.items() if knob.pool_kib}
        held_kib = sum(size * pages for size, pages in pools.items())
        sizes = dict(self.response_model.meminfo_kib())
        for name in ("MemFree", "MemAvailable"):
            sizes[name] = max(0, sizes[name] - held_kib)
        lines = [f"{name}: {size} kB\n" for name, size in sizes.items()]
        pages = pools.get(2048, 0)
        lines += [f"HugePages_Total: {pages}\n", f"HugePages_Free: {pages}\n", f"Hugetlb: {held_kib} kB\n"]
        return "".join(lines).encode()
