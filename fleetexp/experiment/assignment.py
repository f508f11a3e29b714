"""Which host gets which arm in a parallel design, by the method of assignment that the spec names. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.assignment_method import Draw, DrawInput
from analysis.errors import AnalysisError
from analysis.plan import AssignmentPlan
from fleetexp.errors import ConfigError
from fleetexp.experiment import Experiment
from fleetexp.experiment.model import DEFAULT_DRAWS
from fleetexp.experiment.population import HostInfo
from fleetexp.experiment.problem import choose


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnArms:
    """Who got which arm, how that is recorded, and each host's numbers that arms were balanced on."""

    draw: Draw
    record: AssignmentPlan
    balance: Mapping[str, tuple[float, ...]]


def assign(experiment: Experiment, hosts: Sequence[HostInfo], strata: Mapping[str, str]) -> DrawnArms:
    """Draw the arm of every host; `strata` maps host to stratum. ConfigError where the method can't be carried out."""
    method, section, rule = experiment.method, experiment.assignment, experiment.balance_rule
    balance = _covariates(experiment, hosts) if method.balances else {}
    given = DrawInput(
        seed=experiment.seed,
        ratio=experiment.ratio,
        strata=strata,
        balance=balance,
        rule=rule,
        most_draws=section.max_draws or DEFAULT_DRAWS,
    )
    try:
        draw = method.draw(given)
    except AnalysisError as error:
        raise ConfigError(error.what, error.where, error.remedy) from None
    record = AssignmentPlan(
        method=method.name,
        strata=section.strata,
        balance=section.balance,
        accept=rule.accept if method.by_rule else None,
        largest_difference=rule.largest_difference if method.by_rule else None,
        threshold=draw.threshold,
        distance=draw.distance,
        draws=draw.draws,
    )
    return DrawnArms(draw=draw, record=record, balance=balance)


def _covariates(experiment: Experiment, hosts: Sequence[HostInfo]) -> dict[str, tuple[float, ...]]:
    """Each host's numbers; ConfigError names the host that lacks one."""
    out: dict[str, tuple[float, ...]] = {}
    for host in hosts:
        numbers = []
        for name in experiment.assignment.balance:
            number = host.number(name)
            if number is None:
                what = (
                    f"{name} of the host {host.name} is {host.labels[name]!r}, no number"
                    if name in host.labels
                    else f"the host {host.name} has neither a label nor a stored metric {name!r}"
                )
                legal = [label for label in host.labels if host.number(label) is not None]
                remedy = f"exclude it, or balance on what every host has; {choose(name, legal, noun='label')}"
                raise ConfigError(what, "assignment.balance", remedy)
            numbers.append(number)
        out[host.name] = tuple(numbers)
    return out
