"""The lab's arm64 guest: agent and scripts of this folder inside it, and what a script printed under its mark."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.lab.bound_to_test import ends_with_us
from tests.lab.conftest import HERE, lab_folder


def arm_boot() -> str:
    """Return the command that boots the guest; skips where the lab or a program is missing."""
    lab = lab_folder()
    if lab is None or not (lab / "arm64/boot.sh").exists():
        pytest.skip("the lab's arm64 guest is not here: set FLEETEXP_LAB to the folder with arm64/boot.sh")
    for program in ("qemu-system-aarch64", "cpio"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (make installs it, as root)")
    return str(lab / "arm64/boot.sh")


def run_in_arm_guest(
    script: str,
    *arguments: str,
    mark: str,
    prepare: str = "",
    beside: tuple[str, ...] = (),
    limit_seconds: int = 800,
    qemu: str = "",
) -> str:
    """Boot the guest, run one of the scripts of tests/lab there; returns the rest of the line that begins with `mark`.

    `prepare` are lines of shell before it, `beside` further scripts that it needs, `qemu` more arguments of QEMU's.
    """
    boot = arm_boot()
    with tempfile.TemporaryDirectory() as made:
        folder, start = Path(made) / "app", Path(made) / "start.sh"
        shutil.copytree(HERE.parents[1] / "agents", folder / "agents", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "tests/lab").mkdir(parents=True)
        for name in (script, *beside):
            shutil.copyfile(HERE / name, folder / "tests/lab" / name)
        start.write_text(f"{prepare}\nexec python3 /app/tests/lab/{script} {' '.join(arguments)}\n")
        words = ["env", "MEM=6G", f"T={limit_seconds}", f"QEMU={qemu}", boot, str(folder), str(start)]
        command = ends_with_us(words)
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    found = [line.removeprefix(mark) for line in done.stdout.splitlines() if line.startswith(mark)]
    assert found, done.stdout[-4000:] + done.stderr[-2000:]
    return found[0]
