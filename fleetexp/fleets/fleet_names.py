"""The names of the fleets: NAME_fleet.py here, or a module of a user's package, has inventory(address, root)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINTS = "fleetexp.fleets"
FLEETS = tuple(sorted(path.name.removesuffix("_fleet.py") for path in Path(__file__).parent.glob("*_fleet.py")))


def installed_fleets() -> dict[str, EntryPoint]:
    """Return what installed packages offer; none of them replaces a fleet of ours."""
    from importlib.metadata import entry_points  # noqa: PLC0415

    return {point.name: point for point in entry_points(group=ENTRY_POINTS) if point.name not in FLEETS}
