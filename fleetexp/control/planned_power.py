"""The smallest effect that a plan can be expected to decide on: from the spread in earlier runs, or from a guess."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleetexp.domain import Design, Plan
from fleetexp.errors import RunError
from fleetexp.experiment import Experiment, analysis_plan
from fleetexp.store.url import StoreUrl

if TYPE_CHECKING:
    from analysis.rule_power import Obstacle, Shape

WANTED = 0.8
ASSUMED_HOST_CV = 0.2  # of a metric from host to host
ASSUMED_BLOCK_CV = 0.05  # of a block's contrast, relative to the control's mean


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPower:
    """The relative effect on the primary metric that the whole decision sees with a probability of 80 %.

    `detectable` None: no effect at all can be decided on; `obstacle` is what stands in the way, `why` says it.
    `assumed` says that no earlier run showed the spread, `source` where it is from. `chance` is the probability that
    the `expected` effect is seen.
    """

    metric: str
    detectable: float | None
    units: str
    source: str
    assumed: bool
    expected: float | None
    chance: float | None
    obstacle: Obstacle | None
    why: str

    @property
    def too_small(self) -> bool:
        """Whether the effect that was expected will probably not be seen."""
        return self.expected is not None and (self.detectable is None or self.detectable > self.expected)

    @property
    def text(self) -> str:
        """One sentence for the plan's screen."""
        if self.obstacle is not None:
            said = f"no effect on {self.metric}, however large (power 0): cannot decide: {self.why}"
        elif self.detectable is None:
            said = f"no effect on {self.metric} with a probability of {WANTED * 100:.0f} %, on {self.units}"
        else:
            said = (
                f"an effect of {_percent(self.detectable)} on {self.metric} is seen by the whole decision with a "
                f"probability of {WANTED * 100:.0f} %, on {self.units}; the spread is {self.source}"
            )
        if self.expected is not None and self.chance is not None:
            verdict = "IT CANNOT BE SEEN" if self.chance == 0 else "TOO SMALL TO BE SEEN"
            said += f"; {_percent(self.expected)} is expected: {verdict if self.too_small else 'seen'}"
            said += f" (power {self.chance * 100:.0f} %)" if self.chance > 0 else ""
        return said


def planned_power(experiment: Experiment, plan: Plan, store_url: StoreUrl, *, simulated: bool = False) -> PlannedPower:
    """Say what a plan can show, reading the store without writing to it.

    What a simulated run showed, as a rehearsal, counts for a plan over `simulated` hosts alone.
    """
    from analysis.plan import Direction  # noqa: PLC0415 - SciPy takes half a second
    from analysis.rule_power import (  # noqa: PLC0415
        FEWEST_VALUES,
        SwitchbackShape,
        obstacle,
        obstacle_words,
        rule_detectable,
        rule_power,
        shape_words,
    )
    from fleetexp.earlier_runs import newest_spread, reading_store  # noqa: PLC0415 - and SQLAlchemy

    metric = analysis_plan(experiment).metrics[0]
    contrasts = plan.design is Design.SWITCHBACK
    shape = planned_shape(experiment, plan)
    by_host = isinstance(shape, SwitchbackShape) and shape.by_host
    with reading_store(store_url) as store:
        known = None if store is None else newest_spread(store, metric, contrasts=contrasts, by_host=by_host)
    no_use = "no earlier run shows it"
    if known is not None and known.simulated and not simulated:
        no_use, known = f"no run on real hosts shows it, {known.source} does", None
    elif known is not None and (known.spread.mean == 0 or known.spread.sd == 0):
        no_use, known = f"the mean or the spread in {known.source} is 0", None
    values: tuple[float, ...] = ()
    if known is None:
        ratio = ASSUMED_BLOCK_CV if contrasts else ASSUMED_HOST_CV
        of = "of the contrasts of blocks" if contrasts else "from host to host"
        source = f"ASSUMED: {ratio * 100:.0f} % of the mean {of}, because {no_use}"
    else:
        ratio = known.spread.sd / abs(known.spread.mean)
        source = f"that of {known.source}, {_percent(ratio)} of the mean{known.doubt}"
        values = known.spread.values if len(known.spread.values) >= FEWEST_VALUES else ()
        if experiment.periods.baseline > 0 and known.spread.correlation is not None:
            shape = planned_shape(experiment, plan, known.spread.correlation)
            source += f", correlated {known.spread.correlation:.2f} with the pre-period"
    falls = metric.better is Direction.DECREASE
    expected = experiment.metrics.expected
    return PlannedPower(
        metric=metric.name,
        detectable=rule_detectable(ratio, shape, WANTED, values, falls=falls),
        units=shape_words(shape),
        source=source,
        assumed=known is None,
        expected=expected,
        chance=None if expected is None else rule_power(-expected if falls else expected, ratio, shape, values),
        obstacle=obstacle(shape),
        why=obstacle_words(shape),
    )


def planned_shape(experiment: Experiment, plan: Plan, correlation: float | None = None) -> Shape:
    """What the decision will be made from: of several treatments the one with the fewest hosts."""
    from analysis.rule_power import ParallelShape, SwitchbackShape  # noqa: PLC0415
    from fleetexp.control.interim_analysis import planned_looks  # noqa: PLC0415

    comparisons, fractions = len(plan.arms) - 1, planned_looks(plan)
    if plan.design is Design.SWITCHBACK:
        return SwitchbackShape(
            hosts=len(plan.units),
            blocks=units_of(experiment),
            comparisons=comparisons,
            fractions=fractions,
            alpha=experiment.alpha,
        )
    sizes = {
        arm.name: sum(unit.arm == arm.name for unit in plan.units) for arm in plan.arms if arm.name != plan.control
    }
    smallest = min(sizes, key=lambda arm: sizes[arm])
    cells = {unit.stratum: [0, 0] for unit in plan.units if unit.arm in {plan.control, smallest}}
    for unit in plan.units:
        if unit.arm in {plan.control, smallest}:
            cells[unit.stratum][unit.arm == smallest] += 1
    return ParallelShape(
        strata=tuple((control, treatment) for control, treatment in cells.values()),
        correlation=correlation,
        comparisons=comparisons,
        fractions=fractions,
        alpha=experiment.alpha,
        matched_pairs=experiment.method.paired and sizes[smallest] * 2 == sum(map(sum, cells.values())),
    )


def units_of(experiment: Experiment) -> int:
    """How many coins a switchback throws on each host: one a block, in ABBA order one for two."""
    return experiment.blocks // (2 if experiment.order == "abba" else 1)


def lacking_power(power: PlannedPower) -> RunError | None:
    """Return why a run that will probably show nothing is refused unless that was acknowledged, else None."""
    if not power.too_small:
        return None
    return RunError(
        power.text,
        where="metrics.expected",
        remedy="use more hosts or blocks, a pre-period, a less noisy metric; or run it all the same with "
        "--acknowledge-power",
    )


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"
