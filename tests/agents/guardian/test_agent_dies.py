"""Whoever dies or stalls, the host is as it was found within lease + 5 s. Real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.claim import RestoreOutcome, claim_status, closed_journals
from agents.messages import KnobReason
from agents.process import is_alive
from tests.agents.guardian.agent_process import (
    LAST_SECONDS,
    LEASE_SECONDS,
    PROMISE_SECONDS,
    Agent,
    HostTree,
    Wait,
    only_closed,
    reads,
)
from tests.naps import napping, new_nap

pytestmark = pytest.mark.usefixtures("no_guardian_left")


def test_a_killed_agents_host_is_undone_when_its_lease_runs_out(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait
) -> None:
    root = host_tree()
    agent = agent_on(root)
    assert agent.tell("apply always") == "ok"
    agent.let_lease_end()
    agent.kill()
    assert reads(root) == "always"
    wait_until(lambda: claim_status(root) is None, within_seconds=LAST_SECONDS + PROMISE_SECONDS)
    assert reads(root) == "inherit"
    assert only_closed(root) == (
        RestoreOutcome.LEASE_EXPIRED,
        f"the lease of {LEASE_SECONDS:g} s ran out; the agent is dead",
    )
    (change,) = closed_journals(root)[0].changes[1:]
    assert (change.before, change.after, change.reason) == ("always", "inherit", KnobReason.GUARDIAN)
    wait_until(lambda: not is_alive(agent.guardian))


def test_the_promise_holds_on_a_machine_that_is_busy(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait
) -> None:
    root = host_tree()
    agent = agent_on(root)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4 * (os.cpu_count() or 1))]
    try:
        assert agent.tell("apply always") == "ok"
        agent.let_lease_end()
        agent.kill()
        wait_until(lambda: reads(root) == "inherit", within_seconds=LAST_SECONDS + PROMISE_SECONDS)
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_a_renewed_lease_does_not_run_out(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait
) -> None:
    root = host_tree()
    agent = agent_on(root)
    assert agent.tell("apply always") == "ok"
    agent.let_lease_end()
    deadline = 2 * LAST_SECONDS
    started = os.times().elapsed
    wait_until(lambda: agent.tell("renew") == "ok" and os.times().elapsed - started > deadline)
    assert reads(root) == "always"
    agent.kill()
    wait_until(lambda: reads(root) == "inherit", within_seconds=LAST_SECONDS + PROMISE_SECONDS)


def test_a_stopped_agent_that_wakes_up_writes_nothing(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait
) -> None:
    root = host_tree()
    agent = agent_on(root)
    assert agent.tell("apply always") == "ok"
    agent.let_lease_end()
    agent.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: claim_status(root) is None, within_seconds=LAST_SECONDS + PROMISE_SECONDS)
    assert only_closed(root)[1].endswith("the agent is still alive")
    agent.process.send_signal(signal.SIGCONT)
    for order in ("renew", "apply never", "revert"):
        assert agent.tell(order) == "LeaseExpired"
    assert reads(root) == "inherit"


def test_an_agent_stalled_in_the_middle_of_a_write_is_killed_before_its_host_is_undone(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait
) -> None:
    root = host_tree()
    agent = agent_on(root)
    assert agent.tell("apply always") == "ok"
    assert agent.tell("hold") == "ok"
    agent.let_lease_end()
    agent.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: reads(root) == "inherit", within_seconds=LAST_SECONDS + PROMISE_SECONDS)
    assert agent.process.wait(timeout=10) == -signal.SIGKILL


def test_workloads_die_before_their_pages_are_asked_back(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait
) -> None:
    root = host_tree()
    agent = agent_on(root)
    workload = subprocess.Popen(["sleep", "60"], start_new_session=True)
    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        assert agent.tell(f"guard {workload.pid}") == "ok"
        assert agent.tell("apply always") == "ok"
        agent.let_lease_end()
        agent.kill()
        wait_until(lambda: reads(root) == "inherit", within_seconds=LAST_SECONDS + PROMISE_SECONDS)
        assert workload.wait(timeout=1) == -signal.SIGKILL
        assert bystander.poll() is None
    finally:
        for process in (workload, bystander):
            process.kill()
            process.wait()


def test_a_full_disk_does_not_keep_the_guardian_from_undoing(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait, mounted: Callable[..., None]
) -> None:
    root = host_tree()
    root.state_dir.mkdir(parents=True)
    mounted("-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", str(root.state_dir))
    agent = agent_on(root)
    assert agent.tell("apply always") == "ok"
    with pytest.raises(OSError, match="No space left"), (root.state_dir / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    agent.let_lease_end()
    agent.kill()
    wait_until(lambda: claim_status(root) is None, within_seconds=LAST_SECONDS + PROMISE_SECONDS)
    assert reads(root) == "inherit"
    assert only_closed(root)[0] is RestoreOutcome.LEASE_EXPIRED
    wait_until(lambda: not is_alive(agent.guardian))


def test_a_state_folder_that_was_removed_does_not_either(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait
) -> None:
    root = host_tree()
    agent = agent_on(root)
    assert agent.tell("apply always") == "ok"
    for path in (*root.state_dir.glob("*/*"), *root.state_dir.iterdir(), root.state_dir):
        path.rmdir() if path.is_dir() else path.unlink()
    assert agent.tell("apply never") == "LeaseExpired" or reads(root) == "always"
    assert agent.tell(f"last {LAST_SECONDS}") == "LeaseExpired"  # which is said once the lease is written
    wait_until(lambda: reads(root) == "inherit", within_seconds=LAST_SECONDS + PROMISE_SECONDS)
    wait_until(lambda: not is_alive(agent.guardian))


HERE = Path(__file__).parents[3]
STALLED = """
import sys, time
from dataclasses import replace
from pathlib import Path
from agents.claim import take_claim
from agents.messages import WorkloadSpec
from agents.workloads import start_workload
from tests.agents.guardian.own_tree import COMMAND, OwnTree
root, knobs = OwnTree(sys.argv[1]), ["thp/2048kB/enabled"]
claim = take_claim(root, run="r1", owner="agent", knobs=knobs, lease_seconds=60.0, guardian_command=COMMAND)
nap = sys.argv[2]
argv = ("sh", "-c", f"setsid sleep {nap} & setsid sleep {nap} & echo ready 1; sleep {nap}")
spec = WorkloadSpec(kind="command", options={"argv": argv})
workload = start_workload(spec, root=root, work_dir=root.state_dir / "work", time_limit_seconds=60)
while not workload.measurements():
    time.sleep(0.01)
print("ready", flush=True)
sys.stdin.readline()
claim._header = replace(claim._header, lease_seconds=float(sys.argv[3]))
claim.renew()
print("stalled", flush=True)
time.sleep(300)
"""


def test_a_stalled_agents_daemons_die_before_their_pages_are_asked_back(host_tree: HostTree, wait_until: Wait) -> None:
    root, nap = host_tree(), new_nap()
    argv = [sys.executable, "-c", STALLED, str(root.root), nap, str(LAST_SECONDS)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=HERE) as agent:
        try:
            assert agent.stdin is not None
            assert agent.stdout is not None
            assert agent.stdout.readline() == b"ready\n"
            wait_until(lambda: len(napping(f"^sleep {nap}$")) == 3)  # the shell says so before the last has become one
            agent.stdin.write(b"\n")
            agent.stdin.flush()
            assert agent.stdout.readline() == b"stalled\n"
            agent.send_signal(signal.SIGSTOP)
            wait_until(lambda: claim_status(root) is None, within_seconds=LAST_SECONDS + PROMISE_SECONDS)
            assert napping(f"^sleep {nap}$") == []
            assert agent.poll() is None
        finally:
            agent.kill()
