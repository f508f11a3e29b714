"""Runs inside the guest with a PMU: answers the calls that come through its virtio port, each in a thread of its own.

Not a test itself: `pmu_guest.py` boots the guest and calls, `test_pmu.py` judges. `agents` is the project's own.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any
from unittest import mock

from agents.claim import ClaimStatus, claim_status
from agents.collectors import Collectors
from agents.facts import survey
from agents.host_agent import HostAgent
from agents.messages import HostFacts, Reply, Request
from agents.perf import PerfCounters, PerfEvent, open_counters
from agents.perf.group import EventGroup
from agents.perf.multiplexing import Turns, try_turns
from agents.sysroot import FolderRoot

PORT = Path("/dev/vport0p1")
LENGTH = struct.Struct("<I")  # of a message that follows: pickled (number, function, arguments) or (number, answer)
ROOT = FolderRoot()
PROGRAM = Path(__file__).with_name("page_stride.py")
CGROUPS = Path("/sys/fs/cgroup")
_LINE = re.compile(r"(?m)^(\d+),,([A-Za-z-]+),\d+,([\d.]+),")  # of `perf stat -x,`: count, event, % of time on the PMU

Program = tuple[int, int]  # MiB, repeats
_agents: dict[str, HostAgent] = {}


# ------------------------------------------------------------------ what can be called
def counted(metrics: Sequence[str], program: Program, beside: int = 0) -> dict[str, Any]:
    """Count a program with the agent's collectors; `beside`: so many more of them count the same at that time."""
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(contextlib.closing(Collectors(ROOT))) for _ in range(beside)]
        ours = stack.enter_context(contextlib.closing(Collectors(ROOT)))
        before = ours.sample()
        _run(program)
        after = ours.sample()
        for other in others:
            other.sample()
        return _seen(metrics, before, after, ours.unavailable)


def counted_in_cgroup(metrics: Sequence[str], program: Program) -> dict[str, Any]:
    """Count a program in a cgroup with the cgroup's counters of the agent, while another runs outside of it.

    Without the host's counters, which an agent has open too: this CPU has one counter for each kind of event.
    """
    cgroup = CGROUPS / "work"
    cgroup.mkdir(exist_ok=True)
    with (
        contextlib.closing(open_counters(ROOT, cgroup=cgroup, prefix="cgroup_", wanted=metrics)) as ours,
        _running(program),
    ):
        before: dict[str, float] = {}
        after: dict[str, float] = {}
        ours.collect(before)
        _run(program, cgroup)
        ours.collect(after)
        return _seen(metrics, before, after, ours.unavailable)


def counted_in_groups(metrics: Sequence[str], program: Program) -> dict[str, Any]:
    """Count a program with these events alone; tells how many groups there are, and what they do not hold."""
    with contextlib.closing(PerfCounters(ROOT, metrics)) as ours:
        before: dict[str, float] = {}
        after: dict[str, float] = {}
        ours.collect(before)
        _run(program)
        ours.collect(after)
        groups = len(ours.descriptors) // (os.cpu_count() or 1)
        return {**_seen(metrics, before, after, ours.unavailable), "groups": groups, "apart": ours.apart}


def counted_together(metrics: Sequence[str], program: Program, beside: int = 0) -> dict[str, Any]:
    """The same of events in one group; `beside`: so many more such groups take turns with it."""

    def grouped_together(events: Sequence[PerfEvent], *_: object, floor: float) -> list[EventGroup]:
        return [EventGroup(events, floor=floor)]

    with mock.patch("agents.perf.counters.grouped", grouped_together), contextlib.ExitStack() as stack:
        for _ in range(beside):
            stack.enter_context(contextlib.closing(PerfCounters(ROOT, metrics)))
        return counted_in_groups(metrics, program)


