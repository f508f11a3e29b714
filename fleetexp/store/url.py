"""The address of a store: read once, at the edge, before anything is said about it.

What has been read is shown in the parts that were found, the password as ***. What could not be read is not shown at
all: where in it a password stands nobody knows then.

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
from typing import NoReturn, TypeAlias
from urllib.parse import unquote

from fleetexp.errors import BadStoreUrl
from fleetexp.secret import HIDDEN, Secret

_LONGEST = 4096  # characters of an address
_FORMS = "use sqlite:///FILE.db or postgresql://USER@HOST/DATABASE"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SECRET = re.compile(r"pass|pwd|secret|token|scram|key", re.IGNORECASE)
_PORT = re.compile(r"[0-9]{1,5}")
_NAME = re.compile(r"(?:[\w.~$+-]|%[0-9A-Fa-f]{2})*")  # of a user or a database, as it is written
_NO_NAME = re.compile(r"[:=/?#&;,%]")  # and what it can't hold once it is decoded: a password may have been meant
_HOST = re.compile(r"(?:[\w-]{1,63}(?:\.[\w-]{1,63})*\.?)?|/[\w./ -]*")  # or the folder of a socket
_FILE = re.compile(r"[\w./-]+\.(?:db|sqlite3?)")
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
    "sslcertmode": ("disable", "allow", "require"),
    "min_protocol_version": ("3.0", "3.2", "latest"),
    "max_protocol_version": ("3.0", "3.2", "latest"),
    "ssl_min_protocol_version": ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
    "ssl_max_protocol_version": ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
    "require_auth": ("password", "md5", "gss", "sspi", "scram-sha-256", "oauth", "none"),
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


Handed: TypeAlias = tuple[str, Path | None, dict[str, str], dict[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A database by its address, before anything is opened. `name` is fit for messages: it holds no password.

    `path` is a SQLite file; `libpq` are the keywords that PostgreSQL's client library is to be called with.
    """

    name: str
    path: Path | None = None
    libpq: Mapping[str, str | Secret] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return self.name

    @property
    def is_sqlite(self) -> bool:
        return self.path is not None

    @property
    def file(self) -> Path:
        """The file of a SQLite database."""
        assert self.path is not None  # noqa: S101 - asked for where it is SQLite
        return self.path

    def handed_over(self) -> Handed:
        """Return it with its secrets as text: for the pipe to a process of ours that takes it over, nowhere else."""
        hidden = {option: value.reveal() for option, value in self.libpq.items() if isinstance(value, Secret)}
        shown = {option: value for option, value in self.libpq.items() if isinstance(value, str)}
        return self.name, self.path, shown, hidden

    @classmethod
    def taken_over(cls, handed: Handed) -> Database:
        name, path, shown, hidden = handed
        return cls(name=name, path=path, libpq={**shown, **{option: Secret(text) for option, text in hidden.items()}})


StoreUrl: TypeAlias = str | Database  # as a caller in Python writes it, or as the command line has read it


def clean(text: str) -> str:
    """Return an address without what a secret's file or an environment puts around it: blanks, line ends, a BOM."""
    return text.strip().lstrip("\ufeff").strip()


def parse_url(url: StoreUrl) -> Database:
    """Read a store's address, or return the one that has been read; BadStoreUrl where it names no usable database.

    A password that is not in the address is taken from PGPASSWORD: children of this process don't inherit it.
    """
    if isinstance(url, Database):
        return url
    url = clean(url)
    if not url:
        _refuse("the store is not a URL: it is empty", _FORMS)
    if len(url) > _LONGEST:
        _refuse(f"the store's URL is longer than {_LONGEST:,} characters", _FORMS)
    if url[0] in "\"'":
        _refuse("the store's URL stands in quotes", "leave the quotes out")
    if url.lower().startswith("jdbc:"):
        _refuse("a JDBC address is not a URL of ours", "leave out 'jdbc:'; " + _FORMS)
    match = _SCHEME.match(url)
    if match is None:
        _refuse("the store is not a URL", f"write sqlite:///{url}" if _FILE.fullmatch(url) else _FORMS)
    if _CONTROL.search(url):
        _refuse("the store's URL holds a line end or another control character", "take it out")
    match match[1].lower().partition("+")[0]:
        case "sqlite":
            return _sqlite(url[match.end() :])
        case "postgresql" | "postgres":
            return _postgresql(url[match.end() :])
    _refuse("the store's URL begins with no database that fleetexp uses", _FORMS)


