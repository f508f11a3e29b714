"""Requests as bytes over a real socket, malformed ones too, and what comes back."""

from __future__ import annotations

import socket
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

PROTECTING = (
    "content-security-policy",
    "cache-control",
    "cross-origin-resource-policy",
    "referrer-policy",
    "x-content-type-options",
    "x-frame-options",
)


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no ::1")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: str


def connect(address: str) -> socket.socket:
    where = urlsplit(address)
    return socket.create_connection((str(where.hostname), where.port or 0), timeout=10)


def received(connection: socket.socket) -> Answer:
    data = b""
    while more := connection.recv(65536):
        data += more
    head, _, body = data.decode("latin-1").partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    fields = [line.partition(": ") for line in lines]
    assert len({name.lower() for name, _, _ in fields}) == len(fields)
    return Answer(int(first.split()[1]), {name.lower(): text for name, _, text in fields}, body)


def ask(address: str, request: bytes) -> Answer:
    """Send bytes as they are; the answer must come, and the connection must end."""
    with connect(address) as connection:
        connection.sendall(request)
        return received(connection)


def get(address: str, target: str = "/", host: str = "localhost", *more: str) -> Answer:
    lines = (f"GET {target} HTTP/1.1", f"Host: {host}", *more, "", "")
    return ask(address, "\r\n".join(lines).encode("latin-1"))
