"""Runs inside a guest: a traced period over programs that split pages, and agents that are killed.

    python guest_splits.py [RESULT.json] KILLS

Not a test itself: `test_splits.py` boots guests, runs this in them and judges what it wrote, or printed where no file
is named. It needs the agent alone.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Any

from agents.claim import claim_status, restore
from agents.host_agent import HostAgent
from agents.messages import Apply, Arm, Begin, Claim, End, HostEvent, Poll, Release, Revert, Sample
from agents.sysroot import FolderRoot
from agents.timeouts import VARIABLE
from agents.traced_calls import COUNTED_AS, Traced
from agents.tracing.functions import find_probes
from tests.lab.guest_swap import swap_on
from tests.lab.split_causes import AT_PMD, AT_PUD, TOO_MUCH, program_of, run_as

ROOT = FolderRoot()
MARK = "splits: "
TRACEFS = Path("/sys/kernel/tracing")
THP = Path("/sys/kernel/mm/transparent_hugepage")
PMD_BYTES = int((THP / "hpage_pmd_size").read_text())
GIB = 1 << 30
HAS_GIB = (THP / "hugepages-1048576kB").exists()
KNOBS = tuple(f"thp/{size >> 10}kB/enabled" for size in (PMD_BYTES, *([GIB] * HAS_GIB)))
LEASE_SECONDS = 25.0  # on a busy machine a guest takes ten for its guardian to start


def left_over() -> list[str]:
    """What of ours stands in the kernel's tracing."""
    found = [path.name for path in (TRACEFS / "instances").iterdir() if path.name.startswith("fleetexp")]
    events = (TRACEFS / "dynamic_events").read_text() + (TRACEFS / "kprobe_events").read_text()
    return found + [line for line in events.splitlines() if "fleetexp" in line]


def counted() -> dict[str, int]:
    lines = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return {name: int(lines[name]) for name in COUNTED_AS.values() if name in lines}


def begin(agent: HostAgent, number: int) -> None:
    agent.handle(
        Begin(
            period_id=number,
            sample_every_seconds=1.0,
            workload=None,
            time_limit_seconds=600,
            trace=(Traced.SPLITS, Traced.STALLS),
        )
    )


def traced() -> dict[str, Any]:
    agent = HostAgent(root=ROOT, host="h1", run="1-lab")
    agent.handle(Claim(run="1-lab", owner="lab", knobs=KNOBS, lease_seconds=600))
    agent.handle(Apply(arm=Arm(name="big", knobs=dict.fromkeys(KNOBS, "madvise"))))
    started = time.monotonic()
    begin(agent, 1)
    took = time.monotonic() - started
    during = left_over()
    seen: dict[str, Any] = {"counters": {}, "begin_seconds": took, "during": during}
    before = counted()
    for level, size, causes in (("pmd", PMD_BYTES, AT_PMD), ("pud", GIB, AT_PUD if HAS_GIB else ())):
        for cause in causes:
            if size > GIB // 4 and cause in TOO_MUCH:
                continue
            now, name = counted(), program_of(level, cause)
            run_as(name, cause, size)
            seen["counters"][name] = {metric: value - now[metric] for metric, value in counted().items()}
            print(name, seen["counters"][name], flush=True)  # noqa: T201
    after = counted()
    ended: Any = agent.handle(End(period_id=1))
    polled: Any = agent.handle(Poll(acknowledged=0))
    samples = [reading.values for reading in polled.readings if isinstance(reading, Sample)]
    events = [reading.detail for reading in polled.readings if isinstance(reading, HostEvent)]
    reverted: Any = agent.handle(Revert())
    agent.handle(Release())
    return {
        **seen,
        "kernel": {name: after[name] - before[name] for name in after},
        "sampled": {name: samples[-1][name] - samples[0][name] for name in after},
        "calls": [asdict(call) for call in ended.calls],
        "invalid": ended.invalid,
        "events": events,
        "changes": [asdict(change) | {"changed_at": ""} for change in reverted.changes],
        "after": left_over(),
    }


