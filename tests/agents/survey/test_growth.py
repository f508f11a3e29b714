"""What the survey says a process will grow by is what it grows by, once huge pages are on and it is started again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agents.claim import take_claim
from agents.facts import survey
from agents.messages import Arm
from agents.page_sizes import base_page_bytes, pmd_kib, sizes_looking_splits, thp_switch
from agents.survey.figures import SizeFigures, SurveyPages
from agents.survey.survey import survey_pages
from agents.sysroot import FolderRoot
from tests.agents.survey.laid_out import LaidOut, laid_out

pytestmark = [pytest.mark.real_knobs, pytest.mark.usefixtures("real_knobs", "no_guardian_left")]

MACHINE = FolderRoot()
REGION, EXTENTS = 2**30, 96


def amounts(process: LaidOut) -> dict[str, int]:
    """What the kernel says of the process, in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return {name: int(kib) * 1024 for name, kib in re.findall(r"(?m)^(\w+):\s+(\d+) kB", status)}


def of_pmd_size(process: LaidOut) -> SizeFigures:
    found = survey_pages(MACHINE, survey(MACHINE), SurveyPages(pids=(process.pid,), cpu_share=1.0))
    return next(size for size in found.processes[0].sizes if size.size_kib == found.pmd_kib)


def test_predicted_growth_is_the_growth_after_turning_it_on_and_starting_again(here: FolderRoot) -> None:
    size_kib = pmd_kib(MACHINE)
    if not size_kib or sizes_looking_splits(MACHINE):
        pytest.skip("this kernel has no huge pages, or some that looking splits")
    pages = size_kib * 1024 // base_page_bytes(MACHINE)
    pattern = [extent * pages + page for extent in range(EXTENTS) for page in range(1 + extent % 3 * pages // 4)]
    knob = thp_switch(MACHINE, size_kib)
    claim = take_claim(here, run="r1", owner="o", knobs=[knob], lease_seconds=60)
    try:
        claim.apply(Arm(name="small", knobs={knob: "never"}))
        with laid_out(REGION, write=pattern) as process:
            before, predicted = amounts(process), of_pmd_size(process)
        claim.apply(Arm(name="big", knobs={knob: "always"}))
        with laid_out(REGION, write=pattern) as process:
            after, found = amounts(process), of_pmd_size(process)
    finally:
        assert all(change.ok for change in claim.revert())
        claim.release()
    assert predicted.residency is not None
    assert found.residency is not None
    grown = after["RssAnon"] - before["RssAnon"]
    print(f"predicted {predicted.residency.growth_bytes:,} bytes, grown {grown:,}")  # noqa: T201
    assert grown > EXTENTS * size_kib * 1024 // 3
    assert predicted.residency.growth_bytes == pytest.approx(grown, rel=0.05)
    assert predicted.residency.used == pytest.approx(found.residency.whole, abs=4)
    saved = predicted.residency.tables_saved_bytes - predicted.residency.deposit_bytes
    assert after["VmPTE"] - before["VmPTE"] == pytest.approx(-saved, abs=64 * 1024), "tables saved are laid by instead"
