"""Who gets which arm when: randomisation, periods and stages. Pure: equal seeds and hosts give equal plans.

Parallel designs draw arms by one of `analysis/assignment_methods`; by default each host's on its own, so that a host
that joins later moves nobody. The price is balance: the number of hosts in an arm is binomial (100 hosts at 1:1 come
out within 40 to 60 in 95 of 100 draws), inside each stratum as well. Sample-ratio checks are therefore made against the
binomial, and a draw that leaves an arm empty is refused.

Switchbacks draw the order inside every block on its own (`pairs`), because the sign-flip test replays exactly that:
each contrast may have come out with either sign, independently. Forcing half of the blocks to each order would
leave it fewer arrangements than it counts. `abba` draws one coin for two blocks, ABBA or BAAB: a drift that is
linear in time then cancels exactly, and the quadruple is what the coin stands for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from agents.messages import HostFacts
from analysis.plan import AssignedUnit, AssignmentPlan
from analysis.seeded_hash import uniform
from fleetexp.domain import Approval, PeriodKind, PeriodPlan, Plan, StagePlan, UnitPlan
from fleetexp.errors import ConfigError
from fleetexp.experiment import Experiment
from fleetexp.experiment.assignment import assign
from fleetexp.experiment.blast_radius import within_limits
from fleetexp.experiment.population import HostInfo, LeftOut
from fleetexp.experiment.problem import choose

__all__ = ["HostInfo", "assigned_units", "host_info", "is_held_out", "left_out_of", "make_plan", "uniform"]

WHOLE = "all"  # the stratum where none was asked for
_THP_POWERS = range(4, 21)  # 16 kB to 1 GB


def host_info(facts: HostFacts) -> HostInfo:
    """Return what a survey says of a host as labels that conditions and strata can name; memory is in bytes.

    Every page size has a label: thp_1048576kB is always, madvise, never or inherit, and absent where the kernel has
    no transparent huge pages of that size.
    """
    sizes = {f"thp_{2**power}kB": "absent" for power in _THP_POWERS}
    sizes |= {f"thp_{thp.size_kib}kB": thp.effective or thp.enabled for thp in facts.thp_sizes}
    said = sizes | {
        "architecture": facts.architecture,
        "cpu_model": facts.cpu_model,
        "cpus": str(facts.cpus),
        "kernel": facts.kernel,
        "memory": str(facts.memory_total_bytes),
        "numa_nodes": str(facts.numa_nodes),
        "virtualisation": facts.virtualisation or "none",
    }
    return HostInfo(name=facts.host, labels={**said, **facts.labels})


def make_plan(experiment: Experiment, hosts: Sequence[HostInfo]) -> Plan:
    """Decide everything that will happen; ConfigError where the experiment doesn't fit these hosts."""
    chosen, held_out = _select(experiment, hosts)
    stages = _stages(experiment, len(chosen))
    strata = {host.name: _stratum(experiment, host) for host in chosen}
    taking_part: Sequence[HostInfo] = chosen
    if not experiment.switchback and not experiment.method.stable:
        # Who takes part is decided before the arms: the draw is balanced over those who do.
        taking_part = _by_hash(experiment, chosen)[: stages[-1].hosts]
        strata = {host.name: strata[host.name] for host in taking_part}
    drawn = None if experiment.switchback else assign(experiment, taking_part, strata)
    arms = {} if drawn is None else drawn.draw.arms
    if experiment.safety.max_per:
        taking_part = within_limits(experiment, _by_hash(experiment, taking_part), arms)
        arms = {host.name: arms[host.name] for host in taking_part if host.name in arms}
        stages = _stages(experiment, len(taking_part))
    ordered = _ramp_order(experiment, taking_part, arms)[: stages[-1].hosts]
    _refuse_empty_arms(experiment, {host.name: arms.get(host.name, "") for host in ordered})
    units = []
    for position, host in enumerate(ordered):
        stage = next(stage.index for stage in stages if position < stage.hosts)
        arm = arms.get(host.name)
        units.append(
            UnitPlan(
                host=host.name,
                stratum=strata[host.name],
                arm=arm,
                stage=stage,
                periods=_switchback(experiment, host.name, stage)
                if arm is None
                else _parallel(experiment, arm, stages[stage], stages),
                pair="" if drawn is None else drawn.draw.pairs.get(host.name, ""),
                balance=() if drawn is None else drawn.balance.get(host.name, ()),
            )
        )
    assignment = experiment.assignment
    record = AssignmentPlan(strata=assignment.strata) if drawn is None else drawn.record
    record = replace(
        record,
        holdout=assignment.holdout or 0.0,
        holdout_salt="" if assignment.holdout is None else experiment.holdout_salt,
        held_out=held_out,
    )
    workloads = {name: spec for name in experiment.arm_names if (spec := experiment.workload_for(name)) is not None}
    return Plan(
        design=experiment.kind,
        seed=experiment.seed,
        arms=experiment.agent_arms,
        control=experiment.control,
        units=tuple(units),
        stages=stages,
        sample_every_seconds=experiment.sample_every_seconds,
        safety=experiment.safety_rules,
        workloads=workloads,
        sources=experiment.sources,
        events=experiment.events,
        needed_events=experiment.needed_events,
        trace=experiment.traced,
        assignment=record,
        pressure=experiment.pressure_workload,
    )


