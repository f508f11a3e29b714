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

from fleetexp.lab.guest import Guest, GuestState
from fleetexp.lab.joining import PATIENT, RayHead, joining_script
from fleetexp.lab.machine import Hardware, KernelImage, with_our_init
from fleetexp.lab.network import Network
from fleetexp.store.store import open_store
from tests.lab.mission import JOIN_SECONDS, RUN_SECONDS, answer, database, run_words
from tests.ray_cluster import Cluster, until

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
# Swap, so that there is something to reclaim.
PREPARE = """\
echo 3G >/sys/block/zram0/disksize && mkswap /dev/zram0 && swapon /dev/zram0
for size in . hugepages-1048576kB; do echo always >/sys/kernel/mm/transparent_hugepage/$size/enabled; done
"""
CRIES = re.compile(r"^.*(?:BUG:|kernel BUG at|Oops:|general protection|Bad page|Kernel panic).*$", re.MULTILINE)


def spec() -> str:
    return SPEC.format(python=json.dumps(sys.executable), work=json.dumps(WORK))


def sick_guest(folder: Path, kernel: KernelImage) -> dict[str, Any]:
    """Lose a guest to its kernel during a run; returns the run's answer, its trail, and what the well host holds."""
    cluster = Cluster(folder / "cluster", hosts=1, environment=PATIENT)
    network = Network(space=cluster.net, prefix=cluster.head.address.rpartition(".")[0])
    guest = Guest(SICK, 101, folder / SICK)
    try:
        cluster.start()
        (well,) = cluster.nodes
        found = well.holds()
        guest.folder.mkdir()
        script = joining_script(
            RayHead(address=cluster.address, token=cluster.token, folder=Path("/tmp/ray")),
            name=SICK,
            address=network.address(guest.number),
            prepare=PREPARE,
        )
        hardware = Hardware(memory_bytes=5 * 2**30)
        guest.start(network, with_our_init(kernel, guest.folder), hardware, script)
        until(lambda: guest.state is not GuestState.BOOTING, JOIN_SECONDS, "the guest has joined")
        if guest.state is not GuestState.JOINED:
            raise guest.failed()
        with database() as url:
            words = [*run_words(folder, spec(), url), "--address", cluster.address]
            run = answer(*cluster.said(words, within=RUN_SECONDS))
            with contextlib.closing(open_store(url, create=False)) as store:
                return {
                    "run": run,
                    "found": found,
                    "holds": well.holds(),
                    "events": [(event.host, event.kind, event.detail) for event in store.events(1)],
                    "audit": store.select("SELECT host, knob, reason, restored FROM knob_audit ORDER BY 1, 2, 3"),
                    "console": CRIES.findall(guest.console),
                }
    finally:
        guest.stop()
        cluster.close()