def counted_twice(metric: str, program: Program) -> dict[str, Any]:
    """The same of one event that is to stand twice in one group."""

    def grouped_twice(events: Sequence[PerfEvent], *_: object, floor: float) -> list[EventGroup]:
        return [EventGroup([events[0], replace(events[0], name="again")], floor=floor)]

    with mock.patch("agents.perf.counters.grouped", grouped_twice):
        return counted_in_groups([metric], program)


def forecast(wanted: Sequence[str]) -> Turns:
    """What preflight finds out about these metrics."""
    return try_turns(ROOT, wanted)


def perf_stat(events: Sequence[str], program: Program, everywhere: bool = True) -> dict[str, tuple[float, float]]:
    """Count a program with `perf stat`, on all CPUs or its own task; returns count and share of time counted."""
    words = ["perf", "stat", "-x,", *(["-a"] if everywhere else []), "-e", ",".join(events), *_command(program)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return {event: (float(count), float(share) / 100) for count, event, share in _LINE.findall(done.stderr)}


def serve(knob: str) -> None:
    """Start the program that touches what a knob says, until this guest ends; little as it is found."""
    Path(knob).write_text("never")
    subprocess.Popen([sys.executable, "-S", str(PROGRAM), knob])


def look(host: str) -> tuple[HostFacts, ClaimStatus | None]:
    """Survey this machine, and who holds it."""
    return survey(ROOT, host=host, labels={}), claim_status(ROOT)


def hire(host: str, run: str) -> None:
    """Make the agent that `ask` asks."""
    _agents[run] = HostAgent(root=ROOT, host=host, run=run)


def ask(run: str, request: Request) -> Reply:
    return _agents[run].handle(request)


def dismiss(run: str, how: str) -> None:
    """End the agent by its method of this name: close or abandon."""
    getattr(_agents[run], how)()


# ------------------------------------------------------------------ how
def _seen(
    metrics: Sequence[str], before: Mapping[str, float], after: Mapping[str, float], unavailable: Mapping[str, str]
) -> dict[str, Any]:
    """What was counted since `before`, the times on the PMU too; what was not valid then is counted from the start."""
    names = (*metrics, *(f"{name}_time_{state}_seconds" for name in metrics for state in ("enabled", "running")))
    return {
        "counts": {name: after[name] - before.get(name, 0.0) for name in names if name in after},
        "unavailable": {name: reason for name, reason in unavailable.items() if name in metrics},
    }


def _command(program: Program) -> list[str]:
    return [sys.executable, "-S", str(PROGRAM), *map(str, program)]


def _run(program: Program, cgroup: Path | None = None) -> None:
    words = _command(program)
    if cgroup is not None:
        words = ["sh", "-c", f'echo $$ >{cgroup / "cgroup.procs"} && exec "$@"', "sh", *words]
    subprocess.run(words, check=True)


@contextlib.contextmanager
def _running(program: Program) -> Iterator[None]:
    """The program runs, again and again, meanwhile."""
    with subprocess.Popen(
        ["sh", "-c", 'while "$@"; do :; done', "sh", *_command(program)], start_new_session=True
    ) as it:
        try:
            yield
        finally:
            os.killpg(it.pid, 9)


def main() -> None:
    writing = threading.Lock()
    with PORT.open("r+b", buffering=0) as port:

        def answer(number: int, function: str, arguments: Sequence[Any]) -> None:
            found: Any
            try:
                found = globals()[function](*arguments)
            except Exception as error:
                found = error
            message = pickle.dumps((number, found))
            with writing:
                _write(port, LENGTH.pack(len(message)) + message)

        _write(port, b"!")
        while (size := LENGTH.unpack(_read(port, LENGTH.size))[0]) > 0:
            threading.Thread(target=answer, args=pickle.loads(_read(port, size)), daemon=True).start()  # noqa: S301


def _read(port: IO[bytes], size: int) -> bytes:
    found = b""
    while len(found) < size:
        found += port.read(size - len(found)) or b""
    return found


def _write(port: IO[bytes], data: bytes) -> None:
    while data:
        data = data[port.write(data) :]


if __name__ == "__main__":
    main()
