"""Without a guardian that is ready there is no claim."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path

import pytest

from agents import guardian_start
from agents.claim import RestoreOutcome, claim_status, closed_journals, take_claim
from agents.errors import GuardianError, HostClaimed
from tests.agents.claim.claims import THP_2M, Claimer, HostTree, arm


@pytest.mark.parametrize(
    ("program", "said", "within_seconds"),
    [
        ("echo no room here; exit 3", "no room here", 60.0),
        ("exec <&-", "it said nothing", 60.0),
        ("exec >&- 2>&-; exec sleep 60", "it said nothing", 60.0),
        ("echo hello; exec sleep 60", "hello", 2.0),
        ("echo ready 4194399", "ready 4194399", 60.0),
    ],
)
def test_a_guardian_that_is_not_ready_means_no_claim(
    host_tree: HostTree, monkeypatch: pytest.MonkeyPatch, program: str, said: str, within_seconds: float
) -> None:
    monkeypatch.setattr("agents.timeouts.START_SECONDS", within_seconds)
    root = host_tree()
    with pytest.raises(GuardianError, match=said):
        take_claim(root, run="r", owner="o", knobs=[THP_2M], lease_seconds=60, guardian_command=["sh", "-c", program])
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


def test_the_time_that_a_guardian_takes_to_start_is_not_of_the_lease(host_tree: HostTree) -> None:
    slow = ["sh", "-c", 'sleep 1.2; exec "$@"', "sh", *guardian_start.default_command()]
    root = host_tree()
    claim = take_claim(root, run="r", owner="o", knobs=[THP_2M], lease_seconds=1.0, guardian_command=slow)
    assert claim.lease_remaining_seconds > 0
    claim.release()
    assert closed_journals(root)[0].outcome is RestoreOutcome.RELEASED


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
