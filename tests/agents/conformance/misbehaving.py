"""Scenarios that a kernel can't pass, and a program that runs them: `python misbehaving.py LEASE_SECONDS NAME...`.

It prints a line for each verdict, JSON, as it comes, and at the end the whole.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time

from agents.conformance.bench import Bench, NotTried
from agents.conformance.counters import Count
from agents.conformance.scenario import Scenario
from agents.conformance.verdict import ScenarioResult, VerdictCause


def wants_many_pages(bench: Bench) -> None:
    with bench.memory() as memory, bench.counting() as rise:
        memory.touch()
    rise.check(Count.ALLOCATED, 9_999)


def wants_fewer_pages(bench: Bench) -> None:
    with bench.memory() as memory, bench.counting() as rise:
        memory.touch()
    rise.check(Count.ALLOCATED, 0)


def loses_a_page(bench: Bench) -> None:
    with bench.page() as (memory, pattern), bench.counting() as rise:
        memory.view()[bench.middle] ^= 1
        bench.check_data("the memory", pattern.damaged())
    rise.check(Count.ALLOCATED, 0)


def crashes(bench: Bench) -> None:
    bench.check_call("what was done before", held=True, wanted="done", seen="")
    os.kill(os.getpid(), signal.SIGSEGV)


def hangs(bench: Bench) -> None:
    if os.fork() == 0:
        time.sleep(600)
    time.sleep(600)


def raises(bench: Bench) -> None:
    raise ValueError("of its own making")


def leaves(bench: Bench) -> None:
    os._exit(7)


def can_not_be_tried(bench: Bench) -> None:
    raise NotTried(VerdictCause.ONE_NODE, "there is one")


def behaves(bench: Bench) -> None:
    with bench.page() as (_, pattern):
        bench.check_data("the memory", pattern.damaged())


ALL = {
    run.__name__: Scenario(name=run.__name__, asks="", run=run, limit_seconds=3.0)
    for run in (
        wants_many_pages,
        wants_fewer_pages,
        loses_a_page,
        crashes,
        hangs,
        raises,
        leaves,
        can_not_be_tried,
        behaves,
    )
}
SIZE_KIB = 2048


def tell(result: ScenarioResult) -> None:
    from fleetexp.cli.output import emit_json

    emit_json(result)
    sys.stdout.flush()


def main(words: list[str]) -> None:
    from agents.conformance.runner import conform
    from fleetexp.cli.output import emit_json

    scenarios = [ALL[name] for name in words[1:]]
    limit = 600.0 if os.environ.get("WITHOUT_LIMIT") else 3.0
    scenarios = [dataclasses.replace(one, limit_seconds=limit) for one in scenarios]
    emit_json("begun")
    sys.stdout.flush()
    emit_json(conform(SIZE_KIB, scenarios, owner="test", lease_seconds=float(words[0]), told=tell))


if __name__ == "__main__":
    # By its whole name, as the scenarios' own processes import it.
    from tests.agents.conformance import misbehaving

    misbehaving.main(sys.argv[1:])
