"""One guest: booted on the lab's network with this machine's own files below it, its console kept in its folder."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from agents.process import ProcessMark, is_alive, mark_process
from fleetexp.errors import LabError
from fleetexp.lab.console import explained, failure_of, last_lines
from fleetexp.lab.guest_node import JOINED, STOP
from fleetexp.lab.initramfs import SCRIPT
from fleetexp.lab.machine import Hardware, KernelImage, Share, qemu_command
from fleetexp.lab.network import Network


class GuestState(StrEnum):
    """booting -> joined -> ended, or booting -> ended."""

    BOOTING = "booting"
    JOINED = "joined"
    ENDED = "ended"


@dataclass(slots=True)
class Guest:
    """A guest by its name and number, which its address ends in."""

    name: str
    number: int
    folder: Path
    mark: ProcessMark | None = None
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def share(self) -> Path:
        """What the guest sees as /mnt/share."""
        return self.folder / "share"

    @property
    def console_path(self) -> Path:
        return self.folder / "console.log"

    @property
    def console(self) -> str:
        try:
            return self.console_path.read_text(errors="replace")
        except OSError:
            return ""

    def start(self, network: Network | None, kernel: KernelImage, hardware: Hardware, script: str) -> None:
        """Boot, and have the script run by the guest's shell as root; `kernel` is one that `with_our_init` made.

        Where there is no network it has no card.
        """
        self.share.mkdir(parents=True)
        (self.share / Path(SCRIPT).name).write_text(script)
        shares = (
            Share(tag="hostroot", folder=Path("/")),
            Share(tag="share", folder=self.share, writable=True),
        )
        tap = None if network is None else network.plug(self.number)
        command = qemu_command(kernel, hardware, shares, tap)
        with self.console_path.open("wb") as console:
            self._process = subprocess.Popen(
                command if network is None else network.entering(command),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the one who stops it in order
            )
        self.mark = mark_process(self._process.pid)

    @property
    def state(self) -> GuestState:
        if self.mark is None or not is_alive(self.mark):
            return GuestState.ENDED
        return GuestState.JOINED if (self.share / JOINED).exists() else GuestState.BOOTING

    def failed(self) -> LabError:
        """Return the error that says why it has not joined."""
        ended = self.state is GuestState.ENDED
        what, remedy = explained(failure_of(self.console, ended=ended))
        return LabError(f"guest {self.name}: {what}", str(self.console_path), remedy, last_lines(self.console))

    def stop(self, timeout_seconds: float = 30.0) -> None:
        """Let the guest's script end, then pull the plug."""
        with suppress(FileNotFoundError):  # it has not begun, or its lab is being ended by somebody else
            (self.share / STOP).touch()
        if self._process is not None:
            try:
                self._process.wait(timeout=timeout_seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._process.wait()
