"""The head of an HTTP request, understood strictly: what is not plainly well-formed is refused, never guessed at."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import parse_qs

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]"  # noqa: S105 - the "token" of RFC 9110
_LINE = re.compile(rf"({_TOKEN}{{1,32}}) ([!-~]+) HTTP/([0-9])\.([0-9])")
_FIELD = re.compile(rf"({_TOKEN}+):[ \t]*([\t -~\x80-\xff]*)")
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9A-Za-z._-]{1,253}))(?::([0-9]{0,5}))?")


class RequestRefused(Exception):
    """A request that is answered without a page: the status, and one fixed sentence that repeats nothing of it."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(status, why)
        self.status = status
        self.why = why


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked. `host`: the name or address in the Host header, in lower case, without brackets and port."""

    method: str
    target: str
    host: str
    fields: Mapping[str, tuple[str, ...]]

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, list[str]]:
        """The query, every spelling of its keys decoded; nothing where it holds too many."""
        try:
            return parse_qs(self.target.partition("?")[2], max_num_fields=20)
        except ValueError:
            return {}

    def last(self, name: str) -> str:
        """Return the last element of a field that is a list: what the nearest proxy wrote. '' where there is none."""
        return ",".join(self.fields.get(name, ())).rpartition(",")[2].strip()


def parse_head(head: bytes) -> Request:
    """Read a request up to its empty line; RequestRefused where it is malformed."""
    lines = head.decode("latin-1").split("\r\n")
    found = _LINE.fullmatch(lines[0])
    if found is None:
        raise RequestRefused(HTTPStatus.BAD_REQUEST, "The first line is not a request of HTTP/1.1.")
    if found[3] != "1":
        raise RequestRefused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "Only HTTP/1.0 and HTTP/1.1 are spoken here.")
    fields: dict[str, tuple[str, ...]] = {}
    for line in lines[1:-2]:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise RequestRefused(HTTPStatus.BAD_REQUEST, "A header is malformed.")
        name = field[1].lower()
        fields[name] = (*fields.get(name, ()), field[2].strip())
    return Request(method=found[1], target=found[2], host=_host(fields.get("host", ())), fields=fields)


def _host(given: tuple[str, ...]) -> str:
    found = _HOST.fullmatch(given[0]) if len(given) == 1 else None
    if found is None:
        raise RequestRefused(HTTPStatus.BAD_REQUEST, "The Host header is missing or malformed.")
    if found[1] is None:
        return found[2].lower()
    try:
        return str(ip_address(found[1]))
    except ValueError as error:
        raise RequestRefused(HTTPStatus.BAD_REQUEST, "The Host header is missing or malformed.") from error
