"""On real kernels: who split a page and why is told as it was, as often as the kernel counts; nothing is left behind.

One guest has pages of 2 MiB and 1 GiB (x86-64), the other of 512 MiB (arm64 with base pages of 64 KiB).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from agents.traced_calls import COUNTED_AS
from tests.lab.arm_guest import run_in_arm_guest
from tests.lab.conftest import run_in_guest
from tests.lab.guest_splits import MARK, Doing
from tests.lab.split_causes import AT_PMD, AT_PUD, TOO_MUCH, program_of

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1500)]

TOP_LEVEL = "/sys/kernel/mm/transparent_hugepage/enabled"  # madvise: the script's own memory is in no big page
KILLS = 12  # in the guest that boots faster
Seen = dict[str, Any]


def expected(level: str, causes: tuple[Any, ...]) -> set[tuple[str, str, str]]:
    """Function, program and cause of each split that was made; what the kernel's daemon splits bears its name."""
    return {
        (f"split_{level}", "ksmd" if cause.__name__ == "ksm" else program_of(level, cause), cause.__name__)
        for cause in causes
    }


def told(seen: Seen) -> set[tuple[str, str, str]]:
    splits = (call for call in seen["traced"]["calls"] if call["cause"] is not None)
    return {(call["function"], call["program"], call["cause"]) for call in splits}


def kept(seen: Seen) -> list[dict[str, Any]]:
    """Leave out what the kernel dropped: two vCPUs that began the same entry at once, and one was not run then."""
    return [call for call in seen["traced"]["calls"] if call["program"]]


def check_counts(seen: Seen) -> None:
    """The causes add up to what the kernel's own counters rose by between the first and the last sample."""
    traced = seen["traced"]
    for function, metric in COUNTED_AS.items():
        if metric in traced["sampled"]:
            calls = sum(call["calls"] for call in traced["calls"] if call["function"] == function)
            assert calls == traced["sampled"][metric], metric
    assert sum(traced["kernel"].values()) > 0


def check_times(seen: Seen) -> None:
    """Each split and each fault that the kernel kept was timed, and its time is one."""
    for call in kept(seen):
        assert call["timed"] == call["calls"]
        assert 0 < call["seconds"] < 600, "longer than the period was"


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """What was seen in the guest with pages of 2 MiB and 1 GiB."""
    folder = tmp_path_factory.mktemp("big") / "guest"
    return run_in_guest(folder, "guest_splits.py", "0", memory="6GiB", kernel_arguments="kernelcore=2G", thp="madvise")


@pytest.fixture(scope="module")
def wide() -> Seen:
    """What was seen in the guest with pages of 512 MiB."""
    seen: Seen = json.loads(
        run_in_arm_guest(
            "guest_splits.py",
            str(KILLS),
            mark=MARK,
            prepare=f"mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null; echo madvise >{TOP_LEVEL}",
            beside=("split_causes.py", "guest_swap.py"),
            limit_seconds=1300,
        )
    )
    return seen


def test_each_cause_of_a_split_at_2m_and_1g_is_named_with_its_program(big: Seen) -> None:
    assert expected("pmd", AT_PMD) | expected("pud", AT_PUD) <= told(big)


def test_each_cause_of_a_split_at_512m_is_named_with_its_program(wide: Seen) -> None:
    causes = tuple(cause for cause in AT_PMD if cause not in TOO_MUCH)
    assert expected("pmd", causes) <= told(wide)


@pytest.mark.parametrize("guest", ["big", "wide"])
def test_causes_add_up_to_the_kernels_counters_and_each_is_timed(guest: str, request: pytest.FixtureRequest) -> None:
    seen: Seen = request.getfixturevalue(guest)
    check_counts(seen)
    check_times(seen)


@pytest.mark.parametrize("guest", ["big", "wide"])
def test_a_period_that_ends_leaves_no_instance_and_no_probe(guest: str, request: pytest.FixtureRequest) -> None:
    seen: Seen = request.getfixturevalue(guest)
    traced = seen["traced"]
    assert (traced["invalid"], traced["after"]) == ("", [])
    assert bool(traced["events"]) == (kept(seen) != traced["calls"]), "what was dropped is told, and nothing else"
    assert len(traced["during"]) > 3, "nothing was traced"


def test_however_agent_and_guardian_die_no_instance_and_no_probe_is_left(wide: Seen) -> None:
    killed = wide["killed"]
    assert {(one["doing"], one["alone"]) for one in killed} == {
        (doing, how) for doing in Doing for how in (True, False)
    }
    for one in killed:
        assert (one["left"], one["claim"]) == ([], False), one
        assert [change for change in one["changes"] if change[2]] == []
    assert sum(one["stood"] > 0 for one in killed) >= 8, "agents were killed while nothing was traced"
    assert len({one["stood"] for one in killed}) >= 4, "agents were killed at the same moment again and again"
    told = {knob for one in killed for knob, _, _ in one["changes"]}
    assert any(knob.startswith("tracing/") for knob in told), "restore tells what it removed"


def test_faults_of_big_pages_are_told_with_how_long_each_took(big: Seen) -> None:
    faults = [call for call in big["traced"]["calls"] if call["function"] == "fault_pud"]
    assert {call["program"] for call in faults} >= {program_of("pud", cause) for cause in AT_PUD}
    assert all(call["seconds"] <= call["calls"] * call["longest_seconds"] for call in faults)
