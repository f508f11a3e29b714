"""The store's address on the command line: no command shows a part of a password, whatever the address looks like."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result

from fleetexp.cli.main import cli
from fleetexp.cli.misplaced import misplaced_passwords
from fleetexp.exit_codes import ExitCode
from tests.fleetexp.store.odd_urls import ALL_URLS, pieces

Invoke = Callable[..., Result]
DEMO = str(Path(__file__).parents[3] / "configs" / "thp-2m-demo.yaml")
COMMANDS = (
    ("runs",),
    ("status", "1"),
    ("report", "1"),
    ("report", "--compare", "1", "2"),
    ("sql", "SELECT 1"),
    ("export", "1", "--to", "out"),
    ("pause", "1"),
    ("abort", "1"),
    ("resume", "1"),
    ("restore", "--run", "1"),
    ("hosts", "--fleet", "simulated"),
    ("power", "--metric", "throughput"),
    ("db", "check"),
    ("db", "upgrade"),
    ("db", "grant", "--reader", "r"),
    ("db", "partition"),
    ("plan", DEMO, "--fleet", "simulated"),
    ("run", DEMO, "--fleet", "simulated"),
    ("rehearse", DEMO),
    ("serve", "--port", "0"),
    ("survey", "--pid", "1", "--seconds", "0", "--keep"),
    ("conform", "--size", "3KiB"),
    ("import", "none.csv", "--as", "none.yaml"),
)
WAYS = (("--debug",), ("--json",), ("--log-level", "debug", "--log-format", "json"))
TYPICAL = (
    "postgresql://fleet:Wint3rH4rbour@127.0.0.1:1/x",
    "postgresql://fleet:Wint3r%20H4rbour@127.0.0.1:1/x",
    "postgresql://fleet@127.0.0.1:1/x?password=Wint3rH4rbour",
    "postgresql://fleet:Wint3r@H4rbour@127.0.0.1:1/x",
)


def shows_nothing(invoke: Invoke, url: str, command: tuple[str, ...], *, by_variable: bool = False) -> None:
    """Give a command the address, in each way of telling its answer."""
    for way in WAYS:
        if command[0] == "serve" and way == ("--json",):
            continue
        before, after = ((), way) if way == ("--json",) else (way, ())
        given = () if by_variable else ("--store", url)
        result = invoke(*before, *command, *given, *after)
        told = f"{result.stdout}{result.stderr}"
        if not isinstance(result.exception, SystemExit | None):
            told += repr(result.exception)
        assert not pieces(told), (url, command, told)
        assert "report it" not in told, (url, command, told)
        # Where nothing is needed of the store, a server that does not answer is not an obstacle.
        assert result.exit_code == ExitCode.ERROR or command[0] == "hosts", (url, command, told)


def test_every_command_that_takes_a_store_is_tried() -> None:
    named = {" ".join(command[:2]) if command[0] == "db" else command[0] for command in COMMANDS}
    groups = ((name, cli.get_command(click.Context(cli), name)) for name in cli.list_commands(click.Context(cli)))
    every = [
        (f"{name} {inner}".strip(), one)
        for name, command in groups
        for inner, one in (command.commands.items() if isinstance(command, click.Group) else [("", command)])
    ]
    assert named == {name for name, one in every if one and any(p.name == "store_url" for p in one.params)}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: "-".join(command[:2])[:20])
def test_no_command_shows_a_part_of_a_password(invoke: Invoke, command: tuple[str, ...], tmp_path: Path) -> None:
    for url in TYPICAL:
        shows_nothing(invoke, url, command)
    assert not [path for path in tmp_path.rglob("*") if pieces(str(path))]


@pytest.mark.slow
def test_no_odd_address_shows_a_part_of_a_password(invoke: Invoke, tmp_path: Path) -> None:
    for url, command in zip(ALL_URLS, itertools.cycle(COMMANDS)):
        shows_nothing(invoke, url, command)
    assert not [path for path in tmp_path.rglob("*") if pieces(str(path))]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("number", "command"), [*enumerate(COMMANDS)])
def test_no_command_shows_a_part_of_its_share_of_the_odd_addresses(
    invoke: Invoke, number: int, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in ALL_URLS[number % 6 :: 6]:
        shows_nothing(invoke, url, command)
        if "\0" not in url:  # which no variable can hold
            monkeypatch.setenv("FLEETEXP_STORE", url)
            shows_nothing(invoke, url, command, by_variable=True)
    assert not [path for path in tmp_path.rglob("*") if pieces(str(path))]


# ------------------------------------------------------------------ in the wrong place
MISPLACED = (
    ("{}",),
    ("runs", "{}"),
    ("--store", "{}", "runs"),
    ("runs", "--store{}"),
    ("runs", "-s{}"),
    ("runs", "--stroe={}"),
    ("--log-level", "{}", "runs"),
    ("status", "{}"),
    ("report", "1", "--compare", "{}", "2"),
    ("sql", "{}"),
    ("sql", "SELECT 1", "--timeout", "{}"),
    ("export", "1", "--to", "{}"),
    ("plan", "{}"),
    ("plan", DEMO, "--fleet", "{}"),
    ("plan", DEMO, "--fleet", "ray", "--address", "{}"),
    ("hosts", "--fleet", "simulated", "--root", "{}"),
    ("restore", "--run", "{}"),
    ("power", "--metric", "{}"),
    ("serve", "--token-file", "{}"),
    ("serve", "--host", "{}"),
    ("db", "{}"),
    ("example", "{}"),
    ("init", "{}"),
    ("run", DEMO, "--fleet", "simulated", "--effect", "{}"),
)
# What nobody can tell from a word, a path or a label.
UNLIKELY = {
    "127.0.0.1:1:x:fleet:Wint3rH4rbour",
    "fleet Wint3rH4rbour",
    "fleet/Wint3rH4rbour@127.0.0.1/x",
    "host:127.0.0.1 password:Wint3rH4rbour",
    "sqlite:////nowhere/x.db#Wint3rH4rbour",
    "--store=postgresql://fleet:Wint3rH4rbour@127.0.0.1:1/x",
}


@pytest.mark.parametrize("words", MISPLACED, ids=lambda words: " ".join(words)[:40])
def test_an_address_in_the_wrong_place_is_not_repeated(invoke: Invoke, words: tuple[str, ...], tmp_path: Path) -> None:
    for url in (url for url in ALL_URLS if url not in UNLIKELY):
        result = invoke(*(word.replace("{}", url) for word in words))
        assert isinstance(result.exception, SystemExit)
        assert result.exit_code == ExitCode.USAGE
        assert not pieces(f"{result.stdout}{result.stderr}"), (url, result.stderr)
    if words[0] != "--store":
        assert "of the command line" in result.stderr
        assert "FLEETEXP_STORE" in result.stderr
    assert not list(tmp_path.iterdir())


def test_an_address_in_the_wrong_variable_is_not_repeated(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FLEETEXP_LOG_LEVEL", "FLEETEXP_RAY_ADDRESS", "FLEETEXP_TOKEN_FILE"):
        with monkeypatch.context() as patched:
            patched.setenv(name, TYPICAL[0])
            result = invoke("serve")
        assert result.exit_code == ExitCode.USAGE
        assert name in result.stderr
        assert not pieces(f"{result.stdout}{result.stderr}")


@pytest.mark.parametrize(
    "word",
    [
        "select 'a:b@c', x::text from effects",
        "select 1 where token = 'x'",
        "/data/a:b@c.yaml",
        "./a:b@c",
        "a@b",
        "tokens_per_second=+5%",
        "7d",
    ],
)
def test_words_that_hold_no_password_are_not_taken_for_one(word: str) -> None:
    assert not list(misplaced_passwords(["sql", word]))


def test_a_token_in_the_variable_of_its_file_is_not_repeated(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETEXP_TOKEN_FILE", "Wint3rH4rbourWint3r")
    assert invoke("db", "upgrade").exit_code == ExitCode.DONE
    for way in WAYS[::2]:
        result = invoke(*way, "serve", "--port", "0")
        assert result.exit_code == ExitCode.ERROR
        assert "FLEETEXP_TOKEN_FILE" in result.stderr
        assert not pieces(f"{result.stdout}{result.stderr}")


# ------------------------------------------------------------------ as secrets' files have it
@pytest.mark.parametrize("end", ["\n", "\r\n", " \n"])
def test_a_line_end_out_of_a_secrets_file_is_taken_off(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setenv("FLEETEXP_STORE", f"sqlite:///{tmp_path}/fleet.db{end}")
    assert invoke("db", "upgrade").exit_code == ExitCode.DONE
    assert [path.name for path in tmp_path.iterdir()] == ["fleet.db"]


def test_a_restore_of_this_host_needs_no_store_and_no_good_address(
    invoke: Invoke, host_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEETEXP_STORE", "postgresql://fleet:Wint3r@H4rbour@db/x")
    assert invoke("restore", "--root", str(host_root)).exit_code == ExitCode.DONE
