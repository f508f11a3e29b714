"""Guests of the lab: a kernel with 1 GB transparent huge pages, under emulation, on this machine's own files."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleetexp.experiment.quantities import parse_size
from fleetexp.lab.guest import Guest, GuestState
from fleetexp.lab.initramfs import SHARE
from fleetexp.lab.machine import Hardware, KernelImage, with_our_init
from tests.postgresql_server import programs
from tests.ray_cluster import until, why_not

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

    def boot(
        script: str,
        *arguments: str,
        limit_seconds: int = 840,
        memory: str = "5GiB",
        cpu_model: str = "",
        image: str = "bzImage-pud",
        numa_nodes: int = 1,
    ) -> dict[str, Any]:
        words = (sys.executable, str(HERE / script), f"{SHARE}/result.json")
        booted = Guest("guest", 1, tmp_path / "guest")
        booted.folder.mkdir()
        kernel = KernelImage(image=lab / image, initramfs=lab / "initramfs.cpio.gz")
        booted.start(
            None,
            with_our_init(kernel, booted.folder),
            Hardware(memory_bytes=parse_size(memory), cpu_model=cpu_model, numa_nodes=numa_nodes),
            "echo always >/sys/kernel/mm/transparent_hugepage/enabled\n"
            f"PYTHONPATH={HERE.parents[1]} exec {shlex.join([*words, *arguments])}\n",
        )
        try:
            until(lambda: booted.state is GuestState.ENDED, limit_seconds, f"{script} has ended in the guest")
        finally:
            booted.stop(0)
        result = booted.share / "result.json"
        assert result.exists(), booted.console[-4000:]
        return {"console": booted.console, **json.loads(result.read_text())}

    return boot
