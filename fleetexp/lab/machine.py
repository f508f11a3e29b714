"""A virtual machine: what it consists of, its command line for QEMU, and whether KVM can run it here."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fleetexp.lab.architecture import Architecture, kernel_architecture, platform_of, qemu_for
from fleetexp.lab.initramfs import FALLBACK, INIT, UP, with_init

_KVM = Path("/dev/kvm")
_KVM_TRIAL_SECONDS = 20.0  # a kernel that KVM runs is at its first process in less than two
_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelImage:
    """A kernel with its initramfs, and what stands on its command line besides console and init."""

    image: Path
    initramfs: Path
    arguments: str = ""

    @property
    def architecture(self) -> Architecture:
        return kernel_architecture(self.image)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What a guest is given; `cpu_model` as QEMU names it, with its flags: 'max,-pdpe1gb'.

    NUMA nodes share memory and CPUs out evenly.
    """

    memory_bytes: int = 4 * 2**30
    cpus: int = 2
    cpu_model: str = ""
    emulated: bool = True
    numa_nodes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A folder of this machine that a guest mounts by its 9p tag."""

    tag: str
    folder: Path
    writable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tap:
    """A network card: the device on this side, and its hardware address in the guest."""

    device: str
    mac: str


def qemu_command(
    kernel: KernelImage, hardware: Hardware, shares: Sequence[Share] = (), tap: Tap | None = None
) -> list[str]:
    """Return the command that boots a guest and prints its console; `kernel.initramfs` is used as it is."""
    architecture = kernel.architecture
    platform = platform_of(architecture)
    accelerator, model = ("tcg,thread=multi", platform.model) if hardware.emulated else ("kvm", "host")
    words = [
        qemu_for(architecture), *platform.arguments, "-accel", accelerator, "-cpu", hardware.cpu_model or model,
        "-smp", _smp(hardware), "-m", f"{hardware.memory_bytes // _MIB}M",
        "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio", "-monitor", "none",
        "-kernel", str(kernel.image), "-initrd", str(kernel.initramfs),
        "-append", f"console={platform.console} panic=-1 loglevel=4 {kernel.arguments}".rstrip(),
    ]  # fmt: skip
    words += _numa_words(hardware)
    for share in shares:
        access = "" if share.writable else ",readonly=on"
        folder = str(share.folder).replace(",", ",,")  # as QEMU's options escape it
        words += ["-fsdev", f"local,id={share.tag},path={folder},security_model=none,multidevs=remap{access}"]
        words += ["-device", f"virtio-9p-pci,fsdev={share.tag},mount_tag={share.tag}"]
    if tap is not None:
        words += ["-netdev", f"tap,id=net,ifname={tap.device},script=no,downscript=no"]
        words += ["-device", f"virtio-net-pci,netdev=net,mac={tap.mac}"]
    return words


def _smp(hardware: Hardware) -> str:
    # A socket that spans two nodes is a warning of the kernel's at boot.
    return f"{hardware.cpus},sockets={hardware.cpus}" if hardware.numa_nodes > 1 else str(hardware.cpus)


def _numa_words(hardware: Hardware) -> list[str]:
    nodes, words = hardware.numa_nodes, []
    for node in range(nodes if nodes > 1 else 0):
        cpus = ",".join(f"cpus={cpu}" for cpu in range(node, hardware.cpus, nodes))
        words += ["-object", f"memory-backend-ram,id=node{node},size={hardware.memory_bytes // nodes // _MIB}M"]
        words += ["-numa", f"node,nodeid={node},memdev=node{node},{cpus}".rstrip(",")]
    return words


def with_our_init(kernel: KernelImage, folder: Path) -> KernelImage:
    """Return the kernel with an initramfs, written to the folder, that starts what we want in place of its own init."""
    made = folder / "initramfs"
    made.write_bytes(with_init(kernel.initramfs))
    arguments = f"{kernel.arguments} rdinit={INIT} init={FALLBACK}".lstrip()
    return KernelImage(image=kernel.image, initramfs=made, arguments=arguments)


def kvm_runs(kernel: KernelImage, hardware: Hardware) -> bool:
    """Whether KVM takes this very kernel as far as its first process: a device /dev/kvm alone promises nothing.

    `kernel` is one that `with_our_init` made. Takes a second or two; 20 s where the kernel hangs.
    """
    if not _KVM.exists():
        return False
    trial = Hardware(memory_bytes=min(hardware.memory_bytes, 2**30), cpu_model=hardware.cpu_model, emulated=False)
    with tempfile.TemporaryFile() as console:
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                qemu_command(kernel, trial),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.DEVNULL,
                timeout=_KVM_TRIAL_SECONDS,
                check=False,
            )
        console.seek(0)
        return UP in console.read()
