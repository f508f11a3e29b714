"""The mission, whole, on guests of a lab: over Ray and PostgreSQL 1 GB pages are counted as their kernel counts them.

And a kernel that oopses ends the run, while the host beside it is put back.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from pathlib import Path

import pytest

from fleetexp.lab.machine import KernelImage
from fleetexp.store.store import open_store
from tests.lab.booted_lab import BootedLab, booting
from tests.postgresql_server import Server

pytestmark = [
    pytest.mark.lab,
    pytest.mark.ray,
    pytest.mark.postgresql,
    pytest.mark.slow,
    pytest.mark.timeout(3600),  # a quarter of it on a machine with two idle cores
]
GIB = 2**30
BIG_KNOB = "/sys/kernel/mm/transparent_hugepage/hugepages-1048576kB/enabled"
MISSION = """\
name: mission-1g
hypothesis: an experiment over a Ray cluster reaches a kernel with 1 GB pages and says what it did
design: switchback
population: {pools: [lab]}
control: small
arms:
  small: {thp/1048576kB/enabled: never, thp/2048kB/enabled: always}
  big: {thp/1048576kB/enabled: always, thp/2048kB/enabled: always}
assignment: {seed: 4}
periods: {washout: 1s, measure: 30s, blocks: 2, sample_every: 1s}
workload: {pointer_chase: {region: 1GiB, page_size: 1GiB, dereferences: 20000, pretouch: false}}
metrics: {primary: access_nanoseconds_per_dereference, secondary: [fault_seconds]}
safety: {lease: 120s, max_failed_hosts: 1}
"""
WELL, SICK = "lab-1", "lab-2"
# On the well host a service that goes on; on the other a 1 GB page, then ever more memory until the kernel reclaims,
# which is what this kernel's 1 GB pages can't stand.
WORK = """\
import ctypes, mmap, platform, time
GIB, STEP = 1 << 30, 64 << 20
ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
print("latency", 2.0, flush=True)
until = time.monotonic() + 5
while platform.node() == "lab-1" or time.monotonic() < until:
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
# A 1 GB page from the start, and swap: where nothing can be paged out no page is split to be so.
PRESSED = f"""\
echo always >{BIG_KNOB}
echo 3G >/sys/block/zram0/disksize && mkswap /dev/zram0 >/dev/null && swapon /dev/zram0
"""
SICK_SPEC = f"""\
name: sick-kernel
hypothesis: a kernel that oopses ends the experiment, and the other hosts are put back
design: switchback
population: {{pools: [lab]}}
control: small
arms:
  small: {{thp/2048kB/enabled: never}}
  big: {{thp/2048kB/enabled: always}}
assignment: {{seed: 4}}
periods: {{washout: 1s, measure: 600s, blocks: 2, sample_every: 1s}}
workload: {{command: {{argv: [{json.dumps(sys.executable)}, -I, -S, -c, {json.dumps(WORK)}]}}}}
metrics: {{primary: latency, better: {{latency: decrease}}}}
safety: {{lease: 60s, max_failed_hosts: 0}}
"""
CRIES = re.compile(r"^.*(?:BUG:|kernel BUG at|Oops:|general protection|Bad page|Kernel panic).*$", re.MULTILINE)


@pytest.fixture
def database(postgresql: Server) -> str:
    """A PostgreSQL database of the test's own, which the lab's network reaches by its socket."""
    return postgresql.by_socket(postgresql.new_database())


def image_of(lab: Path, name: str) -> KernelImage:
    return KernelImage(image=lab / name, initramfs=lab / "initramfs.cpio.gz")


def test_a_switchback_over_ray_on_a_1g_kernel_stores_in_postgresql_what_the_kernel_counted(
    lab: Path, tmp_path: Path, database: str
) -> None:
    options = ("--hosts", "1", "--memory", "8GiB", "--timeout", "30m")
    with booting(tmp_path, image_of(lab, "bzImage-pud"), *options) as process:
        booted = BootedLab.joined(tmp_path, process)
        run = booted.run(MISSION, database)
        before, after = booted.noted(booted.record.guests[0])
    assert (run["code"], run["out"]["state"]) == (0, "completed"), run
    with contextlib.closing(open_store(database, create=False)) as store:
        periods = store.select(
            "SELECT p.arm, max(s.thp_1048576kb_anon_fault_alloc) - min(s.thp_1048576kb_anon_fault_alloc),"
            " max(s.thp_split_pud) - min(s.thp_split_pud), count(*) FROM period p"
            " JOIN sample s ON s.period_id = p.period_id"
            " WHERE p.kind = 'measure' AND p.state = 'complete' GROUP BY p.period_id, p.arm ORDER BY p.period_id"
        )
        backed = store.select(
            "SELECT arm, max(maximum) FROM period_metrics WHERE metric = 'thp_1048576kB_backed_bytes'"
            " AND kind = 'measure' AND state = 'complete' GROUP BY arm ORDER BY arm"
        )
        not_restored = store.select("SELECT count(*) FROM knob_audit WHERE restored = 'no'")[0][0]

    assert sorted(arm for arm, *_ in periods) == ["big", "big", "small", "small"]
    allocated = {arm: [rise for own, rise, *_ in periods if own == arm] for arm in ("small", "big")}
    kernel = {name: after["counters"][name] - found for name, found in before["counters"].items()}
    assert allocated["small"] == [0, 0]
    assert sum(allocated["big"]) == kernel["anon_fault_alloc"] > 0
    assert dict(map(tuple, backed)) == {"big": GIB, "small": 0}

    assert min(samples for *_, samples in periods) >= 5, "too few samples for the claim that sampling splits nothing"
    assert [splits for _, _, splits, _ in periods] == [0, 0, 0, 0], "sampling split the pages that it looks at"
    assert kernel["thp_split_pud"] == 0
    assert after["knobs"] == before["knobs"]
    assert BIG_KNOB in before["knobs"]
    assert not_restored == 0
    assert list((tmp_path / "reports").glob("*.html")), "no report was made"


def test_a_kernel_that_oopses_ends_the_run_and_the_host_beside_it_is_put_back(
    lab: Path, tmp_path: Path, database: str
) -> None:
    options = ("--hosts", "2", "--memory", "5GiB", "--timeout", "30m")
    with booting(tmp_path, image_of(lab, "bzImage-pud-rfc-only"), *options, prepare=PRESSED) as process:
        booted = BootedLab.joined(tmp_path, process)
        run = booted.run(SICK_SPEC, database)
        well, sick = booted.record.guests
        before, after = booted.noted(well)
        console = sick.console
    with contextlib.closing(open_store(database, create=False)) as store:
        events = [(event.host, event.kind) for event in store.events(1)]
        audit = store.select("SELECT host, reason, restored FROM knob_audit")
    seen = {"run": run, "events": events, "audit": audit}

    assert any("Oops" in cry for cry in CRIES.findall(console)), console[-4000:]
    noticed = {kind for host, kind in events if host == SICK}
    state = run["out"]["state"]
    if noticed & {"kernel_oops", "bad_page", "taint"}:  # its agent lived to tell; it may still have died of it later
        assert "guardrail_breached" in noticed, seen
        assert state == "halted" or (state, "host_lost" in noticed) == ("restore_incomplete", True), seen
    else:
        assert state == "restore_incomplete", seen
        assert "host_lost" in noticed, seen
    assert "host_lost" not in {kind for host, kind in events if host == WELL}

    assert after["knobs"] == before["knobs"], "the host beside it was left changed"
    written = {(reason, restored) for host, reason, restored in audit if host == WELL}
    assert written == {("apply", "yes"), ("revert", "yes")}, seen
