"""Runs inside an arm64 guest with 64 KiB pages: the agent's map, two arms with a period each, and a guardian's work.

Not a test itself: `test_64k_pages.py` boots the guest, runs this in it and judges what it printed. It needs the agent
alone, which is plain Python.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import gc
import mmap
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agents.claim import claim_status
from agents.collectors import Collectors
from agents.facts import survey
from agents.host_agent import HostAgent
from agents.messages import Apply, Arm, Begin, Claim, End, Poll, Release, Revert
from agents.sysroot import FolderRoot

MARK = "readings: "
SIZE_KIB = 524288
SIZE = SIZE_KIB * 1024
NAME = f"thp/{SIZE_KIB}kB/enabled"
FOLDER = Path(f"/sys/kernel/mm/transparent_hugepage/hugepages-{SIZE_KIB}kB")
SWITCH = FOLDER / "enabled"
# With the kernel's own 8191, khugepaged makes a page of any 64 KiB that are touched; the ARM rollout ran with 0 too.
SPARSE = FOLDER.parent / "khugepaged/max_ptes_none"
LEASE_SECONDS = 10.0
PAGES = 4  # touched in the second period, one after the other
_PAUSE = 1.6  # between them: more than two samples
ROOT = FolderRoot()


def kernel() -> dict[str, Any]:
    """What the kernel itself says now."""
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    stats = {name: int((FOLDER / "stats" / name).read_text()) for name in ("anon_fault_alloc", "nr_anon")}
    return {**stats, "anon_huge_kib": int(meminfo["AnonHugePages"].split()[0]), "switch": SWITCH.read_text().strip()}


@contextlib.contextmanager
def aligned(pages: int) -> Iterator[tuple[mmap.mmap, int]]:
    """Map so many huge pages meanwhile; gives the memory, and where in it the first one begins."""
    memory = mmap.mmap(-1, (pages + 1) * SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    seen = ctypes.c_char.from_buffer(memory)
    first = -ctypes.addressof(seen) % SIZE
    del seen
    gc.collect()  # an object of ctypes that looks at the memory keeps it mapped
    with memory:
        yield memory, first


def period(agent: HostAgent, number: int, value: str, pages: int) -> dict[str, Any]:
    """Hold an arm, measure a period over the touch of so many pages; returns the kernel's own counts around it."""
    agent.handle(Apply(arm=Arm(name=value, knobs={NAME: value})))
    before = kernel()
    agent.handle(Begin(period_id=number, sample_every_seconds=0.5, workload=None, time_limit_seconds=60))
    with aligned(pages) as (memory, first):
        time.sleep(_PAUSE)
        for page in range(pages):
            memory[first + page * SIZE] = 1
            time.sleep(_PAUSE)
        during = kernel()
        ended: Any = agent.handle(End(period_id=number))
    return {"before": before, "during": during, "invalid": ended.invalid}


def measured() -> dict[str, Any]:
    agent = HostAgent(root=ROOT, host="h1", run="1-lab")
    agent.handle(Claim(run="1-lab", owner="lab", knobs=(NAME,), lease_seconds=60))
    periods = {1: period(agent, 1, "never", 1), 2: period(agent, 2, "always", PAGES)}
    polled: Any = agent.handle(Poll(acknowledged=0))
    reverted: Any = agent.handle(Revert())
    agent.handle(Release())
    return {"periods": periods, "readings": polled.readings, "reverted": reverted.ok, "switch": kernel()["switch"]}


def steps() -> list[dict[str, float]]:
    """Sample right after each page's touch: a spare that came with it waits on the CPU's list, a second or so."""
    SWITCH.write_text("always")
    with aligned(PAGES) as (memory, first), contextlib.closing(Collectors(ROOT)) as collectors:
        samples = [collectors.sample()]
        for page in range(PAGES):
            memory[first + page * SIZE] = 1
            samples.append(collectors.sample())
    SWITCH.write_text("inherit")
    return samples


def hold() -> None:
    """Claim this machine, change it, and keep it so: whoever started this kills it."""
    agent = HostAgent(root=ROOT, host="h1", run="2-lab")
    agent.handle(Claim(run="2-lab", owner="lab", knobs=(NAME,), lease_seconds=LEASE_SECONDS))
    agent.handle(Apply(arm=Arm(name="always", knobs={NAME: "always"})))
    print("held", flush=True)  # noqa: T201
    while True:
        agent.handle(Poll(acknowledged=0))
        time.sleep(0.5)


def killed() -> dict[str, Any]:
    """Kill an agent that holds this machine changed, and watch the setting."""
    with subprocess.Popen([sys.executable, __file__, "hold"], stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        agent.stdout.readline()
        held = kernel()["switch"]
        agent.send_signal(signal.SIGKILL)
        agent.wait()
    since = time.monotonic()
    while kernel()["switch"] == held and time.monotonic() < since + 60:
        time.sleep(0.2)
    seconds = time.monotonic() - since
    while claim_status(ROOT) is not None and time.monotonic() < since + 60:
        time.sleep(0.2)
    return {"held": held, "switch": kernel()["switch"], "seconds": seconds, "claim": claim_status(ROOT)}


def main() -> None:
    SPARSE.write_text("0")
    facts, switch = survey(ROOT, host="h1"), kernel()["switch"]
    result = {"found": switch, "facts": facts, "steps": steps(), **measured(), "killed": killed()}
    print(MARK + base64.b64encode(pickle.dumps(result)).decode())  # noqa: T201


if __name__ == "__main__":
    hold() if sys.argv[1:] == ["hold"] else main()
