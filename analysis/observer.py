"""Observer effect: did watching cost more under one arm than under the other, and enough to matter?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from analysis.plan import Role
from analysis.results import Check, Estimate

THRESHOLD = 0.01
MATERIAL_CORES = 0.001  # the agent's budget is 0.1 % of a core: a smaller difference hides no effect
MATERIAL_SHARE = 0.1  # of the smallest change that the interval of the primary holds


def observer_effects(headlines: Sequence[Estimate]) -> Iterator[Check]:
    """Judge each difference between arms in the CPU time that watching took, in cores (CPU seconds per second).

    Failed: clearly different (p < .01), by more than 0.1 % of a core, and by more than a tenth of the smallest change
    of the primary metric that its interval holds. Watching can take no larger share from a workload than all its time
    from one core of it. A treatment that makes a workload faster keeps caches and memory busier, and the same watching
    then takes a little longer: that is no reason to doubt a change many times its size.
    """
    smallest = {row.treatment: _smallest_change(row) for row in headlines if row.role is Role.PRIMARY}
    for row in headlines:
        if row.role is Role.OBSERVER:
            yield observer_effect(row, smallest.get(row.treatment, 0.0))


def observer_effect(row: Estimate, smallest_change: float) -> Check:
    """Judge one difference in CPU time against the smallest change (0.05: 5 %) that the primary's interval holds."""
    name = f"observer effect ({row.metric}, {row.treatment})"
    if row.p_value is None or row.difference is None:
        return Check(name=name, passed=None, p_value=None, detail="Not testable: " + "; ".join(row.warnings))
    size = f"{row.difference:+.3g} cores ({row.control_mean:.3g} in {row.control})"
    most = _farthest(row)
    passed, detail = True, f"No material difference in what watching cost: {size}."
    if row.p_value < THRESHOLD and most > MATERIAL_CORES:
        detail = f"Watching cost differs between the arms: {size}"
        passed = most <= MATERIAL_SHARE * smallest_change
        if passed:
            detail += (
                f"; taken from one core of the workload it is at most {most:.2%}, less than a tenth of the smallest "
                f"change that the primary's interval holds ({smallest_change:.1%})."
            )
        else:
            detail += "; part of any effect may be the watching."
    return Check(name=name, passed=passed, p_value=row.p_value, detail=detail)


def _farthest(row: Estimate) -> float:
    """The end of the difference's interval that is farther from 0, in cores; its estimate where there is none."""
    interval = row.difference_interval
    ends = [row.difference]
    if interval is not None and not interval.excludes:
        ends += [interval.low, interval.high]
    return max(abs(end) for end in ends if end is not None)


def _smallest_change(row: Estimate) -> float:
    """The relative change nearest 0 that the primary's interval holds; 0 where that is not known."""
    interval = row.lift_interval
    if interval is None or interval.low is None or interval.high is None or interval.excludes:
        return 0.0
    return max(interval.low, -interval.high, 0.0)
