"""The live view's web server: GET only, read-only, on localhost unless told otherwise and then only with a token."""

from __future__ import annotations

import contextlib
import hmac
import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from urllib.parse import parse_qs, unquote, urlsplit

from analysis.report.html import page_as_html, render_html
from fleetexp.errors import FleetexpError, RunError
from fleetexp.live.asked import Asked
from fleetexp.live.pages import NotThere, host_page, message_page, run_page, runs_page
from fleetexp.reporting import report_content
from fleetexp.store.store import open_store

log = logging.getLogger(__name__)

COOKIE = "fleetexp_token"
FOLLOW_SECONDS = 5
_RUN = re.compile(r"/runs/(\d{1,9})")
_HOST = re.compile(r"/runs/(\d{1,9})/hosts/([^/]+)")
_REPORT = re.compile(r"/runs/(\d{1,9})/report")
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; "
    "form-action 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class LiveServer(ThreadingHTTPServer):
    """Serves the pages of one store. RunError for an address that others can reach without a token."""

    daemon_threads = True

    def __init__(self, url: str, *, host: str = "127.0.0.1", port: int = 8450, token: str = "") -> None:
        if not token and not is_loopback(host):
            raise RunError(
                "other machines could read the store here",
                where=f"--host {host}",
                remedy="give --token (or FLEETEXP_TOKEN), or serve on 127.0.0.1 and forward the port",
            )
        self.url = url
        self.token = token
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise RunError(
                f"can't listen: {error.strerror}", where=f"{host}:{port}", remedy="choose another --port"
            ) from error

    @property
    def address(self) -> str:
        """Where the pages are; without the token."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}/"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return False


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer
    server_version = "fleetexp"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        parts = urlsplit(self.path)
        asked = parse_qs(parts.query)
        if not self._from_a_known_name():
            return self._page(HTTPStatus.MISDIRECTED_REQUEST, _said("Not this server", "Use its address."), body=body)
        if self.server.token and not self._knows_token(asked.get("token", [""])[0]):
            text = "Add ?token=... to the address once; the browser then keeps it until it is closed."
            return self._page(HTTPStatus.UNAUTHORIZED, _said("A token is needed", text), body=body)
        status, text = self._made(parts.path)
        follow = FOLLOW_SECONDS if asked.get("follow") == ["1"] and status is HTTPStatus.OK else None
        return self._page(status, text, body=body, follow=follow)

    def _made(self, path: str) -> tuple[HTTPStatus, str]:
        try:
            return HTTPStatus.OK, self._content(path)
        except NotThere as error:
            return HTTPStatus.NOT_FOUND, _said("Not there", f"{error}.")
        except FleetexpError as error:
            return HTTPStatus.SERVICE_UNAVAILABLE, _said("The store does not answer", str(error))
        except Exception:
            log.exception("a page could not be made: %s", path)
            return HTTPStatus.INTERNAL_SERVER_ERROR, _said("A defect", "The page could not be made; see the log.")

    def _content(self, path: str) -> str:
        asked = Asked(self.server.url)
        routes: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
            (re.compile("/"), lambda _: page_as_html(runs_page(asked), {})),
            (_RUN, lambda found: page_as_html(run_page(asked, int(found[1]), datetime.now(UTC)), {})),
            (_HOST, lambda found: page_as_html(host_page(asked, int(found[1]), unquote(found[2])), {})),
            (_REPORT, lambda found: self._report(int(found[1]))),
        )
        for pattern, make in routes:
            if (found := pattern.fullmatch(path)) is not None:
                return make(found)
        raise NotThere(f"there is no page {path!r}")

    def _report(self, run_id: int) -> str:
        with contextlib.closing(open_store(self.server.url, create=False, read_only=True)) as store:
            return render_html(report_content(store, run_id))

    def _from_a_known_name(self) -> bool:
        """A page elsewhere must not reach a loopback server under a name of its own (DNS rebinding)."""
        if not is_loopback(str(self.server.server_address[0])):
            return True
        host = self.headers.get("Host", "localhost")
        return is_loopback(urlsplit(f"//{host}").hostname or "")

    def _knows_token(self, given: str) -> bool:
        kept = SimpleCookie(self.headers.get("Cookie", "")).get(COOKIE)
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        candidates = (given, bearer, kept.value if kept is not None else "")
        return any(hmac.compare_digest(one.encode(), self.server.token.encode()) for one in candidates if one)

    def _page(self, status: HTTPStatus, text: str, *, body: bool, follow: int | None = None) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if follow is not None:
            self.send_header("Refresh", str(follow))
        if self.server.token and status is not HTTPStatus.UNAUTHORIZED:
            self.send_header("Set-Cookie", f"{COOKIE}={self.server.token}; HttpOnly; SameSite=Strict; Path=/")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        log.info("%s %s", self.address_string(), (format % args).split("token=")[0])


def _said(title: str, text: str) -> str:
    return page_as_html(message_page(title, text), {})
