"""Migration: pages bound to a node, moved to another, and balanced by the kernel."""

from __future__ import annotations

import os
import time
from functools import partial

from agents.conformance.bench import Bench, NotTried
from agents.conformance.counters import Count, Level
from agents.conformance.memory import allow_balancing
from agents.conformance.verdict import VerdictCause
from agents.perf.cpus import parse_numbers

_BALANCING_SECONDS = 10.0


def bind(bench: Bench) -> None:
    """mbind(MPOL_BIND, MPOL_MF_MOVE) to the first node: only a PUD mapping is split, and every byte stays."""
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


def balancing(bench: Bench) -> None:
    """The kernel balances a page that a CPU of another node uses: every byte stays; what it split is told."""
    if len(bench.nodes) < 2:
        raise NotTried(VerdictCause.ONE_NODE, "this host has one NUMA node, and nothing to balance")
    switch = "proc/sys/kernel/numa_balancing"
    if not bench.host.root.exists(switch) or bench.host.root.read(switch).strip() == b"0":
        raise NotTried(VerdictCause.OFF, "kernel.numa_balancing is 0, or not in this kernel: nothing is balanced")
    lists = (f"sys/devices/system/node/node{node}/cpulist" for node in bench.nodes[:2])
    near, far = (parse_numbers(bench.host.root.read(path)) for path in lists)
    if not (near and far):
        raise NotTried(VerdictCause.ONE_NODE, "one of the first two NUMA nodes has no CPU to use the page from")
    allow_balancing(True)
    os.sched_setaffinity(0, near)
    with bench.page() as (memory, pattern):
        began = memory.node()
        os.sched_setaffinity(0, far)
        damaged, deadline = 0, time.monotonic() + _BALANCING_SECONDS
        with bench.counting() as rise:
            while time.monotonic() < deadline:
                damaged += pattern.damaged()
        bench.check_data("the memory all the while", damaged)
        bench.tell("node of the page", f"{began}, then {memory.node()}")
    rise.tell(Count.MAPPING_SPLIT)
    rise.tell(Count.SPLIT)
