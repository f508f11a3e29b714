"""Over Ray and PostgreSQL, on guests: 1 GB pages are counted as their kernel counts them, and an oops ends the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.mission import mission
from tests.lab.sick_guest import SICK, WELL, sick_guest

pytestmark = [
    pytest.mark.lab,
    pytest.mark.ray,
    pytest.mark.postgresql,
    pytest.mark.slow,
    pytest.mark.timeout(3000),  # about a tenth of it on a machine with two idle cores
]
GIB = 2**30


def test_a_switchback_over_ray_on_a_1g_kernel_stores_in_postgresql_what_the_kernel_counted(
    lab: Path, tmp_path: Path
) -> None:
    seen = mission(tmp_path, lab / "bzImage-pud", lab / "initramfs.cpio.gz", "pud.mode=9p")

    assert seen["run"]["code"] == 0, seen
    assert seen["run"]["out"]["state"] == "completed", seen
    periods = seen["stored"]["allocated"]
    assert sorted(arm for arm, *_ in periods) == ["big", "big", "small", "small"]
    allocated = {arm: [rise for own, rise, *_ in periods if own == arm] for arm in ("small", "big")}
    kernel = {name: seen["after"]["counters"][name] - before for name, before in seen["before"]["counters"].items()}
    assert allocated["small"] == [0, 0]
    assert sum(allocated["big"]) == kernel["anon_fault_alloc"] > 0
    assert dict(map(tuple, seen["stored"]["backed"])) == {"big": GIB, "small": 0}

    assert min(samples for *_, samples in periods) >= 5, "too few samples for the claim that sampling splits nothing"
    assert [splits for _, _, splits, _ in periods] == [0, 0, 0, 0], "sampling split the pages that it looks at"
    assert kernel["thp_split_pud"] == 0
    assert seen["after"]["knob"] == seen["before"]["knob"] != ""
    assert seen["stored"]["not_restored"] == 0
    assert seen["report"], "no report was made"


def test_a_kernel_that_oopses_ends_the_run_and_the_host_beside_it_is_put_back(lab: Path, tmp_path: Path) -> None:
    seen = sick_guest(tmp_path, lab / "bzImage-pud-rfc-only", lab / "initramfs.cpio.gz", "pud.mode=9p")

    assert any("Oops" in cry for cry in seen["console"]), seen
    noticed = {kind for host, kind, _ in seen["events"] if host == SICK}
    state = seen["run"]["out"]["state"]
    if noticed & {"kernel_oops", "bad_page", "taint"}:  # its agent lived to tell; it may still have died of it later
        assert "guardrail_breached" in noticed, seen
        assert state == "halted" or (state, "host_lost" in noticed) == ("restore_incomplete", True), seen
    else:
        assert state == "restore_incomplete", seen
        assert "host_lost" in noticed, seen
    assert "host_lost" not in {kind for host, kind, _ in seen["events"] if host == WELL}

    assert seen["holds"] == seen["found"], "the host beside it was left changed"
    written = {(reason, restored) for host, _, reason, restored in seen["audit"] if host == WELL}
    assert written == {("apply", "yes"), ("revert", "yes")}, seen
