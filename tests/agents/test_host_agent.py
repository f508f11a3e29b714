"""The agent of one host, request by request: a host in a folder, a real guardian, real workload processes."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from agents.claim import claim_status, closed_journals, restore
from agents.errors import HostClaimed, KnobRefused, LeaseExpired, UnknownKnob, WorkloadError
from agents.host_agent import HostAgent
from agents.launcher import Launched
from agents.messages import (
    Applied,
    Apply,
    Arm,
    Begin,
    Begun,
    Claim,
    Claimed,
    End,
    Ended,
    HostEvent,
    HostEventKind,
    HostFacts,
    KnobReason,
    Measurement,
    Poll,
    Polled,
    Preflight,
    PreflightReport,
    Release,
    Released,
    Request,
    Revert,
    Reverted,
    Sample,
    Severity,
    Survey,
    WorkloadSpec,
    WorkloadState,
)
from agents.sysroot import FolderRoot
from agents.traced_calls import Traced
from agents.workloads import process
from agents.workloads.process import ProcessWorkload

pytestmark = pytest.mark.usefixtures("no_guardian_left")

KNOB = "thp/2048kB/enabled"
FILE = "sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled"
TREATED = Arm(name="treated", knobs={KNOB: "always"})
CONTROL = Arm(name="control", knobs={})
T = TypeVar("T")
HostTree = Callable[..., FolderRoot]


def command(script: str) -> WorkloadSpec:
    return WorkloadSpec(kind="command", options={"argv": (sys.executable, "-c", script)})


def until(true: Callable[[], bool], within: float = 30.0) -> None:
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def root(host_tree: HostTree) -> FolderRoot:
    return host_tree()


@pytest.fixture
def agents() -> Iterator[Callable[..., HostAgent]]:
    """Make agents that are closed at the end, whatever the test did."""
    made: list[HostAgent] = []

    def make(root: FolderRoot, run: str = "1-aa") -> HostAgent:
        made.append(HostAgent(root=root, host="web-017", run=run, labels={"pool": "web"}))
        return made[-1]

    yield make
    for agent in made:
        agent.close()


@pytest.fixture
def agent(agents: Callable[..., HostAgent], root: FolderRoot) -> HostAgent:
    return agents(root)


def ask(agent: HostAgent, request: Request, kind: type[T]) -> T:
    reply = agent.handle(request)
    assert isinstance(reply, kind)
    return reply


def claim(agent: HostAgent, run: str = "1-aa", lease: float = 30.0) -> Claimed:
    request = Claim(run=run, owner="root@web-017 pid 1", knobs=(KNOB,), lease_seconds=lease)
    return ask(agent, request, Claimed)


def begin(agent: HostAgent, workload: WorkloadSpec | None = None, period: int = 7) -> Begun:
    request = Begin(period_id=period, sample_every_seconds=0.05, workload=workload, time_limit_seconds=60)
    return ask(agent, request, Begun)


def poll(agent: HostAgent, acknowledged: int = 0, at_most: int = 5000) -> Polled:
    return ask(agent, Poll(acknowledged=acknowledged, at_most=at_most), Polled)


def holds(root: FolderRoot) -> str:
    text = root.read(FILE).decode().strip()
    return text[text.index("[") + 1 : text.index("]")] if "[" in text else text


def pressed(agent: HostAgent, **options: int) -> Claimed:
    """Claim the host with a little memory held, as a share of this machine's."""
    pressure = WorkloadSpec(kind="pressure", options={"fill_percent": 1, **options})
    request = Claim(run="1-aa", owner="me", knobs=(KNOB,), lease_seconds=30.0, pressure=pressure)
    return ask(agent, request, Claimed)


def test_memory_is_held_from_the_claim_until_the_host_is_put_back(agent: HostAgent) -> None:
    pressed(agent)
    assert agent._pressure is not None and agent._pressure.pid is not None
    pid = agent._pressure.pid
    assert agent._pressure.poll()[0] is WorkloadState.RUNNING
    ask(agent, Apply(arm=TREATED), Applied)
    begin(agent)
    assert ask(agent, End(period_id=7), Ended).invalid == ""
    ask(agent, Revert(), Reverted)
    assert not Path(f"/proc/{pid}").exists()
    ask(agent, Release(), Released)


