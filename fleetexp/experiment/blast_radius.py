"""How many hosts may be off control at once in one rack, pool or whatever label: `safety.max_per`.

Independent draws: hosts are taken in an order that their names' hashes give, and a label's value is full once as many
of its hosts are treated as may be; its other hosts, treated or not, are left out of the run. Because the order has
nothing to do with the arms, the arms stay in the ratio that was asked for. Other draws balance the arms over a fixed
set of hosts, and a switchback treats every host it has: there a limit that is exceeded is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from fleetexp.errors import ConfigError
from fleetexp.experiment import Experiment
from fleetexp.experiment.population import HostInfo
from fleetexp.experiment.problem import choose


def within_limits(experiment: Experiment, by_hash: Sequence[HostInfo], arms: Mapping[str, str]) -> tuple[HostInfo, ...]:
    """Return the hosts that may take part; `arms` is empty in a switchback. ConfigError where no choice is left."""
    limits = experiment.safety.max_per
    treated: Counter[tuple[str, str]] = Counter()
    admitted: list[HostInfo] = []
    for host in by_hash:
        values = [(label, _value(host, label)) for label in limits]
        if all(treated[label, value] < limits[label] for label, value in values):
            admitted.append(host)
            if arms.get(host.name) != experiment.control:
                treated.update(values)
        elif experiment.switchback or not experiment.method.stable:
            label, value = next(one for one in values if treated[one] >= limits[one[0]])
            raise _cannot(experiment, label, value)
    return tuple(admitted)


def _value(host: HostInfo, label: str) -> str:
    if label not in host.labels:
        remedy = choose(label, host.labels, noun="label")
        raise ConfigError(f"the host {host.name} has no label {label!r}", "safety.max_per", remedy)
    return host.labels[label]


def _cannot(experiment: Experiment, label: str, value: str) -> ConfigError:
    most = experiment.safety.max_per[label]
    if experiment.switchback:
        what = f"a switchback treats every host, and {label} {value} has more than the {most} that may be off control"
        remedy = "name fewer hosts under population, or raise the limit"
    else:
        what = f"with seed {experiment.seed} {label} {value} has more than {most} hosts off control"
        remedy = f"use 'method: independent', put {label} among assignment.strata, or raise the limit"
    return ConfigError(what, f"safety.max_per.{label}", remedy)
