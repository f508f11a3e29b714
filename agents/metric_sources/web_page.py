"""One page over HTTP: within its time, of bounded size, from the address that was written down and no other."""

from __future__ import annotations

import http.client
import socket
import ssl
from contextlib import closing
from functools import lru_cache
from urllib.parse import urlsplit

from agents.metric_sources.cancellation import Cancellation
from agents.metric_sources.page import SourcePage
from agents.metric_sources.unreadable import Unreadable
from agents.secret_words import masked

BYTES_AT_MOST = 16 * 2**20
_DEFAULT_PORTS = {"http": 80, "https": 443}


def fetch(url: str, *, accept: str, timeout_seconds: float, cut: Cancellation) -> SourcePage:
    """Return the page; Unreadable where there is none.

    A redirect is not followed: it could lead to any file or host. No proxy is used: it would answer for the host.
    """
    try:
        return _fetch(url, accept, timeout_seconds, cut)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if cut.done:
            raise Unreadable("the answer took too long") from error
        raise Unreadable(_why(error)) from error


def _fetch(url: str, accept: str, timeout_seconds: float, cut: Cancellation) -> SourcePage:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme]
    connection = (
        http.client.HTTPSConnection(host, port, timeout=timeout_seconds, context=_trusted())
        if parts.scheme == "https"
        else http.client.HTTPConnection(host, port, timeout=timeout_seconds)
    )
    with closing(connection):
        connection.connect()
        sock = connection.sock
        # Of the plain socket: a TLS layer would forget its keys, and the rest be taken for plain text.
        with cut.by(lambda: _shut(sock)):
            target = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
            headers = {"Accept": accept, "Accept-Encoding": "identity", "User-Agent": "fleetexp"}
            connection.request("GET", target, headers=headers)
            with closing(connection.getresponse()) as response:  # it owns the socket by now
                page = _answer(response)
        if cut.done:  # a page that ends with its connection looks whole
            raise TimeoutError
        return page


def _answer(response: http.client.HTTPResponse) -> SourcePage:
    if 300 <= response.status < 400 and (elsewhere := response.getheader("Location")):
        raise Unreadable(
            f"HTTP {response.status}: it is at {masked(elsewhere.partition('?')[0])[:200]!r}", "write that address"
        )
    if response.status != http.client.OK:
        raise Unreadable(f"HTTP {response.status} {response.reason}"[:200])
    coding = response.getheader("Content-Encoding", "identity")
    if coding != "identity":
        raise Unreadable(f"the page is encoded as {coding!r}, which was not asked for")
    bounded = response.chunked or response.length is not None
    body = response.read(BYTES_AT_MOST + 1)
    if len(body) > BYTES_AT_MOST:
        raise Unreadable(f"the page is larger than {BYTES_AT_MOST // 2**20} MiB")
    if response.length:
        raise Unreadable(f"the page was cut off {response.length} bytes before its end")
    return SourcePage(body=body, content_type=response.getheader("Content-Type", ""), whole=bounded)


def _shut(sock: socket.socket) -> None:
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        return  # it has ended by itself


def _why(error: Exception) -> str:
    match error:
        case TimeoutError():
            return "the answer took too long"
        case socket.gaierror():
            return f"the name is not known: {error.strerror}"
        case ssl.SSLCertVerificationError():
            return f"the certificate is not trusted: {error.verify_message}"
        case OSError() if error.strerror:
            return error.strerror.lower()
        case http.client.RemoteDisconnected():
            return "the connection was closed without an answer"
        case _:
            return f"no HTTP answer: {type(error).__name__} {error}"[:200]


@lru_cache(maxsize=1)
def _trusted() -> ssl.SSLContext:
    """Reading the machine's certificates takes longer than a page does."""
    return ssl.create_default_context()