def hold(said: int) -> None:
    """Trace period after period, saying how far each is, until this process is killed."""
    agent = HostAgent(root=ROOT, host="h1", run="2-lab")
    agent.handle(Claim(run="2-lab", owner="lab", knobs=KNOBS, lease_seconds=LEASE_SECONDS))
    for number in itertools.count(1):
        agent.handle(Poll(acknowledged=0))
        os.write(said, b"begins\n")
        begin(agent, number)
        os.write(said, b"begun\n")
        agent.handle(Poll(acknowledged=0))
        os.write(said, b"ends\n")
        agent.handle(End(period_id=number))


class Doing(StrEnum):
    """What an agent is about when it is killed."""

    PLACING = "placing"
    TRACING = "tracing"
    REMOVING = "removing"


_BEFORE = {Doing.PLACING: "begins", Doing.TRACING: "begun", Doing.REMOVING: "ends"}  # what it says just before


def moments(kills: int, most: int) -> list[tuple[Doing, int, bool]]:
    """Spread kills over what a period does; `most`: how many lines of ours stand in tracefs while it is traced.

    Each has how many lines the agent is killed at, and whether its guardian is killed as well: every other time.
    """
    doing = itertools.cycle((Doing.PLACING, Doing.REMOVING, Doing.PLACING, Doing.REMOVING, Doing.TRACING))
    drawn = random.Random(kills)
    found = list(itertools.islice(doing, kills))
    return [(one, drawn.randrange(1, most), number % 2 == 1) for number, one in enumerate(found)]


def killed(doing: Doing, lines: int, alone: bool) -> dict[str, Any]:
    """Kill an agent at a moment of a traced period, with its guardian where `alone`; what is left then."""
    said, saying = os.pipe()
    agent = os.fork()
    if agent == 0:
        try:
            hold(saying)
        finally:
            os._exit(1)
    os.close(saying)
    with os.fdopen(said) as words:
        assert any(line == f"{_BEFORE[doing]}\n" for line in words), "the agent has ended"
        stood, until = len(left_over()), time.monotonic() + 60
        while time.monotonic() < until and (
            (doing is Doing.PLACING and stood < lines) or (doing is Doing.REMOVING and stood > lines)
        ):
            stood = len(left_over())
        os.kill(agent, signal.SIGKILL)
        os.waitpid(agent, 0)
    status = claim_status(ROOT)
    if alone and status is not None and status.guardian_pid is not None:
        subprocess.run(["kill", "-9", str(status.guardian_pid)], check=False)
        restored = restore(ROOT, force=True)
        changes = [(change.knob, change.after, change.error) for change in restored]
    else:
        until = time.monotonic() + 3 * LEASE_SECONDS
        while claim_status(ROOT) is not None and time.monotonic() < until:
            time.sleep(0.1)
        changes = []
    return {
        "doing": doing,
        "alone": alone,
        "stood": stood,
        "left": left_over(),
        "changes": changes,
        "claim": claim_status(ROOT) is not None,
    }


def main() -> None:
    *file, kills = sys.argv[1:]
    if HAS_GIB:
        swap_on("3G")  # what reclaim splits it pages out
    probes, missing = find_probes(ROOT, tuple(Traced))
    seen = traced()
    out = {
        "probes": [asdict(probe) for probe in probes],
        "missing": [asdict(one) for one in missing],
        "traced": seen,
        "killed": [killed(*moment) for moment in moments(int(kills), len(seen["during"]))],
    }
    if file:
        Path(file[0]).write_text(json.dumps(out))
    else:
        print(MARK + json.dumps(out))  # noqa: T201


if __name__ == "__main__":
    os.environ[VARIABLE] = "6"  # under emulation, on a busy machine, a guardian takes its time to start
    main()
