"""The kinds of fleet by name: how a command line, or the record of a run, says which hosts are meant."""

from __future__ import annotations

import importlib.util
import os
import platform
from dataclasses import dataclass

from agents.sysroot import FolderRoot, SysRoot
from fleetexp.errors import RunError
from fleetexp.orchestrator.inventory import Inventory

FLEETS = ("local", "inline", "ray", "simulated")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetChoice:
    """A kind of fleet and what it is connected to: 'local', 'ray 10.0.0.1:6379'. Never holds a token."""

    name: str = "local"
    address: str = ""

    @classmethod
    def parse(cls, text: str) -> FleetChoice:
        """Read what `str` wrote."""
        name, _, address = text.partition(" ")
        return cls(name=name, address=address)

    def __str__(self) -> str:
        return f"{self.name} {self.address}".rstrip()


def open_inventory(choice: FleetChoice, root: SysRoot | None = None) -> Inventory:
    """Return the inventory of the hosts meant; `root` is this machine's, for fleets that are this machine.

    RunError where no fleet is called so, or what it is to be connected to does not answer.
    """
    # Imported here: Ray takes a second, and most commands don't need it.
    match choice.name:
        case "local":
            from fleetexp.orchestrator.local_fleet import LocalInventory  # noqa: PLC0415

            return LocalInventory(platform.node(), root or FolderRoot())
        case "inline":
            from fleetexp.orchestrator.inline_fleet import InlineInventory  # noqa: PLC0415

            return InlineInventory({platform.node(): root or FolderRoot()})
        case "ray":
            _require_ray()
            from fleetexp.orchestrator.ray_fleet import RayInventory  # noqa: PLC0415

            return RayInventory(choice.address or os.environ.get("RAY_ADDRESS") or "auto")
        case "simulated":
            from fleetexp.orchestrator.simulated_choice import SimulationChoice  # noqa: PLC0415
            from fleetexp.orchestrator.simulated_inventory import SimulatedInventory  # noqa: PLC0415

            chosen = SimulationChoice.parse(choice.address)
            return SimulatedInventory(chosen.simulation(), address=str(chosen), actors=chosen.actors)
        case other:
            raise RunError(f"no fleet is called {other!r}", where="--fleet", remedy=f"use {', '.join(FLEETS)}")


def _require_ray() -> None:
    """Refuse where Ray is not installed: only its own process imports it, which could only end."""
    try:
        there = importlib.util.find_spec("ray") is not None
    except ImportError:
        there = False
    if not there:
        raise RunError(
            "a fleet on a cluster needs the package ray, which is not installed",
            where="--fleet ray",
            remedy="install it: pip install ray; --fleet inline needs none: this host, its agent in this process",
        )
