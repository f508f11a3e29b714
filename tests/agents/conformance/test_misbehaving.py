"""What is wrong is found and named: a broken expectation, lost data, a crash, a hang; and the host is put back."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.lease import GuardianNote
from agents.process import is_alive
from tests.agents.conformance.on_this_machine import TAINT, run, start

pytestmark = [pytest.mark.real_knobs, pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.usefixtures("real_knobs")]

PROGRAM = "tests/agents/conformance/misbehaving.py"
SWITCH = Path("/sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled")
LEASE_SECONDS = 2.0


def verdicts(tmp_path: Path, *names: str) -> dict[str, dict[str, Any]]:
    done = run(tmp_path / "state", PROGRAM, "20", *names)
    assert done.returncode == 0, done.stderr
    whole = json.loads(done.stdout.splitlines()[-1])
    assert whole["given_up"] == ""
    return {result["name"]: result for result in whole["results"]}


def test_whatever_is_wrong_fails_by_its_own_name_and_what_behaves_passes(tmp_path: Path) -> None:
    names = ("wants_many_pages", "loses_a_page", "crashes", "hangs", "raises", "leaves", "can_not_be_tried", "behaves")
    found = verdicts(tmp_path, *names)
    said = {name: (one["verdict"], one["cause"]) for name, one in found.items()}
    assert said == {
        "wants_many_pages": ("fail", "expectation"),
        "loses_a_page": ("fail", "data"),
        "crashes": ("fail", "crashed"),
        "hangs": ("fail", "hung"),
        "raises": ("fail", "broken"),
        "leaves": ("fail", "broken"),
        "can_not_be_tried": ("skip", "one_node"),
        "behaves": ("pass", ""),
    }
    # Others on this machine may have had pages in that moment, but not so many.
    assert re.fullmatch(r"anon_fault_alloc: wanted \+9999, seen \+\d{1,3}", found["wants_many_pages"]["detail"])
    assert found["crashes"]["detail"] == "its process was killed by SIGSEGV"
    assert [check["what"] for check in found["crashes"]["checks"]] == ["what was done before"]
    assert found["raises"]["detail"] == "ValueError: of its own making"
    allocated = [found["wants_many_pages"][when]["anon_fault_alloc"] for when in ("before", "after")]
    assert allocated[1] > allocated[0]


def test_a_counter_that_rises_by_more_is_tried_again_before_it_fails_or_is_others(tmp_path: Path) -> None:
    found = verdicts(tmp_path, "wants_fewer_pages")["wants_fewer_pages"]
    assert found["attempts"] == 5
    # This machine may be busy with huge pages of others: then nothing can be said, and that is what is said.
    assert (found["verdict"], found["cause"]) in {("fail", "expectation"), ("skip", "others")}


def test_killed_in_mid_scenario_its_processes_end_and_the_guardian_puts_the_size_back(
    tmp_path: Path, wait_until: Callable[..., float]
) -> None:
    before = SWITCH.read_text()
    process = start(tmp_path / "state", PROGRAM, str(LEASE_SECONDS), "hangs", without_limit=True)
    assert process.stdout is not None
    assert process.stdout.readline() == '"begun"\n'
    wait_until(lambda: "[madvise]" in SWITCH.read_text(), within_seconds=30)
    wait_until(lambda: len(_forks()) == 2, within_seconds=30)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: SWITCH.read_text() == before, within_seconds=LEASE_SECONDS + 15)
    assert _forks() == []
    note = GuardianNote.open(tmp_path / "state", read_only=True)
    assert note is not None
    guardian = note.read().process
    note.close()
    assert guardian is not None
    wait_until(lambda: not is_alive(guardian), within_seconds=10)


def test_once_the_kernel_complains_the_size_is_put_back_and_nothing_more_is_waited_for(
    tmp_path: Path, wait_until: Callable[..., float]
) -> None:
    before, taint = SWITCH.read_text(), tmp_path / TAINT
    taint.write_text("0\n")
    process = start(tmp_path / "state", PROGRAM, str(LEASE_SECONDS), "hangs", "behaves", without_limit=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == '"begun"\n'
        wait_until(lambda: len(_forks()) == 2, within_seconds=30)
        assert "[madvise]" in SWITCH.read_text()
        taint.write_text("512\n")
        wait_until(lambda: SWITCH.read_text() == before, within_seconds=20)
        out, err = process.communicate(timeout=60)  # it would hang for ten minutes
    finally:
        process.kill()
    assert process.returncode == 0, err
    whole = json.loads(out.splitlines()[-1])
    assert whole["given_up"] == "the kernel is tainted: kernel issued a warning"
    said = {one["name"]: (one["verdict"], one["cause"]) for one in whole["results"]}
    assert said == {"hangs": ("fail", "kernel"), "behaves": ("skip", "given_up")}
    assert _forks() == []


def _forks() -> list[int]:
    """The processes of the scenario that hangs."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"hangs" in words and b"tests.agents.conformance.misbehaving" in words:
            found.append(int(folder.name))
    return found
