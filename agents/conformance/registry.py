"""All scenarios, in the order in which they are run: the gentle ones first, those that may cost the host last."""

from __future__ import annotations

from agents.conformance.scenario import Scenario
from agents.conformance.scenarios import faults, migration, parts, reclaim, sharing

SCENARIOS: tuple[Scenario, ...] = (
    # The seven of the RFC's selftest.
    Scenario(name="allocation", asks="does a touch bring a whole page", run=faults.allocation),
    Scenario(name="stride", asks="does every base page hold what is written", run=faults.stride),
    Scenario(name="fork-write", asks="fork, and a write by the child", run=sharing.fork_and_write),
    Scenario(name="partial-munmap", asks="a piece is unmapped", run=parts.partial_munmap),
    Scenario(name="partial-mprotect", asks="a piece becomes read-only", run=parts.partial_mprotect),
    Scenario(name="pageout", asks="MADV_PAGEOUT", run=reclaim.pageout),
    Scenario(name="mbind", asks="mbind with MPOL_MF_MOVE", run=migration.bind),
    # What the reviewers asked.
    Scenario(name="fork-read", asks="fork without copy-on-write", run=sharing.fork_and_read),
    Scenario(name="discard", asks="a piece is given back", run=parts.partial_discard),
    Scenario(name="mremap", asks="the page is moved in address space", run=parts.whole_mremap),
    Scenario(name="mremap-piece", asks="a piece is moved away", run=parts.partial_mremap),
    Scenario(name="swap", asks="swapped out and in, twice", run=reclaim.swap_out_and_in),
    Scenario(name="numa-move", asks="moved to another node", run=migration.move_to_another_node),
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
