"""On a CPU that counts dTLB misses: fleetexp's counts are those of `perf stat`, and a run stores and compares them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import pytest

from tests.lab.conftest import lab_folder
from tests.lab.pmu_guest import HOST, NEEDED, PmuGuest

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]

Counted = dict[str, Any]
PERF = {"dtlb_load_misses": "dTLB-load-misses", "dtlb_store_misses": "dTLB-store-misses", "page_faults": "page-faults"}
DTLB = ("dtlb_load_misses", "dtlb_store_misses")
PROGRAM, LONGER = (16, 30), (16, 100)  # MiB, repeats
ROUNDS = 3


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PmuGuest]:
    lab = lab_folder()
    if lab is None or not (lab / "pmu/Image.xz").exists():
        pytest.skip("the lab is not here: set FLEETEXP_LAB to the folder with pmu/ in it")
    if absent := [program for program in NEEDED if shutil.which(program) is None]:
        pytest.skip(f"{' and '.join(absent)} not installed (make installs it, as root)")
    made = PmuGuest(lab / "pmu", tmp_path_factory.mktemp("pmu"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def in_turn(ours: Callable[[], Counted], theirs: Callable[[], Counted]) -> list[tuple[Counted, Counted]]:
    """Rounds of both, one after the other: each has the PMU to itself."""
    return [(ours(), theirs()) for _ in range(ROUNDS)]


def compare(rounds: list[tuple[Counted, Counted]], metrics: dict[str, str]) -> dict[str, float]:
    """Print both columns; returns the ratio of the medians, by metric."""
    ratios: dict[str, float] = {}
    for metric, event in metrics.items():
        ours = [one["counts"].get(metric) for one, _ in rounds]
        theirs = [other[event][0] for _, other in rounds]
        assert None not in ours, [one["unavailable"] for one, _ in rounds]
        ratios[metric] = median(ours) / median(theirs)
        print(f"{metric}: fleetexp {[round(one) for one in ours]}, perf stat {theirs}, ratio {ratios[metric]:.3f}")
    return ratios


def coverage(one: Counted, metric: str) -> float:
    counts = one["counts"]
    return float(counts[f"{metric}_time_running_seconds"] / counts[f"{metric}_time_enabled_seconds"])


def test_misses_of_a_page_stride_program_are_those_of_perf_stat(guest: PmuGuest) -> None:
    rounds = in_turn(
        lambda: guest.call("counted", [*PERF], PROGRAM),
        lambda: guest.call("perf_stat", [*PERF.values()], PROGRAM),
    )
    for metric, ratio in compare(rounds, PERF).items():
        assert ratio == pytest.approx(1, abs=0.1), metric
    assert all(coverage(one, metric) == 1 for one, _ in rounds for metric in DTLB)


def test_where_two_count_at_once_the_shares_are_stated_and_the_scaled_counts_hold(guest: PmuGuest) -> None:
    rounds = in_turn(
        lambda: guest.call("counted", DTLB, LONGER, 1),
        lambda: guest.call("perf_stat", [PERF[metric] for metric in DTLB], LONGER),
    )
    covered = {metric: [round(coverage(one, metric), 2) for one, _ in rounds] for metric in DTLB}
    print("time on the PMU:", covered)
    assert all(0.2 <= share < 0.95 for shares in covered.values() for share in shares)
    for metric, ratio in compare(rounds, {metric: PERF[metric] for metric in DTLB}).items():
        assert ratio == pytest.approx(1, abs=0.15), metric


def test_a_cgroups_misses_are_its_own_program_s_and_not_its_neighbour_s(guest: PmuGuest) -> None:
    metrics = {f"cgroup_{metric}": event for metric, event in PERF.items()}
    rounds = in_turn(
        lambda: guest.call("counted_in_cgroup", [*metrics], PROGRAM),
        lambda: guest.call("perf_stat", [*PERF.values()], PROGRAM, False),
    )
    for metric, ratio in compare(rounds, metrics).items():
        assert ratio == pytest.approx(1, abs=0.1), metric


def test_where_no_table_has_the_cpu_the_generic_events_are_counted_and_the_rest_says_why(guest: PmuGuest) -> None:
    facts, _ = guest.call("look", HOST)
    events = {event.event: event for event in facts.perf_events}
    for metric in DTLB:
        counted = events[metric].counted
        assert events[metric].available
        assert (counted.event, counted.pmu) == (PERF[metric], "")
        assert counted.counts == f"what the kernel counts as {PERF[metric]} on a CPU without numbers"
    assert not events["dtlb_walk_cycles"].available
    assert events["dtlb_walk_cycles"].reason == (
        "no table of events has this CPU (/proc/cpuinfo gives no family and model)"
    )
