"""Without a guardian that is ready there is no claim."""

from __future__ import annotations

import contextlib
import pickle
import sys
from pathlib import Path

import pytest

from agents import guardian_start
from agents.claim import RestoreOutcome, claim_status, closed_journals, take_claim
from agents.errors import GuardianError, HostClaimed
from tests.agents.claim.claims import THP_2M, Claimer, HostTree, arm


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys; print('no room here'); sys.exit(3)", "no room here"),
        ("import sys; sys.stdin.close()", "it said nothing"),
        ("import os, time; os.close(1); os.close(2); time.sleep(60)", "it said nothing"),
        ("import time; print('hello', flush=True); time.sleep(60)", "hello"),
        ("print('ready 4194399', flush=True)", "ready 4194399"),
    ],
)
def test_a_guardian_that_is_not_ready_means_no_claim(
    host_tree: HostTree, monkeypatch: pytest.MonkeyPatch, program: str, said: str
) -> None:
    monkeypatch.setattr("agents.timeouts.START_SECONDS", 0.5)
    root = host_tree()
    with pytest.raises(GuardianError, match=said):
        take_claim(
            root, run="r", owner="o", knobs=[THP_2M], lease_seconds=60, guardian_command=[sys.executable, "-c", program]
        )
    assert claim_status(root) is None
    (closed,) = closed_journals(root)
    assert (closed.outcome, closed.changes) == (RestoreOutcome.NOT_STARTED, ())


@pytest.mark.parametrize(("factor", "claimed"), [("1", False), ("1000", True)])
def test_a_guardian_that_is_slow_has_as_much_longer_as_this_host_is_given(
    host_tree: HostTree, monkeypatch: pytest.MonkeyPatch, factor: str, claimed: bool
) -> None:
    monkeypatch.setattr("agents.timeouts.START_SECONDS", 0.1)
    monkeypatch.setenv("FLEETEXP_TIMEOUT_FACTOR", factor)
    slow = ["sh", "-c", 'sleep 1; exec "$@"', "sh", *guardian_start.default_command()]
    root = host_tree()
    with contextlib.nullcontext() if claimed else pytest.raises(GuardianError):
        take_claim(root, run="r", owner="o", knobs=[THP_2M], lease_seconds=60, guardian_command=slow).release()
    assert claim_status(root) is None


def test_a_guardian_that_is_not_there_means_no_claim(host_tree: HostTree, tmp_path: Path) -> None:
    root = host_tree()
    with pytest.raises(GuardianError, match="No such file"):
        take_claim(
            root, run="r", owner="o", knobs=[THP_2M], lease_seconds=60, guardian_command=[str(tmp_path / "nowhere")]
        )
    assert claim_status(root) is None


def test_what_status_and_errors_say_survives_a_trip_through_ray(host_tree: HostTree, claimer: Claimer) -> None:
    root = host_tree()
    claimer(root, THP_2M).apply(arm(thp_2M="always"))
    status = claim_status(root)
    assert pickle.loads(pickle.dumps(status)) == status  # noqa: S301
    with pytest.raises(HostClaimed) as caught:
        claimer(root, run="r2")
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert str(again) == str(caught.value)
