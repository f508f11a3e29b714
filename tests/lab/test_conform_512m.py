"""Pages of 512 MiB tried on a real arm64 kernel with 64 KiB base pages: every scenario that one node allows."""

from __future__ import annotations

import base64
import pickle

import pytest

from agents.conformance.registry import SCENARIOS
from agents.conformance.verdict import PageVerdict, VerdictCause
from tests.lab.arm_guest import run_in_arm_guest
from tests.lab.guest_conform_512m import MARK

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1900)]

PREPARE = """\
mount -t cgroup2 none /sys/fs/cgroup
echo 2G > /sys/block/zram0/disksize && mkswap /dev/zram0 && swapon /dev/zram0
"""


def test_every_scenario_at_512m_passes_or_needs_a_second_node() -> None:
    said = run_in_arm_guest("guest_conform_512m.py", mark=MARK, prepare=PREPARE, limit_seconds=1800)
    seen = pickle.loads(base64.b64decode(said))  # noqa: S301 - of our own guest
    assert seen["after"] == seen["before"]
    results = {one.name: one for one in seen["found"].results}
    assert list(results) == [scenario.name for scenario in SCENARIOS]
    assert {name: one.detail for name, one in results.items() if one.verdict is PageVerdict.FAIL} == {}
    skipped = {name: one.cause for name, one in results.items() if one.verdict is PageVerdict.SKIP}
    assert skipped == {"numa-move": VerdictCause.ONE_NODE, "numa-balancing": VerdictCause.ONE_NODE}
    for name in ("fork-write", "partial-munmap", "partial-mprotect", "pageout"):
        split = [one for one in results[name].checks if one.counter == "thp_split_pmd"]
        assert [(one.wanted, one.seen) for one in split] == [("+1", "+1")], name