def _refuse(what: str, remedy: str) -> NoReturn:
    raise BadStoreUrl(what, "--store", remedy)


def _sqlite(rest: str) -> Database:
    host, slash, path = rest.partition("/")
    if host:
        _refuse("two slashes are followed by a host, and SQLite has none", "write sqlite:///FILE.db")
    if not slash or not path or path.partition("?")[0] == ":memory:" or path.startswith("file:"):
        _refuse("a store in memory would be lost", "name a file: sqlite:///fleetexp.db")
    if "?" in path:
        _refuse("a SQLite store takes no options after '?'", "write sqlite:///FILE.db alone")
    if "#" in path or re.search(r":.*@", path):
        _refuse("the name of a SQLite store holds '#', or ':' and '@'", "write sqlite:///FILE.db: it has no password")
    try:
        folder = Path(path).is_dir()
    except PermissionError:
        folder = False  # whoever opens it says what may not be entered
    except OSError as error:  # a name that is too long for its filesystem, say
        _refuse(f"the store's file can't be: {error.strerror}", "write sqlite:///FILE.db")
    if folder:
        _refuse("the store is a folder", "name a file in it: sqlite:///FOLDER/fleetexp.db")
    return Database(name=f"sqlite:///{path}", path=Path(path))


def _postgresql(rest: str) -> Database:
    authority = re.match(r"[^/?#]*", rest)[0]  # type: ignore[index]
    path, _, query = rest[len(authority) :].partition("?")
    if authority.count("@") > 1:
        _refuse("the user or the password holds a bare '@'", "write @ as %40")
    if "@" in path or "@" in query:
        sign = rest[len(authority)]
        remedy = f"in a password write {sign} as %{ord(sign):02X}, @ as %40"
        _refuse(f"a bare {sign!r} stands before an '@'", remedy)
    if "#" in rest:
        _refuse("a URL of a database has no part after '#'", "write # as %23 where it is meant")
    userinfo, at, hosts = authority.rpartition("@")
    user, _, password = userinfo.partition(":")
    options = list(_options(query))
    found: dict[str, str] = {}
    if user:
        found["user"] = _name(user, "user")
    if password:
        found["password"] = _decoded(password)
    if hosts:
        found |= _hosts(hosts.split(","))
    elsewhere = [value for option, value in options if option == "host"]
    if elsewhere:
        if hosts:
            _refuse("hosts are named before the database and as an option", "keep one of them")
        found |= _hosts([part for value in elsewhere for part in value.split(",")])
    if database := _name(path.removeprefix("/"), "database"):
        found["dbname"] = database
    for option, raw in options:
        if option != "host":
            if option in found:
                _refuse(f"{option!r} is said twice", "keep one of them")
            found[option] = _name(raw, option) if option in {"user", "dbname"} else _decoded(raw)
    if "password" not in found and (held := os.environ.get("PGPASSWORD")):
        found["password"] = held
    shown = "&".join(f"{option}={HIDDEN if _is_secret(option, raw) else raw}" for option, raw in options)
    name = f"postgresql://{user}{f':{HIDDEN}' if password else ''}{at}{hosts}{path}{f'?{shown}' if shown else ''}"
    libpq = {option: Secret(value) if _is_secret(option, value) else value for option, value in found.items()}
    return Database(name=name, libpq=libpq)


def _decoded(raw: str) -> str:
    try:
        value = unquote(raw, errors="strict")
        value.encode()
    except UnicodeError:
        _refuse("a part of the URL is no UTF-8", "write it in UTF-8, percent-encoded")
    if "\0" in value:
        _refuse("a part of the URL holds a NUL", "take %00 out")
    return value


