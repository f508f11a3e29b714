"""What a command prints, within its time; it leaves nothing running, and its CPU time is counted as the agent's own."""

from __future__ import annotations

import os
import selectors
import shutil
import time
from collections.abc import Sequence

from agents.collectors.own_cost import add_child_seconds
from agents.errors import WorkloadError
from agents.launcher import LAUNCHER, Launch, Launched
from agents.metric_sources.cancellation import Cancellation
from agents.metric_sources.unreadable import Unreadable
from agents.secret_words import masked
from agents.workloads.environment import Identity, find_identity, kept_environment
from agents.workloads.fields import unfit_word

BYTES_AT_MOST = 2**20
_CHUNK = 65536


def run_command(argv: Sequence[str], *, user: str | None, timeout_seconds: float, cut: Cancellation) -> bytes:
    """Run a program, never a shell, and return its stdout; Unreadable where it fails, hangs or says too much."""
    try:
        identity = find_identity(user) if user is not None else None
    except WorkloadError as error:
        raise Unreadable(error.what, error.remedy) from error
    if identity is not None and os.geteuid() not in {0, identity.uid}:
        raise Unreadable(
            f"only root can run a command as {identity.name}", f"run the agent as root or as {identity.name}"
        )
    launched = _start(argv, identity, timeout_seconds)
    try:
        with cut.by(launched.kill):
            out, last_words, in_time = _drain(launched, time.monotonic() + timeout_seconds)
        launched.kill()  # where it has ended that is nothing new
        ended = launched.ended()
    finally:
        launched.close()
    add_child_seconds(ended.cpu_seconds)
    if len(out) > BYTES_AT_MOST:
        raise Unreadable(f"it printed more than {BYTES_AT_MOST // 2**20} MiB")
    if cut.done or not in_time:
        raise Unreadable(f"it had not ended after {timeout_seconds:g} s")
    if ended.code != 0:
        said = last_words.decode(errors="replace").strip().splitlines()
        raise Unreadable(f"exit status {ended.code}" + (f": {masked(said[-1])[:200]}" if said else ""))
    return out


def _start(argv: Sequence[str], identity: Identity | None, timeout_seconds: float) -> Launched:
    for problem in filter(None, map(unfit_word, argv)):
        raise Unreadable(*problem)
    environment = kept_environment()
    if identity is not None:
        environment |= {"HOME": identity.home, "USER": identity.name, "LOGNAME": identity.name}
    program = shutil.which(argv[0], path=environment.get("PATH"))
    if program is None:
        raise Unreadable(f"there is no program {argv[0]!r} on this host", "give the path of an executable file")
    program = os.path.abspath(program)  # noqa: PTH100 - a link keeps its name
    launch = Launch(
        argv=(program, *argv[1:]),
        program=program,
        environment=environment,
        user=None if identity is None else identity.switched_to(),
        time_limit_seconds=timeout_seconds,
    )
    try:
        return LAUNCHER.launch(launch)
    except OSError as error:
        raise Unreadable(f"it can't be started: {error.strerror or error}") from error


def _drain(launched: Launched, deadline: float) -> tuple[bytes, bytes, bool]:
    """Return stdout, the end of stderr, and whether it ended before the deadline: by then nobody holds them open."""
    out, words = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        for stream, into in ((launched.stdout, out), (launched.stderr, words)):
            selector.register(stream, selectors.EVENT_READ, into)
        selector.register(launched, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0 or len(out) > BYTES_AT_MOST:
                break
            for key, _ in selector.select(left):
                chunk = b"" if key.data is None else os.read(key.fd, _CHUNK)
                if chunk:
                    key.data.extend(chunk)
                else:
                    selector.unregister(key.fileobj)
            del words[:-_CHUNK]
        over = not selector.get_map()
    return bytes(out), bytes(words), over
