"""At most so many hosts off control per rack, whatever the draw."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetexp.domain import Plan
from fleetexp.errors import ConfigError
from fleetexp.experiment import Experiment, parse_experiment
from fleetexp.experiment.population import HostInfo
from fleetexp.experiment.schedule import make_plan

SPEC = """\
name: x
design: {design}
control: small
arms:
  small: {{thp/2048kB/enabled: never}}
  big: {{thp/2048kB/enabled: always}}
assignment: {{seed: {seed}{more}}}
{stages}
metrics: {{primary: memory_used_bytes}}
safety: {{max_per: {limits}}}
"""


def experiment(limits: str, *, seed: int = 1, more: str = "", parallel: bool = True) -> Experiment:
    return parse_experiment(
        SPEC.format(
            design="parallel" if parallel else "switchback",
            stages="stages: [{share: 100%, hold: 1h}]" if parallel else "",
            limits=limits,
            seed=seed,
            more=more,
        )
    )


def racks(hosts: int, racks: int) -> list[HostInfo]:
    return [HostInfo(name=f"h{n:03}", labels={"rack": f"r{n % racks}", "pool": f"p{n % 2}"}) for n in range(hosts)]


def treated(plan: Plan, hosts: list[HostInfo], label: str) -> Counter[str]:
    of = {host.name: host.labels[label] for host in hosts}
    return Counter(of[unit.host] for unit in plan.units if unit.arm != plan.control)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(8, 12))
def test_no_rack_and_no_pool_has_more_treated_hosts_than_allowed(seed: int, per_rack: int, count: int) -> None:
    hosts = racks(120, count)
    plan = make_plan(experiment(f"{{rack: {per_rack}, pool: 9}}", seed=seed), hosts)
    assert max(treated(plan, hosts, "rack").values()) <= per_rack
    assert max(treated(plan, hosts, "pool").values()) <= 9
    assert plan.safety.max_per == {"rack": per_rack, "pool": 9}


def test_the_arms_stay_in_their_ratio_because_a_full_rack_gives_no_more_controls_either() -> None:
    hosts, arms = racks(400, 40), Counter[str]()
    for seed in range(40):
        arms.update(str(unit.arm) for unit in make_plan(experiment("{rack: 2}", seed=seed), hosts).units)
    assert 0.95 < arms["big"] / arms["small"] < 1.05


def test_a_limit_that_is_never_reached_changes_nothing() -> None:
    hosts = racks(40, 4)
    with_limit = make_plan(experiment("{rack: 100}"), hosts)
    assert with_limit.units == make_plan(experiment("{}"), hosts).units


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: experiment("{shelf: 2}"), "has no label 'shelf'"),
        (lambda: experiment("{rack: 2}", parallel=False), "a switchback treats every host, and rack r"),
        (lambda: experiment("{rack: 2}", more=", method: complete"), "has more than 2 hosts off control"),
    ],
)
def test_a_limit_that_can_not_be_kept_is_an_error_that_says_where(made: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        make_plan(made(), racks(40, 4))  # type: ignore[operator]
    assert "safety.max_per" in raised.value.where


def test_a_switchback_within_its_limits_takes_every_host() -> None:
    assert len(make_plan(experiment("{rack: 2}", parallel=False), racks(8, 4)).units) == 8
