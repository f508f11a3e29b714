"""A user's package adds a command by entry point; it can neither replace one of fleetexp's nor break the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from fleetexp.cli.main import cli

COMMAND = """import click

@click.command()
def fleet_size() -> None:
    \"\"\"Say how large the fleet is.\"\"\"
    click.echo("12 hosts")
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    info = tmp_path / "own_commands-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-commands\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[fleetexp.commands]\nfleet-size = own_commands:fleet_size\n"
        "restore = own_commands:fleet_size\nbroken = own_commands_missing:command\nodd = own_commands:__name__\n"
    )
    (tmp_path / "own_commands.py").write_text(COMMAND)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("package")
def test_a_package_adds_a_command() -> None:
    assert CliRunner().invoke(cli, ["fleet-size"]).output == "12 hosts\n"


@pytest.mark.usefixtures("package")
def test_a_package_does_not_replace_a_command_of_fleetexp() -> None:
    assert "12 hosts" not in CliRunner().invoke(cli, ["restore", "--help"]).output


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(("name", "why"), [("broken", "can't be imported"), ("odd", "not a click command")])
def test_a_broken_command_says_so_and_leaves_help_whole(name: str, why: str) -> None:
    listed = CliRunner().invoke(cli, ["--help"])
    assert listed.exit_code == 0
    assert "fleet-size" in listed.output and "restore" in listed.output
    called = CliRunner().invoke(cli, [name, "--anything", "word"])
    assert called.exit_code == 1
    assert f"command {name!r}" in called.output and why in called.output and "uninstall" in called.output
