"""Observer effect: did watching cost more under one arm than under the other?"""

from __future__ import annotations

from analysis.results import Check, Estimate

THRESHOLD = 0.01
MATERIAL_CORES = 0.001  # the agent's budget is 0.1 % of a core: a smaller difference hides no effect


def observer_effect(row: Estimate) -> Check:
    """Judge the difference between arms in what the agent used; CPU time is in seconds per second, so in cores.

    Failed: clearly different (p < .01) and, for CPU time, by more than 0.1 % of a core.
    """
    name = f"observer effect ({row.metric}, {row.treatment})"
    if row.p_value is None or row.difference is None:
        return Check(name=name, passed=None, p_value=None, detail="Not testable: " + "; ".join(row.warnings))
    size = f"{row.difference:+.3g} ({row.control_mean:.3g} in {row.control})"
    material = "cpu" not in row.metric or abs(row.difference) > MATERIAL_CORES
    if row.p_value < THRESHOLD and material:
        detail = f"Watching cost differs between the arms: {size}; part of any effect may be the watching."
        return Check(name=name, passed=False, p_value=row.p_value, detail=detail)
    return Check(
        name=name, passed=True, p_value=row.p_value, detail=f"No material difference in what watching cost: {size}."
    )
