"""A port for a server that is started later, of another program that can't be given an open socket."""

from __future__ import annotations

import contextlib
import secrets
import socket
from pathlib import Path

_LEAST = 10_000


def free_port() -> int:
    """Return a loopback port that is free, and below those that the kernel gives away by itself meanwhile."""
    given_away_from = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = _LEAST + secrets.randbelow(given_away_from - _LEAST) if given_away_from > 2 * _LEAST else 0
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
