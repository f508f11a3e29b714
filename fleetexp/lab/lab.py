"""A lab: a Ray head and guests that are its hosts, booted together, looked at, and taken away without a trace."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from fleetexp.errors import LabError
from fleetexp.lab.architecture import Architecture, qemu_for
from fleetexp.lab.guest import Guest, GuestState
from fleetexp.lab.guest_node import RAY
from fleetexp.lab.joining import PORT, RayHead, joining_script, ray_folder
from fleetexp.lab.machine import Hardware, KernelImage, kvm_runs, with_our_init
from fleetexp.lab.network import Network
from fleetexp.lab.record import LabRecord, read_record, record_path, remove_record, write_record
from fleetexp.secret import without_secrets

_FIRST = 101  # number of the first guest
_HEAD_BYTES = 2**30  # what a Ray head and an orchestrator take beside the guests
_HEAD_SECONDS = 120.0
_MEMINFO = re.compile(r"^MemAvailable:\s+(\d+) kB$", re.MULTILINE)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabPlan:
    """What is to be booted; `prepare` is shell that each guest runs as root before it joins."""

    kernel: KernelImage
    hardware: Hardware
    hosts: int = 2
    prepare: str = ""
    timeout_seconds: float = 900.0


def boot(folder: Path, plan: LabPlan, say: Say = lambda _: None) -> LabRecord:
    """Boot the lab and wait until every guest has joined; LabError where that fails, and nothing is left.

    What can be known to fail is refused before anything is made.
    """
    check(plan)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    network = Network(space=f"fleetexp-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}")
    record = LabRecord(
        network=network,
        head=RayHead(
            address=f"{network.head}:{PORT}",
            token=secrets.token_hex(32),
            # Ray's paths of sockets have little room; and Ray opens its folder to all, so it lies in one of ours alone.
            folder=Path(tempfile.gettempdir()) / f"fleetexp-{secrets.token_hex(4)}" / "r",
        ),
        kernel=str(plan.kernel.image),
        guests=tuple(Guest(f"lab-{one}", _FIRST + one - 1, folder / f"lab-{one}") for one in range(1, plan.hosts + 1)),
    )
    write_record(folder, record, first=True)
    try:
        _boot(folder, plan, record, say)
    except BaseException:
        stop_what_is_left(folder)
        raise
    return record


def _boot(folder: Path, plan: LabPlan, record: LabRecord, say: Say) -> None:
    start = time.monotonic()
    for guest in record.guests:
        shutil.rmtree(guest.folder, ignore_errors=True)
    kernel = with_our_init(plan.kernel, folder)
    hardware = plan.hardware
    if not hardware.emulated and not kvm_runs(kernel, hardware):
        say("KVM does not run this kernel here: guests are emulated, 10 to 20 times slower than this machine")
        hardware = replace(hardware, emulated=True)
    record.network.create()
    start_head(record)
    for guest in record.guests:
        address = record.network.address(guest.number)
        script = joining_script(record.head, name=guest.name, address=address, prepare=plan.prepare)
        guest.start(record.network, kernel, hardware, script)
        write_record(folder, record)
    say(f"{plan.hosts} guests boot; their consoles: {folder}/lab-*/console.log")
    waiting = list(record.guests)
    while waiting:
        for guest in list(waiting):
            match guest.state:
                case GuestState.JOINED:
                    waiting.remove(guest)
                    say(f"{guest.name} has joined after {time.monotonic() - start:.0f} s")
                case GuestState.ENDED:
                    raise guest.failed()
                case GuestState.BOOTING if time.monotonic() > start + plan.timeout_seconds:
                    raise guest.failed()
        time.sleep(0.2)


def check(plan: LabPlan) -> None:
    """Refuse what can't work here; LabError says what is missing and what helps."""
    architecture = plan.kernel.architecture
    if os.geteuid() != 0:
        remedy = "start it with sudo: it makes a network namespace, and guests see this machine's files as root does"
        raise LabError("a lab needs root", remedy=remedy)
    if architecture != (here := os.uname().machine):
        raise LabError(
            f"this kernel is for {architecture}, and this machine is {here}",
            where=str(plan.kernel.image),
            remedy="guests run this machine's own Python: boot it on a machine of its kind",
        )
    qemu_for(Architecture(architecture))
    if shutil.which("ip") is None:
        raise LabError("ip is not installed", remedy="install it (Debian: apt-get install iproute2)")
    ray_folder()
    check_memory(plan, Path("/proc/meminfo").read_text())


def check_memory(plan: LabPlan, meminfo: str) -> None:
    """Refuse guests that would not find their memory here; `meminfo` is the content of /proc/meminfo."""
    found = _MEMINFO.search(meminfo)
    available = int(found[1]) * 1024 if found else 0
    wanted = plan.hosts * plan.hardware.memory_bytes + _HEAD_BYTES
    if found and wanted > available:
        most = max(0, (available - _HEAD_BYTES) // plan.hardware.memory_bytes)
        raise LabError(
            f"{plan.hosts} guests of {plan.hardware.memory_bytes / 2**30:.1f} GiB and their head want "
            f"{wanted / 2**30:.1f} GiB, and {available / 2**30:.1f} GiB are available",
            where="/proc/meminfo MemAvailable",
            remedy=f"--hosts {most} would fit" if most else "give them less with --memory, or free some",
        )


def start_head(record: LabRecord) -> None:
    """Start the Ray head on the lab's network; LabError with what it said where it does not start."""
    record.head.folder.parent.mkdir(mode=0o700)
    words = [
        *RAY, "start", "--head", "--port", str(PORT), "--node-ip-address", record.network.head, "--num-cpus", "1",
        "--object-store-memory", "80000000", "--include-dashboard=false", "--disable-usage-stats",
        "--temp-dir", str(record.head.folder),
    ]  # fmt: skip
    done = subprocess.run(
        record.network.entering(words),
        env=without_secrets(environment(record)),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_HEAD_SECONDS,
        start_new_session=True,
        check=False,
    )
    if done.returncode:
        lines = tuple(line for line in done.stdout.splitlines() if line.strip())
        raise LabError("the lab's Ray head did not start", str(record.head.folder), "see what Ray says", lines[-12:])


def environment(record: LabRecord) -> dict[str, str]:
    """Return the environment of a command that is to reach the lab's hosts, and no other cluster."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "FLEETEXP_RAY_"))}
    return {**kept, **record.environment, "RAY_USAGE_STATS_ENABLED": "0"}


def entering(record: LabRecord, words: Sequence[str]) -> list[str]:
    """Return a command that runs on the lab's network."""
    if not record.network.exists():
        raise LabError("the lab's network is gone", record.network.space, "fleetexp lab stop, then boot it again")
    return record.network.entering(words)


def stop_what_is_left(folder: Path) -> None:
    """End the lab of this folder, unless somebody else has, or does meanwhile."""
    try:
        stop(folder)
    except LabError:
        if record_path(folder).exists():
            raise


def stop(folder: Path) -> LabRecord:
    """End the lab of this folder, whatever is left of it, and take all that it made away but the consoles."""
    record = read_record(folder)
    record.network.remove()
    shutil.rmtree(record.head.folder, ignore_errors=True)
    with suppress(OSError):
        record.head.folder.parent.rmdir()
    (folder / "initramfs").unlink(missing_ok=True)
    for guest in record.guests:
        shutil.rmtree(guest.share, ignore_errors=True)
    remove_record(folder)
    return record
