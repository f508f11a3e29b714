"""A store whose password has a blank: every command that reads or writes it opens it, and shows no part of it."""

from __future__ import annotations

import re
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import Result

from fleetexp.exit_codes import ExitCode
from fleetexp.web.server import LiveServer
from tests.fleetexp.store.odd_urls import pieces
from tests.postgresql_server import Server

pytestmark = [pytest.mark.postgresql, pytest.mark.slow]

Invoke = Callable[..., Result]
DEMO = str(Path(__file__).parents[3] / "configs" / "thp-2m-demo.yaml")
COMMANDS = (
    ("run", DEMO, "--fleet", "simulated", "--hosts", "4", "--acknowledge-power"),
    ("runs",),
    ("status", "1"),
    ("report", "1", "--html", "report.html"),
    ("report", "1", "--markdown"),
    ("sql", "select * from run_summary"),
    ("export", "1", "--to", "out"),
    ("export", "1", "--to", "out-again", "--json"),
    ("hosts", "--fleet", "simulated"),
    ("plan", DEMO, "--fleet", "simulated", "--acknowledge-power"),
    ("db", "upgrade"),
    ("db", "check"),
    ("db", "partition"),
)


@pytest.fixture
def url(postgresql: Server) -> Iterator[str]:
    """A database whose owner must show a password, as is asked of every role but the tests' own."""
    database = postgresql.new_database()
    name = database.rpartition("/")[2]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE keeper_{name} LOGIN PASSWORD 'Wint3r H4rbour'")
        connection.execute(f'ALTER DATABASE "{name}" OWNER TO keeper_{name}')
        connection.execute(f"ALTER SCHEMA public OWNER TO keeper_{name}")
        rules = Path(connection.execute("SHOW hba_file").fetchone()[0])  # type: ignore[index]
        before = rules.read_text()
        rules.write_text(f"host all keeper_{name} 127.0.0.1/32 scram-sha-256\n{before}")
        connection.execute("SELECT pg_reload_conf()")
    yield re.sub(r"://[^@/]*@", f"://keeper_{name}:Wint3r%20H4rbour@", database)
    rules.write_text(before)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SELECT pg_reload_conf()")


def test_every_command_opens_it_and_shows_no_part_of_the_password(invoke: Invoke, url: str, tmp_path: Path) -> None:
    for command in COMMANDS:
        result = invoke("--debug", *command, "--store", url)
        told = f"{result.stdout}{result.stderr}"
        assert result.exit_code == ExitCode.DONE, (command, told)
        assert not pieces(told), command
    server = LiveServer(url, port=0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    for page in ("", "runs/1", "runs/1/report"):
        with urllib.request.urlopen(f"{server.address}{page}") as answer:  # noqa: S310 - ours
            assert not pieces(answer.read().decode())
    server.shutdown()
    server.server_close()
    thread.join()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 10
    assert not [path for path in written if pieces(path.read_bytes().decode("latin-1"))]
    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            rows = connection.execute(f'SELECT t::text FROM "{table}" t').fetchall()  # noqa: S608
            assert not [row for (row,) in rows if pieces(row)], table


def test_a_wrong_password_is_refused_and_not_shown(invoke: Invoke, url: str) -> None:
    wrong = url.replace("Wint3r%20H4rbour", "Wint3r%20H4rbourWint3r")
    for command in COMMANDS[1:8]:
        for way in ("--debug", "--json"):
            result = invoke(*([way] if way == "--debug" else []), *command, "--store", wrong)
            told = f"{result.stdout}{result.stderr}"
            assert result.exit_code == ExitCode.ERROR
            assert "password authentication failed" in told
            assert not pieces(told), told