def assigned_units(plan: Plan) -> tuple[AssignedUnit, ...]:
    """Return the units of a plan in the words of the analysis."""
    return tuple(
        AssignedUnit(host=u.host, stratum=u.stratum, arm=u.arm, stage=u.stage, pair=u.pair, balance=u.balance)
        for u in plan.units
    )


# ------------------------------------------------------------------ who
HELD_OUT = LeftOut(condition="holdout", reason="it is held out")


def left_out_of(experiment: Experiment, hosts: Iterable[HostInfo]) -> dict[str, LeftOut]:
    """Return for each host that the experiment is not about the first condition that it does not meet."""
    found = {host.name: experiment.population.why_not(host) for host in hosts}
    held = {name: HELD_OUT for name, left in found.items() if left is None and is_held_out(experiment, name)}
    return {name: left for name, left in found.items() if left is not None} | held


def _select(experiment: Experiment, hosts: Sequence[HostInfo]) -> tuple[tuple[HostInfo, ...], tuple[str, ...]]:
    """Return who may take part, and the names of those who would, were they not held out."""
    names = [host.name for host in hosts]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"the host {twice} is there twice", "hosts", "give every host a name of its own")
    for name in experiment.population.hosts:
        if name not in names and not set("*?[") & set(name):
            raise ConfigError(f"there is no host {name!r}", "population.hosts", choose(name, names, noun="host"))
    reasons = left_out_of(experiment, hosts)
    held_out = tuple(name for name, reason in reasons.items() if reason is HELD_OUT)
    chosen = tuple(host for host in hosts if host.name not in reasons)
    if not chosen:
        shown = "; ".join(f"{name}: {left.reason}" for name, left in list(reasons.items())[:5])
        what = f"none of {len(hosts)} hosts is in the population" + (f" ({shown})" if shown else "")
        raise ConfigError(what, "population", "widen pools, hosts or where; 'fleetexp hosts' lists what there is")
    return chosen, held_out


def is_held_out(experiment: Experiment, host: str) -> bool:
    """Whether a host belongs to the holdout: by a hash of (salt, host), whatever the experiment or its seed.

    Experiments with the same salt spare the same hosts, and a larger share spares those of a smaller one too.
    """
    share = experiment.assignment.holdout
    return share is not None and uniform(0, "holdout", experiment.holdout_salt, host) < share


def _stratum(experiment: Experiment, host: HostInfo) -> str:
    strata = experiment.assignment.strata
    for label in strata:
        if label not in host.labels:
            remedy = choose(label, host.labels, noun="label")
            raise ConfigError(f"the host {host.name} has no label {label!r}", "assignment.strata", remedy)
    return "/".join(host.labels[label] for label in strata) or WHOLE


def _refuse_empty_arms(experiment: Experiment, arms: Mapping[str, str]) -> None:
    empty = [] if experiment.switchback else [arm for arm in experiment.arm_names if arm not in arms.values()]
    if empty:
        what = f"with seed {experiment.seed} none of {len(arms)} hosts falls into the arm {', '.join(empty)}"
        raise ConfigError(what, "assignment", "add hosts, or choose another seed before anything has run")


