"""The address of a store: read once, shown without a password, refused in words that hold no part of one.

postgresql://USER:PASSWORD@HOST:PORT,HOST:PORT/DATABASE?option=value as libpq has it (its manual, "Connection URIs"),
and sqlite:///FILE. What stands in a password must be percent-encoded: a bare '@', '/' or '#' ends it, and what follows
would be taken for a host.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from fleetexp.errors import BadStoreUrl

HIDDEN = "***"
_LONGEST = 4096  # characters of an address
_FORMS = "use sqlite:///FILE.db or postgresql://USER@HOST/DATABASE"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SECRET = re.compile(r"pass|pwd|^pw$|secret|token|scram|key", re.IGNORECASE)
_COLON = re.compile(r":|%3a|%253a", re.IGNORECASE)
_PORT = re.compile(r"[0-9]{1,5}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

# libpq's options of which it takes few values; for others its own message is good.
_WORDS: Mapping[str, tuple[str, ...]] = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "load_balance_hosts": ("disable", "random"),
    "sslnegotiation": ("postgres", "direct"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "client_encoding": ("utf8", "UTF8", "utf-8", "UTF-8"),
}
_NUMBERS = frozenset(
    {"connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"}
)
# What other drivers call it.
_ELSEWHERE: Mapping[str, str] = {
    "ssl": "write sslmode=require, or sslmode=verify-full with sslrootcert",
    "tls": "write sslmode=require, or sslmode=verify-full with sslrootcert",
    "schema": "write options=-csearch_path%3DSCHEMA",
    "currentschema": "write options=-csearch_path%3DSCHEMA",
    "search_path": "write options=-csearch_path%3DSCHEMA",
    "statement_timeout": "write options=-cstatement_timeout%3DMILLISECONDS",
}
_NOT_OURS = frozenset({"replication", "service", "fallback_application_name"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A database by its address, before anything is opened. `name` is fit for messages: it holds no password.

    `path` is a SQLite file; `libpq` are the keywords that PostgreSQL's client library is to be called with.
    """

    name: str
    path: Path | None = None
    libpq: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_sqlite(self) -> bool:
        return self.path is not None

    @property
    def file(self) -> Path:
        """The file of a SQLite database."""
        assert self.path is not None  # noqa: S101 - asked for where it is SQLite
        return self.path


def clean(text: str) -> str:
    """Return an address without what a secret's file or an environment puts around it: blanks, line ends, a BOM."""
    return text.strip().lstrip("\ufeff").strip()


def shown(text: str) -> str:
    """Return an address as it may be shown: what may be a part of a password is hidden, be it an address or not.

    Whatever stands before the last '@' may be one, however the address would be read.
    """
    text = clean(text)
    if len(text) > _LONGEST:
        return HIDDEN
    text = _CONTROL.sub("?", text)
    match = _SCHEME.search(text)
    if match is None:
        return HIDDEN if re.search(r"[@=:]", text) else text
    head = (HIDDEN if match.start() > 1 else text[: match.start()]) + match[0]
    before, at, rest = text[match.end() :].rpartition("@")
    if at:
        user, *password = _COLON.split(before, maxsplit=1)
        # Without a colon it is all a user, unless it looks as if it had been cut in the wrong place.
        user = HIDDEN if re.search(r"[@/?#]", user) else user
        head += f"{user}:{HIDDEN}@" if password else f"{user}@"
    rest, sharp, _ = rest.partition("#")
    path, question, query = rest.partition("?")
    hosts, slash, database = path.partition("/")
    if not match[0].lower().startswith("sqlite"):
        hosts = ",".join(map(_host_shown, hosts.split(",")))
    options = "&".join(map(_option_shown, query.split("&"))) if query else ""
    return f"{head}{hosts}{slash}{database}{question}{options}{sharp}{HIDDEN if sharp else ''}"


