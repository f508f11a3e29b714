"""On a CPU that counts dTLB misses: what is divided is one group of the kernel's, and counts what each alone counts."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

import pytest

from tests.lab.pmu_guest import PmuGuest, booted

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1200)]

EVENTS = ("instructions", "cycles", "dtlb_load_misses", "dtlb_store_misses")
PROGRAM = (16, 30)  # MiB, repeats
ROUNDS = 3


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PmuGuest]:
    yield from booted(tmp_path_factory.mktemp("pmu"))


def test_a_group_counts_what_each_event_alone_counts_at_the_same_moments(guest: PmuGuest) -> None:
    rounds = [
        (guest.call("counted_together", EVENTS, PROGRAM), guest.call("counted_in_groups", EVENTS[2:3], PROGRAM))
        for _ in range(ROUNDS)
    ]
    for together, _ in rounds:
        assert (together["groups"], together["apart"]) == (1, [])
        times = {together["counts"][f"{one}_time_enabled_seconds"] for one in EVENTS}
        assert len(times) == 1, "the whole group is read at one moment"
    ours, alone = ([one["counts"]["dtlb_load_misses"] for one in side] for side in zip(*rounds, strict=True))
    print(f"dtlb_load_misses in a group of {len(EVENTS)}: {ours}, alone: {alone}")
    assert median(ours) == pytest.approx(median(alone), rel=0.1)


def test_groups_that_take_turns_are_scaled_to_what_each_counts_alone(guest: PmuGuest) -> None:
    rounds = [
        [guest.call("counted_together", EVENTS, (16, 100), beside)["counts"] for beside in (0, 1)]
        for _ in range(ROUNDS)
    ]
    for _, half in rounds:
        share = half["cycles_time_running_seconds"] / half["cycles_time_enabled_seconds"]
        assert 0.3 < share < 0.7, "they take turns"
    alone, taking_turns = ([one["dtlb_load_misses"] for one in side] for side in zip(*rounds, strict=True))
    print(f"dtlb_load_misses of a group alone: {alone}, of one that takes turns: {taking_turns}")
    assert median(taking_turns) == pytest.approx(median(alone), rel=0.15)


def test_a_group_that_does_not_fit_is_taken_apart_and_counted_all_the_same(guest: PmuGuest) -> None:
    """This CPU has one counter for cycles, and its kernel takes any group without a check."""
    found = guest.call("counted_twice", "cycles", PROGRAM)
    print(found)
    assert (found["groups"], found["apart"]) == (2, ["again"])
    counts = found["counts"]
    share = counts["cycles_time_running_seconds"] / counts["cycles_time_enabled_seconds"]
    assert 0.2 < share < 0.8
    assert counts["cycles"] > 0


def test_preflight_tells_what_takes_turns_and_in_how_much_of_the_time(guest: PmuGuest) -> None:
    alone, twice = (guest.call("forecast", wanted) for wanted in ((), ("cgroup_cycles",)))
    print(alone, twice)
    assert all(alone.shares[name] > 0.98 for name in EVENTS)
    assert all(0 < twice.shares[name] < 0.9 for name in ("cycles", "cgroup_cycles"))
