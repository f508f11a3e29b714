"""A knob that will not come back is tried for until it does, and nobody else gets the host."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from agents.claim import ClaimStanding, claim_status, restore, take_claim
from agents.errors import HostClaimed
from agents.lease import Phase
from agents.process import is_alive
from tests.agents.guardian.agent_process import PATH_2M, Agent, HostTree, Wait, comes_back, phase, reads

pytestmark = pytest.mark.usefixtures("no_guardian_left")


def test_a_knob_that_will_not_come_back_is_tried_for_until_it_does(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait
) -> None:
    root = host_tree()
    agent = agent_on(root)
    assert agent.tell("apply always") == "ok"
    (root.root / PATH_2M).unlink()  # as a kernel would that refuses
    agent.let_lease_end()
    agent.kill()
    wait_until(lambda: phase(root) is Phase.STUCK)
    status = claim_status(root)
    assert status is not None
    assert (status.standing, status.guardian_alive) == (ClaimStanding.UNDOING, True)
    assert "has no knob" in status.guardian_detail
    comes_back(root)
    wait_until(lambda: claim_status(root) is None)
    assert reads(root) == "inherit"


def test_while_the_guardian_is_stuck_nobody_gets_the_host_but_a_person(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = host_tree()
    agent = agent_on(root)
    assert agent.tell("apply always") == "ok"
    (root.root / PATH_2M).unlink()
    agent.let_lease_end()
    agent.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: phase(root) is Phase.STUCK)
    monkeypatch.setattr("agents.claim._GUARDIAN_WAIT_SECONDS", 0.0)
    with pytest.raises(HostClaimed, match="its guardian is still putting the host back") as caught:
        take_claim(root, run="r2", owner="o", knobs=["thp/enabled"], lease_seconds=60)
    assert "has no knob" in caught.value.where
    agent.process.send_signal(signal.SIGCONT)
    assert agent.tell("renew") == "LeaseExpired"
    assert not restore(root)[0].ok
    comes_back(root)
    wait_until(lambda: reads(root) == "inherit")
    wait_until(lambda: not is_alive(agent.guardian), within_seconds=20)
