"""What the tests of claims share: arms by short names, and a kernel that refuses."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from agents.claim import HostClaim
from agents.knobs import find_knob, read_knob
from agents.messages import Arm
from agents.sysroot import FolderRoot

HostTree = Callable[..., FolderRoot]
Claimer = Callable[..., HostClaim]
THP_2M = "thp/2048kB/enabled"
POOL_2M = "hugetlb/2048kB/nr_hugepages"
POOL_1G = "hugetlb/1048576kB/nr_hugepages"
POOL_PATH = "sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages"
BOOT_ID = "proc/sys/kernel/random/boot_id"


def arm(**knobs: str) -> Arm:
    """`arm(thp_2M="always")` by short names."""
    names = {"thp_2M": THP_2M, "thp": "thp/enabled", "pool_2M": POOL_2M, "pool_1G": POOL_1G}
    return Arm(name="treatment", knobs={names[name]: value for name, value in knobs.items()})


def reads(root: FolderRoot, name: str) -> str:
    return read_knob(root, find_knob(root, name))


class Refusing(FolderRoot):
    """A kernel that refuses writes to the paths named, and grants at most `granted` pages of a pool."""

    refused: tuple[str, ...] = ()
    granted = 10**6

    def write(self, path: str, value: bytes) -> None:
        if any(part in path for part in self.refused):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if path.endswith("/nr_hugepages"):
            value = str(min(self.granted, int(value))).encode()
        super().write(path, value)
