"""A fleet is a module NAME_fleet.py, or what a user's package offers by entry point; it can't replace one of ours."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fleetexp.cli.options import FleetName
from fleetexp.fleets.by_name import FleetChoice, open_inventory
from fleetexp.fleets.fleet_names import FLEETS
from fleetexp.fleets.inline_fleet import InlineInventory


def test_the_modules_are_the_fleets() -> None:
    assert {"inline", "local", "ray", "simulated"} <= set(FLEETS)


def test_a_package_adds_a_fleet_and_replaces_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "own_fleets-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-fleets\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[fleetexp.fleets]\nrack = own_fleets_rack:inventory\ninline = own_fleets_rack:inventory\n"
    )
    (tmp_path / "own_fleets_rack.py").write_text("def inventory(address, root):\n    return ['the rack', address]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert open_inventory(FleetChoice(name="rack", address="r7")) == ["the rack", "r7"]  # type: ignore[comparison-overlap]
    assert isinstance(open_inventory(FleetChoice(name="inline")), InlineInventory)

    @click.command()
    @click.option("--fleet", type=FleetName(FLEETS))
    def say(fleet: str) -> None:
        click.echo(fleet)

    assert CliRunner().invoke(say, ["--fleet", "rack"]).output == "rack\n"
    assert CliRunner().invoke(say, ["--fleet", "rock"]).exit_code == 2