def _host_shown(host: str) -> str:
    name, port = _host_and_port(host)
    return f"{name}:{HIDDEN}" if port and not _PORT.fullmatch(port) else host


def _option_shown(option: str) -> str:
    name, equals, _ = option.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_]+", name):
        return HIDDEN
    return f"{name}={HIDDEN}" if _SECRET.search(name) else option


def _host_and_port(host: str) -> tuple[str, str | None]:
    """Cut 'name:port' and '[address]:port'; None where no port is named."""
    if host.startswith("["):
        name, _, rest = host.partition("]")
        return f"{name}]", rest.removeprefix(":") or None
    name, colon, port = host.partition(":")
    return name, port if colon else None


# ------------------------------------------------------------------ reading
def parse_url(text: str) -> Database:
    """Read a store's address; BadStoreUrl where it names no database that can be used."""
    url, name = clean(text), shown(text)
    if not url:
        raise BadStoreUrl("the store is not a URL: it is empty", "--store", _FORMS)
    if len(url) > _LONGEST:
        raise BadStoreUrl(f"the store's URL is longer than {_LONGEST:,} characters", "--store", _FORMS)
    if url[0] in "\"'":
        raise BadStoreUrl("the store's URL stands in quotes", name, "leave the quotes out")
    if url.lower().startswith("jdbc:"):
        raise BadStoreUrl("a JDBC address is not a URL of ours", name, "leave out 'jdbc:'; " + _FORMS)
    match = _SCHEME.match(url)
    if match is None:
        raise BadStoreUrl("the store is not a URL", name, _FORMS)
    if _CONTROL.search(url):
        raise BadStoreUrl("the store's URL holds a line end or another control character", name, "take it out")
    match match[1].lower().partition("+")[0]:
        case "sqlite":
            return _sqlite(url[match.end() :], name)
        case "postgresql" | "postgres":
            return Database(name=name, libpq=dict(_postgresql(url[match.end() :], name)))
        case other:
            raise BadStoreUrl(f"{other!r} is no database that fleetexp uses", name, _FORMS)


def _sqlite(rest: str, name: str) -> Database:
    host, slash, path = rest.partition("/")
    if host:
        raise BadStoreUrl("two slashes are followed by a host, and SQLite has none", name, "write sqlite:///FILE.db")
    if not slash or not path or path.partition("?")[0] == ":memory:" or path.startswith("file:"):
        raise BadStoreUrl("a store in memory would be lost", name, "name a file: sqlite:///fleetexp.db")
    if "?" in path:
        raise BadStoreUrl("a SQLite store takes no options after '?'", name, "write sqlite:///FILE.db alone")
    if os.path.isdir(path):  # noqa: PTH112 - false where it may not be looked at
        raise BadStoreUrl("the store is a folder", name, "name a file in it: sqlite:///FOLDER/fleetexp.db")
    return Database(name=name, path=Path(path))


def _postgresql(rest: str, name: str) -> Iterator[tuple[str, str]]:
    """Yield libpq's keywords and their values."""
    authority = re.match(r"[^/?#]*", rest)[0]  # type: ignore[index]
    path, _, query = rest[len(authority) :].partition("?")
    if authority.count("@") > 1:
        raise BadStoreUrl("the user or the password holds a bare '@'", name, "write @ as %40")
    sign = rest[len(authority) : len(authority) + 1]
    if "@" in path or ("@" in query and "@" not in authority and not _plain(authority)):
        code = f"%{ord(sign):02X}"
        raise BadStoreUrl(
            f"a bare {sign!r} stands before an '@'", name, f"in a password write {sign} as {code}, @ as %40"
        )
    if "#" in rest:
        raise BadStoreUrl("a URL of a database has no part after '#'", name, "write # as %23 where it is meant")
    userinfo, at, hosts = authority.rpartition("@")
    found: dict[str, str] = {}
    user, colon, password = userinfo.partition(":")
    if at and user:
        found["user"] = unquote(user)
    if colon and password:
        found["password"] = unquote(password)
    options = list(_options(query, name))
    if hosts:
        found |= _hosts(hosts.split(","), name)
    elsewhere = [value for option, value in options if option == "host"]
    if elsewhere:
        if hosts:
            raise BadStoreUrl("hosts are named before the database and as an option", name, "keep one of them")
        found |= _hosts([part for value in elsewhere for part in value.split(",")], name)
    if database := unquote(path.removeprefix("/")):
        found["dbname"] = database
    for option, value in options:
        if option != "host":
            if option in found:
                raise BadStoreUrl(f"{option!r} is said twice", name, "keep one of them")
            found[option] = value
    if any(re.search(r"\s", host) for host in (found.get("host", ""), found.get("user", ""))):
        raise BadStoreUrl("the user or the host holds a blank", name, "take it out, or write it as %20")
    if any("\0" in value for value in found.values()):
        raise BadStoreUrl("a part of the URL holds a NUL", name, "take %00 out")
    yield from found.items()