def test_a_period_in_which_the_pressure_ended_is_not_used(agent: HostAgent) -> None:
    pressed(agent)
    begin(agent)
    assert agent._pressure is not None and agent._pressure.pid is not None
    os.killpg(agent._pressure.pid, signal.SIGKILL)
    until(lambda: agent._pressure is None or agent._pressure.poll()[0] is WorkloadState.FAILED)
    assert "no longer under pressure" in ask(agent, End(period_id=7), Ended).invalid
    with pytest.raises(WorkloadError, match="no longer under pressure"):
        begin(agent, period=8)


def test_pressure_that_can_not_be_made_leaves_the_host_free(agent: HostAgent, root: FolderRoot) -> None:
    with pytest.raises(WorkloadError, match="leaves the host too little"):
        pressed(agent, fill_percent=95)
    assert claim_status(root) is None
    assert agent._pressure is None


def test_a_survey_says_what_the_host_is_and_changes_nothing(agent: HostAgent, root: FolderRoot) -> None:
    facts = ask(agent, Survey(), HostFacts)
    assert (facts.host, facts.labels) == ("web-017", {"pool": "web"})
    assert not root.state_dir.exists()


def test_preflight_passes_what_the_host_can_do_and_changes_nothing(agent: HostAgent, root: FolderRoot) -> None:
    report = ask(agent, Preflight(arms=(CONTROL, TREATED), workloads=(command("pass"),)), PreflightReport)
    assert report.ok, report.problems
    assert not root.state_dir.exists()


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        (Arm(name="a", knobs={"thp/1048576kB/enabled": "always"}), "2048"),
        (Arm(name="a", knobs={KNOB: "sometimes"}), "sometimes"),
    ],
)
def test_preflight_names_the_knob_that_this_kernel_refuses(agent: HostAgent, arm: Arm, said: str) -> None:
    report = ask(agent, Preflight(arms=(CONTROL, arm), workloads=()), PreflightReport)
    assert not report.ok
    problem = report.problems[0]
    assert said in f"{problem.what} {problem.remedy}"
    assert "arm a" in problem.where


def test_preflight_names_a_workload_that_can_not_run(agent: HostAgent) -> None:
    missing = WorkloadSpec(kind="command", options={"argv": ("/no/such/program",)})
    report = ask(agent, Preflight(arms=(CONTROL,), workloads=(missing,)), PreflightReport)
    assert [p.severity for p in report.problems] == [Severity.ERROR]


def test_preflight_warns_of_what_splits_or_fights(host_tree: HostTree, agents: Callable[..., HostAgent]) -> None:
    files: dict[str, str] = {"proc/sys/kernel/numa_balancing": "1", "proc/812/comm": "tuned", "proc/813/comm": "smem"}
    root = host_tree(gigantic=True, nodes=2, files=files)
    arm = Arm(name="big", knobs={"thp/1048576kB/enabled": "always", "thp/defrag": "always"})
    report = ask(agents(root), Preflight(arms=(CONTROL, arm), workloads=()), PreflightReport)
    text = " ".join(problem.what for problem in report.problems)
    assert report.ok
    assert "NUMA balancing splits" in text
    assert "defrag=always" in text
    assert "smaps or pagemap" in text
    assert "may write the same knobs" in text


def test_preflight_and_claim_refuse_a_host_that_another_run_holds(
    agents: Callable[..., HostAgent], root: FolderRoot
) -> None:
    claim(agents(root, "1-aa"), "1-aa")
    other = agents(root, "2-bb")
    report = ask(other, Preflight(arms=(CONTROL,), workloads=()), PreflightReport)
    assert "1-aa" in report.problems[0].what
    with pytest.raises(HostClaimed, match="1-aa"):
        claim(other, "2-bb")