def _name(raw: str, which: str) -> str:
    """Read the name of a user or a database: where it may be something else, the server's answer would show that."""
    value = _decoded(raw)
    if not _NAME.fullmatch(raw) or _NO_NAME.search(value) or (which == "user" and re.search(r"\s", value)):
        remedy = "write USER:PASSWORD@HOST/DATABASE, in a name what is not a letter, digit or _.~$+- as %XX"
        _refuse(f"the name of the {which} holds a blank or another sign that it can't have", remedy)
    return value


def _is_secret(option: str, value: str) -> bool:
    return bool(_SECRET.search(f"{option} {unquote(value)}"))


def _hosts(hosts: list[str]) -> dict[str, str]:
    names, ports = [], []
    for number, host in enumerate(hosts, 1):
        which = f"of host {number} of {len(hosts)}" if len(hosts) > 1 else "of the host"
        if not re.fullmatch(r"\[[0-9A-Fa-f:.%]*\](:[^\[\]]*)?|[^\[\]]*", host):
            _refuse(f"the address {which} has a bracket too many or too few", "write [ADDRESS]:PORT")
        own, port = _host_and_port(host) if not host.startswith("/") else (host, None)
        if port is not None and (not _PORT.fullmatch(port) or not 0 < int(port) < 65536):
            remedy = "write HOST:PORT, several as HOST:PORT,HOST:PORT; a ':' in a password as %3A"
            _refuse(f"the port {which} is not a number from 1 to 65535", remedy)
        if not own and len(hosts) > 1:
            _refuse(f"the name {which} is missing", "write HOST:PORT,HOST:PORT")
        name = _decoded(own)
        if not (own.startswith("[") or _HOST.fullmatch(name)):
            _refuse(f"the name {which} holds a blank or another sign that no host has", "write USER:PASSWORD@HOST:PORT")
        names.append(name.strip("[]"))
        ports.append(port)
    found = {"host": ",".join(names)} if any(names) else {}
    if any(port is not None for port in ports):
        found["port"] = ",".join(port or "5432" for port in ports)
    return found


def _host_and_port(host: str) -> tuple[str, str | None]:
    """Cut 'name:port' and '[address]:port'; None where no port is named."""
    if host.startswith("["):
        name, _, rest = host.partition("]")
        return f"{name}]", rest.removeprefix(":") or None
    name, colon, port = host.partition(":")
    return name, port if colon else None


def _options(query: str) -> Iterator[tuple[str, str]]:
    """Yield the options and their values, these as they are written."""
    if ";" in query:
        _refuse("a ';' stands between options", "write & between them; where it is meant, %3B")
    known = _known_options()
    for part in filter(None, query.split("&")):
        raw, equals, value = part.partition("=")
        option = _decoded(raw)
        if not equals:
            _refuse("an option after '?' has no value", "write option=value, several with '&' between")
        if option not in known:
            # Behind a password with a bare '&' there are no options.
            plain = re.fullmatch(r"\w{1,40}", option) and not _SECRET.search(unquote(query))
            close = difflib.get_close_matches(option.lower(), known, n=1)
            remedy = _ELSEWHERE.get(option.lower()) or (f"did you mean {close[0]!r}?" if close else "leave it out")
            _refuse(f"PostgreSQL's client library has no option{f' {option!r}' if plain else ' of that name'}", remedy)
        if option in _WORDS and any(one.removeprefix("!") not in _WORDS[option] for one in unquote(value).split(",")):
            _refuse(f"the option {option!r} has a value that it can't have", f"legal: {', '.join(_WORDS[option])}")
        if option in _NUMBERS and not re.fullmatch(r"[0-9]{1,9}", value):
            _refuse(f"the option {option!r} is not a whole number", "write digits only")
        yield option, value


def _known_options() -> frozenset[str]:
    import psycopg  # noqa: PLC0415 - the command line shows addresses without it

    return frozenset(one.keyword.decode() for one in psycopg.pq.Conninfo.get_defaults()) - _NOT_OURS
