"""The real root, with files of /proc and /sys that no kernel writes: bound over the real ones in a mount namespace."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.host_file_fuzz import HOSTILE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace needs root")

# Everything is imported before the files are exchanged: what is tested is ours, not the interpreter's.
CODE = """
import ctypes, sys
from pathlib import Path
from agents.collectors import Collectors
from agents.facts import survey
from agents.own_cgroup import end_left_over_cgroups, make_cgroup
from agents.preflight import preflight
from agents.process import kill_descendants, mark_process
from agents.sysroot import FolderRoot
from fleetexp.cli.doctor_screen import doctor_lines
from tests.host_file_fuzz import ARMS, HOSTILE, WORKLOADS, _Watched
import os

mount = ctypes.CDLL(None, use_errno=True).mount
mount(b"none", b"/", None, 0x44000, None)  # MS_REC | MS_PRIVATE
BIND = 0x1000
OTHERS = ["proc/self/stat", "proc/self/cgroup", "proc/1/stat", "proc/1/cgroup"]


def look(root):
    facts = survey(root)
    doctor_lines(facts, "free", short=False, columns=80)
    preflight(root, facts, ARMS, WORKLOADS, None)
    collectors = Collectors(root, cgroup=None)
    collectors.sample(), collectors.boundary(), collectors.events()
    unavailable = dict(collectors.unavailable)
    collectors.close()
    mark_process(os.getpid())
    return unavailable


folder, kind = Path(sys.argv[1]), sys.argv[2]
watched = _Watched(Path("/"))
look(watched)
mounted = 0
for number, name in enumerate(sorted({*watched.read_from, *OTHERS})):
    real, ours = Path("/", name), folder / str(number)
    if name.startswith(("proc/", "sys/")) and real.is_file() and name != "dev/kmsg":
        try:
            ours.write_bytes(HOSTILE[kind](real.read_bytes()))
        except OSError:
            continue
        mounted += mount(os.fsencode(ours), os.fsencode(real), None, BIND, None) == 0
unavailable = look(FolderRoot())
print(mounted, len(unavailable), all(0 < len(reason) < 400 for reason in unavailable.values()))
"""


@pytest.mark.parametrize(
    "kind", [kind if "digits" in kind else pytest.param(kind, marks=pytest.mark.slow) for kind in HOSTILE]
)
def test_this_machine_with_hostile_numbers_in_all_it_says_is_mapped_and_sampled(kind: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", CODE, str(tmp_path), kind],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    match = re.fullmatch(r"(\d+) (\d+) True\n", done.stdout)
    assert match is not None, done.stdout
    assert int(match[1]) > 20
    if kind == "10,000 digits":
        assert int(match[2]) > 20