def test_a_whole_run_of_one_period_samples_measures_and_leaves_the_host_as_found(
    agent: HostAgent, root: FolderRoot
) -> None:
    found = holds(root)
    assert claim(agent).found == {KNOB: found}
    applied = ask(agent, Apply(arm=TREATED), Applied)
    assert [(c.knob, c.before, c.after) for c in applied.changes] == [(KNOB, found, "always")]
    begin(agent, command("print('latency 3.5')\nprint('latency 4.5')"))
    until(lambda: poll(agent).workload is WorkloadState.FINISHED)
    ended = ask(agent, End(period_id=7), Ended)
    assert (ended.invalid, ended.workload) == ("", WorkloadState.FINISHED)
    readings = poll(agent).readings
    assert readings[-1].position == ended.last_position
    assert [r.value for r in readings if isinstance(r, Measurement)] == [3.5, 4.5]
    samples = [r for r in readings if isinstance(r, Sample)]
    assert len(samples) >= 2
    assert "pgfault" in samples[0].values
    assert samples[-1].taken_at == ended.ended_at
    reverted = ask(agent, Revert(), Reverted)
    assert reverted.ok
    assert holds(root) == found
    ask(agent, Release(), Released)
    assert claim_status(root) is None


def test_where_nothing_can_be_traced_preflight_and_period_say_why_and_the_period_is_good(agent: HostAgent) -> None:
    asked = tuple(Traced)
    report = ask(agent, Preflight(arms=(TREATED,), workloads=(), trace=asked), PreflightReport)
    warned = [one.what for one in report.problems if one.severity is Severity.WARNING and "traced" in one.what]
    assert warned == ["not traced here: splits and stalls: this host is not a machine with a kernel of its own"]
    claim(agent)
    request = Begin(period_id=7, sample_every_seconds=0.05, workload=None, time_limit_seconds=60, trace=asked)
    ask(agent, request, Begun)
    ended = ask(agent, End(period_id=7), Ended)
    assert (ended.invalid, ended.calls) == ("", ())
    events = [one for one in ask(agent, Poll(acknowledged=0), Polled).readings if isinstance(one, HostEvent)]
    assert [one.kind for one in events] == [HostEventKind.TRACE_INCOMPLETE]


def test_polls_hand_out_the_stream_in_pages_and_forget_what_is_acknowledged(agent: HostAgent) -> None:
    claim(agent)
    begin(agent)
    until(lambda: len(poll(agent).readings) >= 6)
    ended = ask(agent, End(period_id=7), Ended)
    got: list[int] = []
    page = poll(agent, at_most=2)
    while page.readings:
        assert page.more == (page.readings[-1].position < ended.last_position)
        got += [r.position for r in page.readings]
        page = poll(agent, acknowledged=got[-1], at_most=2)
    assert got == list(range(1, ended.last_position + 1))


def test_a_poll_is_answered_while_an_apply_is_at_work(agent: HostAgent) -> None:
    claim(agent)
    slow = command("import time; time.sleep(1); print('x 1')")
    with agent._changing:  # what an apply holds while it writes and restarts
        answered: list[Polled] = []
        thread = threading.Thread(target=lambda: answered.append(poll(agent)))
        thread.start()
        thread.join(timeout=30)
        assert answered
    begin(agent, slow)


def test_a_value_the_kernel_refuses_is_an_error_and_nothing_is_changed(agent: HostAgent, root: FolderRoot) -> None:
    found = holds(root)
    claim(agent)
    with pytest.raises(KnobRefused):
        agent.handle(Apply(arm=Arm(name="bad", knobs={KNOB: "sometimes"})))
    assert holds(root) == found


def test_an_unknown_knob_is_refused_before_the_host_is_claimed(agent: HostAgent, root: FolderRoot) -> None:
    with pytest.raises(UnknownKnob):
        agent.handle(Claim(run="1-aa", owner="me", knobs=("thp/3kB/enabled",), lease_seconds=5))
    assert claim_status(root) is None


@pytest.mark.parametrize(
    "request_",
    [
        Apply(arm=TREATED),
        Begin(period_id=1, sample_every_seconds=1, workload=None, time_limit_seconds=1),
        Poll(acknowledged=0),
    ],
)
def test_nothing_can_be_done_without_a_claim(agent: HostAgent, root: FolderRoot, request_: Request) -> None:
    before = holds(root)
    with pytest.raises(LeaseExpired):
        agent.handle(request_)
    assert holds(root) == before


