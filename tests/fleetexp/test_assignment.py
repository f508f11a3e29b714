"""Four ways to draw arms: what each keeps to, what moves when hosts are added, and that the inference can replay it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.assignment_redraws import Rerandomised
from analysis.balance import Balance
from fleetexp.domain import AssignmentPlan, Plan
from fleetexp.errors import ConfigError
from fleetexp.experiment import Experiment, analysis_plan, parse_experiment
from fleetexp.experiment.schedule import HostInfo, assigned_units, is_held_out, make_plan
from fleetexp.store.documents import from_document, to_document

SPEC = """
name: p
design: parallel
arms:
  control: {{}}
  treatment: {{thp/enabled: always}}
{more}
stages: [{{share: {share}, hold: 1h}}]
metrics: {{primary: memory_used_bytes}}
assignment: {{{assignment}}}
"""
PAIR = ("control", "treatment")
THIRD = "  third: {thp/enabled: madvise}"


def experiment(assignment: str, *, third: bool = False, share: str = "100%") -> Experiment:
    return parse_experiment(SPEC.format(assignment=assignment, more=THIRD if third else "", share=share))


def fleet(number: int, pools: int = 1) -> list[HostInfo]:
    draw = np.random.default_rng(number)
    return [
        HostInfo(
            name=f"host-{n:04}",
            labels={"pool": f"p{n % pools}", "memory": str(int(draw.integers(100, 900)) * 2**30)},
            measures={"load": float(draw.lognormal())},
        )
        for n in range(number)
    ]


def arms_of(plan: Plan) -> dict[str, str | None]:
    return {unit.host: unit.arm for unit in plan.units}


def by_stratum(plan: Plan) -> Mapping[str, Counter[str | None]]:
    out: dict[str, Counter[str | None]] = {}
    for unit in plan.units:
        out.setdefault(unit.stratum, Counter())[unit.arm] += 1
    return out


# ------------------------------------------------------------------ independent
@given(st.integers(0, 2**31), st.integers(20, 60), st.integers(0, 40), st.integers(1, 4))
@settings(max_examples=30)
def test_hosts_that_join_move_nobody_whatever_their_strata(seed: int, before: int, more: int, pools: int) -> None:
    spec = experiment(f"seed: {seed}, strata: [pool]")
    first = arms_of(make_plan(spec, fleet(before, pools)))
    later = arms_of(make_plan(spec, fleet(before + more, pools + 1)))  # their pools are cut anew, too
    assert {host: later[host] for host in first} == first


# ------------------------------------------------------------------ complete
@given(st.integers(0, 2**31), st.integers(12, 60), st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=40)
def test_complete_keeps_the_ratio_in_every_stratum_to_within_one_host(
    seed: int, hosts: int, pools: int, part: int
) -> None:
    spec = experiment(
        f"method: complete, seed: {seed}, strata: [pool], ratio: {{control: {part}, treatment: 1, third: 1}}",
        third=True,
    )
    try:
        plan = make_plan(spec, fleet(hosts, pools))
    except ConfigError as error:  # a small fleet may leave an arm out, which is refused
        assert "none of" in error.what
        return
    assert len(plan.units) == hosts
    for counts in by_stratum(plan).values():
        total = sum(counts.values())
        for arm, share in (("control", part), ("treatment", 1), ("third", 1)):
            assert abs(counts[arm] - total * share / (part + 2)) < 1


def test_what_does_not_divide_goes_to_each_arm_as_often_as_its_share() -> None:
    """Thirty pools of one host at 2:1: rounding alone would never treat anybody."""
    treated = 0
    for seed in range(60):
        spec = experiment(f"method: complete, seed: {seed}, strata: [pool], ratio: {{control: 2, treatment: 1}}")
        treated += sum(arm == "treatment" for arm in arms_of(make_plan(spec, fleet(30, 30))).values())
    assert abs(treated - 600) < 4 * 20  # binomial(1800, 1/3): sd 20


def test_complete_makes_every_choice_equally_likely() -> None:
    seen = Counter(
        tuple(
            sorted(
                host
                for host, arm in arms_of(make_plan(experiment(f"method: complete, seed: {seed}"), fleet(4))).items()
                if arm == "treatment"
            )
        )
        for seed in range(600)
    )
    assert len(seen) == 6
    assert all(abs(count - 100) < 5 * 9.2 for count in seen.values())  # sd = sqrt(600 * 1/6 * 5/6) = 9.1


# ------------------------------------------------------------------ matched pairs
@given(st.integers(0, 2**31), st.integers(8, 40), st.integers(1, 3), st.booleans(), st.booleans())
@settings(max_examples=40)
def test_matched_hosts_share_a_stratum_and_get_one_arm_each(
    seed: int, hosts: int, pools: int, third: bool, two: bool
) -> None:
    spec = experiment(
        f"method: matched_pairs, balance: [memory{', load' if two else ''}], seed: {seed}, strata: [pool]", third=third
    )
    try:
        plan = make_plan(spec, fleet(hosts, pools))
    except ConfigError as error:
        assert "none of" in error.what
        return
    sets: dict[str, list[tuple[str | None, str]]] = {}
    for unit in plan.units:
        assert unit.pair
        sets.setdefault(unit.pair, []).append((unit.arm, unit.stratum))
    size = 3 if third else 2
    short = Counter()
    for members in sets.values():
        assert len({arm for arm, _ in members}) == len(members) <= size
        assert len({stratum for _, stratum in members}) == 1
        short[members[0][1]] += len(members) < size
    assert max(short.values()) <= 1  # one left over in a stratum, at most


def test_pairs_are_alike_and_the_seed_decides_only_who_of_them_is_treated() -> None:
    hosts = fleet(40)
    plans = [make_plan(experiment(f"method: matched_pairs, balance: [memory], seed: {s}"), hosts) for s in range(40)]
    pairs = [{unit.host: unit.pair for unit in plan.units} for plan in plans]
    assert all(pair == pairs[0] for pair in pairs)
    memory = sorted(float(host.number("memory") or 0) for host in hosts)
    gaps = Counter(len({plan.units[0].arm}) for plan in plans)
    assert gaps
    apart = {}
    for unit in plans[0].units:
        apart.setdefault(unit.pair, []).append(unit.balance[0])
    assert sorted(value for pair in apart.values() for value in pair) == memory
    assert max(abs(a - b) for a, b in apart.values()) <= max(b - a for a, b in pairwise(memory))
    treated = Counter(host for plan in plans for host, arm in arms_of(plan).items() if arm == "treatment")
    assert all(5 <= treated[host.name] <= 35 for host in hosts)  # 40 coins: outside with p < 1e-6


# ------------------------------------------------------------------ rerandomise
@pytest.mark.parametrize("rule", ["accept: 10%", "largest_difference: 0.2"])
@pytest.mark.parametrize("third", [False, True])
def test_a_draw_that_is_taken_is_balanced_recorded_and_the_one_that_is_replayed(rule: str, third: bool) -> None:
    spec = experiment(f"method: rerandomise, balance: [memory, load], {rule}, seed: 3, strata: [pool]", third=third)
    plan = make_plan(spec, fleet(60, 2))
    how = plan.assignment
    assert how.distance is not None and how.threshold is not None
    assert how.distance <= how.threshold
    assert how.draws > 1
    balance = Balance(np.array([unit.balance for unit in plan.units]), spec.balance_rule)
    arms = np.array([unit.arm for unit in plan.units])
    far = max(
        float(balance.distances((arms == arm)[np.newaxis], (arms == arm) | (arms == "control"))[0])
        for arm in spec.arm_names[1:]
    )
    assert far == pytest.approx(how.distance, rel=1e-9)
    units = assigned_units(plan)
    told = analysis_plan(spec, units)
    shown = [unit.host for unit in units if unit.arm in {"control", "treatment"}]
    replay = Rerandomised(units, told, PAIR, shown)  # refuses an assignment that could not have been drawn
    assert len(replay.redraw(5, np.random.default_rng(0))) == 5


def test_only_hosts_that_take_part_are_balanced() -> None:
    spec = experiment("method: rerandomise, balance: [memory], seed: 3", share="50%")
    plan = make_plan(spec, fleet(60))
    assert len(plan.units) == 30
    Rerandomised(assigned_units(plan), analysis_plan(spec, assigned_units(plan)), PAIR, [plan.units[0].host])


def test_a_balance_that_cannot_be_reached_is_refused_with_how_near_it_came() -> None:
    spec = experiment("method: rerandomise, balance: [memory, load], largest_difference: 0.00001, max_draws: 60")
    with pytest.raises(ConfigError, match=r"none of 60 draws is balanced: the nearest is at 0\.\d+, the limit 1e-05"):
        make_plan(spec, fleet(20))


def test_a_host_without_a_number_to_balance_on_is_named() -> None:
    hosts = fleet(8)
    lacking = [*hosts[:-1], HostInfo(name="odd", labels={"pool": "p0"})]
    with pytest.raises(ConfigError, match="the host odd has neither a label nor a stored metric 'memory'"):
        make_plan(experiment("method: matched_pairs, balance: [memory]"), lacking)
    wordy = [replace(host, labels={**host.labels, "pool": "web"}) for host in hosts]
    with pytest.raises(ConfigError, match=r"pool of the host host-[0-9]+ is 'web', no number .* memory"):
        make_plan(experiment("method: matched_pairs, balance: [pool]"), wordy)


# ------------------------------------------------------------------ holdout
@given(st.integers(0, 2**31), st.integers(0, 2**31))
@settings(max_examples=20)
def test_every_experiment_of_a_salt_spares_the_same_hosts_and_a_larger_share_spares_them_too(
    one: int, two: int
) -> None:
    hosts = fleet(200)
    small = make_plan(experiment(f"holdout: 10%, seed: {one}"), hosts)
    other = make_plan(experiment(f"holdout: 10%, seed: {two}, method: complete"), hosts)
    large = make_plan(experiment(f"holdout: 30%, seed: {two}"), hosts)
    held = set(small.assignment.held_out)
    assert held == set(other.assignment.held_out)
    assert held < set(large.assignment.held_out)
    assert not held & set(arms_of(small))
    assert not held & set(arms_of(large))
    assert len(small.units) + len(held) == 200


def test_another_salt_spares_other_hosts_and_the_share_is_kept() -> None:
    names = [f"host-{n:05}" for n in range(4000)]
    web, other = experiment("holdout: 10%, holdout_salt: web"), experiment("holdout: 10%")
    held = {name for name in names if is_held_out(web, name)}
    assert abs(len(held) - 400) < 5 * 19
    both = held & {name for name in names if is_held_out(other, name)}
    assert abs(len(both) - 40) < 5 * 6


def test_a_fleet_that_is_held_out_whole_is_refused_and_says_so() -> None:
    spec = experiment("holdout: 99.9%")
    with pytest.raises(ConfigError, match="it is held out"):
        make_plan(spec, fleet(3))


# ------------------------------------------------------------------ documents
def test_a_plan_survives_the_store_and_an_old_one_still_loads() -> None:
    plan = make_plan(experiment("method: rerandomise, balance: [memory], holdout: 5%"), fleet(30))
    document = to_document(plan)
    assert from_document(Plan, document) == plan
    del document["assignment"]
    for unit in document["units"]:
        del unit["pair"], unit["balance"]
    old = from_document(Plan, document)
    assert old.assignment == AssignmentPlan()
    assert {unit.pair for unit in old.units} == {""}
