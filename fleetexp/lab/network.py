"""The lab's network: a namespace with a bridge. The host's own interfaces, routes and rules stay as found.

All that the lab runs is in the namespace, so whatever is left of it after a kill is found there and ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fleetexp.errors import LabError
from fleetexp.lab.machine import Tap

_SPACES = Path("/run/netns")
_BRIDGE = "br0"
_ENDING_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A namespace by name; `prefix` is the first three numbers of its addresses, which nobody outside can reach."""

    space: str
    prefix: str = "10.231.78"

    @property
    def head(self) -> str:
        """The address of the bridge itself."""
        return self.address(1)

    def address(self, number: int) -> str:
        return f"{self.prefix}.{number}"

    def exists(self) -> bool:
        return (_SPACES / self.space).exists()

    def create(self) -> None:
        """Make the namespace and the bridge; LabError where that is not possible here."""
        _ip("netns", "add", self.space)
        _ip("-n", self.space, "link", "set", "lo", "up")
        _ip("-n", self.space, "link", "add", _BRIDGE, "type", "bridge")
        _ip("-n", self.space, "addr", "add", f"{self.head}/24", "dev", _BRIDGE)
        _ip("-n", self.space, "link", "set", _BRIDGE, "up")

    def plug(self, number: int) -> Tap:
        """Make the network card of the guest with this number, plugged into the bridge."""
        device = f"tap{number}"
        _ip("-n", self.space, "tuntap", "add", device, "mode", "tap")
        _ip("-n", self.space, "link", "set", device, "master", _BRIDGE, "up")
        return Tap(device=device, mac=f"52:54:00:00:00:{number:02x}")

    def entering(self, words: Sequence[str]) -> list[str]:
        """Return a command that runs in the namespace."""
        return ["ip", "netns", "exec", self.space, *words]

    def processes(self) -> list[int]:
        """Return what runs in the namespace."""
        listed = subprocess.run(["ip", "netns", "pids", self.space], capture_output=True, text=True, check=False)
        return [int(pid) for pid in listed.stdout.split()]

    def remove(self) -> None:
        """End whatever runs in the namespace, and remove it with all in it. Nothing happens where there is none."""
        ask_until = time.monotonic() + _ENDING_SECONDS
        give_up_at = ask_until + _ENDING_SECONDS
        number = signal.SIGTERM
        while (pids := self.processes()) and time.monotonic() < give_up_at:
            if number is signal.SIGTERM or time.monotonic() > ask_until:
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, number)
                number = signal.SIGKILL
            time.sleep(0.1)
        if pids:
            raise LabError(
                f"{len(pids)} processes of the lab don't end: {', '.join(map(str, pids))}",
                where=f"network namespace {self.space}",
                remedy="see what they wait for (ps), then 'fleetexp lab stop' again",
            )
        try:
            if self.exists():
                _ip("netns", "del", self.space)
        except LabError:
            if self.exists():  # else somebody else has removed it meanwhile
                raise


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(
            f"'ip {' '.join(words)}' failed: {done.stderr.strip() or done.returncode}",
            where="the lab's network",
            remedy="a lab needs root and a kernel with network namespaces, bridges and tap devices",
        )
