"""A guest whose CPU counts dTLB misses, with this project's agent in it: booted, called, driven as a fleet of one."""

from __future__ import annotations

import contextlib
import lzma
import pickle
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from agents.messages import Reply, Request
from agents.sysroot import FolderRoot, SysRoot
from fleetexp.fleets.inline_fleet import InlineFleet, InlineInventory
from fleetexp.fleets.inventory import FoundHost
from tests.lab.bound_to_test import ends_with_us
from tests.lab.conftest import lab_folder
from tests.lab.guest_pmu import LENGTH

HERE = Path(__file__).resolve().parent
HOST = "pmu-1"
LONGEST_SECONDS = 500.0  # booting takes 30 s, 130 beside other guests on a busy machine; a call less
# Modules are compiled once, and cgroups get perf events with the first controller that is enabled below the root.
SCRIPT = """\
unset PYTHONDONTWRITEBYTECODE
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
exec python3 /app/guest_pmu.py
"""
QEMU = "qemu-system-riscv64"
NEEDED = (QEMU, "cpio")


def booted(folder: Path) -> Iterator[PmuGuest]:
    """Yield a guest that is up, for a fixture; skip where the lab or a program is missing."""
    lab = lab_folder()
    if lab is None or not (lab / "pmu/Image.xz").exists():
        pytest.skip("the lab is not here: set FLEETEXP_LAB to the folder with pmu/ in it")
    if absent := [program for program in NEEDED if shutil.which(program) is None]:
        pytest.skip(f"{' and '.join(absent)} not installed (make installs it, as root)")
    made = PmuGuest(lab / "pmu", folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()


class PmuGuest:
    """`start` boots it, `call` runs a function of `guest_pmu.py` in it, from any thread, `stop` ends it."""

    def __init__(self, lab: Path, folder: Path) -> None:
        self._lab = lab
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._socket = socket.socket(socket.AF_UNIX)
        self._sending = threading.Lock()
        self._waiting: dict[int, Future[Any]] = {}

    @property
    def console(self) -> str:
        return (self._folder / "console.log").read_text(errors="replace")[-4000:]

    def start(self) -> None:
        image, initrd, port = (self._folder / name for name in ("Image", "initrd", "port"))
        image.write_bytes(lzma.decompress((self._lab / "Image.xz").read_bytes()))
        initrd.write_bytes(lzma.decompress((self._lab / "base.cpio.xz").read_bytes()) + self._archive())
        with (self._folder / "console.log").open("wb") as console:
            self._process = subprocess.Popen(
                ends_with_us([
                    QEMU, "-machine", "virt", "-cpu", "rv64", "-smp", "2", "-m", "1G", "-nographic", "-no-reboot",
                    "-kernel", str(image), "-initrd", str(initrd), "-append", "console=ttyS0 quiet panic=-1",
                    "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=port,name=port",
                    "-chardev", f"socket,id=port,path={port},server=on,wait=off",
                ]),
                stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT,
            )  # fmt: skip
        deadline = time.monotonic() + LONGEST_SECONDS
        self._socket.settimeout(LONGEST_SECONDS)
        while True:
            try:
                self._socket.connect(str(port))
                break
            except OSError:
                assert self._process.poll() is None and time.monotonic() < deadline, self.console
                time.sleep(0.1)
        try:
            assert self._read(1) == b"!", self.console
        except TimeoutError as error:
            raise AssertionError(f"not up after {LONGEST_SECONDS} s: {self.console}") from error
        self._socket.settimeout(None)
        threading.Thread(target=self._receive, daemon=True).start()

    def _archive(self) -> bytes:
        """What is put into the guest's file system: the agent, this folder's two scripts, and what starts them."""
        add = self._folder / "add"
        shutil.copytree(HERE.parents[1] / "agents", add / "app/agents", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("guest_pmu.py", "page_stride.py"):
            shutil.copy(HERE / name, add / "app" / name)
        (add / "run-in-guest").write_text(SCRIPT)
        names = "\n".join(str(path.relative_to(add)) for path in sorted(add.rglob("*")))
        done = subprocess.run(
            ["cpio", "-o", "-H", "newc", "--quiet"], cwd=add, input=names.encode(), capture_output=True, check=True
        )
        return done.stdout

    def call(self, function: str, *arguments: Any) -> Any:  # noqa: ANN401
        """Run a function of the guest's script; what it raised is raised here."""
        future: Future[Any] = Future()
        with self._sending:
            number = len(self._waiting)
            self._waiting[number] = future
            message = pickle.dumps((number, function, arguments))
            self._socket.sendall(LENGTH.pack(len(message)) + message)
        found = future.result(timeout=LONGEST_SECONDS)
        if isinstance(found, Exception):
            raise found
        return found

    def _receive(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                number, found = pickle.loads(self._read(LENGTH.unpack(self._read(LENGTH.size))[0]))  # noqa: S301
                self._waiting[number].set_result(found)

    def _read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            part = self._socket.recv(size - len(found))
            if not part:
                raise EOFError
            found += part
        return found

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendall(LENGTH.pack(0))
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=10)
            self._process.kill()
            self._process.wait()
        self._socket.close()


class _AgentInGuest:
    """The agent in the guest, as a fleet of this process calls one."""

    def __init__(self, guest: PmuGuest, run: str) -> None:
        self._guest = guest
        self._run = run
        guest.call("hire", HOST, run)

    def handle(self, request: Request) -> Reply:
        return self._guest.call("ask", self._run, request)  # type: ignore[no-any-return]

    def abandon(self) -> None:
        self._guest.call("dismiss", self._run, "abandon")

    def close(self) -> None:
        self._guest.call("dismiss", self._run, "close")


class _FleetOfGuest(InlineFleet):
    def __init__(self, guest: PmuGuest, run: str) -> None:
        self._guest = guest
        super().__init__({HOST: FolderRoot()}, run=run, labels={})

    def _agent(self, host: str) -> Any:  # noqa: ANN401
        return _AgentInGuest(self._guest, self._run)


class GuestInventory(InlineInventory):
    """A fleet of one host, the guest: its agent runs there, the orchestrator here."""

    def __init__(self, guest: PmuGuest) -> None:
        roots: dict[str, SysRoot] = {HOST: FolderRoot()}
        super().__init__(roots)
        self._guest = guest

    def survey(self) -> Sequence[FoundHost]:
        facts, claim = self._guest.call("look", HOST)
        return [FoundHost(host=HOST, labels={}, facts=facts, claim=claim)]

    def open(self, hosts: Sequence[str], run: str) -> InlineFleet:
        return _FleetOfGuest(self._guest, run)
