"""Migration: pages bound to a node, moved to another, and balanced by the kernel."""

from __future__ import annotations

from functools import partial

from agents.conformance.bench import Bench, NotTried
from agents.conformance.counters import Count, Level
from agents.conformance.verdict import VerdictCause


def bind(bench: Bench) -> None:
    """mbind(MPOL_BIND, MPOL_MF_MOVE) to the node it lies on: only a PUD mapping is split, and every byte stays."""
    with bench.page() as (memory, pattern):
        with bench.counting() as rise:
            bench.call("mbind", lambda: memory.bind(bench.nodes[0]))
        bench.check_data("the memory", pattern.damaged())
        lies = memory.node()
        bench.check_call("where the page lies", held=lies == bench.nodes[0], wanted="bound there", seen=f"node {lies}")
    rise.check(Count.MAPPING_SPLIT, 1 if bench.level is Level.PUD else 0)


def move_to_another_node(bench: Bench) -> None:
    """A page is moved from node to node: it lies there afterwards, with every byte."""
    if len(bench.nodes) < 2:
        raise NotTried(VerdictCause.ONE_NODE, "this host has one NUMA node, and there is nowhere to move a page to")
    with bench.page() as (memory, pattern):
        for node in (*bench.nodes[:2], bench.nodes[0]):
            bench.call("mbind", partial(memory.bind, node))
            lies = {memory.node(offset) for offset in (0, bench.middle, bench.size - bench.base)}
            bench.check_call(f"the page moved to node {node}", held=lies == {node}, wanted="there", seen=f"on {lies}")
            bench.check_data(f"the memory on node {node}", pattern.damaged())