def _plain(authority: str) -> bool:
    """Whether these are hosts with ports, and not the beginning of a password."""
    return all(_host_shown(host) == host for host in authority.split(","))


def _hosts(hosts: list[str], name: str) -> dict[str, str]:
    names, ports = [], []
    for number, host in enumerate(hosts, 1):
        which = f"of host {number} of {len(hosts)}" if len(hosts) > 1 else "of the host"
        if not re.fullmatch(r"\[[0-9A-Fa-f:.%]*\](:[^\[\]]*)?|[^\[\]]*", host):
            raise BadStoreUrl(f"the address {which} has a bracket too many or too few", name, "write [ADDRESS]:PORT")
        own, port = _host_and_port(host) if not host.startswith("/") else (host, None)
        if port is not None and (not _PORT.fullmatch(port) or not 0 < int(port) < 65536):
            raise BadStoreUrl(
                f"the port {which} is no number from 1 to 65535",
                name,
                "write HOST:PORT, several as HOST:PORT,HOST:PORT; a ':' in a password as %3A",
            )
        if not own and len(hosts) > 1:
            raise BadStoreUrl(f"the name {which} is missing", name, "write HOST:PORT,HOST:PORT")
        names.append(unquote(own).strip("[]"))
        ports.append(port)
    found = {"host": ",".join(names)} if any(names) else {}
    if any(port is not None for port in ports):
        found["port"] = ",".join(port or "5432" for port in ports)
    return found


def _options(query: str, name: str) -> Iterator[tuple[str, str]]:
    known = _known_options()
    for part in filter(None, query.split("&")):
        raw, equals, value = part.partition("=")
        option, value = unquote(raw), unquote(value)
        # Behind a bare '?' of a password there are no options.
        said = f"option {option!r}" if equals and "@" not in query and re.fullmatch(r"\w{1,40}", option) else "option"
        if not equals:
            raise BadStoreUrl("an option after '?' has no value", name, "write option=value, several with '&' between")
        if option not in known:
            close = difflib.get_close_matches(option.lower(), known, n=1)
            remedy = _ELSEWHERE.get(option.lower()) or (f"did you mean {close[0]!r}?" if close else "leave it out")
            raise BadStoreUrl(f"PostgreSQL's client library has no {said}", name, remedy)
        if option in _WORDS and value not in _WORDS[option]:
            legal = ", ".join(_WORDS[option])
            raise BadStoreUrl(f"the {said} has a value that it can't have", name, f"legal: {legal}")
        if option in _NUMBERS and not re.fullmatch(r"[0-9]{1,9}", value):
            raise BadStoreUrl(f"the {said} is no whole number", name, "write digits only")
        yield option, value


def _known_options() -> frozenset[str]:
    import psycopg  # noqa: PLC0415 - the command line shows addresses without it

    return frozenset(one.keyword.decode() for one in psycopg.pq.Conninfo.get_defaults()) - _NOT_OURS