# ------------------------------------------------------------------ when
def _ramp_order(experiment: Experiment, hosts: Sequence[HostInfo], arms: Mapping[str, str]) -> tuple[HostInfo, ...]:
    """Order hosts for the ramp: by hash, every arm evenly spread, a treated host first (a canary of one is treated)."""
    by_hash = _by_hash(experiment, hosts)
    sizes = {arm: sum(drawn == arm for drawn in arms.values()) for arm in experiment.arms}
    seen = dict.fromkeys(experiment.arms, 0)
    places: dict[str, tuple[float, bool]] = {}
    for host in by_hash:
        if (arm := arms.get(host.name)) is not None:
            places[host.name] = (seen[arm] / sizes[arm], arm == experiment.control)
            seen[arm] += 1
    return tuple(sorted(by_hash, key=lambda host: places.get(host.name, (0.0, False))))


def _by_hash(experiment: Experiment, hosts: Sequence[HostInfo]) -> list[HostInfo]:
    return sorted(hosts, key=lambda host: (uniform(experiment.seed, "ramp", host.name), host.name))


def _stages(experiment: Experiment, units: int) -> tuple[StagePlan, ...]:
    """Size the stages. A stage is open for its hold and, in a parallel design, for what comes before measuring."""
    if not experiment.stages:
        return (StagePlan(index=0, hosts=units, hold_seconds=0.0),)
    out: list[StagePlan] = []
    for index, stage in enumerate(experiment.stages):
        wanted = stage.hosts if stage.hosts is not None else math.ceil(round((stage.share or 0.0) * units, 9))
        joined = min(wanted, units)
        if out and joined < out[-1].hosts:
            what = f"the stage has {joined} of {units} hosts, the one before it {out[-1].hosts}"
            raise ConfigError(what, f"stages[{index}]", "let stages grow on this number of hosts")
        before = 0.0
        if not experiment.switchback:
            before = experiment.periods.washout + (experiment.periods.baseline if index == 0 else 0.0)
        out.append(
            StagePlan(index=index, hosts=joined, hold_seconds=before + stage.hold, approve=Approval(stage.approve))
        )
    return tuple(out)


def _switchback(experiment: Experiment, host: str, stage: int) -> tuple[PeriodPlan, ...]:
    """Lay out a switchback: a baseline where asked for, then blocks, in each every arm as washout and measure."""
    schedule = _Schedule()
    schedule.add(PeriodKind.BASELINE, experiment.control, -1, stage, experiment.periods.baseline)
    for block in range(experiment.blocks):
        for arm in _order(experiment, host, block):
            schedule.add(PeriodKind.WASHOUT, arm, block, stage, experiment.periods.washout)
            schedule.add(PeriodKind.MEASURE, arm, block, stage, experiment.measure_seconds)
    return tuple(schedule.periods)


def _order(experiment: Experiment, host: str, block: int) -> list[str]:
    """Draw the order of the arms in a block: sorted by independent hashes, so that every order is equally likely."""
    coin = block // 2 if experiment.order == "abba" else block
    arms = sorted(experiment.arm_names, key=lambda arm: (uniform(experiment.seed, "order", host, str(coin), arm), arm))
    return arms[::-1] if experiment.order == "abba" and block % 2 else arms


def _parallel(
    experiment: Experiment, arm: str, stage: StagePlan, stages: Sequence[StagePlan]
) -> tuple[PeriodPlan, ...]:
    """Lay out a host of a parallel design: the baseline with everybody else, then from its stage on to the end.

    Washout and measure are block 0: where the measurement breaks, memory has to be faulted in again as well.
    """
    periods = experiment.periods
    before = periods.washout + (periods.baseline if stage.index == 0 else 0.0)
    schedule = _Schedule()
    schedule.add(PeriodKind.BASELINE, experiment.control, -1, 0, periods.baseline)
    schedule.add(PeriodKind.WASHOUT, arm, 0, stage.index, periods.washout)
    held = sum(later.hold_seconds for later in stages[stage.index :]) - before
    schedule.add(PeriodKind.MEASURE, arm, 0, stage.index, held)
    return tuple(schedule.periods)


class _Schedule:
    """Periods in a row, numbered; one of no length is left out."""

    def __init__(self) -> None:
        self.periods: list[PeriodPlan] = []

    def add(self, kind: PeriodKind, arm: str, block: int, stage: int, seconds: float) -> None:
        if seconds > 0:
            index = len(self.periods)
            self.periods.append(PeriodPlan(index=index, kind=kind, arm=arm, block=block, stage=stage, seconds=seconds))
