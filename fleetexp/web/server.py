"""The live view's web server: GET only, read-only, on loopback unless told otherwise and then only with a token.

Each connection carries one request and is closed: nothing of a request's body is ever read as a second one.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote

from analysis.errors import AnalysisError
from analysis.report.html import page_as_html
from fleetexp.errors import FleetexpError, NoSuchRun, RunError
from fleetexp.reporting.report import render_report
from fleetexp.store.store import open_store
from fleetexp.store.url import StoreUrl, parse_url
from fleetexp.web.access import Access
from fleetexp.web.limits import Connections, Limits, Rate
from fleetexp.web.pages import NotThere, host_page, message_page, run_page, runs_page
from fleetexp.web.request import Request, RequestRefused, parse_head
from fleetexp.web.run_queries import RunQueries

log = logging.getLogger(__name__)

FOLLOW_SECONDS = 5
_LINGER_SECONDS = 1.0  # so that an answer is not lost with a body that nobody reads
_LINGER_BYTES = 65536
_DEFECT = "The page could not be made; see the log."
_NO_STORE = "The store of the runs can't be read now. The log of this server says why."
_END = re.compile(rb"\n\r?\n")
_BODILESS = "HEAD"
_READ = ("GET", "HEAD")
_RUN = re.compile(r"/runs/([0-9]{1,9})")
_HOST = re.compile(r"/runs/([0-9]{1,9})/hosts/([^/]+)")
_REPORT = re.compile(r"/runs/([0-9]{1,9})/report")
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; "
    "form-action 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Connection": "close",
    "Server": "fleetexp",
}
_BY_STATUS = {
    HTTPStatus.METHOD_NOT_ALLOWED: {"Allow": ", ".join(_READ)},
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": 'Bearer realm="fleetexp"'},
    HTTPStatus.TOO_MANY_REQUESTS: {"Retry-After": "1"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "5"},
}


class LiveServer(socketserver.ThreadingTCPServer):
    """Serves the pages of one store.

    `names` and `proxies` as `Access` has them. RunError for an address that others can reach without a token, and for
    one that can't be listened on.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(
        self,
        url: StoreUrl,
        *,
        host: str = "127.0.0.1",
        port: int = 8450,
        token: str = "",
        names: Collection[str] = (),
        proxies: Collection[str] = (),
        limits: Limits | None = None,
    ) -> None:
        self.url = parse_url(url)
        self.limits = limits if limits is not None else Limits()
        self.address_family, address = listen_address(host, port)
        self.access = Access(address[0], host=host, token=token, names=names, proxies=proxies)
        self.rate = Rate(self.limits)
        self.making = threading.BoundedSemaphore(self.limits.pages_at_once)
        self._connections = Connections(self.limits)
        try:
            super().__init__(address, _Handler)
        except OSError as error:
            raise RunError(
                f"can't listen: {error.strerror}", where=f"{host}:{port}", remedy="choose another --port or --host"
            ) from error

    @property
    def address(self) -> str:
        """Where the pages are; without the token."""
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}/" if self.address_family is socket.AF_INET6 else f"http://{host!s}:{port}/"

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as socketserver has it
        """Answer in a thread of its own, unless too many are being answered: then say so, without one."""
        peer = client_address[0]
        if not self._connections.enter(peer, shared=self.access.by_proxy(peer)):
            log.warning("%s 503 too many connections at once", peer)
            busy = RequestRefused(HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections at once; ask again.")
            with contextlib.suppress(OSError):
                request.settimeout(0.1)
                request.sendall(_sent(_refusal(busy)))
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self._connections.leave(peer)
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.leave(client_address[0])


def listen_address(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """Return family and socket address of what --host names; RunError where it names none."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        family, _, _, _, address = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM)[0]
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or "no such name can be"
        raise RunError(f"can't listen: {said}", where=f"--host {host}", remedy="give an address of this host") from None
    return family, address


class _Response(NamedTuple):
    status: HTTPStatus
    page: str
    headers: dict[str, str]


class _Handler(socketserver.BaseRequestHandler):
    server: LiveServer
    request: socket.socket

    def handle(self) -> None:
        peer = str(self.client_address[0])
        request: Request | None = None
        try:
            try:
                head = self._head()
                if not head:
                    return
                request = parse_head(head)
                answer = self._answer(request, peer)
            except RequestRefused as refused:
                answer = _refusal(refused)
            except OSError:
                raise
            except Exception:
                log.exception("a request of %s could not be answered", peer)
                answer = _refusal(RequestRefused(HTTPStatus.INTERNAL_SERVER_ERROR, _DEFECT))
            said = self.server.access.loggable(request) if request is not None else "no request that can be read"
            log.info("%s %d %s", peer, answer.status, said)
            self.request.settimeout(self.server.limits.seconds)
            self.request.sendall(_sent(answer, body=request is None or request.method != _BODILESS))
            self._linger()
        except OSError as error:
            log.info("%s went away: %s", peer, error.strerror or type(error).__name__)

    def _head(self) -> bytes:
        """Read up to the empty line, within the limits; nothing where the connection is closed unused."""
        limits, head = self.server.limits, b""
        until = time.monotonic() + limits.seconds
        while (found := _END.search(head)) is None:
            if len(head.partition(b"\n")[0]) > limits.line_bytes:
                raise RequestRefused(HTTPStatus.REQUEST_URI_TOO_LONG, "The address is too long.")
            if len(head) > limits.head_bytes:
                raise RequestRefused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are too large.")
            self.request.settimeout(max(until - time.monotonic(), 0.001))
            try:
                more = self.request.recv(limits.head_bytes)
            except TimeoutError:
                raise RequestRefused(HTTPStatus.REQUEST_TIMEOUT, "The request took too long to come.") from None
            if not more and head:
                raise RequestRefused(HTTPStatus.BAD_REQUEST, "The request ends before its empty line.")
            if not more:
                return b""
            head += more
        if found.end() > limits.head_bytes:
            raise RequestRefused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are too large.")
        return head[: found.end()]

    def _answer(self, request: Request, peer: str) -> _Response:
        """Make the page; RequestRefused where the reader may not have it, or not now."""
        access, limits = self.server.access, self.server.limits
        if len(request.target) > limits.line_bytes:
            raise RequestRefused(HTTPStatus.REQUEST_URI_TOO_LONG, "The address is too long.")
        if not self.server.rate.allows(access.reader(request, peer)):
            raise RequestRefused(HTTPStatus.TOO_MANY_REQUESTS, "Too many requests; ask again in a second.")
        if not access.knows_host(request):
            text = "Ask by an address of this server, or start it with --name for the name that you use."
            raise RequestRefused(HTTPStatus.MISDIRECTED_REQUEST, text)
        if request.method not in _READ:
            raise RequestRefused(HTTPStatus.METHOD_NOT_ALLOWED, "These pages can only be read.")
        if not request.target.startswith("/"):
            raise RequestRefused(HTTPStatus.BAD_REQUEST, "The address must begin with a slash.")
        if access.needs_token and not access.knows_token(request):
            text = "A token is needed: add ?token=... to the address once; the browser keeps it until it is closed."
            raise RequestRefused(HTTPStatus.UNAUTHORIZED, text)
        if not self.server.making.acquire(timeout=limits.seconds):
            raise RequestRefused(HTTPStatus.SERVICE_UNAVAILABLE, "Too many pages are being made; ask again.")
        try:
            status, page = self._made(request)
        finally:
            self.server.making.release()
        headers: dict[str, str] = {}
        if access.needs_token and access.token_shown(request):
            headers["Set-Cookie"] = access.cookie(request, peer)
        if status is HTTPStatus.OK and request.query.get("follow") == ["1"]:
            headers["Refresh"] = str(FOLLOW_SECONDS)
        return _Response(status, page, headers)

    def _made(self, request: Request) -> tuple[HTTPStatus, str]:
        try:
            return HTTPStatus.OK, self._content(request.path)
        except NotThere as error:
            return HTTPStatus.NOT_FOUND, _said("Not there", f"{error}.")
        except NoSuchRun:
            return HTTPStatus.NOT_FOUND, _said("Not there", "There is no such run.")
        except AnalysisError as error:
            return HTTPStatus.NOT_FOUND, _said("No report", f"{error}.")
        except FleetexpError as error:
            log.warning("a page could not be made: %s: %s", self.server.access.loggable(request), error)
            return HTTPStatus.SERVICE_UNAVAILABLE, _said("The store does not answer", _NO_STORE)
        except Exception:
            log.exception("a page could not be made: %s", self.server.access.loggable(request))
            return HTTPStatus.INTERNAL_SERVER_ERROR, _said("A defect", _DEFECT)

    def _content(self, path: str) -> str:
        queries = RunQueries(self.server.url)
        routes: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
            (re.compile("/"), lambda _: page_as_html(runs_page(queries), {})),
            (_RUN, lambda found: page_as_html(run_page(queries, int(found[1]), datetime.now(UTC)), {})),
            (_HOST, lambda found: page_as_html(host_page(queries, int(found[1]), unquote(found[2])), {})),
            (_REPORT, lambda found: self._report(int(found[1]))),
        )
        for pattern, make in routes:
            if (found := pattern.fullmatch(path)) is not None:
                return make(found)
        raise NotThere(f"there is no page {path!r}")

    def _report(self, run_id: int) -> str:
        with contextlib.closing(open_store(self.server.url, create=False, read_only=True)) as store:
            return render_report(store, run_id).html

    def _linger(self) -> None:
        """Take what still comes of a body: closing over unread bytes would cost the reader the answer."""
        self.request.shutdown(socket.SHUT_WR)
        until, left = time.monotonic() + _LINGER_SECONDS, _LINGER_BYTES
        while left > 0 and (wait := until - time.monotonic()) > 0:
            self.request.settimeout(wait)
            taken = len(self.request.recv(4096))
            left -= taken or left


def _refusal(refused: RequestRefused) -> _Response:
    return _Response(refused.status, _said(refused.status.phrase, refused.why), {})


def _sent(answer: _Response, *, body: bool = True) -> bytes:
    """Return an answer as it is sent; every one has the headers that protect its reader."""
    data = answer.page.encode()
    headers = {**_HEADERS, **_BY_STATUS.get(answer.status, {}), **answer.headers}
    headers |= {"Date": formatdate(usegmt=True), "Content-Length": str(len(data))}
    lines = (f"HTTP/1.1 {answer.status} {answer.status.phrase}", *(f"{name}: {text}" for name, text in headers.items()))
    return "\r\n".join((*lines, "", "")).encode("latin-1") + (data if body else b"")


def _said(title: str, text: str) -> str:
    return page_as_html(message_page(title, text), {})
