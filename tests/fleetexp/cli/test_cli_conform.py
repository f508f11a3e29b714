"""`fleetexp conform` on the screen, as TAP and as JSON; what is refused, and why."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from click.testing import Result

from agents.conformance.registry import SCENARIOS
from agents.conformance.verdict import (
    Conformance,
    Outcome,
    PageCheck,
    PageVerdict,
    ScenarioResult,
    Subject,
    Trial,
    VerdictCause,
)
from fleetexp.cli.conform_output import exit_code, listener
from fleetexp.exit_codes import ExitCode

AT = datetime(2026, 11, 27, tzinfo=UTC)


TRIAL = Trial(host="web-1", kernel="6.19.0-pud", architecture="x86_64", boot_id="b", size_kib=1048576, begun_at=AT)


def result(
    name: str, verdict: PageVerdict, cause: VerdictCause = VerdictCause.NONE, detail: str = ""
) -> ScenarioResult:
    told = PageCheck(subject=Subject.CALL, what="smaps: thp_split_pud", wanted="", seen="+1", outcome=Outcome.TOLD)
    return ScenarioResult(
        name=name,
        verdict=verdict,
        cause=cause,
        detail=detail,
        seconds=1.25,
        attempts=1,
        checks=(told,),
        before={"a": 1},
    )


RESULTS = (
    result("allocation", PageVerdict.PASS),
    result(
        "stride",
        PageVerdict.FAIL,
        VerdictCause.DATA,
        "the memory: wanted what was written, seen 3 base pages differ #3 \\ \x1b[1m",
    ),
    result(
        "swap",
        PageVerdict.SKIP,
        VerdictCause.NO_SWAP,
        "it takes 1,073,741,824 bytes of swap, and 0 are free # add some",
    ),
)


def conformance(*results: ScenarioResult, given_up: str = "") -> Conformance:
    return Conformance(trial=TRIAL, ended_at=AT, results=results, given_up=given_up)


def shown(form: str, capsys: pytest.CaptureFixture[str], found: Conformance) -> str:
    names = {one.name for one in found.results}
    out = listener(form, [scenario for scenario in SCENARIOS if scenario.name in names])
    for one in found.results:
        out.told(one)
    out.ended(found)
    return capsys.readouterr().out


def test_the_screen_fits_80_columns_and_says_each_verdict_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown("text", capsys, conformance(*RESULTS, given_up="bad pud"))
    assert max(map(len, text.splitlines())) <= 80
    assert [line.split()[:2] for line in text.splitlines() if line[:4] in {"pass", "fail", "skip"}] == [
        ["pass", "allocation"],
        ["fail", "stride"],
        ["skip", "swap"],
    ]
    assert "3 base pages differ" in text
    assert "smaps: thp_split_pud +1" in text
    assert "1 pass, 1 fail, 1 skip" in text
    assert "reboot this host" in " ".join(text.split())
    assert "\x1b" not in text


def test_tap_has_its_version_plan_points_directives_and_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown("tap", capsys, conformance(*RESULTS)).splitlines()
    assert lines[:2] == ["TAP version 14", "1..3"]
    points = [line for line in lines if re.match(r"(not )?ok ", line)]
    assert points[0] == "ok 1 - allocation: does a touch bring a whole page"
    assert points[1].startswith("not ok 2 - stride: ")
    assert points[2].endswith("# SKIP it takes 1,073,741,824 bytes of swap, and 0 are free \\# add some")
    assert lines.count("  ---") == lines.count("  ...") == 3
    details = [json.loads(line.partition(": ")[2]) for line in lines if line.startswith("  detail: ")]
    assert details[1] == RESULTS[1].detail


def test_tap_of_a_host_that_was_given_up_bails_out(capsys: pytest.CaptureFixture[str]) -> None:
    rest = result("swap", PageVerdict.SKIP, VerdictCause.GIVEN_UP, "the host was given up")
    lines = shown("tap", capsys, conformance(*RESULTS[:2], rest, given_up="bad pud")).splitlines()
    assert lines[-1] == "Bail out! bad pud"
    assert [line for line in lines if "swap:" in line] == []


def test_json_is_one_object_with_typed_verdicts_and_counters(capsys: pytest.CaptureFixture[str]) -> None:
    said = json.loads(shown("json", capsys, conformance(*RESULTS)))
    assert [(one["verdict"], one["cause"]) for one in said["results"]] == [
        ("pass", ""),
        ("fail", "data"),
        ("skip", "no_swap"),
    ]
    assert said["results"][0]["before"] == {"a": 1}
    assert said["trial"]["size_kib"] == 1048576


def test_the_exit_code_tells_a_failure_from_a_host_that_was_given_up() -> None:
    assert exit_code(conformance(*RESULTS)) is ExitCode.ERROR
    assert exit_code(conformance(RESULTS[0], RESULTS[2])) is ExitCode.DONE
    assert exit_code(conformance(RESULTS[0], given_up="bad pud")) is ExitCode.HALTED


def test_scenarios_are_listed(invoke: Callable[..., Result]) -> None:
    said = json.loads(invoke("conform", "--list", "--json").stdout)
    assert [one["name"] for one in said["scenarios"]] == [scenario.name for scenario in SCENARIOS]
    assert max(map(len, invoke("conform", "--list").stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((), 2, "--size says which page size"),
        (("--size", "2MB"), 2, "write '2MiB'"),
        (("--size", "3MiB"), 1, "no transparent huge pages of 3072 kB"),
        (("--size", "2MiB", "--only", "forks"), 2, "no scenario is called forks: there are allocation"),
    ],
)
def test_what_can_not_be_asked_is_refused_with_what_can(
    invoke: Callable[..., Result], words: tuple[str, ...], code: int, says: str
) -> None:
    done = invoke("conform", *words)
    assert done.exit_code == code
    assert says in " ".join(done.output.split())


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_without_root_it_is_refused_with_the_remedy_and_nothing_is_written() -> None:
    code = (
        "import os, sys; import agents.conformance.runner, agents.conformance.registry, fleetexp.cli.conform_output;"
        "import asyncio, fleetexp.experiment.quantities, fleetexp.store.store;"
        "from fleetexp.cli.main import main;"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534);"
        "sys.argv[1:] = ['conform', '--size', '2MiB']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "can't be written" in done.stderr
    assert "run as root" in done.stderr
