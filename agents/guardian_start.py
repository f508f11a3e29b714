"""Starting a guardian so that it outlives whoever starts it, and knowing that it is ready."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from agents.errors import GuardianError
from agents.process import ProcessMark, mark_process
from agents.readable import readable_within
from agents.sysroot import FolderRoot
from agents.timeouts import start_seconds

_BOOT = "import sys; sys.path.append(sys.argv.pop(1)); from agents.guardian import main; sys.exit(main(sys.argv[1:]))"
_REMEDY = "see whether this user may start processes here, then claim the host again; nothing was changed"


def default_command() -> tuple[str, ...]:
    """Return the command of a guardian: this Python, alone with its standard library and this package."""
    source = Path(__file__).resolve().parent.parent
    return (sys.executable, "-I", "-S", "-c", _BOOT, str(source))


def start_guardian(root: FolderRoot, claim: str, command: Sequence[str] | None = None) -> ProcessMark:
    """Start the guardian of a claim in a session of its own, a child of init, and wait until it is ready.

    It gets no descriptor and no environment of ours. GuardianError where it doesn't answer in time.
    """
    argv = [*(default_command() if command is None else command), str(root.root), claim]
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    try:
        first = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
            env=kept,
        )
    except OSError as error:
        raise GuardianError(f"the guardian can't be started: {error.strerror}", argv[0], _REMEDY) from error
    with first:
        assert first.stdout is not None  # noqa: S101 - asked for above
        said = _listen(first.stdout.fileno())
        pid = _ready_pid(said)
        mark = None if pid is None else mark_process(pid)
        if mark is not None:
            return mark
        with suppress(OSError):
            os.killpg(first.pid, signal.SIGKILL)
    text = said.decode(errors="replace").strip() or "it said nothing"
    raise GuardianError(f"the guardian did not start: {text[-500:]}", argv[0], _REMEDY)


def _listen(fd: int) -> bytes:
    """Read until a ready line, the end, or the deadline."""
    said, deadline = b"", time.monotonic() + start_seconds()
    while _ready_pid(said) is None:
        left = deadline - time.monotonic()
        if left <= 0 or not readable_within([fd], left):
            break
        chunk = os.read(fd, 4096)
        if not chunk:
            break
        said += chunk
    return said


def _ready_pid(said: bytes) -> int | None:
    for line in said.split(b"\n")[:-1]:
        word, _, pid = line.partition(b" ")
        if word == b"ready" and pid.isdigit():
            return int(pid)
    return None
