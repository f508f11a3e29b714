"""Pressure stall information of the host: time in which tasks waited (Documentation/accounting/psi.rst)."""

from __future__ import annotations

from agents.catalogue.metric import Metric, MetricKind
from agents.collectors.collector import collector_of
from agents.collectors.parsers import Pressure

_SOME = "time in which at least one task waited for"
_FULL = "time in which all tasks that could run waited for"


def _metric(resource: str, line: str, meaning: str, *, column: bool = True) -> Metric:
    return Metric(
        name=f"psi_{resource}_{line}_seconds",
        unit="seconds",
        kind=MetricKind.COUNTER,
        source=f"/proc/pressure/{resource} {line} total",
        meaning=meaning,
        column=column,
        better="decrease",
    )


MEMORY = collector_of(
    "proc/pressure/memory",
    Pressure("psi_memory"),
    [_metric("memory", "some", f"{_SOME} memory"), _metric("memory", "full", f"{_FULL} memory")],
)
CPU = collector_of(  # the kernel leaves 'full' of the CPU undefined for the whole system, and prints 0: no metric
    "proc/pressure/cpu", Pressure("psi_cpu", ("some",)), [_metric("cpu", "some", f"{_SOME} a CPU")]
)
IO = collector_of(
    "proc/pressure/io",
    Pressure("psi_io"),
    [_metric("io", "some", f"{_SOME} I/O"), _metric("io", "full", f"{_FULL} I/O", column=False)],
)
