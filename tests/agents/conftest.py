"""Fixtures of the host side."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents.sysroot import FolderRoot


@pytest.fixture
def mounted() -> Iterator[Callable[..., None]]:
    """Return `mounted("-t", "tmpfs", ..., folder)`: mount for one test, and unmount at its end. Needs root."""
    folders: list[str] = []

    def mount(*arguments: str) -> None:
        made = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"can't mount here: {made.stderr.strip()}")
        if "remount" not in ",".join(arguments):
            folders.append(arguments[-1])

    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    yield mount
    for folder in reversed(folders):
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def here(tmp_path: Path, mounted: Callable[..., None]) -> FolderRoot:
    """Return this machine's /sys and /proc with a state folder of the test's own."""
    folder = tmp_path / "machine"
    for name in ("sys", "proc"):
        (folder / name).mkdir(parents=True)
        mounted("--bind", f"/{name}", str(folder / name))
    return FolderRoot(folder)


def wait_until(true: Callable[[], bool], *, within_seconds: float = 30.0) -> float:
    """Poll until something holds, and return how long that took; AssertionError past the deadline."""
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < within_seconds, f"not within {within_seconds} s"
        time.sleep(0.005)
    return time.monotonic() - started


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[..., float]:
    """Return `wait_until`."""
    return wait_until
