"""Who may read the live pages: by which names the server is asked, with which token, by way of which proxy."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import socket
import stat
from collections.abc import Collection
from ipaddress import IPv6Address, ip_address
from urllib.parse import unquote

from fleetexp.errors import RunError
from fleetexp.web.request import Request

COOKIE = "fleetexp_token"
LEAST_TOKEN = 16
MOST_TOKEN = 512
_TOKEN = re.compile(rf"[!-~]{{{LEAST_TOKEN},{MOST_TOKEN}}}")
_NAME = re.compile(r"[0-9A-Za-z._-]{1,253}")
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT")


def new_token() -> str:
    """Make a token of 256 bits."""
    return secrets.token_urlsafe(32)


def checked_token(token: str, where: str) -> str:
    """Return a token that is fit to keep strangers out; RunError, which does not repeat it, for any other."""
    if _TOKEN.fullmatch(token) is None:
        raise RunError(
            f"the token must be {LEAST_TOKEN} to {MOST_TOKEN} printable ASCII characters without blanks or line ends",
            where=where,
            remedy="make one with 'openssl rand -hex 16', or give none: serve then makes it where it is needed",
        )
    return token


def token_of_file(path: str) -> str:
    """Read the token from a file that not everyone can read; one line end after it is not part of it. RunError else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(descriptor).st_mode
            content = os.read(descriptor, MOST_TOKEN + 3) if stat.S_ISREG(mode) else b""
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else "no such name can be"
        # The file's name is not repeated: it may be the token itself, given in the wrong variable.
        where = "--token-file, or FLEETEXP_TOKEN_FILE"
        raise RunError(f"the token can't be read: {said}", where, "name a file that holds the token") from None
    if not stat.S_ISREG(mode):
        raise RunError("the token is in no regular file", where=path, remedy="name a file with the token")
    if mode & stat.S_IRWXO:
        raise RunError("every user of this machine can get at the token", where=path, remedy=f"chmod 600 {path}")
    return checked_token(content.decode("latin-1").removesuffix("\n").removesuffix("\r"), path)


class Access:
    """The rules of one server.

    `bound`: the address it listens on. `names`: further names that readers use for it, as a proxy passes them on.
    `proxies`: addresses whose X-Forwarded-For and X-Forwarded-Proto are believed. RunError where others could read
    without a token, or a name, an address or the token can't be used.
    """

    def __init__(
        self, bound: str, *, host: str, token: str = "", names: Collection[str] = (), proxies: Collection[str] = ()
    ) -> None:
        for name in names:
            if _NAME.fullmatch(name) is None:
                raise RunError("no such name can be", where=f"--name {name}", remedy="give a host name without port")
        self._token = checked_token(token, "token") if token else ""
        self._cookie = hmac.new(token.encode(), b"the cookie of fleetexp serve", hashlib.sha256).hexdigest()
        self._proxies = frozenset(_address(one) for one in proxies)
        self._loopback = ip_address(bound).is_loopback
        self._names = {name.lower() for name in names} | {"localhost"}
        if not token and needs_token(bound, names=names, proxies=proxies):
            raise RunError(
                "other machines could read the store here",
                where=f"--host {host}",
                remedy="give FLEETEXP_TOKEN or --token-file, or serve on 127.0.0.1 and forward the port",
            )
        if not self._loopback:
            machine = socket.gethostname().lower()
            self._names |= {machine, machine.partition(".")[0]}

    @property
    def needs_token(self) -> bool:
        return bool(self._token)

    def knows_host(self, request: Request) -> bool:
        """Whether the server was asked by a name of its own: else a page elsewhere could read it (DNS rebinding).

        An address can't be rebound; on loopback it must still be one of loopback's.
        """
        with contextlib.suppress(ValueError):
            return ip_address(request.host).is_loopback or not self._loopback
        return request.host in self._names

    def knows_token(self, request: Request) -> bool:
        """Whether the reader has shown the token, or the cookie that was given for it."""
        scheme, _, bearer = "".join(request.fields.get("authorization", ())).partition(" ")
        shown = self._same(bearer.strip(), self._token) and scheme.lower() == "bearer"
        cookies = (one.strip() for one in ";".join(request.fields.get("cookie", ())).split(";"))
        kept = [self._same(one, f"{COOKIE}={self._cookie}") for one in cookies]  # several: ports share their cookies
        return self.token_shown(request) | shown | any(kept)

    def token_shown(self, request: Request) -> bool:
        """Whether the token is in the address, and right."""
        return self._same(request.query.get("token", [""])[0], self._token)

    def cookie(self, request: Request, peer: str) -> str:
        """Return the Set-Cookie of a reader who has shown the token. It holds a value made of it, not the token."""
        secure = "; Secure" if self.by_proxy(peer) and request.last("x-forwarded-proto").lower() == "https" else ""
        return f"{COOKIE}={self._cookie}; HttpOnly; SameSite=Strict; Path=/{secure}"

    def by_proxy(self, peer: str) -> bool:
        return bool(self._proxies) and _address(peer) in self._proxies

    def reader(self, request: Request, peer: str) -> str:
        """Return whose requests are counted together: an address (of IPv6, its /64), or the one that a proxy names."""
        address = peer
        if self.by_proxy(peer):
            with contextlib.suppress(RunError):
                address = _address(request.last("x-forwarded-for"))
        found = ip_address(address.partition("%")[0])
        if not isinstance(found, IPv6Address):
            return str(found)
        return str(found.ipv4_mapped or IPv6Address(int(found) >> 64 << 64))

    def loggable(self, request: Request) -> str:
        """Return method and path for the log: printable as HTTP has it, without the query, never with the token."""
        method = request.method if request.method in _METHODS else "?"
        path = request.path
        hidden = self._token and any(self._token in one for one in (path, unquote(path), unquote(unquote(path))))
        return f"{method} {'***' if hidden else path[:200]}"

    @staticmethod
    def _same(given: str, wanted: str) -> bool:
        return hmac.compare_digest(given.encode(), wanted.encode()) & bool(wanted)


def needs_token(bound: str, *, names: Collection[str] = (), proxies: Collection[str] = ()) -> bool:
    """Whether others than this machine's users reach a server on this address: directly, or by a proxy."""
    return bool(names or proxies) or not ip_address(bound).is_loopback


def _address(text: str) -> str:
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError as error:
        raise RunError(
            "this is not an address", where=f"--proxy {text}", remedy="give the proxy's IP address"
        ) from error
    return str(found.ipv4_mapped or found) if isinstance(found, IPv6Address) else str(found)
