"""The smallest effect that a plan can be expected to show: from the spread in earlier runs, or from a guess."""

from __future__ import annotations

from dataclasses import dataclass

from fleetexp.config import Experiment, analysis_plan
from fleetexp.domain import Design, Plan
from fleetexp.errors import RunError

WANTED = 0.8
ASSUMED_HOST_CV = 0.2  # of a metric from host to host
ASSUMED_BLOCK_CV = 0.05  # of a block's contrast, relative to the control's mean
HOSTS_AS_UNITS = 6  # from so many hosts on, a switchback is analysed by host


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPower:
    """The relative effect on the primary metric that is seen with a probability of 80 %; None: too few units.

    `assumed` says that no earlier run showed the spread, `source` where it is from.
    """

    metric: str
    detectable: float | None
    units: str
    source: str
    assumed: bool
    expected: float | None

    @property
    def too_small(self) -> bool:
        """Whether the effect that was expected will probably not be seen."""
        return self.expected is not None and (self.detectable is None or self.detectable > self.expected)

    @property
    def text(self) -> str:
        """One sentence for the plan's screen."""
        if self.detectable is None:
            said = f"no effect on {self.metric} can be shown by {self.units}"
        else:
            said = (
                f"an effect of {_percent(self.detectable)} on {self.metric} is seen with a probability of "
                f"{WANTED * 100:.0f} % by {self.units}; the spread is {self.source}"
            )
        if self.expected is not None:
            said += f"; {_percent(self.expected)} is expected" + (": TOO SMALL TO BE SEEN" if self.too_small else "")
        return said


def planned_power(experiment: Experiment, plan: Plan, store_url: str) -> PlannedPower:
    """Say what a plan can show, reading the store without writing to it."""
    from analysis.power import detectable, paired_detectable  # noqa: PLC0415 - SciPy takes half a second
    from fleetexp.pre_period import newest_spread, reading_store  # noqa: PLC0415 - and SQLAlchemy

    metric = analysis_plan(experiment).metrics[0]
    contrasts = plan.design is Design.SWITCHBACK
    by_host = contrasts and len(plan.units) >= HOSTS_AS_UNITS
    with reading_store(store_url) as store:
        known = None if store is None else newest_spread(store, metric, contrasts=contrasts, by_host=by_host)
    if known is not None and (known.spread.mean == 0 or known.spread.sd == 0):
        known = None
    if known is None:
        ratio = ASSUMED_BLOCK_CV if contrasts else ASSUMED_HOST_CV
        of = "of the contrasts of blocks" if contrasts else "from host to host"
        source = f"ASSUMED: {ratio * 100:.0f} % of the mean {of}, because no earlier run shows it"
    else:
        adjusted = not contrasts and experiment.periods.baseline > 0
        sd = known.spread.adjusted_sd if adjusted else known.spread.sd
        ratio = sd / abs(known.spread.mean)
        source = f"that of {known.source}, {_percent(ratio)} of the mean"
        if adjusted and known.spread.correlation is not None:
            source += " once adjusted for the pre-period"
    smallest: float | None = None
    if contrasts:
        blocks = experiment.blocks // (2 if experiment.order == "abba" else 1)
        count = len(plan.units) if by_host else len(plan.units) * blocks
        units = f"{count} {'hosts' if by_host else 'blocks'}"
        if count >= 2 and ratio > 0:
            smallest = paired_detectable(ratio, count, experiment.alpha, WANTED)
    else:
        sizes = {arm.name: sum(unit.arm == arm.name for unit in plan.units) for arm in plan.arms}
        control = sizes.pop(plan.control)
        fewest = min(sizes.values())
        units = f"{control} + {fewest} hosts"
        if min(control, fewest) >= 2 and ratio > 0:
            smallest = detectable(ratio, (control, fewest), experiment.alpha, WANTED)
    return PlannedPower(
        metric=metric.name,
        detectable=smallest,
        units=units,
        source=source,
        assumed=known is None,
        expected=experiment.metrics.expected,
    )


def require_power(power: PlannedPower, *, acknowledged: bool) -> None:
    """Refuse to run what will probably show nothing, unless that was acknowledged; nothing has been touched."""
    if power.too_small and not acknowledged:
        raise RunError(
            power.text,
            where="metrics.expected",
            remedy="use more hosts or blocks, a pre-period, a less noisy metric; or run it all the same with "
            "--acknowledge-power",
        )


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"
