"""Pages of 512 MiB tried on a real arm64 kernel with 64 KiB base pages: every scenario that one node allows."""

from __future__ import annotations

import base64
import pickle
import shutil
import subprocess
from pathlib import Path

import pytest

from agents.conformance.registry import SCENARIOS
from agents.conformance.verdict import PageVerdict, VerdictCause
from tests.lab.conftest import HERE, lab_folder
from tests.lab.guest_conform_512m import MARK

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1900)]

SCRIPT = HERE / "guest_conform_512m.py"
START = """
mount -t cgroup2 none /sys/fs/cgroup
echo 2G > /sys/block/zram0/disksize && mkswap /dev/zram0 && swapon /dev/zram0
exec python3 /app/{name}
"""


def test_every_scenario_at_512m_passes_or_needs_a_second_node(tmp_path: Path) -> None:
    lab = lab_folder()
    if lab is None or not (lab / "arm64/boot.sh").exists():
        pytest.skip("the lab's arm64 guest is not here: set FLEETEXP_LAB to the folder with arm64/boot.sh")
    for program in ("qemu-system-aarch64", "cpio"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (make installs it, as root)")
    app = tmp_path / "app"
    shutil.copytree(HERE.parents[1] / "agents", app / "agents", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(SCRIPT, app / SCRIPT.name)
    start = tmp_path / "start.sh"
    start.write_text(START.format(name=SCRIPT.name))
    command = ["env", "MEM=6G", "T=1800", str(lab / "arm64/boot.sh"), str(app), str(start)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    said = [line.removeprefix(MARK) for line in done.stdout.splitlines() if line.startswith(MARK)]
    assert said, done.stdout[-4000:] + done.stderr[-2000:]
    seen = pickle.loads(base64.b64decode(said[0]))  # noqa: S301 - of our own guest
    assert seen["after"] == seen["before"]
    results = {one.name: one for one in seen["found"].results}
    assert list(results) == [scenario.name for scenario in SCENARIOS]
    assert {name: one.detail for name, one in results.items() if one.verdict is PageVerdict.FAIL} == {}
    skipped = {name: one.cause for name, one in results.items() if one.verdict is PageVerdict.SKIP}
    assert skipped == {"numa-move": VerdictCause.ONE_NODE, "numa-balancing": VerdictCause.ONE_NODE}
    for name in ("fork-write", "partial-munmap", "partial-mprotect", "pageout"):
        split = [one for one in results[name].checks if one.counter == "thp_split_pmd"]
        assert [(one.wanted, one.seen) for one in split] == [("+1", "+1")], name
