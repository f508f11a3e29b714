"""A service that runs anyway: find its cgroup, see whether it lives, restart it where the arm asks for it."""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import dataclass

from agents.collectors.cgroup import MOUNT, find_cgroup
from agents.errors import WorkloadError
from agents.messages import WorkloadSpec, WorkloadState
from agents.sysroot import SysRoot
from agents.workloads.kinds.service import Service
from agents.workloads.options import read_options
from agents.workloads.printed import quoted
from agents.workloads.running import Measured

SHOW_SECONDS = 10.0
RESTART_SECONDS = 120.0
ACTIVE_SECONDS = 30.0
_POLL_SECONDS = 0.1
_SYSTEMD = f"{MOUNT}/systemd"
_PROPERTIES = ("LoadState", "ActiveState", "SubState", "Result", "ControlGroup", "MainPID")
_STARTING = frozenset({"activating", "reloading"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceUnit:
    """A systemd unit as systemctl shows it; `main_pid` 0 where it has no main process."""

    name: str
    active: str
    sub_state: str
    result: str
    cgroup: str
    main_pid: int


class AttachedService:
    """A service under watch. It is failed once its cgroup holds no process, or its main process is another one."""

    pid: int | None = None

    def __init__(self, root: SysRoot, *, name: str, cgroup: str, main_pid: int = 0) -> None:
        self.cgroup: str | None = cgroup
        self._root = root
        self._name = name
        self._cgroup = cgroup
        self._main = (main_pid, _started(root, main_pid)) if main_pid else None
        self._state = WorkloadState.RUNNING
        self._detail = ""

    def poll(self) -> tuple[WorkloadState, str]:
        if self._state is WorkloadState.RUNNING:
            if self._main is not None and _started(self._root, self._main[0]) != self._main[1]:
                self._fail(f"the main process {self._main[0]} of {self._name} ended: its memory is another now")
            elif not is_populated(self._root, self._cgroup):
                self._fail(f"{self._name}: no process is left in its cgroup {self._cgroup}")
        return self._state, self._detail

    def wait_until_ready(self, timeout_seconds: float) -> None:
        """It was found alive: it is."""

    def go(self) -> None:
        """It has been running all along."""

    def measurements(self) -> list[Measured]:
        return []  # what a service does is read from its cgroup and from the sources that the spec names

    def stop(self, timeout_seconds: float = 10.0) -> bool:
        """Stop watching; the service runs on."""
        if self._state is WorkloadState.RUNNING:
            self._state, self._detail = WorkloadState.FINISHED, "no longer watched; the service runs on"
        return True

    def _fail(self, detail: str) -> None:
        self._state, self._detail = WorkloadState.FAILED, detail


def attach_service(options: Service, root: SysRoot) -> AttachedService:
    """Find a service that lives; WorkloadError where it does not."""
    name, cgroup, main_pid = options.cgroup or "", options.cgroup or "", 0
    if options.unit is not None:
        unit = show_unit(options.unit)
        if unit.active != "active":
            raise WorkloadError(
                f"{unit.name} is {unit.active} ({unit.sub_state})",
                where="systemctl show",
                remedy=f"start it with 'systemctl start {unit.name}'",
            )
        name, cgroup, main_pid = unit.name, unit.cgroup, unit.main_pid
    if not is_populated(root, cgroup):
        raise WorkloadError(
            f"no process runs in the cgroup {cgroup or '(none)'}",
            where=name,
            remedy="start the service; 'systemd-cgls' shows the cgroups",
        )
    return AttachedService(root, name=name, cgroup=cgroup, main_pid=main_pid)


def restart_service(spec: WorkloadSpec, root: SysRoot) -> str:
    """Restart the unit of a service and wait until it is active; return what was done.

    WorkloadError where it can't be restarted or does not come back. With `restart: never` nothing is done.
    """
    options = read_options(spec)
    if not isinstance(options, Service):
        raise WorkloadError(
            f"{spec.kind} is not a service: it can't be restarted",
            where="workload",
            remedy="it starts afresh by itself",
        )
    if not options.restart or options.unit is None:
        return "not restarted: restart is 'never'"
    if not root.real:
        raise WorkloadError(
            f"{options.unit} runs on this machine, not on the host looked at",
            where=repr(root),
            remedy="use a service only in a real fleet",
        )
    _systemctl("restart", "--", options.unit, seconds=RESTART_SECONDS)
    deadline = time.monotonic() + ACTIVE_SECONDS
    while (unit := show_unit(options.unit)).active in _STARTING and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    if unit.active != "active":
        raise WorkloadError(
            f"{unit.name} did not come back: it is {unit.active} ({unit.sub_state}), result {unit.result or 'unknown'}",
            where="systemctl restart",
            remedy=f"see 'journalctl -u {unit.name}'",
        )
    return f"{unit.name} restarted, main process {unit.main_pid}"


def show_unit(name: str) -> ServiceUnit:
    """Ask systemd about a unit; WorkloadError where there is no such unit, or no systemd."""
    asked = [word for prop in _PROPERTIES for word in ("-p", prop)]
    printed = _systemctl("show", *asked, "--", name, seconds=SHOW_SECONDS)
    values = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    if values.get("LoadState") != "loaded":
        raise WorkloadError(
            f"systemd has no unit {name}: {values.get('LoadState', 'no answer')}",
            where="systemctl show",
            remedy="see 'systemctl list-units' for the names, or give the cgroup",
        )
    pid = values.get("MainPID", "0")
    return ServiceUnit(
        name=name,
        active=values.get("ActiveState", "unknown"),
        sub_state=values.get("SubState", "unknown"),
        result=values.get("Result", ""),
        cgroup=values.get("ControlGroup", ""),
        main_pid=int(pid) if re.fullmatch(r"[0-9]{1,9}", pid) else 0,
    )


def is_populated(root: SysRoot, cgroup: str) -> bool:
    """Whether any process runs in a cgroup or below it, in any hierarchy."""
    if not cgroup.strip("/"):
        return False
    places = find_cgroup(root, cgroup)
    folders = dict.fromkeys(filter(None, (places.unified, places.memory, places.perf, f"{_SYSTEMD}/{places.name}")))
    return any(_holds_process(root, folder) for folder in folders)


def _holds_process(root: SysRoot, folder: str) -> bool:
    try:
        if root.exists(f"{folder}/cgroup.events"):  # version 2: of the whole subtree
            return b"populated 1" in root.read(f"{folder}/cgroup.events")
        if root.read(f"{folder}/cgroup.procs").strip():
            return True
    except OSError:
        return False
    below = (f"{folder}/{name}" for name in root.names(folder))
    return any(_holds_process(root, child) for child in below if root.exists(f"{child}/cgroup.procs"))


def _started(root: SysRoot, pid: int) -> str:
    """Return the start time of a process (proc_pid_stat(5), field 22): a recycled number is not taken for it."""
    try:
        return root.read(f"proc/{pid}/stat").decode(errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _systemctl(*words: str, seconds: float) -> str:
    command = ["systemctl", "--no-pager", "--no-ask-password", *words]
    where = " ".join(("systemctl", words[0], words[-1]))
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            check=False,
        )
    except OSError as error:
        raise WorkloadError(
            f"systemctl can't be run: {error.strerror}", where=where, remedy="give the service's cgroup instead"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise WorkloadError(
            f"systemctl gave no answer in {seconds:g} s", where=where, remedy="see 'systemctl list-jobs'"
        ) from error
    if done.returncode != 0:
        raise WorkloadError(
            f"systemctl failed with exit status {done.returncode}: {quoted(done.stderr.strip())}",
            where=where,
            remedy="on a host without systemd give the service's cgroup instead",
        )
    return done.stdout.decode(errors="replace")
