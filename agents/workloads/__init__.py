"""What runs, or is watched, on a host in a measured period; `kinds` has one module for each."""

from __future__ import annotations

from agents.workloads.checks import check_workload
from agents.workloads.reported import metric_names
from agents.workloads.running import Measured, RunningWorkload
from agents.workloads.service import restart_service
from agents.workloads.start import start_workload

__all__ = [
    "Measured",
    "RunningWorkload",
    "check_workload",
    "metric_names",
    "restart_service",
    "start_workload",
]
