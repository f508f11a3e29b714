"""`fleetexp survey` on this machine, on hosts in folders, and where there is nothing to survey."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from agents.facts import survey
from agents.page_sizes import sizes_looking_splits
from agents.survey.figures import PageSurvey, Residency, SurveyPages
from agents.survey.survey import survey_pages
from agents.sysroot import FolderRoot
from fleetexp.cli.survey_screen import fleet_lines, host_lines
from fleetexp.exit_codes import ExitCode
from fleetexp.fleets.page_surveys import FleetSurvey
from tests.agents.survey.laid_out import laid_out
from tests.agents.survey.listed_processes import FILES
from tests.host_tree import THP

Invoke = Callable[..., Result]
Tree = Callable[..., FolderRoot]
GIB = 2**30


def test_this_machine_on_one_screen_and_as_json(invoke: Invoke) -> None:
    if sizes_looking_splits(FolderRoot()):
        pytest.skip("looking would split pages here")
    with laid_out(GIB, write=range(0, 200_000, 2)) as process:
        shown = invoke("survey", "--pid", str(process.pid), "--cpu-percent", "100")
        told = invoke("survey", "--pid", str(process.pid), "--cpu-percent", "100", "--json")
    assert shown.exit_code == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(str(process.pid) in line for line in lines)
    assert any(line.split()[:1] == ["below"] for line in lines), "the distribution over extents"
    (found,) = json.loads(told.stdout)["surveys"]
    (one,) = found["processes"]
    assert one["sight"] == "whole"
    assert one["anon_bytes"] >= 100_000 * 4096
    by_size = {size["size_kib"]: size for size in found["totals"]}
    assert by_size[found["pmd_kib"]]["residency"]["resident_bytes"] >= 100_000 * 4096
    assert found["cpu_seconds"] > 0


def test_where_looking_would_split_the_screen_says_what_is_not_known(invoke: Invoke, host_tree: Tree) -> None:
    on = {f"{THP}/hugepages-1048576kB/enabled": "[always] inherit madvise never", "proc/50/comm": "smem"}
    root = host_tree(gigantic=True, files=FILES | on)
    shown = invoke("survey", "--root", str(root.root)).stdout
    assert max(map(len, shown.splitlines())) <= 80
    words = " ".join(shown.split())
    assert "NOT LOOKED pages of 1G may live here" in words
    assert "files that split pages above a PMD's size: smem" in words
    assert "whole at most" in words
    assert "<=1" in words
    assert re.search(r"/system.slice/web\S* +1.00 +0/1", words), "the cgroup, its memory as the kernel counts it"


def test_a_host_without_huge_pages_is_told_so(invoke: Invoke, host_tree: Tree) -> None:
    none = {f"{THP}/{name}": None for name in ("enabled", "hpage_pmd_size")}
    root = host_tree(thp_sizes_kib=(), hugetlb_kib=(), files=FILES | none)
    assert "has no huge pages" in invoke("survey", "--root", str(root.root)).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--pid", "2"), "no process with memory of its own has the number 2"),
        (("--fleet", "simulated"), "simulated hosts have no processes"),
        (("--pool", "web-a"), "no host is there to survey"),
    ],
)
def test_what_can_not_be_surveyed_is_one_line_with_a_remedy(invoke: Invoke, words: tuple[str, ...], said: str) -> None:
    result = invoke("survey", *words)
    assert result.exit_code == ExitCode.ERROR
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert said in line
    assert " — " in line


def as_host(found: PageSurvey, host: str, times: int) -> PageSurvey:
    """The same survey of another host, with so many times as much in each extent class."""

    def more(residency: Residency) -> Residency:
        return replace(residency, extents_by_share=tuple(count * times for count in residency.extents_by_share))

    totals = tuple(replace(one, residency=one.residency and more(one.residency)) for one in found.totals)
    return replace(found, host=host, totals=totals)


def test_a_fleet_is_ranked_by_what_would_be_backed_without_growth() -> None:
    here = FolderRoot()
    if sizes_looking_splits(here):
        pytest.skip("looking would split pages here")
    with laid_out(GIB, write=range(4096)) as process:
        asked = SurveyPages(pids=(process.pid,), cpu_share=1.0)
        found = survey_pages(here, survey(here), asked)
    surveys = tuple(as_host(found, host, times) for host, times in (("web-1", 1), ("web-2", 3), ("web-3", 2)))
    fleet = FleetSurvey(surveys=surveys, without={"web-4": "it does not answer"})
    lines = "\n".join(fleet_lines(fleet, columns=80, top=8)).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if line.startswith("web-")][:3] == ["web-2", "web-3", "web-1"]
    assert lines[-1] == "web-4: it does not answer"


def test_a_name_that_would_drive_the_terminal_is_shown_harmless(host_tree: Tree) -> None:
    root = host_tree(files=FILES | {"proc/42/status": FILES["proc/42/status"].replace("server", "\x1b[2Jx")})
    found = survey_pages(root, survey(root), SurveyPages())
    shown = "\n".join(host_lines(found, columns=80, top=8))
    assert "[2Jx" in shown
    assert all(line.isprintable() for line in shown.splitlines())


def test_a_survey_is_kept_for_sql_where_that_is_asked(invoke: Invoke, host_tree: Tree) -> None:
    root = str(host_tree(files=FILES).root)
    assert invoke("survey", "--root", root).exit_code == 0
    assert not Path("fleetexp.db").exists()
    assert invoke("survey", "--root", root, "--keep", "--store", "sqlite:///kept.db").exit_code == 0
    sql = "select size_kib, extents, whole from survey_sizes where size_kib = 2048"
    asked = invoke("sql", sql, "--store", "sqlite:///kept.db", "--json")
    assert asked.exit_code == 0, asked.stderr
    assert json.loads(asked.stdout)["rows"] == [[2048, 2 * (1024 + 511 + 1), None]]


def test_a_store_that_is_none_is_refused_before_anything_is_looked_at(invoke: Invoke) -> None:
    result = invoke("survey", "--keep", "--store", "mysql://db/x")
    assert result.exit_code == ExitCode.ERROR
    assert "[--store]" in result.stderr