def test_ending_a_period_that_does_not_run_is_an_error(agent: HostAgent) -> None:
    claim(agent)
    with pytest.raises(WorkloadError, match="period 9 is not running"):
        agent.handle(End(period_id=9))


def test_a_workload_that_can_not_start_leaves_no_period_behind(agent: HostAgent) -> None:
    claim(agent)
    with pytest.raises(WorkloadError):
        begin(agent, WorkloadSpec(kind="command", options={"argv": ("/no/such/program",)}))
    assert poll(agent).period_id == 0
    begin(agent)


def test_a_workload_that_crashes_makes_its_period_invalid(agent: HostAgent) -> None:
    claim(agent)
    begin(agent, command("import sys; sys.exit(3)"))
    until(lambda: poll(agent).workload is WorkloadState.FAILED)
    ended = ask(agent, End(period_id=7), Ended)
    assert "exit status 3" in ended.invalid


def test_somebody_elses_write_is_seen_and_told(agent: HostAgent, root: FolderRoot) -> None:
    claim(agent)
    agent.handle(Apply(arm=TREATED))
    begin(agent)
    root.write(FILE, b"never")
    until(lambda: poll(agent).drift == (KNOB,))
    assert "drift" in ask(agent, End(period_id=7), Ended).invalid
    kinds = [r.kind for r in poll(agent).readings if isinstance(r, HostEvent)]
    assert kinds == [HostEventKind.DRIFT]


def test_a_revert_ends_the_period_under_way_and_its_workload(agent: HostAgent, root: FolderRoot) -> None:
    found = holds(root)
    claim(agent)
    agent.handle(Apply(arm=TREATED))
    begin(agent, command("import time; time.sleep(600)"))
    assert ask(agent, Revert(), Reverted).ok
    assert holds(root) == found
    assert poll(agent).period_id == 0


def test_without_polls_the_guardian_undoes_it_and_the_agent_can_write_nothing_more(
    agents: Callable[..., HostAgent], root: FolderRoot
) -> None:
    found = holds(root)
    agent = agents(root)
    claim(agent, lease=2.0)
    agent.handle(Apply(arm=TREATED))
    begin(agent, command("import time; time.sleep(600)"))
    until(lambda: holds(root) == found, within=8.0)
    with pytest.raises(LeaseExpired):
        agent.handle(Apply(arm=TREATED))
    with pytest.raises(LeaseExpired):
        agent.handle(Poll(acknowledged=0))
    assert holds(root) == found
    reverted = ask(agent, Revert(), Reverted)
    assert {(c.reason, c.after) for c in reverted.changes} == {(KnobReason.GUARDIAN, found)}


def test_a_new_agent_of_the_same_run_undoes_what_the_old_one_left(
    agents: Callable[..., HostAgent], root: FolderRoot
) -> None:
    found = holds(root)
    old = agents(root)
    claim(old)
    old.handle(Apply(arm=TREATED))
    new = agents(root)
    reverted = ask(new, Revert(), Reverted)
    assert reverted.ok
    assert holds(root) == found
    claim(new)
    with pytest.raises(LeaseExpired):
        old.handle(Apply(arm=TREATED))
    assert holds(root) == found


def test_an_agent_of_another_run_touches_nothing_that_is_not_its_own(
    agents: Callable[..., HostAgent], root: FolderRoot
) -> None:
    old = agents(root, "1-aa")
    claim(old, "1-aa")
    old.handle(Apply(arm=TREATED))
    assert ask(agents(root, "2-bb"), Revert(), Reverted).changes == ()
    assert holds(root) == "always"


def test_what_the_guardian_undid_is_told_to_the_next_claim_of_the_run(
    agents: Callable[..., HostAgent], root: FolderRoot
) -> None:
    old = agents(root)
    claim(old, lease=2.0)
    old.handle(Apply(arm=TREATED))
    until(lambda: claim_status(root) is None, within=8.0)
    leftovers = claim(agents(root)).leftovers
    assert [(c.knob, c.reason) for c in leftovers] == [(KNOB, KnobReason.GUARDIAN)]
    assert closed_journals(root, run="1-aa")


