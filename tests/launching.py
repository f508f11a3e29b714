"""A run prepared and launched in one go, for tests that look at what comes of it."""

from __future__ import annotations

from collections.abc import Callable

from agents.sysroot import SysRoot
from fleetexp.config import Experiment
from fleetexp.orchestrator import launch as launching
from fleetexp.orchestrator.fleets import FleetChoice, open_inventory
from fleetexp.orchestrator.inventory import Inventory
from fleetexp.orchestrator.prepare import prepare
from fleetexp.orchestrator.progress import Outcome, Progress
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
) -> Outcome:
    hosts = inventory or open_inventory(FleetChoice.parse(fleet), root)
    prepared = prepare(experiment, text, hosts, store_url, power_acknowledged=True)
    return launching.launch(prepared, observer)
