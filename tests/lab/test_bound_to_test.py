"""A test that is killed leaves no guest behind."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ray_cluster import PROJECT, until

QEMU = "qemu-system-x86_64"
# A script starts a guest that never runs, and says so; the test waits for the script.
TEST = f"""\
import subprocess, sys
from tests.lab.bound_to_test import ends_with_us
script = "{QEMU} -S -nodefaults -display none -name $0 & echo started; wait"
subprocess.run(ends_with_us(["sh", "-c", script, sys.argv[1]]))
"""


def guests(name: str) -> list[Path]:
    """The processes of QEMU's with this name among their words."""
    lines = {path: path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()}
    return [path for path, line in lines.items() if line.startswith(QEMU.encode()) and name.encode() in line]


@pytest.mark.lab
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_guest_ends_with_its_test_however_that_ends(number: signal.Signals, tmp_path: Path) -> None:
    if shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is not installed (make installs it, as root)")
    name = tmp_path.name
    words = [sys.executable, "-c", TEST, name]
    with subprocess.Popen(words, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        until(lambda: bool(guests(name)), 60, "the guest is there")
        process.send_signal(number)
        process.wait()
        until(lambda: not guests(name), 60, "the guest is gone")
