"""What a command prints, within its time; it leaves nothing running, and its CPU time is counted as the agent's own."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress

from agents.collectors.own_cost import add_child_seconds
from agents.errors import WorkloadError
from agents.feeds.cut import Cut
from agents.feeds.unreadable import Unreadable
from agents.secret_words import masked
from agents.workloads.environment import Identity, find_identity, kept_environment

BYTES_AT_MOST = 2**20
_CHUNK = 65536
_GRACE_SECONDS = 1.0  # more than the agent itself gives: its own word comes first


def run_command(argv: Sequence[str], *, user: str | None, timeout_seconds: float, cut: Cut) -> bytes:
    """Run a program, never a shell, and return its stdout; Unreadable where it fails, hangs or says too much."""
    try:
        identity = find_identity(user) if user is not None else None
    except WorkloadError as error:
        raise Unreadable(error.what, error.remedy) from error
    if identity is not None and os.geteuid() not in {0, identity.uid}:
        raise Unreadable(
            f"only root can run a command as {identity.name}", f"run the agent as root or as {identity.name}"
        )
    process = _start(argv, identity, timeout_seconds)
    with process:
        try:
            with cut.by(lambda: _kill(process)):
                out, last_words, in_time = _drain(process, time.monotonic() + timeout_seconds)
        finally:
            _kill(process)  # what it left behind goes with it, while the dead leader still keeps the number
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    add_child_seconds(used.ru_utime + used.ru_stime)
    if len(out) > BYTES_AT_MOST:
        raise Unreadable(f"it printed more than {BYTES_AT_MOST // 2**20} MiB")
    if cut.done or not in_time:
        raise Unreadable(f"it had not ended after {timeout_seconds:g} s")
    if process.returncode != 0:
        said = last_words.decode(errors="replace").strip().splitlines()
        raise Unreadable(f"exit status {process.returncode}" + (f": {masked(said[-1])[:200]}" if said else ""))
    return out


def _start(argv: Sequence[str], identity: Identity | None, timeout_seconds: float) -> subprocess.Popen[bytes]:
    environment = kept_environment()
    other = identity if identity is not None and identity.uid != os.geteuid() else None
    if identity is not None:
        environment |= {"HOME": identity.home, "USER": identity.name, "LOGNAME": identity.name}
    program = shutil.which(argv[0], path=environment.get("PATH"))
    if program is None:
        raise Unreadable(f"there is no program {argv[0]!r} on this host", "give the path of an executable file")
    try:
        return subprocess.Popen(
            [
                *_ended_after(timeout_seconds + _GRACE_SECONDS, environment.get("PATH")),
                os.path.abspath(program),  # noqa: PTH100 - a link keeps its name
                *argv[1:],
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            start_new_session=True,
            user=None if other is None else other.uid,
            group=None if other is None else other.gid,
            extra_groups=None if other is None else other.groups,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise Unreadable(f"it can't be started: {getattr(error, 'strerror', None) or error}") from error


def _ended_after(seconds: float, path: str | None) -> list[str]:
    """Return what ends a command for us if this process is killed meanwhile: timeout(1), where the host has it."""
    ender = shutil.which("timeout", path=path)
    return [] if ender is None else [ender, "-s", "KILL", f"{seconds:g}"]


def _drain(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes, bool]:
    """Return stdout, the end of stderr, and whether both ended before the deadline."""
    out, words = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        for stream, into in ((process.stdout, out), (process.stderr, words)):
            if stream is not None:
                selector.register(stream, selectors.EVENT_READ, into)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0 or len(out) > BYTES_AT_MOST:
                break
            for key, _ in selector.select(left):
                chunk = os.read(key.fd, _CHUNK)
                key.data.extend(chunk)
                if not chunk:
                    selector.unregister(key.fileobj)
            del words[:-_CHUNK]
        over = not selector.get_map()
    return bytes(out), bytes(words), over and _ended(process, deadline)


def _ended(process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Wait for the leader, which may close its output and go on; leave its number taken."""
    exited = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(exited, selectors.EVENT_READ)
            return bool(selector.select(max(0.0, deadline - time.monotonic())))
    finally:
        os.close(exited)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
