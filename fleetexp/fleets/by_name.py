"""The kinds of fleet by name: how a command line, or the record of a run, says which hosts are meant."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from agents.sysroot import SysRoot
from fleetexp.errors import RunError
from fleetexp.fleets.fleet_names import FLEETS, installed_fleets
from fleetexp.fleets.inventory import Inventory


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
    # Imported here: most commands need no fleet, and none needs them all.
    if choice.name in FLEETS:
        inventory = import_module(f"fleetexp.fleets.{choice.name}_fleet").inventory
    elif (point := installed_fleets().get(choice.name)) is not None:
        inventory = point.load()
    else:
        raise RunError(f"no fleet is called {choice.name!r}", where="--fleet", remedy=f"use {', '.join(FLEETS)}")
    opened: Inventory = inventory(choice.address, root)
    return opened
