"""What a survey costs a GiB, against the least it could: the same files read, with nothing made of them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from agents.facts import survey
from agents.page_sizes import sizes_looking_splits
from agents.survey.figures import Sight, SurveyPages
from agents.survey.layout import parse_layout
from agents.survey.survey import survey_pages
from agents.sysroot import FolderRoot
from tests.agents.survey.laid_out import PAGE, laid_out

pytestmark = pytest.mark.benchmark
GIB = 2**30
MOST_TIMES_RAW = 4.0
MOST_SECONDS_A_GIB = 0.5


def raw_seconds(pid: int) -> float:
    """CPU time of reading smaps, and pagemap of what is used, as the survey has to."""
    began = time.thread_time()
    mappings = parse_layout(Path(f"/proc/{pid}/smaps").read_bytes()).mappings
    fd = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY)
    for one in mappings:
        for at in range(one.start // PAGE, one.end // PAGE if one.used else 0, 1 << 15):
            os.pread(fd, min(1 << 15, one.end // PAGE - at) * 8, at * 8)
    os.close(fd)
    return time.thread_time() - began


def test_a_survey_costs_little_more_than_reading_what_it_must() -> None:
    here = FolderRoot()
    if sizes_looking_splits(here):
        pytest.skip("looking would split pages here")
    facts = survey(here)
    with laid_out(GIB, write=[page for page in range(GIB // PAGE) if page % 3]) as process:
        asked = SurveyPages(pids=(process.pid,), cpu_share=1.0)
        floor = min(raw_seconds(process.pid) for _ in range(5))
        found = min((survey_pages(here, facts, asked) for _ in range(5)), key=lambda one: one.cpu_seconds)
    assert found.processes[0].sight is Sight.WHOLE
    gib = found.looked_at_bytes / GIB
    print(
        f"a survey of {gib:.2f} GiB, two of three pages resident: {found.cpu_seconds / gib:.3f} CPU seconds a GiB, "
        f"{found.cpu_seconds / floor:.1f} times reading alone ({floor / gib:.3f})"
    )
    assert found.cpu_seconds / floor < MOST_TIMES_RAW
    assert found.cpu_seconds / gib < MOST_SECONDS_A_GIB
