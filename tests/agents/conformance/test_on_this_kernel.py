"""All scenarios on this machine's own kernel, from the command line: a huge page of a PMD, and one of 64 KiB."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agents.conformance.registry import SCENARIOS
from tests.agents.conformance.on_this_machine import run

pytestmark = [pytest.mark.real_knobs, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("real_knobs")]

# What this machine may lack: swap, a second node, a cgroup that can be made; or its peace: others use huge pages too.
MAY_LACK = {"no_swap", "one_node", "no_memory_cgroup", "no_memory", "no_call", "too_small", "others"}
# Nothing of this host is wanted for these but a page.
NEVER_SKIPPED = {"allocation", "stride", "fork-write", "partial-munmap", "partial-mprotect"}


@pytest.mark.parametrize("size", ["2MiB", "64KiB"])
def test_every_scenario_passes_or_says_what_it_lacks(tmp_path: Path, size: str) -> None:
    done = run(tmp_path / "state", "-m", "fleetexp", "conform", "--size", size, "--json")
    found = json.loads(done.stdout)
    results = {result["name"]: result for result in found["results"]}
    failed = {name: one["detail"] for name, one in results.items() if one["verdict"] == "fail"}
    assert failed == {}, done.stderr
    assert done.returncode == 0
    assert list(results) == [scenario.name for scenario in SCENARIOS]
    skipped = {name: one["cause"] for name, one in results.items() if one["verdict"] == "skip"}
    assert set(skipped.values()) <= MAY_LACK, skipped
    assert all(skipped.get(name, "others") == "others" for name in NEVER_SKIPPED), skipped
    if size == "2MiB":
        split = next(one for one in results["fork-write"]["checks"] if one["counter"] == "thp_split_pmd")
        assert split["outcome"] in {"held", "unclear"}
        assert split["wanted"] == "+1"
    assert found["given_up"] == ""
