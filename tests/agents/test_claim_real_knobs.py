"""Claims on this machine's own kernel: 2 MiB THP and real hugetlb pools, given back whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agents.claim import RestoreOutcome, claim_status, closed_journals, take_claim
from agents.errors import KnobNotWritable, KnobRefused, RestoreIncomplete
from agents.knobs import attempt_write, effective_thp, find_knob, find_knobs, read_knob
from agents.messages import Arm, KnobReason
from agents.sysroot import FolderRoot
from tests.agents.claim.claims import reads

pytestmark = [pytest.mark.real_knobs, pytest.mark.usefixtures("real_knobs", "no_guardian_left")]

THP_2M = "thp/2048kB/enabled"
POOL_2M = "hugetlb/2048kB/nr_hugepages"
POOL_1G = "hugetlb/1048576kB/nr_hugepages"
PAGES = 8
MAP_PAGES = f"""
import mmap, sys
MAP_HUGETLB = 0x40000
pages = mmap.mmap(-1, {PAGES} << 21, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_HUGETLB)
for page in range({PAGES}):
    pages[page << 21] = 1
print("mapped", flush=True)
sys.stdin.read()
"""
LAST_SECONDS = 1.5  # from "last" on: until then a test has all the time it needs
AGENT = f"""
import sys
from dataclasses import replace
from agents.claim import take_claim
from agents.host_lock import HostLock
from agents.messages import Arm
from agents.sysroot import FolderRoot

root, knob, value = FolderRoot(), sys.argv[1], sys.argv[2]
claim = take_claim(root, run="r1", owner="agent", knobs=[knob], lease_seconds=60)
claim.apply(Arm(name="treatment", knobs={{knob: value}}))
print("applied", flush=True)
for line in sys.stdin:
    word, _, pid = line.strip().partition(" ")
    if word == "guard":
        claim.guard_process(int(pid))
    elif word == "last":
        claim._header = replace(claim._header, lease_seconds={LAST_SECONDS})
        claim.renew()
    else:
        lock = HostLock(root.state_dir).__enter__()
    print("done", flush=True)
"""
# In a mount namespace of its own, where this machine's state folder is the test's.
OF_THE_TEST = 'mkdir -p /var/lib/fleetexp && mount --bind "$1" /var/lib/fleetexp && shift && exec "$@"'


def start_agent(state: Path, knob: str, value: str) -> subprocess.Popen[str]:
    """Start an agent of this machine itself, whose journal names processes that are this machine's."""
    state.mkdir(parents=True, exist_ok=True)
    return start(AGENT, knob, value, within=("unshare", "--mount", "sh", "-c", OF_THE_TEST, "sh", str(state)))


def needs(root: FolderRoot, *names: str) -> None:
    known = {knob.name for knob in find_knobs(root)}
    if missing := set(names) - known:
        pytest.skip(f"this kernel has no {', '.join(sorted(missing))}")


