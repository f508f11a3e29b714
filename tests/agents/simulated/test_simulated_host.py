"""The real agent over a simulated host in virtual time: claims, periods, leases, guardians, faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agents import messages as a
from agents.claim import claim_status, closed_journals
from agents.errors import HostClaimed, KnobMismatch, KnobRefused, LeaseExpired
from agents.journal import RestoreOutcome
from agents.messages import HostEventKind, KnobReason
from agents.simulated import Handled, Lie, Oops, Reboot, Refuse, Rewrite, SimulatedHost, Vanish
from agents.simulated.files import THP

KNOB = "thp/1048576kB/enabled"
PATH = f"{THP}/hugepages-1048576kB/enabled"
BIG = a.Arm(name="big", knobs={KNOB: "always"})
LEASE = 20.0
CLAIM = a.Claim(run="1-x", owner="me", knobs=(KNOB,), lease_seconds=LEASE)
WORK = a.WorkloadSpec(kind="command", options={"argv": ("work",)})
BEGIN = a.Begin(period_id=1, sample_every_seconds=10.0, workload=WORK, time_limit_seconds=1e9)
Build = Callable[..., SimulatedHost]


def ask(host: SimulatedHost, at: float, request: a.Request) -> a.Reply:
    """Send a request that must be answered well; return the reply."""
    handled = host.handle(request, at)
    assert handled is not None
    if handled.error is not None:
        raise handled.error
    assert handled.reply is not None
    return handled.reply


def measuring(host: SimulatedHost) -> SimulatedHost:
    """Claim at 0 s, apply at 1 s, begin at 2 s."""
    ask(host, 0.0, CLAIM)
    ask(host, 1.0, a.Apply(arm=BIG))
    ask(host, 2.0, BEGIN)
    return host


def poll(host: SimulatedHost, at: float, acknowledged: int = 0) -> a.Polled:
    reply = ask(host, at, a.Poll(acknowledged=acknowledged))
    assert isinstance(reply, a.Polled)
    return reply


def holds(host: SimulatedHost) -> str:
    return host.root.values[PATH]


def test_a_period_is_sampled_on_the_beat_of_virtual_time(build: Build) -> None:
    host = measuring(build())
    for at in range(10, 102, 10):
        polled = poll(host, float(at))
    samples = [reading for reading in polled.readings if isinstance(reading, a.Sample)]
    assert [sample.boottime_seconds - samples[0].boottime_seconds for sample in samples] == pytest.approx(
        [10.0 * timer for timer in range(10)]
    )
    assert [reading.metric for reading in polled.readings if isinstance(reading, a.Measurement)] == ["throughput"] * 9
    ended = ask(host, 102.0, a.End(period_id=1))
    assert isinstance(ended, a.Ended)
    assert ended.invalid == ""


def test_a_whole_life_leaves_the_host_as_found_and_its_journal_closed(build: Build) -> None:
    host = measuring(build())
    assert holds(host) == "always"
    reverted = ask(host, 5.0, a.Revert())
    assert isinstance(reverted, a.Reverted)
    assert reverted.ok
    ask(host, 6.0, a.Release())
    assert holds(host) == "never"
    assert [journal.outcome for journal in closed_journals(host.root)] == [RestoreOutcome.RELEASED]
    assert claim_status(host.root) is None


@pytest.mark.parametrize("silent_at", [3.0, 12.0, 19.0])
def test_a_host_that_hears_nothing_for_its_lease_is_put_back_within_five_seconds(
    build: Build, silent_at: float
) -> None:
    host = measuring(build())
    poll(host, silent_at)
    host.advance(silent_at + LEASE - 0.1)
    assert holds(host) == "always"
    host.advance(silent_at + LEASE + 5.0)
    assert holds(host) == "never"
    (journal,) = closed_journals(host.root)
    assert journal.outcome is RestoreOutcome.LEASE_EXPIRED
    assert (journal.closed_at - host.root.clock.now()).total_seconds() == pytest.approx(-5.0, abs=0.1)
    with pytest.raises(LeaseExpired):
        poll(host, silent_at + LEASE + 6.0)


def test_a_run_that_comes_back_hears_what_its_guardian_did(build: Build) -> None:
    host = measuring(build())
    host.reconnect(60.0)
    reverted = ask(host, 61.0, a.Revert())
    assert isinstance(reverted, a.Reverted)
    assert {change.reason for change in reverted.changes} == {KnobReason.GUARDIAN}


def test_another_run_is_refused_while_the_lease_runs_and_served_after(build: Build) -> None:
    host = measuring(build())
    other = a.Claim(run="2-y", owner="you", knobs=(KNOB,), lease_seconds=LEASE)
    with pytest.raises(HostClaimed):
        ask(host, 5.0, other)
    assert isinstance(ask(host, 1.0 + LEASE + 5.0, other), a.Claimed)


def test_a_new_agent_undoes_what_the_one_before_it_left(build: Build) -> None:
    host = measuring(build())
    host.reconnect(5.0)
    assert holds(host) == "always"
    ask(host, 5.1, a.Revert())
    assert holds(host) == "never"
    ask(host, 5.2, CLAIM)
    ask(host, 5.3, a.Apply(arm=BIG))
    host.advance(5.3 + LEASE + 5.0)
    assert holds(host) == "never"


def test_a_refused_write_is_an_error_and_leaves_everything_as_found(build: Build) -> None:
    host = build(faults=(Refuse(knob=KNOB),))
    ask(host, 0.0, CLAIM)
    with pytest.raises(KnobRefused):
        ask(host, 1.0, a.Apply(arm=BIG))
    assert holds(host) == "never"


def test_a_lying_kernel_is_caught_by_the_read_back(build: Build) -> None:
    host = build(faults=(Lie(knob=KNOB),))
    ask(host, 0.0, CLAIM)
    with pytest.raises(KnobMismatch):
        ask(host, 1.0, a.Apply(arm=BIG))
    assert holds(host) == "never"


def test_a_kernel_that_does_not_take_a_knob_back_keeps_its_guardian_trying(build: Build) -> None:
    host = measuring(build(faults=(Lie(knob=KNOB, at_seconds=10.0, until_seconds=100.0),)))
    host.advance(90.0)
    assert holds(host) == "always"
    status = claim_status(host.root)
    assert status is not None
    assert "reads 'always'" in status.guardian_detail
    host.advance(110.0)
    assert holds(host) == "never"


def test_a_third_party_is_seen_at_the_next_beat(build: Build) -> None:
    host = measuring(build(faults=(Rewrite(knob=KNOB, value="madvise", at_seconds=5.0),)))
    assert poll(host, 11.0).drift == ()
    polled = poll(host, 13.0)
    assert polled.drift == (KNOB,)
    assert any(isinstance(r, a.HostEvent) and r.kind is HostEventKind.DRIFT for r in polled.readings)


def test_an_oops_is_an_event(build: Build) -> None:
    host = measuring(build(faults=(Oops(at_seconds=5.0, message="BUG: Bad page state in process x"),)))
    kinds = [reading.kind for reading in poll(host, 13.0).readings if isinstance(reading, a.HostEvent)]
    assert kinds == [HostEventKind.BAD_PAGE, HostEventKind.TAINT]


def test_a_host_that_can_not_be_reached_answers_nothing_and_runs_on(build: Build) -> None:
    host = measuring(build(faults=(Vanish(at_seconds=5.0, until_seconds=15.0),)))
    assert host.handle(a.Poll(acknowledged=0), 6.0) is None
    assert host.reconnect(7.0) is None
    polled = poll(host, 15.0)
    assert sum(isinstance(reading, a.Sample) for reading in polled.readings) == 2


def test_after_a_reboot_the_agent_is_gone_and_there_is_nothing_to_put_back(build: Build) -> None:
    host = measuring(build(faults=(Reboot(at_seconds=5.0, down_seconds=30.0),)))
    assert host.handle(a.Poll(acknowledged=0), 6.0) is None
    handled = host.handle(a.Poll(acknowledged=0), 36.0)
    assert isinstance(handled, Handled)
    assert handled.lost
    assert holds(host) == "never"
    host.reconnect(37.0)
    ask(host, 38.0, a.Revert())
    ask(host, 39.0, CLAIM)
    assert [journal.outcome for journal in closed_journals(host.root)] == [RestoreOutcome.REBOOTED]


def test_sources_are_modelled_too_and_no_address_is_asked_and_no_command_run(build: Build, tmp_path: Path) -> None:
    made = tmp_path / "made-by-the-command"
    sources = (
        a.MetricSource(metric="throughput", argv=("touch", str(made)), needed=True),
        a.MetricSource(metric="dtlb_load_misses", url="http://127.0.0.1:9/"),
    )
    host = build()
    report = ask(host, 0.0, a.Preflight(arms=(BIG,), workloads=(WORK,), sources=sources))
    assert isinstance(report, a.PreflightReport)
    assert report.ok
    ask(host, 0.0, CLAIM)
    begin = a.Begin(period_id=1, sample_every_seconds=5.0, workload=WORK, time_limit_seconds=1e9, sources=sources)
    ask(host, 1.0, begin)
    readings = poll(host, 12.0).readings
    assert [r.metric for r in readings if isinstance(r, a.Measurement)] == ["throughput"] * 2
    ended = ask(host, 13.0, a.End(period_id=1))
    assert isinstance(ended, a.Ended)
    assert ended.invalid == ""
    assert not made.exists()


def test_a_simulated_counter_never_falls(build: Build) -> None:
    sources = (a.MetricSource(metric="throughput", url="http://127.0.0.1:9/", counter=True),)
    host = build()
    ask(host, 0.0, CLAIM)
    ask(
        host,
        1.0,
        a.Begin(period_id=1, sample_every_seconds=1.0, workload=None, time_limit_seconds=1e9, sources=sources),
    )
    values = [r.value for r in poll(host, 15.0).readings if isinstance(r, a.Measurement)]
    assert len(values) > 10
    assert values == sorted(values)
