"""Addresses of stores: what is read, what is refused in which words, and that no part of a password is ever shown."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleetexp.errors import BadStoreUrl, StoreError, StoreUnreachable
from fleetexp.secret import Secret
from fleetexp.store.postgresql_session import connect_arguments
from fleetexp.store.read_only.query import reader
from fleetexp.store.store import check, open_store, upgrade
from fleetexp.store.url import Database, parse_url
from tests.fleetexp.store.odd_urls import ALL_URLS, pieces
from tests.postgresql_server import Server

PG = "postgresql://"


def revealed(database: Database) -> dict[str, str]:
    return {name: one.reveal() if isinstance(one, Secret) else one for name, one in database.libpq.items()}


# ------------------------------------------------------------------ what is read
@pytest.mark.parametrize(
    ("rest", "libpq"),
    [
        ("fleet@db/x", {"user": "fleet", "host": "db", "dbname": "x"}),
        (
            "fleet:s3cret@db:5433/x",
            {"user": "fleet", "password": "s3cret", "host": "db", "port": "5433", "dbname": "x"},
        ),
        ("fleet:a:b@db/x", {"user": "fleet", "password": "a:b", "host": "db", "dbname": "x"}),
        ("fleet:p%40%2F%23%3F%25@db/x", {"user": "fleet", "password": "p@/#?%", "host": "db", "dbname": "x"}),
        ("u@h1:5432,h2:5433/db", {"user": "u", "host": "h1,h2", "port": "5432,5433", "dbname": "db"}),
        ("u@h1,h2:5433/db", {"user": "u", "host": "h1,h2", "port": "5432,5433", "dbname": "db"}),
        ("u@h1,h2/db", {"user": "u", "host": "h1,h2", "dbname": "db"}),
        ("u@/db?host=h1:5432&host=h2:5433", {"user": "u", "host": "h1,h2", "port": "5432,5433", "dbname": "db"}),
        ("u@/db?host=/var/run/postgresql", {"user": "u", "host": "/var/run/postgresql", "dbname": "db"}),
        ("u@%2Fvar%2Frun/db", {"user": "u", "host": "/var/run", "dbname": "db"}),
        ("u@[::1]:5432/db", {"user": "u", "host": "::1", "port": "5432", "dbname": "db"}),
        ("u@[fe80::1],h2:1/db", {"user": "u", "host": "fe80::1,h2", "port": "5432,1", "dbname": "db"}),
        ("db", {"host": "db"}),
        ("/x", {"dbname": "x"}),
        ("", {}),
        (
            "u@h/db?options=-csearch_path=fleet",
            {"user": "u", "host": "h", "dbname": "db", "options": "-csearch_path=fleet"},
        ),
        (
            "u@h/db?sslmode=verify-full&sslrootcert=/ca.pem",
            {"user": "u", "host": "h", "dbname": "db", "sslmode": "verify-full", "sslrootcert": "/ca.pem"},
        ),
        (
            "u@h/my%20db?application_name=a%20b",
            {"user": "u", "host": "h", "dbname": "my db", "application_name": "a b"},
        ),
        (
            "u@h1,h2/db?target_session_attrs=read-write",
            {"user": "u", "host": "h1,h2", "dbname": "db", "target_session_attrs": "read-write"},
        ),
    ],
)
def test_a_database_on_a_server_is_read_as_its_client_library_reads_it(rest: str, libpq: dict[str, str]) -> None:
    for scheme in ("postgresql://", "postgres://", "postgresql+psycopg://", "PostgreSQL://"):
        assert revealed(parse_url(scheme + rest)) == libpq


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", " {} ", "\ufeff{}", "\t{}\n\n"])
def test_what_a_file_of_a_secret_puts_around_it_is_taken_off(around: str, tmp_path: Path) -> None:
    assert parse_url(around.format("postgresql://u@h/db")) == parse_url("postgresql://u@h/db")
    open_store(around.format(f"sqlite:///{tmp_path}/fleet.db")).close()
    assert {path.name for path in tmp_path.iterdir()} == {"fleet.db"}


def test_options_stand_beside_ours_and_none_of_ours_is_lost() -> None:
    plain = connect_arguments(parse_url("postgresql://u@h/db"))
    assert plain["application_name"] == "fleetexp"
    asked = "?options=-csearch_path%3Dfleet%20-ctimezone%3DCET&application_name=ramp&connect_timeout=9&sslmode=require"
    own = connect_arguments(parse_url(f"postgresql://u@h/db{asked}"))
    assert own["options"] == f"-csearch_path=fleet -ctimezone=CET {plain['options']}"  # the last one holds
    assert (own["application_name"], own["connect_timeout"], own["sslmode"]) == ("ramp", "9", "require")
    assert own["keepalives_idle"] == plain["keepalives_idle"]


# ------------------------------------------------------------------ what is refused
@pytest.mark.parametrize(
    ("url", "what", "remedy"),
    [
        (PG + "fleet:Wint3r@H4rbour@db/x", "bare '@'", "write @ as %40"),
        (PG + "fleet:Wint3r/H4rbour@db/x", "bare '/'", "write / as %2F"),
        (PG + "fleet:Wint3r?H4rbour@db/x", "bare '?'", "write ? as %3F"),
        (PG + "fleet:Wint3r#H4rbour@db/x", "'#'", "%23"),
        (PG + "u@h:54x2/db", "port of the host is not a number", "HOST:PORT,HOST:PORT"),
        (PG + "u@h:99999/db", "from 1 to 65535", "HOST:PORT"),
        (PG + "u@h1:5432,h2:port/db", "port of host 2 of 2", "HOST:PORT,HOST:PORT"),
        (PG + "u@h1:5432,,h2/db", "name of host 2 of 3 is missing", "HOST:PORT,HOST:PORT"),
        (PG + "fleet:Wint3r", "port", "%3A"),
        (PG + "u@[::1:1/db", "bracket", "[ADDRESS]:PORT"),
        (PG + "u@::1]:1/db", "bracket", "[ADDRESS]:PORT"),
        (PG + "u@h/db?ssl=true", "no option 'ssl'", "sslmode=require"),
        (PG + "u@h/db?sslmod=require", "no option 'sslmod'", "'sslmode'"),
        (PG + "u@h/db?sslmode=required", "'sslmode'", "verify-full"),
        (PG + "u@h/db?currentSchema=fleet", "'currentSchema'", "options=-csearch_path"),
        (PG + "u@h/db?connect_timeout=5s", "not a whole number", "digits"),
        (PG + "u@h/db?client_encoding=latin1", "'client_encoding'", "utf8"),
        (PG + "u@h/db?sslmode=require&sslmode=disable", "said twice", "keep one"),
        (PG + "u:a@h/db?password=b", "'password' is said twice", "keep one"),
        (PG + "u@h/db?verbose", "has no value", "option=value"),
        (PG + "u@h/db?pool_size=5", "no option 'pool_size'", ""),
        (PG + "u@h/db?password=a&Wint3r=x", "no option of that name", ""),
        (PG + "u@h/db?user=a;sslmode=require", "';'", "write &"),
        (PG + "u:%FF@h/db", "no UTF-8", "percent-encoded"),
        (PG + "u%253Aa@h/db", "name of the user", "USER:PASSWORD"),
        (PG + "u@h/db;x", "name of the database", "%XX"),
        (PG + "u@h/db?require_auth=md5,basic", "'require_auth'", "scram-sha-256"),
        (PG + "u@h/db#x", "'#'", "%23"),
        (PG + "u@h h/db", "blank", "USER:PASSWORD@HOST"),
        (PG + "u@h\n/db", "line end", "take it out"),
        (PG + "u@h/db?options=%00", "NUL", "%00"),
        ('"postgresql://u@h/db"', "quotes", "leave the quotes out"),
        ("jdbc:postgresql://h/db", "JDBC", "jdbc:"),
        ("host=db password=Wint3r", "not a URL", "postgresql://"),
        ("runs/fleet.db", "not a URL", "write sqlite:///runs/fleet.db"),
        ("sqlite://fleet.db", "two slashes", "sqlite:///FILE.db"),
        ("sqlite:///fleet.db?timeout=5", "no options", "alone"),
        ("sqlite:///a\nb.db", "line end", "take it out"),
        ("sqlite:///" + "a" * 300, "name too long", "sqlite:///FILE.db"),
        ("  \n", "empty", "sqlite:///"),
    ],
)
def test_what_can_not_be_used_is_refused_with_place_and_remedy(url: str, what: str, remedy: str) -> None:
    with pytest.raises(BadStoreUrl) as caught:
        parse_url(url)
    assert what in caught.value.what
    assert remedy in caught.value.remedy
    assert caught.value.where
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------ what is shown
@pytest.mark.parametrize(
    ("url", "as_shown"),
    [
        ("sqlite:///fleetexp.db", "sqlite:///fleetexp.db"),
        ("sqlite:////var/lib/my runs.db", "sqlite:////var/lib/my runs.db"),
        ("postgresql://fleet:s3cret@db:5432/x", "postgresql://fleet:***@db:5432/x"),
        ("postgresql+psycopg://fleet:a:b@db/x", "postgresql://fleet:***@db/x"),
        ("postgresql://fleet@db/x", "postgresql://fleet@db/x"),
        ("postgresql://u@h1:5432,h2:5432/db", "postgresql://u@h1:5432,h2:5432/db"),
        ("postgresql://u@[::1]:5432/db", "postgresql://u@[::1]:5432/db"),
        ("postgresql://u:x@h/db?sslmode=require&passfile=y", "postgresql://u:***@h/db?sslmode=require&passfile=***"),
        ("postgresql://u@h/db?options=-csearch_path%3Dx", "postgresql://u@h/db?options=-csearch_path%3Dx"),
        ("postgresql://u@h/db?options=-cmy.token%3Dx", "postgresql://u@h/db?options=***"),
        ("postgresql://u@/my%20db?host=/var/run/x", "postgresql://u@/my%20db?host=/var/run/x"),
    ],
)
def test_an_address_is_shown_whole_but_for_its_password(url: str, as_shown: str) -> None:
    assert str(parse_url(url)) == parse_url(url).name == as_shown


def test_an_address_that_was_read_is_not_read_again() -> None:
    database = parse_url("postgresql://u:pa%20PW@h/db")
    assert parse_url(database) is database
    assert connect_arguments(database)["password"] == "pa PW"  # noqa: S105


def test_a_password_of_the_environment_is_taken_where_the_address_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "Wint3r")
    assert revealed(parse_url("postgresql://u@h/db"))["password"] == "Wint3r"  # noqa: S105
    assert revealed(parse_url("postgresql://u:own@h/db"))["password"] == "own"  # noqa: S105


@pytest.mark.parametrize("url", ALL_URLS)
def test_no_part_of_a_password_is_shown_however_odd_the_address(url: str) -> None:
    try:
        database = parse_url(url)
    except BadStoreUrl as error:
        told = str(error)
    else:
        told = f"{database} {database!r} {database.libpq}"
    assert not pieces(told)


def test_there_are_odd_addresses_enough_and_each_holds_a_password() -> None:
    assert len(ALL_URLS) >= 195
    assert all(pieces(url) for url in ALL_URLS)


# ------------------------------------------------------------------ what refuses at the start
@pytest.fixture
def answering() -> Iterator[Callable[[str, str], int]]:
    """Start what speaks the first words of the protocol and refuses every session; return its port.

    Poolers are not installed here. The messages are those of PgBouncer's and RDS Proxy's sources and manuals.
    """
    listening: list[socket.socket] = []

    def start(code: str, message: str) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        listening.append(server)
        fields = b"".join(
            kind + text.encode() + b"\0"
            for kind, text in ((b"S", "FATAL"), (b"V", "FATAL"), (b"C", code), (b"M", message))
        )
        refusal = b"E" + struct.pack("!i", len(fields) + 5) + fields + b"\0"

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    session, _ = server.accept()
                    with session:
                        while (said := session.recv(4096)) and said[4:8] in _SECURITY_REQUESTS:
                            session.sendall(b"N")
                        session.sendall(refusal)

        threading.Thread(target=serve, daemon=True).start()
        return int(server.getsockname()[1])

    yield start
    for server in listening:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


_SECURITY_REQUESTS = {struct.pack("!i", 80877103), struct.pack("!i", 80877104)}  # for TLS, for GSSAPI


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("08P01", "unsupported startup parameter: options"),
        ("08P01", "unsupported startup parameter in options: timezone"),
        ("0A000", "Feature not supported: RDS Proxy currently doesn't support command-line options."),
    ],
)
def test_a_pooler_that_refuses_the_sessions_settings_is_named_with_its_setting(
    answering: Callable[[str, str], int], code: str, message: str
) -> None:
    url = f"postgresql://fleet:Wint3rH4rbour@127.0.0.1:{answering(code, message)}/x"
    for opening in (lambda: open_store(url), lambda: reader(url, timeout_seconds=5).__enter__()):
        with pytest.raises(StoreUnreachable, match="a pooler") as caught:
            opening()
        assert message in caught.value.what
        assert "ignore_startup_parameters = options" in caught.value.remedy
        assert not pieces(str(caught.value))


def test_a_server_that_refuses_a_user_is_not_taken_for_one_that_is_away(answering: Callable[[str, str], int]) -> None:
    port = answering("28P01", 'password authentication failed for user "fleet"')
    with pytest.raises(StoreUnreachable, match="the server refuses") as caught:
        open_store(f"postgresql://fleet:Wint3rH4rbour@127.0.0.1:{port}/x")
    assert "user, password and database name" in caught.value.remedy


# ------------------------------------------------------------------ with a real server
@pytest.mark.postgresql
def test_a_schema_that_the_address_names_is_the_one_that_holds_the_tables(postgresql: Server) -> None:
    url = postgresql.new_database()
    open_store(url).close()
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA fleet")
        own = f"{url}?options=-csearch_path=fleet&application_name=ramp"
        upgrade(own)
        rows = connection.execute("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'fleet'")
        assert rows.fetchone() != (0,)
    with reader(own, timeout_seconds=10) as opened:
        answer = opened.ask(
            "SELECT current_setting('application_name'), current_setting('TimeZone'), current_schema()", batch_rows=9
        )
        assert [tuple(row) for batch in answer.batches for row in batch] == [("ramp", "UTC", "fleet")]


@pytest.mark.postgresql
def test_the_host_that_answers_is_found_among_several(postgresql: Server) -> None:
    url = postgresql.new_database()
    several = re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:1,127.0.0.1:{postgresql.port}", url)
    open_store(several).close()
    assert check(several) == []


@pytest.mark.postgresql
def test_a_server_that_refuses_is_told_apart_from_one_that_is_not_there(postgresql: Server) -> None:
    nobody = re.sub(r"://[^@/]*@", "://nobody_here:Wint3r@", postgresql.new_database())
    with pytest.raises(StoreUnreachable, match="the server refuses") as caught:
        open_store(nobody)
    assert "user, password and database name" in caught.value.remedy
    assert not pieces(str(caught.value))
    with pytest.raises(StoreError, match="does not answer"):
        open_store("postgresql://u@127.0.0.1:1/x")
