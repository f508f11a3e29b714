"""A run prepared and launched in one go, for tests that look at what comes of it."""

from __future__ import annotations

from collections.abc import Callable

from agents.sysroot import SysRoot
from fleetexp.control import launch as launching
from fleetexp.control.prepare import prepare
from fleetexp.control.progress import Progress, RunOutcome
from fleetexp.experiment import Experiment
from fleetexp.fleets.by_name import FleetChoice, open_inventory
from fleetexp.fleets.inventory import Inventory
from fleetexp.store.url import StoreUrl


def launch(
    experiment: Experiment,
    text: str,
    *,
    store_url: StoreUrl,
    observer: Callable[[Progress], None],
    fleet: str = "local",
    root: SysRoot | None = None,
    inventory: Inventory | None = None,
) -> RunOutcome:
    hosts = inventory or open_inventory(FleetChoice.parse(fleet), root)
    prepared = prepare(experiment, text, hosts, store_url, power_acknowledged=True)
    return launching.launch(prepared, observer)
