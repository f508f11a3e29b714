"""Architectures of guests: which program of QEMU's runs them, and which a kernel image is for."""

from __future__ import annotations

import shutil
import struct
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from fleetexp.errors import LabError

_HEAD_BYTES = 4096


class Architecture(StrEnum):
    """As `uname -m` says it."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"
    RISCV64 = "riscv64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What QEMU calls a machine of an architecture; `model` is the CPU that is emulated unless one is named."""

    package: str  # Debian's
    console: str
    model: str
    arguments: tuple[str, ...] = ()


_PLATFORMS = {
    Architecture.X86_64: Platform(package="qemu-system-x86", console="ttyS0", model="max"),
    Architecture.AARCH64: Platform(
        package="qemu-system-arm",
        console="ttyAMA0",
        model="max,pauth-impdef=on",
        arguments=("-machine", "virt"),
    ),
    Architecture.RISCV64: Platform(
        package="qemu-system-misc", console="ttyS0", model="rv64", arguments=("-machine", "virt")
    ),
}


def platform_of(architecture: Architecture) -> Platform:
    return _PLATFORMS[architecture]


def qemu_for(architecture: Architecture) -> str:
    """Return the path of the program; LabError, with Debian's package, where it is not installed."""
    program = f"qemu-system-{architecture}"
    if (path := shutil.which(program)) is None:
        package = platform_of(architecture).package
        raise LabError(f"{program} is not installed", remedy=f"install it (Debian: apt-get install {package})")
    return path


def kernel_architecture(image: Path) -> Architecture:
    """Return what a kernel image is for; LabError where it can't be read, or is no image that QEMU boots directly.

    By their magic numbers: Documentation/arch/, x86/boot.rst, arm64/booting.rst, riscv/boot-image-header.rst.
    """
    try:
        with image.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise LabError(f"the kernel can't be read: {error.strerror}", str(image), "name a kernel image") from error
    if head[0x202:0x206] == b"HdrS":
        return Architecture.X86_64
    if len(head) >= 64:
        (magic,) = struct.unpack_from("<I", head, 56)
        if magic == 0x644D5241:
            return Architecture.AARCH64
        if magic == 0x05435352:
            return Architecture.RISCV64
    raise LabError(
        "this is no kernel image that QEMU can boot",
        where=str(image),
        remedy="give a bzImage (x86-64) or an Image (arm64, riscv64), not vmlinux, and not compressed with xz or gzip",
    )
