"""Swap of a guest, in compressed memory: what its kernel may page out to. Used by scripts that run inside a guest."""

from __future__ import annotations

import subprocess
from pathlib import Path


def swap_on(size: str) -> None:
    """Let the guest swap, to so much ('3G') of what it would write."""
    Path("/sys/block/zram0/disksize").write_text(size)
    subprocess.run(["sh", "-c", "mkswap /dev/zram0 && swapon /dev/zram0"], check=True, stdout=subprocess.DEVNULL)
