"""The root of a simulated host: knobs with a kernel's manners, and counters that move by a law."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Mapping
from pathlib import Path

from agents.knobs import find_knob
from agents.simulated.clock import HostClock
from agents.simulated.faults import Lie, Refuse
from agents.simulated.files import HUGETLB, THP, KnobFile, Machine, refused
from agents.simulated.law import Law

_DIED = 1 << 7  # taint: the kernel died recently


class _Reader:
    """A file of the model, read anew each time."""

    __slots__ = ("_path", "_root")

    def __init__(self, root: SimulatedRoot, path: str) -> None:
        self._root = root
        self._path = path

    def read(self) -> bytes:
        return self._root.read(self._path)

    def close(self) -> None:
        """Nothing is held."""


class SimulatedRoot:
    """A `SysRoot` in memory. `state_dir` is a real folder: journals and leases are real files there."""

    def __init__(self, machine: Machine, law: Law, *, host: str, clock: HostClock, state_dir: Path) -> None:
        self.law = law
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
        self.law.restart(self._clock.monotonic())
        self._boot()

    def _boot(self) -> None:
        self._boots += 1
        self._boot_id = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{self._host} {self._boots} {self._state_dir}"))
        self._values = {path: knob.value for path, knob in self._machine.knobs.items()}
        self._say(f"Linux version {self._machine.kernel}")

    def _say(self, message: str) -> None:
        self._log += f"6,{self._log.count(10)},{int(self._clock.boot_seconds() * 1e6)},-;{message}\n".encode()

    # ------------------------------------------------------------------ SysRoot
    def read(self, path: str) -> bytes:
        path = self._place(path)
        knob = self._machine.knobs.get(path)
        if knob is not None:
            if knob.write_only:
                raise refused(errno.EACCES, path)
            return knob.text(self._values[path])
        text = self._machine.texts.get(path)
        return text if text is not None else self._moving(path)

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
        return known or (path.startswith("perf/") and path[5:] in self.law.events())

    def writable(self, path: str) -> bool:
        return self._place(path) in self._machine.knobs

    def names(self, path: str) -> list[str]:
        return sorted(self.law.events()) if path == "perf" else list(self._machine.folders.get(path, ()))

    def reader(self, path: str) -> _Reader:
        self.read(path)  # as opening would fail
        return _Reader(self, path)

    # ------------------------------------------------------------------ what is there
    @property
    def values(self) -> Mapping[str, str]:
        """What each knob file really holds, by its path."""
        return self._values

    def catch_up(self) -> None:
        """Let the law move on to the present."""
        self.law.advance(self._clock.monotonic(), self._values)

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
        return str(self.law.grant(knob.pool_kib, int(self._values[path]), int(value)))

    def _moving(self, path: str) -> bytes:
        self.catch_up()
        if path.startswith(THP):  # .../hugepages-<N>kB/stats/<stat>
            _, _, rest = path.partition("hugepages-")
            size, _, stat = rest.partition("kB/stats/")
            if path in self._machine.moving:
                return b"%d\n" % self.law.thp_stat(int(size), stat)
        if path == "proc/vmstat":
            return "".join([f"{name} {count}\n" for name, count in self.law.vmstat().items()]).encode()
        if path == "proc/meminfo":
            return self._meminfo()
        if path.startswith("perf/") and path[5:] in (events := self.law.events()):
            enabled = int(self._clock.boot_seconds() * 1e9)
            return b"0 %d %d %d\n" % (events[path[5:]], enabled, enabled)
        if path.startswith(HUGETLB) and path in self._machine.moving:
            return f"{self._values[path.replace('free_hugepages', 'nr_hugepages')]}\n".encode()
        return self._state(path)

    def _state(self, path: str) -> bytes:
        match path:
            case "dev/kmsg":
                return self._log
            case "proc/uptime":
                return f"{self._clock.boot_seconds():.2f} 0.00\n".encode()
            case "proc/sys/kernel/hostname":
                return f"{self._host}\n".encode()
            case "proc/sys/kernel/tainted":
                return b"%d\n" % self._taint
            case "proc/sys/kernel/random/boot_id":
                return f"{self._boot_id}\n".encode()
        raise refused(errno.EISDIR if path in self._machine.folders else errno.ENOENT, path)

    def _meminfo(self) -> bytes:
        pools = {knob.pool_kib: int(self._values[path]) for path, knob in self._machine.knobs.items() if knob.pool_kib}
        held_kib = sum(size * pages for size, pages in pools.items())
        sizes = dict(self.law.meminfo_kib())
        for name in ("MemFree", "MemAvailable"):
            sizes[name] = max(0, sizes[name] - held_kib)
        lines = [f"{name}: {size} kB\n" for name, size in sizes.items()]
        pages = pools.get(2048, 0)
        lines += [f"HugePages_Total: {pages}\n", f"HugePages_Free: {pages}\n", f"Hugetlb: {held_kib} kB\n"]
        return "".join(lines).encode()
