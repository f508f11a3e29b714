"""Guests of the lab: a kernel with 1 GB transparent huge pages, under emulation, on this machine's own files."""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleetexp.experiment.quantities import parse_size
from fleetexp.lab.initramfs import SCRIPT, SHARE
from fleetexp.lab.machine import Hardware, KernelImage, Share, qemu_command, with_our_init
from tests.lab.bound_to_test import ends_with_us
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


def run_in_guest(
    folder: Path,
    script: str,
    *arguments: str,
    limit_seconds: int = 840,
    memory: str = "5GiB",
    cpu_model: str = "",
    image: str = "bzImage-pud",
    kernel_arguments: str = "",
    numa_nodes: int = 1,
    counted: bool = False,
    thp: str = "always",
) -> dict[str, Any]:
    """Boot a guest, run one of this folder's scripts in it with this Python, return the JSON that it wrote.

    `folder` keeps what the guest left in `share`; `counted`: its clock goes on with each instruction, not with time;
    `thp`: what the top level is set to before the script's Python starts.
    The test is skipped where the lab or a program is missing.
    """
    lab = lab_folder()
    if lab is None:
        pytest.skip("the lab is not here: set FLEETEXP_LAB to the folder with boot.sh and its kernel")
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed (make installs it, as root)")
    share = folder / "share"
    share.mkdir(parents=True)
    words = (sys.executable, str(HERE / script), f"{SHARE}/result.json", *arguments)
    (share / Path(SCRIPT).name).write_text(
        f"echo {thp} >/sys/kernel/mm/transparent_hugepage/enabled\n"
        f"PYTHONPATH={HERE.parents[1]} exec {shlex.join(words)}\n"
    )
    made = KernelImage(image=lab / image, initramfs=lab / "initramfs.cpio.gz", arguments=kernel_arguments)
    kernel = with_our_init(made, folder)
    shares = (Share(tag="hostroot", folder=Path("/")), Share(tag="share", folder=share, writable=True))
    hardware = Hardware(memory_bytes=parse_size(memory), cpu_model=cpu_model, numa_nodes=numa_nodes)
    command = qemu_command(kernel, hardware, shares)
    if counted:
        command = [word.replace("thread=multi", "thread=single") for word in command] + ["-icount", "shift=0"]
    console_path = folder / "console.log"
    with console_path.open("wb") as console:
        subprocess.run(
            ends_with_us(command),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            timeout=limit_seconds,
            check=False,
        )
    said, result = console_path.read_text(errors="replace"), share / "result.json"
    assert result.exists(), said[-4000:]
    return {"console": said, **json.loads(result.read_text())}


@pytest.fixture
def guest(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`run_in_guest` in a folder of the test's own."""
    return functools.partial(run_in_guest, tmp_path / "guest")
