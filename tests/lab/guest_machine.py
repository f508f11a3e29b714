"""A guest of QEMU's on the network of a test cluster, with this machine's own files below it, for any kernel.

The initramfs must mount the 9p tags `hostroot` (read-only, with a throw-away layer on top) as the root and `share` at
/mnt/share, and run /mnt/share/run.sh there; what it wants to be told is given as kernel arguments.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tests.lab.bound_to_test import ends_with_us
from tests.ray_cluster import Cluster


@dataclass
class Guest:
    """One guest: `start` boots it on a tap of the cluster's bridge, `stop` ends it and keeps its console."""

    cluster: Cluster
    folder: Path
    number: int  # last part of its address
    kernel: Path
    initramfs: Path
    arguments: str = ""
    memory: str = "8G"
    process: subprocess.Popen[bytes] | None = None
    _console: IO[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return f"{self.cluster.head.address.rpartition('.')[0]}.{self.number}"

    @property
    def share(self) -> Path:
        return self.folder / "share"

    @property
    def console(self) -> str:
        path = self.folder / "console.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self, script: str) -> None:
        """Boot, and have the script run by the guest's shell as root."""
        self.share.mkdir(parents=True, exist_ok=True)
        (self.share / "run.sh").write_text(script)
        gateway = f"{self.cluster.head.address.rpartition('.')[0]}.254"
        (self.share / "net").write_text(f"ADDR={self.address}/24 GW={gateway}\n")
        tap = f"tap{self.number}"
        for words in (("tuntap", "add", tap, "mode", "tap"), ("link", "set", tap, "master", "br0", "up")):
            subprocess.run(["ip", "-n", self.cluster.net, *words], check=True, capture_output=True)
        qemu = shutil.which("qemu-system-x86_64")
        assert qemu is not None
        drives = (("root", "/", ",readonly=on", "hostroot"), ("share", str(self.share), "", "share"))
        files: list[str] = []
        for name, path, how, tag in drives:
            files += ["-fsdev", f"local,id={name},path={path},security_model=none{how},multidevs=remap"]
            files += ["-device", f"virtio-9p-pci,fsdev={name},mount_tag={tag}"]
        self._console = (self.folder / "console.log").open("wb")
        self.process = subprocess.Popen(
            ends_with_us([
                "ip", "netns", "exec", self.cluster.net, qemu, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2",
                "-m", self.memory, "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
                "-monitor", "none", "-kernel", str(self.kernel), "-initrd", str(self.initramfs),
                "-append", f"console=ttyS0 panic=-1 loglevel=4 {self.arguments}", *files,
                "-netdev", f"tap,id=n0,ifname={tap},script=no,downscript=no",
                "-device", f"virtio-net-pci,netdev=n0,mac=52:54:00:00:00:{self.number:02x}",
            ]),
            stdin=subprocess.DEVNULL,
            stdout=self._console,
            stderr=subprocess.STDOUT,
        )  # fmt: skip

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """Ask the guest's script to end, then pull the plug."""
        if self.share.exists():
            (self.share / "stop").touch()
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=30)
            self.process.kill()
            self.process.wait()
        if self._console is not None:
            self._console.close()