def test_readings_that_were_not_fetched_outlive_the_agent(agents: Callable[..., HostAgent], root: FolderRoot) -> None:
    old = agents(root)
    claim(old)
    begin(old)
    until(lambda: len(poll(old).readings) >= 3)
    old.handle(End(period_id=7))
    kept = [replace(r) for r in poll(old).readings]
    restore(root, force=True)
    new = agents(root)
    claim(new)
    assert list(poll(new).readings)[: len(kept)] == kept


def test_closing_an_agent_puts_its_host_back(agents: Callable[..., HostAgent], root: FolderRoot) -> None:
    found = holds(root)
    agent = agents(root)
    claim(agent)
    agent.handle(Apply(arm=TREATED))
    begin(agent, command("import time; time.sleep(600)"))
    agent.close()
    assert holds(root) == found
    assert claim_status(root) is None
    agent.close()


def test_the_next_period_ends_one_that_was_left_running(agent: HostAgent) -> None:
    claim(agent)
    begin(agent, period=7)
    begin(agent, period=8)
    assert poll(agent).period_id == 8
    with pytest.raises(WorkloadError):
        agent.handle(End(period_id=7))


def test_a_period_that_can_not_end_well_does_not_keep_its_host_changed(
    agent: HostAgent, root: FolderRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = holds(root)
    claim(agent)
    agent.handle(Apply(arm=TREATED))
    begin(agent, command("import time; time.sleep(600)"))
    workload = agent._workload
    assert workload is not None
    assert agent._collectors is not None

    def defect() -> dict[str, float]:
        raise IndexError("a file of another shape")

    monkeypatch.setattr(agent._collectors, "boundary", defect)
    assert ask(agent, Revert(), Reverted).ok
    assert holds(root) == found
    until(lambda: workload.poll()[0] not in {WorkloadState.STARTING, WorkloadState.RUNNING})


def test_an_agent_that_is_abandoned_stops_sampling_and_leaves_the_knobs_to_the_next(
    agents: Callable[..., HostAgent], root: FolderRoot
) -> None:
    old = agents(root)
    claim(old)
    old.handle(Apply(arm=TREATED))
    begin(old)
    threads = [thread for thread in threading.enumerate() if thread.name == "period-7"]
    old.abandon()
    assert threads
    assert not any(thread.is_alive() for thread in threads)
    assert holds(root) == "always"
    assert ask(agents(root), Revert(), Reverted).ok


def test_a_lease_that_ran_out_leaves_no_file_open(agent: HostAgent, root: FolderRoot) -> None:
    ask(agent, Survey(), HostFacts)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        claim(agent)
        restore(root, force=True)
        agent.handle(Revert())
        agent.handle(Release())
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


def test_nothing_is_measured_beside_a_workload_that_hangs_in_the_kernel(
    agent: HostAgent, root: FolderRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(agent)
    with monkeypatch.context() as patch:  # no uninterruptible sleep can be made here: signals are withheld instead
        for way in ("terminate", "kill", "kill_by_hand"):
            patch.setattr(Launched, way, lambda _: None)
        patch.setattr(process, "_AFTER_KILL_SECONDS", 0.05)
        patch.setattr(ProcessWorkload, "stop", functools.partialmethod(ProcessWorkload.stop, 0.05))
        begin(agent, command("import time; time.sleep(600)"))
        pid = agent._workload.pid if agent._workload is not None else None
        assert ask(agent, End(period_id=7), Ended).invalid == ""
        assert any(isinstance(one, HostEvent) and "could not be killed" in one.detail for one in poll(agent).readings)
        with pytest.raises(WorkloadError, match=rf"hangs in the kernel \(process {pid}\)"):
            begin(agent, period=8)
        assert Path(f"/proc/{pid}").exists()
    begin(agent, period=8)
    assert not Path(f"/proc/{pid}").exists()
