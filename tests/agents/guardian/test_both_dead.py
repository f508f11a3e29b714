"""Agent and guardian are both dead: the next claim, or a person, puts the host right."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from agents.claim import ClaimStanding, HostClaim, RestoreOutcome, restore, take_claim
from agents.errors import HostClaimed
from agents.process import is_alive, send_signal
from tests.agents.guardian.agent_process import THP_2M, Agent, HostTree, Wait, guardian_of, only_closed, reads, standing

pytestmark = pytest.mark.usefixtures("no_guardian_left")


def both_killed(agent: Agent, wait_until: Wait) -> None:
    assert agent.tell("apply always") == "ok"
    agent.let_lease_end()
    send_signal(agent.guardian, signal.SIGKILL)
    agent.kill()
    wait_until(lambda: not is_alive(agent.guardian))


def test_with_agent_and_guardian_dead_the_next_claim_undoes_it(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait
) -> None:
    root = host_tree()
    both_killed(agent_on(root), wait_until)
    assert reads(root) == "always"
    taken: list[HostClaim] = []

    def claimed() -> bool:
        try:
            taken.append(take_claim(root, run="r2", owner="o", knobs=[THP_2M], lease_seconds=60))
        except HostClaimed as error:
            assert "run r1 of agent" in str(error)
        return bool(taken)

    wait_until(claimed)
    assert [(change.before, change.after) for change in taken[0].leftovers] == [("always", "inherit")]
    assert taken[0].found == {THP_2M: "inherit"}
    taken[0].release()


def test_with_agent_and_guardian_dead_a_person_can_undo_it(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait
) -> None:
    root = host_tree()
    both_killed(agent_on(root), wait_until)
    wait_until(lambda: standing(root) is ClaimStanding.DEAD)
    assert restore(root)[0].ok
    assert reads(root) == "inherit"
    assert only_closed(root) == (RestoreOutcome.RESTORED, "restored by hand; the claim was dead")


def test_a_run_that_comes_back_need_not_wait_for_the_lease_of_its_dead_agent(
    host_tree: HostTree, agent_on: Callable[..., Agent], wait_until: Wait
) -> None:
    root = host_tree()
    agent = agent_on(root, lease_seconds=60)
    assert agent.tell("apply always") == "ok"
    agent.kill()
    with pytest.raises(HostClaimed):
        take_claim(root, run="r2", owner="o", knobs=[THP_2M], lease_seconds=60)
    claim = take_claim(root, run="r1", owner="o", knobs=[THP_2M], lease_seconds=60)
    assert [(change.before, change.after) for change in claim.leftovers] == [("always", "inherit")]
    assert only_closed(root)[0] is RestoreOutcome.TAKEN_OVER
    wait_until(lambda: not is_alive(agent.guardian))
    assert guardian_of(root) != agent.guardian
    claim.release()


def test_a_claim_waits_for_a_guardian_that_is_about_to_finish(
    host_tree: HostTree, agent_on: Callable[..., Agent]
) -> None:
    root = host_tree()
    agent = agent_on(root)
    assert agent.tell("apply always") == "ok"
    agent.let_lease_end()
    agent.kill()
    taken = None
    while taken is None:
        try:
            taken = take_claim(root, run="r2", owner="o", knobs=[THP_2M], lease_seconds=60)
        except HostClaimed as error:
            assert "its lease lasts another" in str(error)  # never 'still putting back'
    assert (taken.leftovers, taken.found) == ((), {THP_2M: "inherit"})
    assert only_closed(root)[0] is RestoreOutcome.LEASE_EXPIRED
    taken.release()
