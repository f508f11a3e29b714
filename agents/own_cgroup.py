"""A cgroup for each command that this agent starts: whatever the command becomes, all of it is found and ended there.

It lies below the agent's own cgroup, so the host's limits hold as before; it switches no controller on and is removed
at the end. Version 2 ends it with cgroup.kill (5.14) or frozen, version 1 in the freezer's hierarchy. Its name says
which process made it, so that what a dead agent left is known. Source: Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from agents.process import ProcessMark, is_alive, mark_process

UNIFIED = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
FREEZER = Path("/sys/fs/cgroup/freezer")
MEMORY = Path("/sys/fs/cgroup/memory")
TIMEOUT_SECONDS = 3.0
_NAME = re.compile(r"fleetexp-([0-9]{1,20})-([0-9]{1,9})-([0-9]{1,20})-[0-9]{1,20}")
_PID = re.compile(rb"[1-9][0-9]{0,8}")  # 0: of another namespace, and to kill it would be to kill ourselves
_FREEZING_SECONDS = 0.1
_LIMIT_FILES = ("memory.max", "memory.limit_in_bytes")  # of version 2, of version 1
_numbers = itertools.count(1)


ENDABLE = ((UNIFIED, ""), ((FREEZER,), "freezer"))
_LIMITABLE = ((UNIFIED, ""), ((MEMORY,), "memory"))


def make_cgroup() -> Path | None:
    """Make a cgroup below this process's own and return its folder; None where the host lets us make none."""
    return _make(ENDABLE)


def make_limited_cgroup(limit_bytes: int) -> Path | None:
    """Make one whose memory is limited; None where the host lets us make none, or gives its memory controller to none.

    What uses memory there joins it (`join_cgroup`), and has ended before `remove_cgroup`.
    """
    folder = _make(_LIMITABLE, needs=_LIMIT_FILES)
    if folder is not None:
        _write(next(folder / name for name in _LIMIT_FILES if (folder / name).exists()), b"%d" % limit_bytes)
    return folder


def _make(places: Sequence[tuple[Sequence[Path], str]], needs: Sequence[str] = ("cgroup.procs",)) -> Path | None:
    mark = mark_process(os.getpid())
    if mark is None:
        return None
    for parent in _own_folders(places):
        folder = parent / f"fleetexp-{_pid_namespace()}-{mark.pid}-{mark.started}-{next(_numbers)}"
        with suppress(OSError):
            folder.mkdir(mode=0o755)
            if os.access(folder / "cgroup.procs", os.W_OK) and any((folder / name).exists() for name in needs):
                return folder
            folder.rmdir()
    return None


def join_cgroup(folder: Path) -> None:
    """Move this process there; OSError where the kernel doesn't let it."""
    _write(folder / "cgroup.procs", b"0")


def kill_cgroup(folder: Path, *, timeout_seconds: float = TIMEOUT_SECONDS) -> bool:
    """SIGKILL all that runs in a cgroup or below it, and wait until it is gone; whether it is, in time."""
    deadline = time.monotonic() + timeout_seconds
    while is_populated(folder):
        strike_cgroup(folder)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def strike_cgroup(folder: Path) -> None:
    """SIGKILL once what is there: at one stroke where the kernel can, else while it stands still and can't fork."""
    with suppress(OSError):
        _write(folder / "cgroup.kill", b"1")
        return
    _freeze(folder, frozen=True)
    for pid in _pids(folder):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    _freeze(folder, frozen=False)


def is_populated(folder: Path) -> bool:
    """Whether anything that isn't dead runs in a cgroup or below it."""
    events = _read(folder / "cgroup.events")
    return b"populated 1" in events if events else any(True for _ in _pids(folder))


def remove_cgroup(folder: Path) -> None:
    """Remove an empty cgroup with those below it; what is not empty stays."""
    for inner, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(inner).rmdir()


def end_cgroups_of(agent: ProcessMark) -> bool:
    """End and remove all that this very process made, alive or dead; whether all of it is gone."""
    return _end_where(lambda maker: (maker.pid, maker.started) == (agent.pid, agent.started))


def end_left_over_cgroups() -> bool:
    """End and remove what was made by processes that have died since; whether all of it is gone."""
    return _end_where(lambda maker: not is_alive(maker))


def _end_where(meant: Callable[[ProcessMark], bool]) -> bool:
    gone = True
    for folder, maker in [*_all_of_ours()]:
        if meant(maker):
            gone = kill_cgroup(folder) and gone
            remove_cgroup(folder)
    return gone


def _pid_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


def _all_of_ours() -> Iterator[tuple[Path, ProcessMark]]:
    """Find the cgroups that an agent of this user made, in this namespace of process numbers: no others are touched."""
    for mount in (*UNIFIED, FREEZER, MEMORY):
        if not (mount / "cgroup.procs").exists():
            continue
        for parent, names, _ in os.walk(mount):
            for match in filter(None, map(_NAME.fullmatch, names)):
                folder = Path(parent, match[0])
                with suppress(OSError):
                    if int(match[1]) == _pid_namespace() and folder.stat().st_uid == os.geteuid():
                        yield folder, ProcessMark(pid=int(match[2]), started=int(match[3]), session=0)


def _own_folders(places: Sequence[tuple[Sequence[Path], str]]) -> Iterator[Path]:
    """Yield this process's own cgroup in each of these hierarchies, given by mounts and controller."""
    paths: dict[str, str] = {}
    for line in os.fsdecode(_read(Path("/proc/self/cgroup"))).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        paths |= dict.fromkeys(controllers.split(","), path.strip("/"))
    for mounts, controller in places:
        if controller in paths:
            # In a container the path may be the host's, and what is mounted our own cgroup.
            folders = dict.fromkeys(folder for mount in mounts for folder in (mount / paths[controller], mount))
            yield from filter(_holds_us, folders)


def _holds_us(folder: Path) -> bool:
    return ".." not in folder.parts and b"%d" % os.getpid() in _read(folder / "cgroup.procs").split()


def _freeze(folder: Path, *, frozen: bool) -> None:
    """Freeze or thaw, and wait a moment until all stand still; where there is no freezer nothing is done."""
    version_1 = (folder / "freezer.state").exists()
    state = folder / ("freezer.state" if version_1 else "cgroup.freeze")
    word = (b"FROZEN" if frozen else b"THAWED") if version_1 else (b"1" if frozen else b"0")
    with suppress(OSError):
        _write(state, word)
        deadline = time.monotonic() + _FREEZING_SECONDS
        while frozen and time.monotonic() < deadline:
            if _read(state).strip() == b"FROZEN" or b"frozen 1" in _read(folder / "cgroup.events"):
                return
            time.sleep(0.001)


def _pids(folder: Path) -> Iterator[int]:
    for inner, _, _ in os.walk(folder):
        yield from (int(word) for word in _read(Path(inner, "cgroup.procs")).split() if _PID.fullmatch(word))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _write(path: Path, value: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value)
    finally:
        os.close(fd)
