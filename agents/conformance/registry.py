"""All scenarios, in the order in which they are run: the gentle ones first, those that may cost the host last."""

from __future__ import annotations

from agents.conformance.scenario import Scenario
from agents.conformance.scenarios import (
    accounting,
    faults,
    idle,
    looking,
    migration,
    parts,
    pressure,
    reclaim,
    settings,
    sharing,
)

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
    Scenario(name="plain-mmap", asks="a mapping that nobody aligned", run=faults.plain_mmap),
    Scenario(name="threads", asks="threads first touch one extent", run=faults.threads),
    Scenario(name="fork-read", asks="fork without copy-on-write", run=sharing.fork_and_read),
    Scenario(name="discard", asks="a piece is given back", run=parts.partial_discard),
    Scenario(name="page-tables", asks="do page tables come back", run=accounting.page_tables),
    Scenario(name="counters", asks="do counters agree with each other", run=accounting.counters_agree),
    Scenario(
        name="settings", asks="which settings give pages, and to whom", run=settings.settings, limit_seconds=120.0
    ),
    Scenario(name="collapse", asks="MADV_COLLAPSE", run=faults.collapse),
    Scenario(name="locked", asks="mlock, and an attempt to page out", run=pressure.locked),
    Scenario(name="looking", asks="what merely looking splits", run=looking.looking, limit_seconds=60.0),
    Scenario(name="pinned", asks="a base page is pinned", run=pressure.pinned),
    Scenario(name="holes", asks="beside fragmented memory", run=pressure.beside_holes),
    Scenario(name="memcg-refusal", asks="a memory cgroup refuses the page", run=pressure.cgroup_refuses),
    # What a kernel with faults may not survive.
    Scenario(name="mremap", asks="the page is moved in address space", run=parts.whole_mremap),
    Scenario(name="mremap-piece", asks="a piece is moved away", run=parts.partial_mremap),
    Scenario(name="swap", asks="swapped out and in, twice", run=reclaim.swap_out_and_in),
    Scenario(name="memcg-full", asks="a memory cgroup filled up around it", run=pressure.cgroup_fills),
    Scenario(name="numa-move", asks="moved to another node", run=migration.move_to_another_node),
    Scenario(name="numa-balancing", asks="balanced by the kernel", run=migration.balancing),
    Scenario(name="idle-scan", asks="marked idle, and looked up again", run=idle.idle_scan),
)