def start(*arguments: str, within: Sequence[str] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*within, sys.executable, "-c", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=Path(__file__).parents[2],
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def do(agent: subprocess.Popen[str], text: str) -> None:
    assert agent.stdin is not None
    agent.stdin.write(f"{text}\n")
    agent.stdin.flush()
    assert line(agent) == "done"


def test_every_knob_of_this_kernel_reads_and_its_value_is_legal(here: FolderRoot) -> None:
    knobs = find_knobs(here)
    assert THP_2M in {knob.name for knob in knobs}
    for knob in knobs:
        value = read_knob(here, knob)
        change, failure = attempt_write(here, knob, value, KnobReason.APPLY)  # what it holds: nothing is written
        assert failure is None
        assert (change.before, change.after) == (value, value)
        assert knob.choices is None or value in knob.choices


def test_a_period_of_always_and_back(here: FolderRoot) -> None:
    before = reads(here, THP_2M)
    claim = take_claim(here, run="r1", owner="o", knobs=[THP_2M], lease_seconds=60)
    claim.apply(Arm(name="treatment", knobs={THP_2M: "always"}))
    assert effective_thp(here, 2048) == "always"
    assert claim.drift() == ()
    here.write(find_knob(here, THP_2M).path, b"never")
    assert [(one.wanted, one.actual) for one in claim.drift()] == [("always", "never")]
    assert all(change.ok for change in claim.revert())
    claim.release()
    assert reads(here, THP_2M) == before


def test_the_kernel_refuses_what_it_does_not_know(here: FolderRoot) -> None:
    knob = find_knob(here, THP_2M)
    before = read_knob(here, knob)
    _, failure = attempt_write(here, knob, "sometimes", KnobReason.APPLY)
    assert isinstance(failure, KnobRefused)
    assert "Invalid argument" in failure.what
    assert read_knob(here, knob) == before


def test_a_read_only_sysfs_is_named_as_such(here: FolderRoot, mounted: Callable[..., None]) -> None:
    sysfs = str(here.root / "sys")
    mounted("-o", "remount,bind,ro", sysfs)
    with pytest.raises(KnobNotWritable, match="can't be written"):
        take_claim(here, run="r1", owner="o", knobs=[THP_2M], lease_seconds=60)
    _, failure = attempt_write(here, find_knob(here, THP_2M), "always", KnobReason.APPLY)
    assert isinstance(failure, KnobNotWritable)
    assert claim_status(here) is None


@pytest.mark.parametrize(("knob", "value"), [(THP_2M, "always"), (POOL_2M, str(PAGES))])
def test_a_killed_agents_kernel_is_put_back_within_the_promise(
    here: FolderRoot, wait_until: Callable[..., float], knob: str, value: str
) -> None:
    needs(here, knob)
    before = reads(here, knob)
    agent = start_agent(here.state_dir, knob, value)
    assert line(agent) == "applied"
    assert reads(here, knob) == value
    do(agent, "last")
    os.killpg(agent.pid, signal.SIGKILL)
    agent.communicate()
    wait_until(lambda: claim_status(here) is None, within_seconds=LAST_SECONDS + 5.0)
    assert reads(here, knob) == before
    assert closed_journals(here)[0].outcome is RestoreOutcome.LEASE_EXPIRED


def test_pages_that_a_workload_has_mapped_come_back_with_its_end(
    here: FolderRoot, wait_until: Callable[..., float]
) -> None:
    needs(here, POOL_2M)
    before = reads(here, POOL_2M)
    agent = start_agent(here.state_dir, POOL_2M, str(int(before) + PAGES))
    assert line(agent) == "applied"
    workload = start(MAP_PAGES)
    assert line(workload) == "mapped"
    do(agent, f"guard {workload.pid}")
    do(agent, "last")
    os.killpg(agent.pid, signal.SIGKILL)
    agent.communicate()
    wait_until(lambda: claim_status(here) is None, within_seconds=LAST_SECONDS + 5.0)
    assert reads(here, POOL_2M) == before
    assert workload.wait(timeout=5) == -signal.SIGKILL
    workload.communicate()


def test_an_agent_stalled_with_the_lock_of_this_machine_is_killed_before_it_is_undone(
    here: FolderRoot, wait_until: Callable[..., float]
) -> None:
    before = reads(here, THP_2M)
    agent = start_agent(here.state_dir, THP_2M, "always")
    assert line(agent) == "applied"
    do(agent, "last")
    do(agent, "hold")
    agent.send_signal(signal.SIGSTOP)
    wait_until(lambda: claim_status(here) is None, within_seconds=LAST_SECONDS + 5.0)
    assert reads(here, THP_2M) == before
    assert agent.wait(timeout=5) == -signal.SIGKILL
    agent.communicate()


def test_pages_in_use_keep_the_claim_until_they_are_given_back(here: FolderRoot) -> None:
    needs(here, POOL_2M)
    before = reads(here, POOL_2M)
    claim = take_claim(here, run="r1", owner="o", knobs=[POOL_2M], lease_seconds=60)
    claim.apply(Arm(name="treatment", knobs={POOL_2M: str(int(before) + PAGES)}))
    workload = start(MAP_PAGES)
    assert line(workload) == "mapped"
    (change,) = claim.revert()
    assert "are in use" in (change.error or "")
    with pytest.raises(RestoreIncomplete):
        claim.release()
    workload.kill()
    workload.communicate()
    assert claim.revert()[0].ok
    claim.release()
    assert reads(here, POOL_2M) == before


def test_a_pool_of_a_gigabyte_page_is_taken_and_given_back(here: FolderRoot) -> None:
    needs(here, POOL_1G)
    before = reads(here, POOL_1G)
    claim = take_claim(here, run="r1", owner="o", knobs=[POOL_1G, THP_2M], lease_seconds=60)
    try:
        claim.apply(Arm(name="hugetlb", knobs={POOL_1G: str(int(before) + 1)}))
        assert reads(here, POOL_1G) == str(int(before) + 1)
    finally:
        assert all(change.ok for change in claim.revert())
        claim.release()
    assert reads(here, POOL_1G) == before
