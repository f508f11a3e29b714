"""What the console of a guest that did not come up says was missing."""

from __future__ import annotations

import re
from enum import StrEnum

from fleetexp.lab.initramfs import SAYS

_LINES_SHOWN = 12


class BootFailure(StrEnum):
    """What a guest came to grief of: what its kernel or its initramfs lacks, or how its boot ended."""

    NINE_P = "9p"
    OVERLAY = "overlay"
    VIRTIO = "virtio"
    NETWORK = "network"
    SILENT = "silent"
    NO_SHELL = "no shell"
    PANIC = "panic"
    ENDED = "ended"
    LATE = "late"


# What is wrong, and what helps.
_WORDS = {
    BootFailure.NINE_P: (
        "its kernel has no 9p",
        "build it with CONFIG_NET_9P, CONFIG_NET_9P_VIRTIO and CONFIG_9P_FS, or put their modules into the initramfs",
    ),
    BootFailure.OVERLAY: (
        "its kernel has no overlayfs",
        "build it with CONFIG_OVERLAY_FS, or put the module into the initramfs",
    ),
    BootFailure.VIRTIO: (
        "its kernel doesn't see the folders that it is given over virtio",
        "build it with CONFIG_PCI, CONFIG_VIRTIO_PCI and CONFIG_NET_9P_VIRTIO, or put the modules into the initramfs",
    ),
    BootFailure.NETWORK: (
        "its kernel sees no network card",
        "build it with CONFIG_VIRTIO_NET and CONFIG_INET, or put the module into the initramfs",
    ),
    BootFailure.SILENT: (
        "nothing came on its console",
        "build the kernel with a serial console (CONFIG_SERIAL_8250_CONSOLE; arm64: CONFIG_SERIAL_AMBA_PL011_CONSOLE)",
    ),
    BootFailure.NO_SHELL: (
        "its initramfs has neither /bin/sh nor /bin/busybox, or this kernel can't unpack it",
        "give one with a shell, mount, mkdir and chroot, compressed in a way that the kernel knows (CONFIG_RD_*)",
    ),
    BootFailure.PANIC: ("its kernel panicked", "see its console"),
    BootFailure.ENDED: ("it ended before it had joined", "see its console"),
    BootFailure.LATE: ("it has not joined in time", "give it longer (--timeout), or boot fewer at once"),
}
_LACKS = re.compile(rf"^{SAYS} lacks (\w+)", re.MULTILINE)
_ENDED = re.compile(rf"^{SAYS} ended", re.MULTILINE)
_PANIC = re.compile(r"Kernel panic")
_NO_INIT = re.compile(r"Requested init \S+ failed|No working init found|Unable to mount root fs")


def failure_of(console: str, *, ended: bool = True) -> BootFailure:
    """Return what went wrong in a boot, from all that its console said; `ended`: the machine is off."""
    if not console.strip():
        return BootFailure.SILENT
    if lacks := _LACKS.search(console):
        return BootFailure(lacks[1])
    if _NO_INIT.search(console):
        return BootFailure.NO_SHELL
    if not ended:
        return BootFailure.LATE
    return BootFailure.PANIC if _PANIC.search(console) and not _ENDED.search(console) else BootFailure.ENDED


def explained(failure: BootFailure) -> tuple[str, str]:
    """Return what is wrong and what helps."""
    return _WORDS[failure]


def last_lines(console: str) -> tuple[str, ...]:
    """Return the last lines that say something, up to where the kernel panicked: the stack below that says less."""
    lines = [line.rstrip() for line in console.splitlines() if line.strip()]
    end = next((number for number, line in enumerate(lines, 1) if _PANIC.search(line)), len(lines))
    return tuple(lines[:end][-_LINES_SHOWN:])
