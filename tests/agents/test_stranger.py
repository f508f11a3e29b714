"""A user of this machine without rights, beside an agent that is root: he gets root to write, kill and show nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stranger import ATTEMPTS, CLOSED, OPEN, SWAPPED

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user, in a world of its own, needs root")

CHECKOUT = Path(__file__).resolve().parents[2]
LET_WHERE_OPEN = 8  # of the attempts at a folder that was left open to all, at least: else they prove nothing


@pytest.mark.parametrize("seconds", [2, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(240)])])
def test_a_user_without_rights_gets_root_to_do_nothing(seconds: int) -> None:
    assert not CHECKOUT.is_relative_to("/tmp"), "the stranger's world has a /tmp of its own: put the checkout elsewhere"
    done = subprocess.run(
        ["unshare", "-mpnf", "--kill-child", "--mount-proc", sys.executable, "-m", "tests.stranger", str(seconds)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=seconds + 120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)
    for name in sorted(ATTEMPTS):
        print(name, said["attempts"][name])  # noqa: T201 - for who wants the table: pytest -s
    print(said["root"])  # noqa: T201
    assert said["problems"] == []
    assert set(said["attempts"]) == set(ATTEMPTS)
    for name, hosts in said["attempts"].items():
        tried, let = hosts[CLOSED.name]
        assert tried > 0, name
        assert let == 0, name
    assert sum(hosts[OPEN.name][1] > 0 for hosts in said["attempts"].values()) >= LET_WHERE_OPEN
    assert sum(hosts[SWAPPED.name][1] > 0 for hosts in said["attempts"].values()) >= 2
    assert {"released", "refused", "simulated", "doctor"} <= set(said["root"])
    if seconds > 10:
        assert {"undone by the guardian", "undone by restore", "restore"} <= set(said["root"])
