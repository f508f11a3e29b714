"""Runs inside a guest: a traced period over programs that split pages, and agents that are killed.

    python guest_splits.py ROUNDS [RESULT.json]

Not a test itself: `test_splits.py` boots guests, runs this in them and judges what it wrote, or printed where no file
is named. `hold` as argument: an agent that traces period after period until it is killed. It needs the agent alone.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agents import guardian_start
from agents.claim import claim_status, restore
from agents.host_agent import HostAgent
from agents.messages import Apply, Arm, Begin, Claim, End, HostEvent, Poll, Release, Revert, Sample
from agents.sysroot import FolderRoot
from agents.traced_calls import COUNTED_AS, Traced
from agents.tracing.functions import find_probes
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


def hold() -> None:
    agent = HostAgent(root=ROOT, host="h1", run="2-lab")
    agent.handle(Claim(run="2-lab", owner="lab", knobs=KNOBS, lease_seconds=LEASE_SECONDS))
    print("held", flush=True)  # noqa: T201
    number = 0
    while True:
        number += 1
        agent.handle(Poll(acknowledged=0))
        begin(agent, number)
        agent.handle(Poll(acknowledged=0))
        agent.handle(End(period_id=number))


def killed(seed: int) -> dict[str, Any]:
    """Kill an agent while it places probes or traces, every other time with its guardian; what is left then."""
    draw = random.Random(seed)
    with subprocess.Popen([sys.executable, __file__, "hold"], stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        agent.stdout.readline()
        until = time.monotonic() + 120
        for pause in (draw.uniform(0.0, 3.0), 0.0):  # and not between two periods, when nothing is there
            while not left_over() and time.monotonic() < until:
                time.sleep(0.001)
            time.sleep(pause)
        agent.kill()
        agent.wait()
    at_death = left_over()
    status = claim_status(ROOT)
    alone = seed % 2 == 1
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
        "alone": alone,
        "at_death": at_death,
        "left": left_over(),
        "changes": changes,
        "claim": claim_status(ROOT) is not None,
    }


def main() -> None:
    rounds, *file = sys.argv[1:]
    probes, missing = find_probes(ROOT, tuple(Traced))
    seen = traced()
    out = {
        "probes": [asdict(probe) for probe in probes],
        "missing": [asdict(one) for one in missing],
        "traced": seen,
        "killed": [killed(seed) for seed in range(int(rounds))],
    }
    if file:
        Path(file[0]).write_text(json.dumps(out))
    else:
        print(MARK + json.dumps(out))  # noqa: T201


if __name__ == "__main__":
    guardian_start.READY_WITHIN_SECONDS = 90.0  # under emulation, on a busy machine, it takes its time
    hold() if sys.argv[1:] == ["hold"] else main()
