"""`fleetexp serve` as a process of its own: the token's ways in, and what is shown of it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from fleetexp.store.store import Store
from fleetexp.web.limits import Limits
from tests.fleetexp.web.raw import get, needs_ipv6

Invoke = Callable[..., Result]
TOKEN = "sixteen-letters-"  # noqa: S105
PAGE = Path(__file__).parents[3] / "docs" / "SERVE.md"


@pytest.fixture
def serve(url: str, store: Store, tmp_path: Path) -> Iterator[Callable[..., list[str]]]:
    """Start `fleetexp serve` on a free port; return its lines up to the last that it prints."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str, lines: int = 1, **environment: str) -> list[str]:
        environ = {name: text for name, text in os.environ.items() if not name.startswith("FLEETEXP_TOKEN")}
        with (tmp_path / "log").open("a") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "fleetexp",
                    "--log-level",
                    "debug",
                    "serve",
                    "--port",
                    "0",
                    "--store",
                    url,
                    *arguments,
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=tmp_path,
                env={**environ, **environment, "PYTHONUNBUFFERED": "1"},
            )
        running.append(process)
        assert process.stdout is not None
        return [process.stdout.readline() for _ in range(lines)]

    yield start
    try:
        for process in running:
            process.send_signal(signal.SIGINT)
        assert [process.wait(timeout=60) for process in running] == [0] * len(running)
    finally:
        for process in running:
            process.kill()
            process.communicate()


def address_of(line: str) -> str:
    found = re.search(r"http://\S+", line)
    assert found is not None
    return found[0].replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")  # noqa: S104


def test_on_loopback_no_token_is_needed_and_none_is_made(serve: Callable[..., list[str]]) -> None:
    assert get(address_of(serve()[0])).status == 200


def test_beyond_loopback_a_token_is_made_shown_once_and_never_logged(
    serve: Callable[..., list[str]], tmp_path: Path
) -> None:
    first, second, _ = serve("--host", "0.0.0.0", lines=3)  # noqa: S104
    token = second.rpartition(" ")[2].strip()
    assert len(token) >= 43
    assert token not in first
    address = address_of(first)
    assert get(address).status == 401
    assert get(address, f"/?%74oken={token}").status == 200
    log = (tmp_path / "log").read_text()
    assert "200 GET /" in log
    assert token not in log


def test_the_token_comes_from_the_environment_or_a_file_and_is_not_shown(
    serve: Callable[..., list[str]], tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    for shown in (serve(lines=2, FLEETEXP_TOKEN=TOKEN), serve("--token-file", str(file), lines=2)):
        assert TOKEN not in "".join(shown)
        address = address_of(shown[0])
        assert get(address).status == 401
        assert get(address, "/", "localhost", f"Authorization: Bearer {TOKEN}").status == 200


@needs_ipv6
def test_ipv6_loopback_is_served(serve: Callable[..., list[str]]) -> None:
    assert get(address_of(serve("--host", "::1")[0]), "/", "[::1]").status == 200


@pytest.mark.parametrize("arguments", [["--token", TOKEN], [f"--token={TOKEN}"], ["--token"]])
def test_a_token_as_an_argument_is_refused_with_the_remedy(
    invoke: Invoke, url: str, store: Store, arguments: list[str]
) -> None:
    result = invoke("serve", "--store", url, *arguments)
    assert result.exit_code == 1
    assert "every user of this machine" in result.stderr
    assert "FLEETEXP_TOKEN" in result.stderr
    assert "--token-file" in result.stderr
    assert TOKEN not in result.output


@pytest.mark.parametrize("token", ["", "short", "with blanks in the middle", "a-line-end-follows-\n"])
def test_a_bad_token_is_refused_before_anything_is_served(
    invoke: Invoke, url: str, store: Store, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEETEXP_TOKEN", token)
    result = invoke("serve", "--store", url, "--host", "0.0.0.0", "--port", "0")  # noqa: S104
    assert result.exit_code == 1
    assert "16 to 512 printable ASCII" in result.stderr
    monkeypatch.setenv("FLEETEXP_TOKEN", TOKEN)
    assert "two tokens" in invoke("serve", "--store", url, "--token-file", "x").stderr


def test_a_port_that_is_taken_is_one_clear_line(invoke: Invoke, url: str, store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = invoke("serve", "--store", url, "--port", str(taken.getsockname()[1]))
    assert result.exit_code == 1
    assert "choose another --port" in result.stderr


@pytest.mark.slow
def test_the_commands_of_the_page_about_serving_do_what_it_says(
    serve: Callable[..., list[str]], tmp_path: Path
) -> None:
    plain, make, guarded = re.findall(r"^host\$ (.*)$", PAGE.read_text(), re.MULTILINE)
    assert get(address_of(serve(*shlex.split(plain)[2:])[0])).status == 200
    subprocess.run(["sh", "-c", make], cwd=tmp_path, check=True)
    address = address_of(serve(*shlex.split(guarded)[2:], lines=2)[0])
    token = (tmp_path / "serve-token").read_text().strip()
    assert get(address, "/", "other.example.org").status == 421
    assert get(address, "/", "fleet.example.org").status == 401
    answer = get(address, f"/?token={token}", "fleet.example.org", "X-Forwarded-Proto: https")
    assert answer.status == 200
    assert "; Secure" in answer.headers["set-cookie"]
    assert get(address, "/", "fleet.example.org", f"Authorization: Bearer {token}").status == 200


def test_the_limits_on_the_page_about_serving_are_those_of_the_server() -> None:
    limits, text = Limits(), PAGE.read_text().split("## Limits")[1]
    for said in (
        f"| {limits.line_bytes} bytes | 414 |",
        f"| {limits.head_bytes} bytes | 431 |",
        f"| {limits.seconds:.0f} s each |",
        f"| {limits.connections} | 503 |",
        f"| {limits.connections_of_one} | 503 |",
        f"| {limits.pages_at_once} | 503 |",
        f"| {limits.burst}, then {limits.requests_per_second:.0f} per second | 429 |",
    ):
        assert said in text
