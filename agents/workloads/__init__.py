"""What runs, or is watched, on a host in a measured period.

pointer_chase   random dependent dereferences in a region; fault-in and access apart
page_fault      the latency of each big-page fault
acquire         how many of N big pages the host grants
command         a program of the user's own, which prints its measurements
service         a systemd unit or a cgroup that runs anyway
"""

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
