"""The store's address on the command line: no command shows a part of a password, whatever the address looks like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from fleetexp.exit_codes import ExitCode
from tests.fleetexp.store.odd_urls import ODD_URLS, pieces

Invoke = Callable[..., Result]
DEMO = str(Path(__file__).parents[3] / "configs" / "thp-2m-demo.yaml")
COMMANDS = (
    ("runs",),
    ("status", "1"),
    ("report", "1"),
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
)


@pytest.mark.parametrize("url", ODD_URLS)
def test_no_command_shows_a_part_of_a_password(invoke: Invoke, url: str, tmp_path: Path) -> None:
    for command in COMMANDS:
        for extra in ([], ["--json"]):
            result = invoke("--debug", *command, "--store", url, *extra)
            told = f"{result.stdout}{result.stderr}{result.exception!r}"
            assert not pieces(told), (command, told)
            assert "report it" not in told, (command, told)
            # Where nothing is needed of the store, a server that does not answer is no obstacle.
            assert result.exit_code == ExitCode.ERROR or command[0] == "hosts", (command, told)
    assert not [path for path in tmp_path.rglob("*") if pieces(str(path))]


def test_plan_and_run_show_none_either(invoke: Invoke, tmp_path: Path, host_root: Path) -> None:
    for url in ODD_URLS:
        for command in ("plan", "run"):
            result = invoke(command, DEMO, "--fleet", "inline", "--root", str(host_root), "--store", url)
            assert result.exit_code == ExitCode.ERROR
            assert not pieces(f"{result.stdout}{result.stderr}")
    assert not list(tmp_path.rglob("*Wint*"))


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
