"""What runs, or is watched, on a host in a measured period; `kinds` has one module for each.

These names are imported when they are asked for: whoever imports one of `kinds`, a declaration, imports this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agents.workloads.checks import check_workload
    from agents.workloads.reported import metric_names
    from agents.workloads.running import Measured, RunningWorkload
    from agents.workloads.service import restart_service
    from agents.workloads.start import start_workload

__all__ = ["Measured", "RunningWorkload", "check_workload", "metric_names", "restart_service", "start_workload"]

_MODULES = {
    "Measured": "running",
    "RunningWorkload": "running",
    "check_workload": "checks",
    "metric_names": "reported",
    "restart_service": "service",
    "start_workload": "start",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(name)
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
