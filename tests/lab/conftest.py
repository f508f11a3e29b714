"""Guests of the lab: a kernel with 1 GB transparent huge pages, under emulation, on this machine's own files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.postgresql_server import programs
from tests.ray_cluster import why_not

HERE = Path(__file__).resolve().parent


def lab_folder() -> Path | None:
    """Where the lab is: FLEETEXP_LAB, else shared/lab beside the checkout; None where neither exists."""
    named = os.environ.get("FLEETEXP_LAB")
    folder = Path(named) if named else HERE.parents[2] / "shared" / "lab"
    return folder if (folder / "boot.sh").exists() else None


@pytest.fixture
def lab() -> Path:
    """The folder of the lab's kernels and initramfs, where a cluster with guests and a database can be made here."""
    folder = lab_folder()
    if folder is None:
        pytest.skip("the lab is not here: set FLEETEXP_LAB to the folder with boot.sh and its kernel")
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed (make installs it, as root)")
    if programs() is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    if reason := why_not():
        pytest.skip(f"no cluster can be made here: {reason}")
    return folder


@pytest.fixture
def guest(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Boot a guest, run one of this folder's scripts in it with this Python, return the JSON that it wrote."""
    lab = lab_folder()
    if lab is None:
        pytest.skip("the lab is not here: set FLEETEXP_LAB to the folder with boot.sh and its kernel")
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed (make installs it, as root)")

    def boot(script: str, *, limit_seconds: int = 840, **environment: str) -> dict[str, Any]:
        share = tmp_path / "share"
        share.mkdir(exist_ok=True)
        start = tmp_path / "start.sh"
        start.write_text(f"PYTHONPATH={HERE.parents[1]} exec {sys.executable} {HERE / script} /mnt/share/result.json\n")
        done = subprocess.run(
            [str(lab / "boot.sh"), str(start)],
            env={**os.environ, "SHARE": str(share), "LIMIT": str(limit_seconds), **environment},
            capture_output=True,
            check=False,
        )
        result = share / "result.json"
        assert result.exists(), done.stdout.decode(errors="replace")[-4000:]
        return {"console": done.stdout.decode(errors="replace"), **json.loads(result.read_text())}

    return boot
