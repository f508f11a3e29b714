"""A guest whose kernel oopses in mid-run, beside a host that is well: what the run, and the well host, come to.

The kernel is one whose 1 GB pages can't stand memory pressure; the workload makes that pressure, on the guest alone.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from pathlib import Path
from typing import Any

from fleetexp.store.store import open_store
from tests.lab.mission import JOIN_SECONDS, Lab

WELL, SICK = "web-1", "guest-1"
# On the well host a service that goes on; on the guest a 1 GB page, then ever more memory until the kernel reclaims.
WORK = """\
import ctypes, mmap, platform, time
GIB, STEP = 1 << 30, 64 << 20
ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
print("latency", 2.0, flush=True)
until = time.monotonic() + 5
while platform.node() == "web-1" or time.monotonic() < until:
    print("latency", 2.0, flush=True)
    time.sleep(0.2)
big = mmap.mmap(-1, 2 * GIB, flags=ANONYMOUS)
big[-ctypes.addressof(ctypes.c_char.from_buffer(big)) % GIB] = 1
held = []
while True:
    held.append(mmap.mmap(-1, STEP, flags=ANONYMOUS))
    ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(held[-1])), 1, STEP)
    print("latency", 2.0, flush=True)
"""
SPEC = """\
name: sick-kernel
hypothesis: a kernel that oopses ends the experiment, and the other hosts are put back
design: switchback
population: {{pools: [web, lab]}}
control: small
arms:
  small: {{thp/2048kB/enabled: never}}
  big: {{thp/2048kB/enabled: always}}
assignment: {{seed: 4}}
periods: {{washout: 1s, measure: 600s, blocks: 2, sample_every: 1s}}
workload: {{command: {{argv: [{python}, -I, -S, -c, {work}]}}}}
metrics: {{primary: latency, better: {{latency: decrease}}}}
safety: {{lease: 60s, max_failed_hosts: 0}}
"""
PREPARE = "echo always > /sys/kernel/mm/transparent_hugepage/hugepages-1048576kB/enabled"
CRIES = re.compile(r"^.*(?:BUG:|kernel BUG at|Oops:|general protection|Bad page|Kernel panic).*$", re.MULTILINE)


def spec() -> str:
    return SPEC.format(python=json.dumps(sys.executable), work=json.dumps(WORK))


def sick_guest(folder: Path, kernel: Path, initramfs: Path, arguments: str) -> dict[str, Any]:
    """Lose a guest to its kernel during a run; returns the run's answer, its trail, and what the well host holds."""
    lab = Lab(folder, hosts=1)
    try:
        lab.start()
        well = lab.cluster.nodes[0]
        found = well.holds()
        guest = lab.boot(kernel, initramfs, arguments, name=SICK, memory="5G", prepare=PREPARE)
        lab.timed("the guest has joined", lambda: lab.joined(guest), JOIN_SECONDS)
        run = lab.run(spec())
        with contextlib.closing(open_store(lab.store, create=False)) as store:
            return {
                "run": run,
                "found": found,
                "holds": well.holds(),
                "events": [(event.host, event.kind, event.detail) for event in store.events(1)],
                "audit": store.select("SELECT host, knob, reason, restored FROM knob_audit ORDER BY 1, 2, 3"),
                "console": CRIES.findall(guest.console),
                "seconds": lab.took,
            }
    finally:
        lab.close()
