"""Pages of 512 MiB tried on a real arm64 kernel with 64 KiB base pages: every scenario."""

from __future__ import annotations

import base64
import pickle

import pytest

from agents.conformance.registry import SCENARIOS
from agents.conformance.verdict import PageVerdict
from tests.lab.arm_guest import run_in_arm_guest
from tests.lab.guest_conform_512m import MARK

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1900)]

PREPARE = """\
mount -t cgroup2 none /sys/fs/cgroup
echo 2G > /sys/block/zram0/disksize && mkswap /dev/zram0 && swapon /dev/zram0
echo 1 > /proc/sys/kernel/numa_balancing
"""
TWO_NODES = " ".join(
    f"-object memory-backend-ram,id=node{node},size=3G -numa node,nodeid={node},memdev=node{node},cpus={node}"
    for node in range(2)
)


def test_every_scenario_at_512m_passes() -> None:
    said = run_in_arm_guest("guest_conform_512m.py", mark=MARK, prepare=PREPARE, limit_seconds=1800, qemu=TWO_NODES)
    seen = pickle.loads(base64.b64decode(said))  # noqa: S301 - of our own guest
    assert seen["after"] == seen["before"]
    results = {one.name: one for one in seen["found"].results}
    assert list(results) == [scenario.name for scenario in SCENARIOS]
    assert {name: one.detail for name, one in results.items() if one.verdict is not PageVerdict.PASS} == {}
    for name in ("fork-write", "partial-munmap", "partial-mprotect", "pageout"):
        split = [one for one in results[name].checks if one.counter == "thp_split_pmd"]
        assert [(one.wanted, one.seen) for one in split] == [("+1", "+1")], name
