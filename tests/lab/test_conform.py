"""1 GiB pages tried on kernels that have them: the lab's behaves, the bare patch series does not, and is found out.

To clear, move or page out a gigabyte takes seconds under emulation; less where the CPU doesn't promise fast strings
(`erms`): the kernel then clears eight bytes at a time, which is what is emulated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agents.conformance.registry import SCENARIOS

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(3700)]

Guest = Callable[..., dict[str, Any]]


def conform(guest: Guest, *words: str, **how: str) -> dict[str, Any]:
    arguments = ("guest_conform.py", "--size", "1GiB", *words)
    seen = guest(*arguments, memory="8GiB", numa_nodes=2, cpu_model="max,-erms", limit_seconds=3600, **how)
    assert seen["found"] is not None, seen["error"]
    assert seen["after"] == seen["before"]
    results = seen["found"]["results"]
    stored = {scenario: (verdict, cause) for scenario, verdict, cause in seen["stored"]}
    assert stored == {one["name"]: (one["verdict"], one["cause"]) for one in results}
    return seen


def test_every_scenario_at_1g_passes(guest: Guest) -> None:
    seen = conform(guest, "--time-limit", "900")
    results = {one["name"]: one for one in seen["found"]["results"]}
    assert list(results) == [scenario.name for scenario in SCENARIOS]
    assert {name: one["detail"] for name, one in results.items() if one["verdict"] != "pass"} == {}
    assert seen["code"] == 0
    # What the selftest of the patch series expects: one page each, and one mapping split by each of the last five.
    for name in ("fork-write", "partial-munmap", "partial-mprotect", "pageout", "mbind"):
        split = [one for one in results[name]["checks"] if one["counter"] == "thp_split_pud"]
        assert [(one["wanted"], one["seen"]) for one in split] == [("+1", "+1")], name
    looking = {one["what"]: one["seen"] for one in results["looking"]["checks"] if one["outcome"] == "told"}
    assert {"smaps", "smaps_rollup", "numa_maps", "pagemap", "mincore"} <= set(looking["splits a page"].split(", "))
    assert {"maps", "status"} <= set(looking["leaves it whole"].split(", "))


# What hangs in the kernel is waited for as long as a scenario may take.
@pytest.mark.parametrize(
    ("fatal", "after_it", "limit"),
    [("mremap", ("swap", "memcg-full"), "300"), ("memcg-full", ("numa-move",), "300"), ("idle-scan", (), "180")],
)
def test_a_kernel_with_the_series_alone_is_found_out_and_given_up_in_good_order(
    guest: Guest, fatal: str, after_it: tuple[str, ...], limit: str
) -> None:
    only = [word for name in ("allocation", fatal, *after_it) for word in ("--only", name)]
    seen = conform(guest, *only, "--time-limit", limit, image="bzImage-pud-rfc-only")
    results = {one["name"]: one for one in seen["found"]["results"]}
    assert results["allocation"]["verdict"] == "pass"
    assert results[fatal]["verdict"] == "fail"
    assert results[fatal]["cause"] == "kernel"
    assert seen["found"]["given_up"]
    assert all(results[name]["cause"] == "given_up" for name in after_it)
    assert seen["trials"][0][1] == seen["found"]["given_up"]
    assert seen["code"] == 3
