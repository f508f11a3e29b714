"""The guardian's own life: it belongs to nobody, is replaced where it dies, and leaves with its claim."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from agents.claim import RestoreOutcome, claim_status, restore, take_claim
from agents.errors import HostClaimed, LeaseExpired
from agents.lease import boot_seconds
from agents.messages import Arm
from agents.process import is_alive, is_stopped, kill_with_group, mark_process, send_signal
from tests.agents.guardian.agent_process import (
    PROMISE_SECONDS,
    THP_2M,
    Agent,
    HostTree,
    Wait,
    guardian_of,
    only_closed,
    reads,
)

pytestmark = pytest.mark.usefixtures("no_guardian_left")


def test_a_guardian_belongs_to_nobody(host_tree: HostTree, agent_on: Callable[..., Agent]) -> None:
    agent = agent_on(host_tree(), lease_seconds=60)
    proc = Path(f"/proc/{agent.guardian.pid}")
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    parent, session = int(fields[1]), int(fields[3])
    assert parent not in (agent.process.pid, os.getpid())
    assert session not in (os.getsid(agent.process.pid), os.getsid(0))
    opened = {str((proc / "fd" / number).readlink()) for number in os.listdir(proc / "fd")}
    assert "/dev/zero" not in opened
    names = {item.partition("=")[0] for item in (proc / "environ").read_text().split("\0") if item}
    assert names <= {"PATH", "LD_LIBRARY_PATH"}
    assert (proc / "comm").read_text().strip() == "fleetexp-guard"
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    capabilities = int(status["CapEff"], 16)
    may_lock, may_spare = capabilities >> 14 & 1, capabilities >> 24 & 1  # CAP_IPC_LOCK, CAP_SYS_RESOURCE
    assert (proc / "oom_score_adj").read_text().strip() == ("-1000" if may_spare else "0")
    assert not may_lock or int(status["VmLck"].split()[0]) > 0


def test_a_released_host_has_no_guardian_left(host_tree: HostTree, wait_until: Wait) -> None:
    root = host_tree()
    claim = take_claim(root, run="r1", owner="o", knobs=[THP_2M], lease_seconds=60)
    status = claim_status(root)
    assert status is not None
    assert status.guardian_alive
    assert claim.guardian_alive()
    assert not claim.ensure_guardian()
    claim.release()
    assert status.guardian_pid is not None
    guardian = status.guardian_pid
    wait_until(lambda: mark_process(guardian) is None)  # which a release waits for, but not for ever
    assert not claim.guardian_alive()
    assert "is over" in (root.state_dir / "guardian.log").read_text()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_guardian_that_died_or_hangs_is_replaced(host_tree: HostTree, wait_until: Wait, how: signal.Signals) -> None:
    root = host_tree()
    claim = take_claim(root, run="r1", owner="o", knobs=[THP_2M], lease_seconds=60)
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    first = guardian_of(root)
    assert send_signal(first, how)
    wait_until(lambda: not is_alive(first) or is_stopped(first))
    claim.renew()
    assert not claim.guardian_alive()
    assert claim.ensure_guardian()
    second = guardian_of(root)
    assert second != first
    assert not is_alive(first)
    claim._lease.extend(claim._header.claim, boot_seconds() + 0.2)
    wait_until(lambda: claim_status(root) is None, within_seconds=0.2 + PROMISE_SECONDS)
    assert reads(root) == "inherit"
    wait_until(lambda: not is_alive(second))
    with pytest.raises(LeaseExpired):
        claim.ensure_guardian()
    claim.release()


def test_two_who_find_a_guardian_dead_start_one(host_tree: HostTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll and a period's tick look at the same moment; whoever waits for the lock looks again."""
    root = host_tree()
    claim = take_claim(root, run="r1", owner="o", knobs=[THP_2M], lease_seconds=60)
    first = claim._guardian
    assert first is not None
    assert kill_with_group(first)
    mine, started = claim._mine, []

    def after_the_other() -> AbstractContextManager[None]:
        monkeypatch.setattr(claim, "_mine", mine)
        started.append(claim.ensure_guardian())
        return mine()

    monkeypatch.setattr(claim, "_mine", after_the_other)
    started.append(claim.ensure_guardian())
    assert started == [True, False]
    assert claim.guardian_alive()
    claim.release()


def test_a_guardian_told_to_terminate_undoes_at_once_and_only_then_leaves(
    host_tree: HostTree, wait_until: Wait
) -> None:
    root = host_tree()
    claim = take_claim(root, run="r1", owner="o", knobs=[THP_2M], lease_seconds=60)
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    guardian = guardian_of(root)
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        send_signal(guardian, ignored)
    claim.renew()
    assert claim.guardian_alive()
    send_signal(guardian, signal.SIGTERM)
    wait_until(lambda: not is_alive(guardian))
    assert reads(root) == "inherit"
    assert only_closed(root)[0] is RestoreOutcome.GUARDIAN_STOPPED
    with pytest.raises(LeaseExpired, match="ended by its guardian"):
        claim.renew()
    with pytest.raises(LeaseExpired):
        claim.apply(Arm(name="a", knobs={THP_2M: "never"}))
    claim.release()


def test_restore_with_force_sends_the_guardian_away(host_tree: HostTree, wait_until: Wait) -> None:
    root = host_tree()
    claim = take_claim(root, run="r1", owner="o", knobs=[THP_2M], lease_seconds=60)
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    guardian = guardian_of(root)
    with pytest.raises(HostClaimed):
        restore(root)
    assert restore(root, force=True)[0].ok
    wait_until(lambda: not is_alive(guardian))
    assert reads(root) == "inherit"
    claim.release()
