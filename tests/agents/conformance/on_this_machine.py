"""This machine's own kernel with a state folder of the test's, in a mount namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
TAINT = "tainted"  # a file of this name in the state's parent stands for the kernel's taint flags
_OF_THE_TEST = """\
mkdir -p /var/lib/fleetexp && mount --bind "$1" /var/lib/fleetexp || exit
if [ -e "$1/../tainted" ]; then mount --bind "$1/../tainted" /proc/sys/kernel/tainted || exit; fi
shift && exec "$@"
"""


def start(state: Path, *words: str, without_limit: bool = False) -> subprocess.Popen[str]:
    """Start Python with these words, below the root of the project."""
    state.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", _OF_THE_TEST, "sh", str(state), sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "FLEETEXP_STORE": f"sqlite:///{state.parent}/conform.db",
            **({"WITHOUT_LIMIT": "1"} if without_limit else {}),
        },
    )


def run(state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python to its end; returns what it printed."""
    process = start(state, *words)
    out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def living(session: int) -> list[int]:
    """The processes of a session that are not dead; whoever is killed may stay a zombie for a while."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(int(folder.name))
    return found
